"""The patrol on a real ledger and a real evidence store, with windows written as workers write them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.sql_world import POLICY, World, at, world
from kedge.adapters.records.spool import Spool
from kedge.cli.text.status import status_text
from kedge.core.codec import fingerprint
from kedge.core.diagnosis.findings import Cause
from kedge.core.evidence.records import JoinRow, Outcome
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import Conduct, Window
from kedge.core.release.commands import (
    Canary,
    Configured,
    Freeze,
    Pause,
    Promote,
    Resume,
    Rollback,
    Shadow,
    Thaw,
)
from kedge.core.stored.ledger import Entry, Note
from kedge.core.values import ActorKind, CanaryPolicy, Field, Output, ShadowPolicy, Stage
from kedge.engine.control.patrol import Patrol
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.submission import Control
from kedge.operations.evidence.read import evidence_of
from kedge.operations.status.read import status_of
from kedge.workspace import Workplace
from unit.test_automation import facts
from unit.test_summary import finding

QUICK = msgspec.structs.replace(
    POLICY,
    output=Output(kind="score", score="y", tolerance=0.5),
    shadow=ShadowPolicy(window="10s", min_pairs=1_000, min_pairs_per_segment=10, on_pass="promote"),
    canary=CanaryPolicy(steps=(5, 50), dwell="1s", on_pass="promote"),
)


class Watched:
    """A world with a patrol; `pass_time` writes what its one worker counts."""

    def __init__(self, tmp_path: Path, policy: Any = QUICK) -> None:
        self.world: World = world(tmp_path, releases=2, configured=False)
        self.world.configure(policy)
        self.world.do(Promote(release=1))
        self.place = Workplace(self.world.state_dir)
        self.patrol = self.fresh()
        self.at = 1_000_000
        self.number = 0

    def fresh(self, by: str = "patrol@here") -> Patrol:
        """Another patrol on the same files: what takes over when one has died."""
        place = Workplace(self.world.state_dir, actor=ActorKind.PATROL)
        return Patrol(
            Duty(place.clock, ProcessFaults(place.clock), by=by),
            ledger=place.ledger,
            store=place.windows,
            records=place.records,
            roster=place.roster,
            control=self.control,
        )

    def control(self) -> Control:
        """What submits on a thread of the patrol: with connections of its own, as in production."""
        place = Workplace(self.world.state_dir, actor=ActorKind.PATROL)
        return place.control(lambda text: None, None)

    def pass_time(self, seconds: int, *, bad: tuple[int, int] = (0, 0), units: int = 1_000) -> None:
        state = self.world.row()
        paired = state.stage is Stage.SHADOW
        share = 0.5 if paired else state.weight / 10_000
        exposed = (units, units) if paired else (round(units * (1 - share)), round(units * share))
        for _ in range(seconds):
            self.at += 1
            self.number += 1
            self.place.windows.write(
                [
                    Window(
                        method=METHOD,
                        replica="w0",
                        number=self.number,
                        endpoint="flights",
                        production=1,
                        candidate=2,
                        salt=state.salt,
                        at=self.at,
                        weight=state.weight,
                        paired=paired,
                        exposed={"": exposed},
                        answered={"": exposed},
                        bad={"errors": {"": bad}},
                        conduct=Conduct(failed=bad[1]),
                        mirrored=units if paired else 0,
                        copied=units if paired else 0,
                    )
                ]
            )

    def look(self, patrol: Patrol | None = None) -> None:
        """One look, and wait for the forward move that it may have begun."""
        patrol = patrol or self.patrol
        while patrol.look():
            continue
        for thread in patrol._forward.values():
            thread.join(20)

    def told(self) -> list[str]:
        """The patrol's own events, oldest first."""
        entries: tuple[Entry, ...] = self.world.ledger.history("flights", 100)
        return [
            type(e.event).__name__ if not hasattr(e.event, "kind") else e.event.kind
            for e in sorted(entries, key=lambda e: e.seq)
            if e.actor is ActorKind.PATROL
            and getattr(e.event, "kind", "") not in ("receipt", "runbook")
        ]


def test_a_shadow_is_certified_then_promoted(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Shadow(release=2))
    site.pass_time(12)
    for _ in range(3):
        site.look()
    assert site.told() == ["ShadowPassed", "Promoted"]
    assert site.world.row().production == 2


def test_a_canary_walks_by_proof(tmp_path: Path) -> None:
    """Nothing is left before the proof is there, however long it takes."""
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500, auto=True))
    site.pass_time(3)
    site.look()
    assert site.world.row().weight == 500
    for _ in range(60):
        site.pass_time(2)
        site.look()
    assert site.told() == ["WeightSet", "Promoted"]


