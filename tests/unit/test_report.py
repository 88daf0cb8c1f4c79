"""Text for people: every event has its sentence, every status its lines."""

from __future__ import annotations

from typing import Any, get_args

import msgspec
import pytest

from kedge.cli.text.status import status_text
from kedge.core.diagnosis.findings import Act, Cause
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.release import commands as r
from kedge.core.release.commands import Canary, Drill, Pause, Promote, Rollback, Shadow
from kedge.core.stored.ledger import Note
from kedge.core.stored.roster import Tally
from kedge.core.stored.stories import story
from kedge.core.stored.upcast import read_body
from kedge.core.values import Policy, State
from kedge.operations.status.view import HostPin, describe
from kedge.testing.samples import AT, endpoint, fields, release, run
from unit.test_status import CANARY, NOW, ONE, TWO, member, tally

SENTENCES: list[tuple[r.AnyEvent, str]] = [
    (r.Configured(policy=Policy(), digest="d"), "policy in force"),
    (
        r.Configured(policy=Policy(), digest="d", diff=("a: 1 -> 2", "b: 3 -> 4")),
        "policy in force (a: 1 -> 2; b: 3 -> 4)",
    ),
    (
        r.ContractAdopted(fields=fields("x:float32,y:string")),
        "contract taken from the first release: x, y",
    ),
    (
        r.Promoted(release=1, replaced=None, at=AT, answers=fields("p:float32,q:string")),
        "r1 is production; callers are promised p, q",
    ),
    (
        r.ComparisonFailed(release=2, production=1, reason="quality"),
        "r2 failed against r1: quality",
    ),
    (r.Promoted(release=1, replaced=None, at=AT), "r1 is production"),
    (r.Promoted(release=2, replaced=1, at=AT), "r2 is production, r1 is the way back"),
    (r.ShadowStarted(release=2, sample=2550, salt="s"), "r2 is shadowed with 25.5 % of the inputs"),
    (r.SampleSet(sample=10_000, previously=100), "the shadow gets 100 % of the inputs"),
    (r.CanaryStarted(release=2, weight=1, salt="s"), "r2 answers 0.01 % of the callers"),
    (r.WeightSet(weight=500, previously=100), "the candidate's share went from 1 % to 5 %"),
    (r.Paused(), "the rollout is held"),
    (r.Resumed(), "the rollout continues"),
    (r.ShadowPassed(release=2, production=1), "r2 passed its shadow window against r1"),
    (r.Frozen(), "automation is stopped"),
    (r.Thawed(), "automation acts again"),
    (r.Followed(), "it follows the head of its feature schema"),
    (r.Held(), "it holds its features: kedge features follow lets it move with the head again"),
    (r.Aborted(release=2), "the rollout of r2 was aborted; r2 stays eligible"),
    (r.CandidateRolledBack(release=2, weight=100), "r2 went from 1 % to zero and is condemned"),
    (r.RolledBack(release=1, left=2, at=AT), "production went back from r2 to r1; r2 is condemned"),
    (
        r.DrillStarted(release=1, left=2, until=60.0),
        "a drill: r1 answers, and r2 is restored after it",
    ),
    (r.DrillEnded(release=2), "the drill is over: r2 is production again"),
    (
        r.Restored(seq=17, hash="ab" * 32, epoch=99, backup="2026-11-30T02:00:00.000000Z", at=AT),
        "restored from the backup of 2026-11-30T02:00:00Z, whose newest entry is 17:abababababab",
    ),
]


FOUND = DiagnosisSummary(
    at=0.0,
    since=0.0,
    until=0.0,
    requests=9,
    labelled=9,
    new=2,
    old=1,
    metric="brier",
    headline="said",
    causes=(Cause.WORLD, Cause.DATA),
    action=next(iter(Act)),
    advice="go forward",
    took_s=4.0,
)


