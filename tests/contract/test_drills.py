"""A drill on a real ledger: when it may start, its end, and its effect on a comparison."""

from __future__ import annotations

import fcntl
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from contract.sql_world import POLICY, SIGNATURE, World, at, world
from kedge.cli.text.drills import speed_text
from kedge.core.alerts.alerts import Level, Raise, Topic
from kedge.core.errors import Refused
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import PRODUCTION, Window
from kedge.core.release.commands import Drill, Freeze, Promote, Return, Rollback, Thaw
from kedge.core.stored.ledger import Note
from kedge.core.stored.roster import Member, ReplicaHold
from kedge.core.values import ActorKind, DrillPolicy, LogPolicy, Output, Placement, Stage, State
from kedge.engine.control.drills import CHECK_S, READY_S, Returns, Schedule, due
from kedge.engine.control.patrol import Patrol
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.recorder import Recorder
from kedge.engine.replica.writer import Recording
from kedge.engine.request import Request
from kedge.operations.drills import bound_of, may_drill, speed_of, usual_bound
from kedge.workspace import Workplace

LEVELS: tuple[Level, Level] = ("warn", "page")
UNTIL = 2_000_000_000.0


class HandClock:
    """A clock that is set: the wall's time, and the process's own."""

    def __init__(self) -> None:
        self.wall, self.own = UNTIL - 10, 100.0

    def now(self) -> str:
        return at(30)

    def unix(self) -> float:
        return self.wall

    def monotonic(self) -> float:
        return self.own

    def sleep(self, seconds: float) -> None:
        self.own += seconds


def settled(tmp_path: Path, *, releases: int = 2) -> World:
    """r1, r2 and so on served in turn; the last one is production."""
    made = world(tmp_path, releases=releases)
    for number in range(1, releases + 1):
        made.do(Promote(release=number, override="a test"))
    return made


# ---------------------------------------------------------------- may it begin


def refused(place: Workplace, endpoint: str = "flights") -> str:
    with pytest.raises(Refused) as caught:
        may_drill(place, endpoint)
    assert caught.value.hint
    return caught.value.code


def test_a_drill_starts_only_without_faults_and_with_a_patrol_to_end_it(
    tmp_path: Path,
) -> None:
    made = settled(tmp_path)
    place = Workplace(made.state_dir)
    assert refused(place, "taxis") == "unknown_endpoint"
    assert refused(place) == "no_patrol"
    with (made.state_dir / "patrol.lock").open("a+") as lock:
        assert refused(place) == "no_patrol"
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert may_drill(place, "flights").back == 1
        member = Member(
            name="h/w0.1",
            host="h",
            pid=1,
            kind="gateway",
            address="",
            started_at="",
            beat_at=0.0,
            ledger_at=0.0,
            pinned={"flights": 1},
        )
        place.roster.publish(member)
        assert refused(place) == "host_pinned"
        place.roster.leave(member.name)
        warning, page = (
            Raise(key=level, topic=Topic.OTHER, level=level, lasts="event", summary="it fails")
            for level in LEVELS
        )
        place.alerts.raise_all([("flights", warning)], by="test", at=at(), now=0.0)
        may_drill(place, "flights")
        place.alerts.raise_all([("flights", page)], by="test", at=at(), now=0.0)
        assert refused(place) == "page_open"
        made.do(Drill(until=UNTIL))
        assert refused(place) == "drill_running"


@pytest.mark.parametrize("text", ["0s", "61s", "soon", "-1s"])
def test_a_drill_is_bounded(text: str) -> None:
    with pytest.raises(Refused) as caught:
        bound_of(text)
    assert caught.value.code == "bad_duration"
    assert bound_of("1m") == 60


def test_a_way_back_that_has_to_be_loaded_gets_the_time_for_it(tmp_path: Path) -> None:
    row = settled(tmp_path).row()
    slow = msgspec.structs.replace(row.releases[1], load_s=8.0)
    row = msgspec.structs.replace(row, releases={**row.releases, 1: slow})
    flipped = datetime.fromisoformat(row.flipped_at).timestamp()
    window = 14 * 86_400.0
    assert usual_bound(row, flipped + window) == 10.0
    assert usual_bound(row, flipped + window + 1) == 10.0 + 4 * 8.0
    slower = msgspec.structs.replace(slow, load_s=80.0)
    row = msgspec.structs.replace(row, releases={**row.releases, 1: slower})
    assert usual_bound(row, flipped + window + 1) == 60.0


