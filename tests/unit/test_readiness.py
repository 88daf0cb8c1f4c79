"""Each check as a table: facts and results."""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

import msgspec
import pytest

from kedge.core.readiness import (
    CHECKS,
    DAY_S,
    DRILL_MOST_S,
    DRILL_S,
    EVIDENCE_S,
    PROOF_S,
    REFUSING_S,
    TEST_S,
    UNREADY_S,
    NewestNote,
    ReadinessFacts,
    failed,
    judge,
    landing_of,
    raised,
    settled,
)
from kedge.core.release.commands import Canary, Configure, Promote, Rollback
from kedge.core.runbook import configuration_digest
from kedge.core.stored.notes import AlertTested, DrillResult, LevelTest, Proven, RunbookNote
from kedge.core.values import UNNAMED_OWNER, Contact, Escalation, Policy, Rota, State
from kedge.testing.samples import AT, endpoint, release, run

NOW = datetime.fromisoformat(AT).timestamp()
ADA = Contact("Ada Lovelace", "ada@example.org")
LEVELS = (Escalation("0s", ("owner",)), Escalation("10m", ("https://example.org/page",)))
POLICY = Policy(audience="internal", owner=ADA, escalation=LEVELS)
EMPTY = endpoint(release(1), release(2), release(3), policy=POLICY)
FIRST = run(EMPTY, Promote(1))
SECOND = run(FIRST, Promote(2, override="a test"))
PROVEN = Proven(release=1, ok=True, rows=3, fetch_s=0.1, verify_s=0.1, load_s=0.5, answer_s=0.01)


B = TypeVar("B")


def filed(body: B, age_s: float = 60.0, epoch: int = 9) -> NewestNote[B]:
    return NewestNote(NOW - age_s, epoch, body)


READY = ReadinessFacts(
    state=SECOND,
    now=NOW,
    landing=1,
    people_since=1,
    tested=filed(AlertTested(delivered=True)),
    proven=PROVEN,
    proven_at=NOW - 60,
    replicas=("w0", "w1"),
    drill=filed(DrillResult(ok=True, total_s=4.0, release=1)),
    runbook=filed(RunbookNote(digest=configuration_digest(SECOND))),
    runs=1,
)


def but(**changes: Any) -> ReadinessFacts:
    return msgspec.structs.replace(READY, **changes)


def under(policy: Policy) -> ReadinessFacts:
    return but(state=msgspec.structs.replace(SECOND, policy=policy))


def outcome(facts: ReadinessFacts, name: str) -> tuple[str, str]:
    check = next(check for check in judge(facts) if check.name == name)
    assert bool(check.mend) == (check.outcome == "fail"), check
    return check.outcome, check.why


def test_an_endpoint_without_failed_checks_is_ready() -> None:
    assert [check.outcome for check in judge(READY)] == ["pass"] * len(CHECKS)
    assert failed(judge(READY)) == ()


def test_before_the_first_release_only_people_are_asked_for() -> None:
    bare = ReadinessFacts(state=EMPTY, now=NOW)
    assert failed(judge(bare)) == ("notification",)
    assert [c.name for c in judge(bare) if c.outcome == "not applicable"] == [
        "deployable",
        "warm",
        "drill",
        "runbook",
        "evidence",
        "features",
    ]


def test_a_way_back_is_asked_for_from_the_second_release_on() -> None:
    first = ReadinessFacts(state=FIRST, now=NOW, landing=landing_of(FIRST), tested=READY.tested)
    assert failed(judge(first)) == ("runbook",)
    second = msgspec.structs.replace(first, state=SECOND, landing=landing_of(SECOND))
    assert failed(judge(second)) == ("deployable", "warm", "drill", "runbook")


def test_a_rollback_lands_on_what_a_candidate_would_replace() -> None:
    rollout = run(SECOND, Canary(release=3, weight=100))
    assert (landing_of(SECOND), landing_of(rollout), landing_of(FIRST)) == (1, 2, None)
    assert landing_of(FIRST, promoting=True) == 1
    assert landing_of(run(rollout, Rollback())) == 1


@pytest.mark.parametrize(
    "owner, grouped, said",
    [
        (ADA, False, "Ada"),
        (None, False, "no owner is named"),
        (Contact(" ", "ada@example.org"), False, "no owner is named"),
        (Contact("Ada Lovelace", ""), False, "no owner is named"),
        (UNNAMED_OWNER, False, "kedge init"),
        (Contact("Ada", f"mailto:{UNNAMED_OWNER.contact}"), False, "kedge init"),
        (Contact("Platform Ops", "ops@example.org"), True, "is a group"),
    ],
)
def test_the_owner_is_a_person(owner: Contact | None, grouped: bool, said: str) -> None:
    policy = msgspec.structs.replace(POLICY, owner=owner)
    facts = msgspec.structs.replace(under(policy), grouped=grouped)
    found, why = outcome(facts, "owner")
    assert (found, said in why) == ("pass" if owner == ADA else "fail", True)