@pytest.mark.parametrize("event, sentence", SENTENCES, ids=lambda x: type(x).__name__)
def test_an_event_is_shown_as_a_sentence(event: r.AnyEvent, sentence: str) -> None:
    """Without a full stop: others stand behind it."""
    assert story(event) == sentence


def test_no_kind_of_event_is_without_a_sentence() -> None:
    """A new one must be given its words."""
    assert {type(event) for event, _ in SENTENCES} == set(get_args(r.AnyEvent))


@pytest.mark.parametrize(
    "note, sentence",
    [
        (
            Note(
                "receipt", {"of": 1, "command": "rollback", "total_ms": 12.34, "last_ack_ms": 8.0}
            ),
            "rollback took 12.3 ms, last ack after 8.0 ms",
        ),
        (
            Note("receipt", {"of": 1, "command": "promote", "total_ms": 5.0, "last_ack_ms": None}),
            "promote took 5.0 ms",
        ),
        (
            Note(
                "verdict",
                {"verdict": "fail", "code": "guardrail", "candidate": "r2", "units": [9, 8]},
            ),
            "judged r2: fail (guardrail)",
        ),
        (
            Note(
                "registered",
                {"version": "v1", "flavour": "onnx", "digest": "sha256:0123456789abcdef"},
            ),
            "v1 was registered (onnx, sha256:0123456789ab)",
        ),
        (
            Note("finding", msgspec.to_builtins(FOUND)),
            "diagnosed: world, data: said; go forward",
        ),
        (
            Note(
                "accepted",
                {"requests": 1200, "labelled": 0, "release": 2, "since": 0, "until": 3600},
            ),
            "1,200 requests of r2, 1970-01-01 00:00 to 1970-01-01 01:00 UTC, are the reference from now on",
        ),
        (
            Note("drill", {"ok": True, "total_s": 0.0123, "release": 1, "why": "", "dry": False}),
            "a drill went back in 12 ms to r1",
        ),
        (
            Note("drill", {"ok": True, "total_s": 0.05, "release": 1, "why": "", "dry": True}),
            "a dry drill would go back to r1",
        ),
        (
            Note(
                "drill",
                {"ok": False, "total_s": 0.0, "release": 1, "why": "r1 failed", "dry": False},
            ),
            "a drill of going back to r1 failed: r1 failed",
        ),
        (Note("something new", {}), "something new: "),
    ],
)
def test_a_note_of_any_kind_is_shown_too(note: Note, sentence: str) -> None:
    """A newer kedge may have written kinds that this one does not know."""
    assert story(Note(note.kind, read_body(note.kind, note.body))) == sentence


# ---------------------------------------------------------------- status


def shown(state: State, *members: Any, tallies: tuple[Tally, ...] = (), now: float = NOW) -> str:
    return status_text(describe(state, members or (member(),), tallies, {}, now=now))


def test_a_settled_endpoint_is_shown_in_five_lines() -> None:
    """What is live, what is ready to take over, and who serves it."""
    assert shown(TWO).splitlines() == [
        f"flights  epoch {TWO.epoch}  settled",
        "  production  r2 (flights v2, onnx, inline)",
        "  way back    r1 (flights v1, onnx, inline), ready on 1 of 1 replicas",
        f"  replica     host/w0  epoch {TWO.epoch}  heard 0.5 s ago  [r1 inline ready, r2 inline ready]",
        "  people      owner -, on call -",
    ]


def test_an_empty_endpoint_says_that_there_is_nothing() -> None:
    """And names no first release that there never was."""
    text = shown(endpoint(release(1)))
    assert "production  -" in text
    assert "way back    none yet" in text


def test_the_first_release_says_that_it_has_no_way_back() -> None:
    """It is not a fault, and not hidden."""
    assert "way back    none: no earlier release is good" in shown(ONE)