# ---------------------------------------------------------------- who ends it


def returns(place: Workplace, clock: HandClock) -> Returns:
    return Returns(
        ledger=place.ledger,
        control=lambda: place.control(lambda text: None, None),
        clock=clock,
        by="patrol@here",
    )


def filed(made: World) -> list[dict[str, Any]]:
    events = [entry.event for entry in made.ledger.history("flights", 100)]
    return [
        msgspec.to_builtins(e.body) for e in events if isinstance(e, Note) and e.kind == "drill"
    ]


def test_a_drill_out_of_time_is_ended_once_and_filed_as_failed(tmp_path: Path) -> None:
    made, clock = settled(tmp_path), HandClock()
    own = returns(Workplace(made.state_dir), clock)
    (entry,) = made.do(Drill(until=UNTIL))
    parts = {"total_ms": 40.0, "last_ack_ms": 30.0, "first_old_answer_ms": None}
    note = Note(kind="receipt", body={"of": entry.seq, "command": "drill", **parts})
    made.ledger.note("flights", note, by="ada", reason="", at=at(9))
    own.look(made.row())
    assert (made.row().stage, filed(made)) == (Stage.DRILL, [])
    clock.wall = UNTIL
    own.look(made.row())
    own.look(made.row())
    assert (made.row().stage, made.row().production) == (Stage.SETTLED, 2)
    (body,) = filed(made)
    assert (body["ok"], body["release"], body["left"], body["total_s"]) == (False, 1, 2, 0.04)
    assert body["back"].items() >= parts.items()
    assert body["why"].startswith("its process died")
    assert made.ledger.verify() == []


def test_without_a_receipt_it_took_until_it_was_undone(tmp_path: Path) -> None:
    made, clock = settled(tmp_path), HandClock()
    made.do(Drill(until=UNTIL))
    clock.wall = UNTIL + 1
    returns(Workplace(made.state_dir), clock).look(made.row())
    (body,) = filed(made)
    assert body["back"] is None
    assert body["total_s"] == body["lasted_s"] > 0


def test_a_wall_clock_that_jumps_back_prolongs_no_drill(tmp_path: Path) -> None:
    """Sixty seconds of the process's own time end any drill; another one begins anew."""
    made, clock = settled(tmp_path), HandClock()
    own = returns(Workplace(made.state_dir), clock)
    made.do(Drill(until=UNTIL - 1))
    own.look(made.row())
    made.do(Return())
    made.do(Drill(until=UNTIL))
    clock.wall -= 86_400
    clock.own += 59
    own.look(made.row())
    clock.own += 59
    own.look(made.row())
    assert made.row().stage is Stage.DRILL
    clock.own += 1
    own.look(made.row())
    assert made.row().stage is Stage.SETTLED


def test_a_late_return_ends_nothing_and_records_nothing(tmp_path: Path) -> None:
    """Its own process returned between the look and the command, and a new drill has begun."""
    made, clock = settled(tmp_path), HandClock()
    made.do(Drill(until=UNTIL))
    stale = made.row()
    made.do(Return())
    made.do(Drill(until=UNTIL + 30))
    clock.wall = UNTIL
    returns(Workplace(made.state_dir), clock).look(stale)
    assert (made.row().stage, filed(made)) == (Stage.DRILL, [])


# ---------------------------------------------------------------- who starts it


def test_a_drill_is_due_when_the_last_one_is_old_and_nothing_else_happens(tmp_path: Path) -> None:
    policy = msgspec.structs.replace(POLICY, drill=DrillPolicy(every="30d"))
    made = settled(tmp_path)
    flipped = datetime.fromisoformat(made.row().flipped_at).timestamp()
    later, month = flipped + 600, 30 * 86_400.0
    assert not due(made.row(), None, later)
    made.configure(policy)
    row = made.row()
    assert due(row, None, later)
    automation = msgspec.structs.replace(row.automation, restored=row.flipped_at)
    assert not due(msgspec.structs.replace(row, automation=automation), None, later)
    assert not due(row, None, later - 1)
    assert not due(row, later, later + month - 1)
    assert due(row, later, later + month)
    made.do(Freeze())
    assert not due(made.row(), None, later)
    made.do(Thaw())
    made.do(Drill(until=UNTIL))
    assert not due(made.row(), None, later)
    made.do(Return())
    made.do(Rollback())
    assert made.row().back is None
    assert not due(made.row(), None, later + month)