@pytest.mark.parametrize(
    "levels, counts, reaches",
    [
        (LEVELS, True, True),
        ((), False, False),
        (LEVELS[:1], False, True),
        (LEVELS[1:], False, False),
        ((LEVELS[0], Escalation("10m", ("mailto:ada@example.org",))), False, True),
        ((Escalation("0s", ("ben@example.org",)), LEVELS[1]), True, False),
        ((Escalation("0s", ("rota",)), LEVELS[1]), True, True),
    ],
)
def test_two_levels_tell_two_and_one_of_them_the_owner(
    levels: tuple[Escalation, ...], counts: bool, reaches: bool
) -> None:
    """A level that tells the same person again is none; the rota's off-duty people are reached in turn."""
    rota = Rota(start="2020-01-06T09:00:00Z", people=(Contact("Ben", "ben@example.org"), ADA))
    facts = under(msgspec.structs.replace(POLICY, escalation=levels, rota=rota))
    assert outcome(facts, "escalation")[0] == ("pass" if counts else "fail")
    found, why = outcome(facts, "guardrails")
    assert (found, "errors" in why, "latency" in why) == ("pass" if reaches else "fail", True, True)


@pytest.mark.parametrize(
    "tested, said",
    [
        (None, "no test"),
        (filed(AlertTested(delivered=True), epoch=3), "changed after"),
        (
            filed(
                AlertTested(
                    delivered=False,
                    levels=(LevelTest(level=0, works=True), LevelTest(level=1, works=False)),
                )
            ),
            "of level 1",
        ),
        (filed(AlertTested(delivered=True), age_s=TEST_S + DAY_S), "31 days ago"),
    ],
)
def test_a_test_of_the_alerts_is_delivered_lately_and_to_the_people_of_today(
    tested: NewestNote[AlertTested] | None, said: str
) -> None:
    found, why = outcome(but(tested=tested, people_since=4), "notification")
    assert (found, said in why) == ("fail", True)
    assert (
        outcome(
            but(tested=filed(AlertTested(delivered=True), epoch=4), people_since=4), "notification"
        )[0]
        == "pass"
    )


@pytest.mark.parametrize(
    "proven, age_s, said",
    [
        (None, 0.0, "was never tried"),
        (msgspec.structs.replace(PROVEN, release=2), 0.0, "was never tried"),
        (Proven(release=1, ok=False, why="verify: model.onnx was changed"), 0.0, "was changed"),
        (PROVEN, PROOF_S + 1, "24 hours ago"),
    ],
)
def test_the_way_back_is_proven_lately(proven: Proven | None, age_s: float, said: str) -> None:
    found, why = outcome(but(proven=proven, proven_at=NOW - age_s), "deployable")
    assert (found, said in why) == ("fail", True)


def test_a_proof_says_what_it_took_and_what_was_asked() -> None:
    proven = msgspec.structs.replace(PROVEN, sampled=5)
    _, why = outcome(but(proven=proven, proven_at=NOW - 7300), "deployable")
    assert (
        why
        == "r1 was deployed from nothing 2 hours ago in 0.7 s and answered 3 golden rows (made) and 5 of the log"
    )


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"replicas": ()}, "no replica"),
        ({"cold": {"w1": "failed: out of memory (r1)"}}, "w1: failed: out of memory"),
        ({"pinned": ("w0",)}, "pinned"),
    ],
)
def test_every_replica_holds_the_way_back(changes: dict[str, Any], said: str) -> None:
    found, why = outcome(but(**changes), "warm")
    assert (found, said in why) == ("fail", True)


def test_a_way_back_whose_window_is_over_has_to_load_in_time_and_no_replica_has_to_hold_it() -> (
    None
):
    """It is let go of on purpose: that is no fault for ever, while a silent replica is one."""
    over = but(kept=False)
    found, why = outcome(over, "warm")
    assert (found, failed(judge(over))) == ("pass", ())
    assert why == (
        "r1 is not kept loaded, since its back_window of 14d has ended: a rollback loads it first, 0.7 s "
        "as proven; with the manual steps of the runbook 302 s (limit 600 s)"
    )
    slow = msgspec.structs.replace(PROVEN, load_s=299.0)
    found, why = outcome(but(kept=False, proven=slow), "warm")
    assert (found, "(limit 600 s)" in why) == ("fail", True)
    for proven in (
        None,
        msgspec.structs.replace(PROVEN, release=2),
        msgspec.structs.replace(PROVEN, ok=False),
    ):
        found, why = outcome(but(kept=False, proven=proven), "warm")
        assert (found, "is not proven" in why) == ("fail", True)
    assert outcome(but(kept=False, cold={"w1": "silent"}), "warm")[0] == "fail"
    assert outcome(but(kept=False, replicas=()), "warm")[0] == "fail"