@pytest.mark.parametrize(
    "state, said",
    [
        (CANARY, "candidate   r3 (flights v3, onnx, inline): 1 % of the callers, next step 5 %"),
        (
            run(TWO, Canary(3, 5000)),
            "candidate   r3 (flights v3, onnx, inline): 50 % of the callers\n",
        ),
        (
            run(TWO, Shadow(3, 5000)),
            "r3 (flights v3, onnx, inline): shadowed with 50 % of the inputs",
        ),
        (run(CANARY, Pause()), "canary (held)"),
        (run(CANARY, Rollback()), "condemned   r3"),
    ],
)
def test_a_rollout_is_shown_with_its_share(state: State, said: str) -> None:
    """In per cent, with what comes next."""
    assert said in shown(state)


def test_a_drill_is_shown_with_the_restored_release_and_its_end() -> None:
    """By the viewer's clock."""
    drill = run(TWO, Drill(until=NOW + 7))
    assert "DRILL       r2 is restored in 7 s" in shown(drill)
    assert "DRILL       r2 is restored in 0 s" in shown(drill, now=NOW + 9)
    assert "DRILL" not in shown(TWO)


def test_a_cold_way_back_states_the_seconds_first() -> None:
    """Before an operator needs it."""
    slow = endpoint(msgspec.structs.replace(release(1), load_s=4.25), release(2))
    state = run(slow, Promote(1), Promote(2, override="a test"))
    text = shown(state, member(), member("host/w1", holds=()))
    assert "ready on 1 of 2; cold: a rollback loads 4.2 s" in text


def test_faults_stand_at_the_end_each_on_its_line() -> None:
    """Marked, so that they are seen without colour."""
    lines = shown(TWO, member(beat_at=NOW - 9, lease=False)).splitlines()
    assert lines[-2:] == [
        "  !           host/w0 has been silent for 9 s",
        "  !           host/w0 has lost the ledger: it gives no candidate a share",
    ]
    assert "silent" in lines[-4]
    assert "NO LEDGER" in lines[-4]


def test_a_pin_and_its_drift_are_shown_with_the_remedy() -> None:
    """By whom, since when, and why."""
    item = describe(TWO, (member(),), (), {}, now=NOW)
    pin = HostPin(
        serves="r1",
        left_epoch=TWO.epoch,
        row_epoch=TWO.epoch,
        by="ada",
        reason="",
        at=AT,
        drift="another command came first",
    )
    text = status_text(msgspec.structs.replace(item, pin=pin))
    assert f"PINNED      to r1 by ada at {AT}: no reason" in text
    assert "DRIFT       another command came first; kedge unpin flights" in text


def test_counts_are_shown_when_there_are_any() -> None:
    """Nothing counted, nothing said."""
    assert "requests" not in shown(TWO)
    counted = tally(
        CANARY,
        requests__production=1234,
        requests__candidate=12,
        keyless=7,
        failover__model_late=2,
        refused__wrong_dtype=3,
        errors__candidate=1,
    )
    text = shown(CANARY, tallies=(counted,))
    assert "requests    candidate 12, production 1,234; without an entity 7" in text
    assert "refused     3 {'wrong_dtype': 3}; errors {'candidate': 1}" in text
    assert "canary      14 requests, 2 failed over to production (model_late 2)" in text


def test_a_shadow_is_shown_with_its_coverage() -> None:
    """A silent one must be seen to be silent."""
    state = run(TWO, Shadow(3))
    counted = tally(
        state,
        shadow__requests=4,
        shadow__answered=2,
        shadow__pairs=2,
        shadow__agreeing=1,
        shadow__dropped__full=1,
        shadow__failed__model_late=1,
    )
    assert (
        "shadow      2 pairs, agreement 50.00%; coverage 50.00% "
        "(dropped 1 (full 1), timed out 1, failed 0)"
    ) in shown(state, tallies=(counted,))
    silent = tally(state, shadow__requests=4, shadow__dropped__down=4)
    assert "0 pairs, agreement -; coverage 0.00%" in shown(state, tallies=(silent,))