def test_a_drill_that_is_due_is_started_once_and_again_when_the_next_is(tmp_path: Path) -> None:
    """A dry one is no drill; one that still runs is not started twice."""
    made, clock = settled(tmp_path), HandClock()
    made.configure(msgspec.structs.replace(POLICY, drill=DrillPolicy(every="1h")))
    started: list[str] = []
    runs = {"flights": True}

    def start(endpoint: str) -> Callable[[], bool]:
        started.append(endpoint)
        return lambda: runs[endpoint]

    place = Workplace(made.state_dir)
    own = Schedule(
        Duty(clock, ProcessFaults(clock)),
        ledger=place.ledger,
        roster=place.roster,
        start=start,
    )
    place.roster.publish(replica(made.row()))

    def told(*, dry: bool) -> None:
        at_ = datetime.fromtimestamp(clock.wall, UTC).isoformat()
        body = {"ok": True, "release": 1, "dry": dry}
        made.ledger.note("flights", Note("drill", body), by="ada", reason="", at=at_)

    told(dry=True)
    for _ in range(3):  # it still runs
        own.look()
        clock.own += 600
    assert started == ["flights"]
    runs["flights"] = False
    told(dry=False)
    own.look()
    assert started == ["flights"]
    clock.own += 600
    clock.wall += 3_600
    own.look()
    own.look()  # asked a moment ago
    assert started == ["flights"] * 2


def test_a_drill_that_is_due_waits_for_its_replicas_for_a_while(tmp_path: Path) -> None:
    """After a reboot control is there before the models are; one that never loads is a finding."""
    made, clock = settled(tmp_path), HandClock()
    made.configure(msgspec.structs.replace(POLICY, drill=DrillPolicy(every="1h")))
    place, started = Workplace(made.state_dir), []

    def start(endpoint: str) -> Callable[[], bool]:
        started.append(endpoint)
        return lambda: False

    own = Schedule(
        Duty(clock, ProcessFaults(clock)),
        ledger=place.ledger,
        roster=place.roster,
        start=start,
    )
    whole = replica(made.row())
    for lame in (
        None,
        msgspec.structs.replace(whole, beat_at=clock.wall - 6),
        msgspec.structs.replace(whole, epochs={"flights": 1}),
        msgspec.structs.replace(whole, holds=whole.holds[:1]),
    ):
        if lame is not None:
            place.roster.publish(lame)
        own.look()
        assert started == []
    clock.own += READY_S - 1
    own.look()
    assert started == []
    place.roster.publish(whole)
    own.look()
    assert started == ["flights"]
    place.roster.publish(msgspec.structs.replace(whole, holds=whole.holds[:1]))
    clock.own += CHECK_S
    own.look()
    assert started == ["flights"]
    clock.own += READY_S
    own.look()
    assert started == ["flights"] * 2
    clock.own += CHECK_S
    own.look()
    body = {"ok": True, "release": 1, "dry": False}
    made.ledger.note(
        "flights",
        Note("drill", body),
        by="ada",
        reason="",
        at=datetime.fromtimestamp(clock.wall, UTC).isoformat(),
    )
    clock.own += READY_S
    place.roster.publish(whole)
    own.look()
    assert started == ["flights"] * 2  # an operator drilled while it waited


def replica(row: State) -> Member:
    """One that speaks for ever, serves this row and holds production and the way back."""
    holds = tuple(
        ReplicaHold("flights", release, placement, "ready")
        for release in (1, 2)
        for placement in Placement
    )
    return Member(
        name="h/w0.1",
        host="h",
        pid=1,
        kind="gateway",
        address="",
        started_at="",
        beat_at=UNTIL * 2,
        ledger_at=0.0,
        epochs={"flights": row.epoch},
        holds=holds,
    )


# ---------------------------------------------------------------- what is compared


def patrol_on(made: World) -> Patrol:
    place = Workplace(made.state_dir)
    return Patrol(
        Duty(place.clock, ProcessFaults(place.clock), by="patrol@here"),
        ledger=place.ledger,
        store=place.windows,
        records=place.records,
        roster=place.roster,
        control=lambda: Workplace(made.state_dir).control(lambda text: None, None),
    )