def test_without_auto_it_only_says_so_once(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    for _ in range(20):
        site.pass_time(3)
        site.look()
    assert site.told() == ["verdict"]
    assert site.world.row().weight == 500


@pytest.mark.parametrize(
    ("lives", "kept"), [(1, True), (2, True), (5, True), (1, False), (3, False)]
)
def test_whenever_it_dies_the_next_one_acts_and_only_once(
    tmp_path: Path, lives: int, *, kept: bool
) -> None:
    """Dropped between looks, having kept what it knew or not: nothing is lost or done twice."""
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    for turn in range(30):
        site.pass_time(1, bad=(1, 1))
        if turn % lives == 0:
            if kept:
                site.patrol._keep(force=True)
            site.patrol = site.fresh()
        site.look()
    assert site.told() == ["CandidateRolledBack"]


def test_two_at_once_act_once(tmp_path: Path) -> None:
    """Should the lock ever fail: the epoch does not."""
    site = Watched(tmp_path)
    one, two = site.fresh("patrol@one"), site.fresh("patrol@two")
    site.world.do(Canary(release=2, weight=500))
    site.pass_time(45, bad=(1, 4))
    site.look(one)
    site.look(two)
    assert site.told() == ["CandidateRolledBack"]


def test_a_faster_process_is_not_overruled(tmp_path: Path) -> None:
    """It decided on a row that has moved: the ledger refuses, and it looks again."""
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.pass_time(45, bad=(1, 4))
    state = site.world.row()
    site.world.do(Freeze())
    site.patrol._submit(state, Rollback(), "late")
    assert site.told() == []
    assert site.world.row().stage is Stage.CANARY


def test_a_paused_canary_is_still_rolled_back(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.world.do(Pause())
    site.pass_time(45, bad=(1, 4))
    site.look()
    assert site.told() == ["CandidateRolledBack"]


def test_frozen_it_says_what_it_would_have_done(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.world.do(Freeze())
    site.pass_time(45, bad=(1, 4))
    site.look()
    assert site.told() == ["verdict", "ComparisonFailed"]
    assert site.world.row().stage is Stage.CANARY


def test_restored_it_does_and_writes_nothing_until_a_person_confirms_it(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500, auto=True))
    site.world.ledger.begin_restored(backup=at(), above=1_000, by="ada", reason="a test", at=at())
    site.pass_time(45, bad=(1, 4))
    site.look()
    assert site.told() == []
    assert site.world.row().stage is Stage.CANARY
    site.world.do(Thaw(), at=at())
    site.look()
    assert site.told() == ["CandidateRolledBack"]


def test_a_store_that_is_no_database_is_broken_input_for_every_reader(tmp_path: Path) -> None:
    """The patrol decides nothing, and evidence says why."""
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.pass_time(5)
    place = Workplace(site.world.state_dir)
    folder = site.world.state_dir / "evidence"
    shutil.rmtree(folder)
    folder.write_text("a file where a directory should be")
    found = evidence_of(place, "flights")
    assert (found.decision.verdict, found.decision.code) == ("broken input", "unread")


def test_a_store_that_cannot_be_read_decides_nothing(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Shadow(release=2))
    site.pass_time(12)
    for path in (site.world.state_dir / "evidence").glob("*"):
        path.unlink()
    site.patrol = site.fresh()
    site.look()
    assert site.told() == []


@pytest.mark.parametrize("body", [{}, msgspec.to_builtins(finding(Cause.WORLD, new=2, old=1))])
def test_no_finding_holds_up_what_fails_by_itself(tmp_path: Path, body: dict[str, Any]) -> None:
    """One that cannot be read, and one that blames the world: errors are the callers' own pain."""
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500))
    site.place.ledger.note(
        "flights", Note(kind="finding", body=body), by="me", reason="", at=site.place.clock.now()
    )
    for _ in range(30):
        site.pass_time(1, bad=(1, 1))
        site.look()
    assert site.told() == ["CandidateRolledBack"]


def test_the_newest_finding_is_known_before_an_automatic_rollback(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    state, seen = site.world.row(), facts()
    assert site.patrol._known(state, seen).finding is None
    for new in (2, 5):
        note = Note(kind="finding", body=msgspec.to_builtins(finding(Cause.WORLD, new=new)))
        site.place.ledger.note("flights", note, by="me", reason="", at=site.place.clock.now())
    known = site.patrol._known(state, seen)
    assert known.finding == finding(Cause.WORLD, new=5)
    assert abs(known.now - site.place.clock.unix()) < 60


@pytest.mark.parametrize("held", [True, False])
def test_outcomes_that_fail_a_canary_take_it_back_unless_the_world_is_to_blame(
    tmp_path: Path, *, held: bool
) -> None:
    """The candidate is wrong, and production is right; all that differs is what was filed before."""
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=5_000))
    if held:
        known = finding(Cause.WORLD, new=2, old=1, at=site.place.clock.unix())
        note = Note(kind="finding", body=msgspec.to_builtins(known))
        site.place.ledger.note("flights", note, by="me", reason="", at=site.place.clock.now())
    site.pass_time(2)
    state, now = site.world.row(), site.place.clock.unix()
    rows = [
        JoinRow(
            id=f"q{n}/0",
            at=now - 60 - n / 100,
            unit="",
            endpoint="flights",
            production=1,
            candidate=2,
            salt=state.salt,
            weight=state.weight,
            arm=("production", "candidate")[n % 2],
            failed=False,
            segments=(),
            score=float(5 * (n % 2)),
            decision=None,
        )
        for n in range(800)
    ]
    with Spool(site.place.records.spool, "w0") as spool:
        spool.append(rows)
    site.place.records.ingest(now)
    site.place.records.join("flights", [Outcome(row.id, 0.0) for row in rows], now)
    site.look()
    assert site.patrol.sight.decisions["flights"][1].verdict == "fail"
    site.look()
    assert site.told() == (["verdict", "ComparisonFailed"] if held else ["CandidateRolledBack"])
    codes = [
        getattr(getattr(e.event, "body", None), "code", None)
        for e in site.world.ledger.history("flights", 9)
    ]
    assert ("not_the_release" in codes) is held