@pytest.mark.parametrize(
    "drill, said",
    [
        (None, "never practised"),
        (
            filed(DrillResult(ok=False, total_s=3.0, release=1, why="w0 did not ack")),
            "w0 did not ack",
        ),
        (filed(DrillResult(ok=True, total_s=DRILL_MOST_S + 1, release=1)), "took 601 s"),
        (filed(DrillResult(ok=True, total_s=3.0, release=1), age_s=DRILL_S + 1), "30 days ago"),
    ],
)
def test_going_back_was_practised_lately_and_fast(
    drill: NewestNote[DrillResult] | None, said: str
) -> None:
    found, why = outcome(but(drill=drill), "drill")
    assert (found, said in why) == ("fail", True)
    assert (
        outcome(but(drill=filed(DrillResult(ok=True, total_s=DRILL_MOST_S, release=7))), "drill")[0]
        == "pass"
    )


@pytest.mark.parametrize(("took", "shown"), [(0.0121, "in 12 ms"), (3.04, "in 3.0 s")])
def test_the_time_of_a_drill_is_shown_in_its_own_unit(took: float, shown: str) -> None:
    found, why = outcome(but(drill=filed(DrillResult(ok=True, total_s=took, release=7))), "drill")
    assert (found, why.endswith(shown)) == ("pass", True)


def test_nothing_is_practised_before_there_is_a_way_back() -> None:
    rollout = run(FIRST, Canary(release=2, weight=100))
    facts = but(state=rollout, landing=landing_of(rollout), drill=None)
    assert outcome(facts, "drill")[0] == "not applicable"
    assert outcome(facts, "deployable")[0] == "pass"


def moved(state: State) -> list[State]:
    """Rows for which a runbook of this one is stale."""
    policy = msgspec.structs.replace(POLICY, escalation=LEVELS[:1])
    return [
        run(state, Canary(release=3, weight=100), Promote(full=True)),
        run(state, Rollback()),
        run(state, Configure(policy=policy, digest="sha256:other")),
    ]


def test_a_runbook_is_stale_when_anything_in_it_changed() -> None:
    assert outcome(but(runbook=None), "runbook")[1] == "there is no runbook"
    for state in moved(SECOND):
        assert outcome(but(state=state), "runbook")[0] == "fail"
    rollout = run(SECOND, Canary(release=3, weight=100))
    assert outcome(but(state=rollout), "runbook")[0] == "pass"


def test_evidence_is_written_while_callers_come() -> None:
    assert outcome(but(unwritten="w0: disk full"), "evidence") == ("fail", "w0: disk full")
    assert outcome(but(silence_s=EVIDENCE_S + 60), "evidence")[0] == "fail"
    assert outcome(but(silence_s=EVIDENCE_S), "evidence")[0] == "pass"


def test_values_by_key_are_fresh() -> None:
    stale = {"its values are 90 min behind (limit 60 min)": "carrier_delays"}
    check = next(c for c in judge(but(stale=stale)) if c.name == "features")
    assert (check.outcome, check.mend) == ("fail", "kedge features materialise carrier_delays")
    assert outcome(but(runs=0), "features")[0] == "not applicable"
    more = {**stale, "weather/2#1@4 is gone": "weather"}
    blind = {"delays/1#1@1 cannot be looked at: redis: refused": "is the server up?"}
    check = next(c for c in judge(but(stale=more, blind=blind)) if c.name == "features")
    assert (
        check.mend
        == "is the server up?; kedge features materialise carrier_delays; kedge features materialise weather"
    )
    assert check.why.startswith("delays/1#1@1 cannot be looked at: redis: refused; its values")
    assert outcome(but(blind=blind), "features")[0] == "fail"


def test_a_failed_check_is_reported_sooner_where_it_refuses_promotions() -> None:
    refusing = msgspec.structs.replace(
        SECOND, policy=msgspec.structs.replace(POLICY, readiness="refuse")
    )
    assert raised(SECOND, ()) == ()
    (usual,), (sooner,) = raised(SECOND, ("drill",)), raised(refusing, ("drill",))
    assert (usual.level, usual.after_s, sooner.after_s) == ("warn", UNREADY_S, REFUSING_S)
    assert usual.summary.endswith("for a rollback: drill")
    assert [settled(None), settled(("drill",)), settled(())] == ["", "", "it is ready again"]