@pytest.mark.parametrize("dies", [False, True])
def test_after_a_drill_the_comparison_continues_and_contains_nothing_of_it(
    tmp_path: Path, dies: bool
) -> None:
    """Also when the patrol that saw the half before it is gone."""
    made = settled(tmp_path)
    place = Workplace(made.state_dir)
    patrol = patrol_on(made)
    number = 0

    def seconds(first: int, *, production: int = 2, candidate: int = 1) -> None:
        nonlocal number
        for second in range(first, first + 5):
            number += 1
            place.windows.write(
                [
                    Window(
                        method=METHOD,
                        replica="w0",
                        number=number,
                        endpoint="flights",
                        production=production,
                        candidate=candidate,
                        salt="",
                        at=1_000_000 + second,
                        weight=0,
                        paired=True,
                        exposed={"": (10, 10)},
                        answered={"": (10, 10)},
                        mirrored=10,
                        copied=10,
                    )
                ]
            )

    seconds(0)
    patrol.look()
    made.do(Drill(until=UNTIL))
    patrol.look()
    assert patrol.sight.decisions == {}
    # What a worker that has not swapped yet still counts is of the comparison; all else is not.
    seconds(5, production=1, candidate=0)
    seconds(10, production=1, candidate=2)
    patrol.look()
    made.do(Return())
    seconds(30)
    if dies:
        patrol._keep(force=True)
        patrol = patrol_on(made)
    patrol.look()
    watch = patrol._watches["flights"]
    assert watch.counted["mirrored"] == 100
    assert watch.healthy_s == 8  # four seconds before it, four after it, and none of it


def test_counts_after_a_rollback_within_a_drill_belong_to_the_new_comparison(
    tmp_path: Path,
) -> None:
    """Production is the same one as in the drill, when it was compared with nothing."""
    policy = msgspec.structs.replace(
        POLICY, output=Output(kind="score", score="y", tolerance=0.5), log=LogPolicy(sample=100.0)
    )
    made = world(tmp_path, releases=3, configured=False)
    made.configure(policy)
    for number in (1, 2, 3):
        made.do(Promote(release=number, override="a test"))
    place = Workplace(made.state_dir)
    recording = Recording(
        Duty(place.clock, ProcessFaults(place.clock)),
        "w0",
        windows=place.windows,
        evidence=place.evidence,
        spool=lambda rows: 0,
        lives=list,
    )

    def flush(state: State, *, mirrored: bool) -> Recorder:
        recorder = recording.recorder(state, "w0")
        columns = {SIGNATURE.inputs[0].name: np.array([1.0])}
        answer = {"y": np.array([0.7])}
        request = Request(id="q", columns=columns, rows=1, entity="N1", draw=0)
        recorder.offer(
            Observation(
                1.0,
                request,
                PRODUCTION,
                100,
                failed=False,
                weight=0,
                ours=answer,
                mirrored=mirrored,
                theirs=answer if mirrored else None,
            )
        )
        recording.flush([(state, recorder)])
        return recorder

    made.do(Drill(until=UNTIL))
    in_drill = flush(made.row(), mirrored=False)
    assert place.windows.read("flights", 0, 10)[1] == ()
    made.do(Rollback())
    assert made.row().compared == 1
    assert flush(made.row(), mirrored=True) is in_drill  # the counts of one production only grow
    (window,) = place.windows.read("flights", 0, 10)[1]
    assert window.comparison == (2, 1, "")


# ---------------------------------------------------------------- how fast it was


def test_speed_is_read_from_the_ledger_and_printed(tmp_path: Path) -> None:
    made = settled(tmp_path)
    made.do(Drill(until=UNTIL))
    made.do(Return())
    note = {"ok": False, "release": 1, "left": 2, "why": "r1 was slow", "dry": False}
    made.ledger.note("flights", Note(kind="drill", body=note), by="ada", reason="", at=at(9))
    made.do(Rollback(), by="patrol@here", actor=ActorKind.PATROL)
    found = speed_of(Workplace(made.state_dir), "flights")
    (speed,) = found
    assert (len(speed.incidents), len(speed.drills), speed.unreceipted) == (1, 1, 3)
    assert speed.cut is None
    text = speed_text(found)
    assert "flights: 1 incident, 1 drill" in text
    assert "r2 rolled back by the patrol" in text
    assert "FAILED: r1 was slow" in text
    assert "3 flips without a receipt" in text
    with pytest.raises(Refused, match="no endpoint taxis"):
        speed_of(Workplace(made.state_dir), "taxis")