# ---------------------------------------------------------------- a failure that binds


def test_a_failed_shadow_binds_and_is_written_once(tmp_path: Path) -> None:
    """The row has it under every leader: continuing against it takes a reason."""
    site = Watched(tmp_path)
    site.world.do(Shadow(release=2))
    for _ in range(8):
        site.pass_time(3, bad=(1, 40))
        site.patrol = site.fresh()
        site.look()
    assert site.told().count("ComparisonFailed") == 1
    (failure,) = site.world.row().automation.failures
    assert (failure.candidate, failure.production) == (2, 1)
    with pytest.raises(AssertionError, match="the verdict on r2 against r1 is fail"):
        site.world.do(Canary(release=2, weight=500))
    site.world.do(Canary(release=2, weight=500, override="an incident"))
    assert site.world.ledger.verify() == []


def test_a_failed_shadow_never_passes_however_well_it_continues(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Shadow(release=2))
    site.pass_time(25, bad=(1, 200))
    site.look()
    site.look()
    for _ in range(5):
        site.pass_time(10)
        site.look()
    assert "ShadowPassed" not in site.told()
    assert site.patrol.sight.decisions["flights"][1].verdict == "fail"


def test_a_canary_that_is_held_for_a_failure_is_held_once(tmp_path: Path) -> None:
    """An operator who continues with a reason is not held again for the same failure."""
    held = msgspec.structs.replace(
        QUICK, canary=CanaryPolicy(steps=(5, 50), dwell="1s", on_fail="pause")
    )
    site = Watched(tmp_path, held)
    site.world.do(Canary(release=2, weight=500))
    site.pass_time(45, bad=(1, 4))
    site.look()
    assert site.told() == ["ComparisonFailed", "Paused"]
    with pytest.raises(AssertionError, match="the verdict on r2 against r1 is fail"):
        site.world.do(Resume())
    site.world.do(Resume(override="the load test did it"))
    for _ in range(3):
        site.pass_time(5, bad=(1, 4))
        site.look()
    assert not site.world.row().paused
    assert site.told().count("Paused") == 1


def test_a_step_that_takes_an_override_waits_for_a_person(tmp_path: Path) -> None:
    """A canary that lacks a promised output was let in for a reason; the patrol has none."""
    site = Watched(tmp_path)
    more = (*site.world.row().releases[1].signature.outputs, Field("why", "string"))
    policy = msgspec.structs.replace(QUICK, answers=more)
    event = Configured(policy=policy, digest=fingerprint(policy))
    site.world.ledger.append(
        "flights",
        [event],
        expect=site.world.row().epoch,
        by="me",
        reason="",
        at=site.place.clock.now(),
    )
    site.world.do(Canary(release=2, weight=500, auto=True, override="a test"))
    for _ in range(30):
        site.pass_time(2)
        site.look()
    assert site.told() == ["verdict"]
    assert site.world.row().weight == 500
    assert "why (not given)" in site.patrol.sight.decisions["flights"][1].reason


def test_status_says_what_a_rollout_waits_for_by_what_the_patrol_kept(tmp_path: Path) -> None:
    site = Watched(tmp_path)
    site.world.do(Canary(release=2, weight=500, auto=True))
    (empty,) = status_of(site.place, "flights")
    assert empty.estimate is not None
    assert (empty.estimate.seconds, empty.estimate.cause) == (None, "no_traffic")
    for _ in range(3):
        site.pass_time(2, units=400)
        site.look()
    site.patrol._keep(force=True)
    (found,) = status_of(site.place, "flights")
    assert (found.auto, found.step, found.steps, found.next_weight) == (True, 1, 2, 50.0)
    assert found.estimate is not None
    assert found.estimate.waits_for in ("errors.doubled", "requests")
    assert "step 1 of 2, automatic" in status_text(found)
