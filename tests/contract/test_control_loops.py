"""The loops of control: a fault costs the step of one endpoint, and no loop ends of one."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

import models
from contract.receivers import Web
from contract.sql_world import World, world
from contract.test_alerts import FAIL as FAILS
from contract.test_alerts import WELL, HandClock, Place, heard, policy_of
from contract.test_drills import replica, settled
from contract.test_inquiry import LATE
from contract.test_inquiry import Place as Diagnosed
from contract.test_patrol import QUICK
from kedge.adapters.clock import SystemClock
from kedge.core.alerts.alerts import Message, Sight, Topic
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import Conduct, Window
from kedge.core.links import NO_LINKS
from kedge.core.release.commands import Canary, Promote
from kedge.core.values import ActorKind, DrillPolicy, Stage
from kedge.engine.control.alerting import STEADY_S
from kedge.engine.control.drills import Schedule
from kedge.engine.control.patrol import Patrol
from kedge.engine.control.retention import Clerk
from kedge.engine.loop import WAITS_S, Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.stand_in import ALIVE_S, WITHIN_S, Endings
from kedge.runtime.parts import Parts
from kedge.workspace import Workplace
from support.waiting import wait_until

LONGEST = WAITS_S[-1]


def standing(faults: ProcessFaults) -> set[str]:
    return {fault.place for fault in faults.faults if fault.standing}


class Faulty:
    """A part of the outside that raises on command, and else is the real one."""

    def __init__(self, real: Any, raises: Callable[[str, tuple[Any, ...]], bool]) -> None:
        self._real = real
        self.raises = raises
        """By the call's name and arguments."""

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._real, name)
        if not callable(found):
            return found

        def call(*given: Any, **named: Any) -> Any:
            if self.raises(name, given):
                raise SystemExit(f"{name} was called")
            return found(*given, **named)

        return call


# ---------------------------------------------------------------- the patrol


class Two:
    """Two endpoints with a canary each, and a patrol with a clock of the test's own."""

    def __init__(self, tmp_path: Path) -> None:
        self.world: World = world(tmp_path, releases=2, configured=False)
        for number in (1, 2):
            self.world.release(number, "taxis")
        self.clock, self.at = HandClock(), 1_000_000
        place = Workplace(self.world.state_dir, actor=ActorKind.PATROL)
        self.windows = place.windows
        self.faults = ProcessFaults(self.clock)
        self.store = Faulty(place.windows, lambda name, given: False)
        self.patrol = Patrol(
            Duty(self.clock, self.faults, by="patrol@here"),
            ledger=place.ledger,
            store=self.store,
            records=place.records,
            roster=place.roster,
            control=lambda: Workplace(place.state_dir, actor=ActorKind.PATROL).control(
                lambda text: None, None
            ),
        )
        for endpoint in ("flights", "taxis"):
            self.world.configure(QUICK, endpoint)
            self.world.do(Promote(release=1), endpoint)
            self.world.do(Canary(release=2, weight=500), endpoint)

    def pass_time(self, seconds: int) -> None:
        """Both candidates fail, second by second."""
        for _ in range(seconds):
            self.at += 1
            self.windows.write(
                [
                    Window(
                        method=METHOD,
                        replica="w0",
                        number=2 * self.at + n,
                        endpoint=endpoint,
                        production=1,
                        candidate=2,
                        salt=self.world.row(endpoint).salt,
                        at=self.at,
                        weight=500,
                        paired=False,
                        exposed={"": (950, 50)},
                        answered={"": (950, 50)},
                        bad={"errors": {"": (1, 4)}},
                        conduct=Conduct(failed=4),
                    )
                    for n, endpoint in enumerate(("flights", "taxis"))
                ]
            )

    def look(self) -> None:
        self.clock.go(LONGEST)
        while self.patrol.look():
            continue

    def stages(self) -> dict[str, Stage]:
        return {name: self.world.row(name).stage for name in ("flights", "taxis")}


def test_an_endpoint_that_cannot_be_looked_at_stops_no_other(tmp_path: Path) -> None:
    site = Two(tmp_path)
    site.store.raises = lambda name, given: name == "read" and given[0] == "flights"
    site.pass_time(45)
    site.look()
    assert site.stages() == {"flights": Stage.CANARY, "taxis": Stage.SETTLED}
    assert standing(site.faults) == {"patrol.look.flights"}
    assert "read was called" in site.patrol.sight.fault_at("flights")
    assert site.patrol.sight.fault_at("taxis") == ""
    site.store.raises = lambda name, given: False
    site.look()
    assert site.stages()["flights"] is Stage.SETTLED
    assert standing(site.faults) == set()


def test_windows_that_were_folded_before_a_fault_count_once(tmp_path: Path) -> None:
    """The fault comes after half of them: the next look folds all again, from what was kept."""
    site = Two(tmp_path)
    site.pass_time(3)
    site.look()
    watch = site.patrol._watches["taxis"]
    fold, folded = watch.fold, list[Window]()

    def breaks(window: Window) -> None:
        if len(folded) == 2:
            raise SystemExit("a third window")
        folded.append(window)
        fold(window)

    watch.fold = breaks  # type: ignore[method-assign]
    site.pass_time(4)
    site.look()
    assert "patrol.look.taxis" in standing(site.faults)
    site.look()
    flights, taxis = (site.patrol._watches[name] for name in ("flights", "taxis"))
    assert taxis is not watch
    assert taxis.totals == flights.totals == {"": [7 * 950, 7 * 50]}


def test_a_snapshot_that_cannot_be_kept_stops_no_other(tmp_path: Path) -> None:
    site = Two(tmp_path)
    kept = []

    def raises(name: str, given: tuple[Any, ...]) -> bool:
        if name == "keep":
            kept.append(given[0])
        return name == "keep" and given[0] == "flights"

    site.store.raises = raises
    site.pass_time(1)
    site.look()
    assert set(kept) == {"flights", "taxis"}
    assert standing(site.faults) == {"patrol.keep.flights"}


def test_a_patrol_whose_ledger_raises_anything_continues_and_reports_it(tmp_path: Path) -> None:
    site = Two(tmp_path)
    ledger = Faulty(site.patrol._ledger, lambda name, given: name == "read")
    site.patrol._ledger = ledger
    site.patrol._net._clock = site.patrol._clock = SystemClock()
    thread = threading.Thread(target=site.patrol.loop.run)
    thread.start()
    try:
        wait_until(lambda: site.patrol.sight.fault, "the fault", 10)
        ledger.raises = lambda name, given: False
        wait_until(lambda: site.patrol.sight.decisions and not site.patrol.sight.fault, "sight", 10)
    finally:
        site.patrol.loop.stop()
        thread.join(10)
    assert not thread.is_alive()


# ---------------------------------------------------------------- alerting


@pytest.fixture
def web() -> Iterator[Web]:
    made = Web()
    yield made
    made.close()


@pytest.mark.parametrize("part", ["news", "keep", "finish"])
def test_a_condition_that_cannot_be_raised_delays_no_message(
    tmp_path: Path, web: Web, part: str
) -> None:
    place = Place(tmp_path, policy_of(web))
    place.canary()
    web.got.clear()
    place.one._store = Faulty(place.one._store, lambda name, given: name == part)
    place.sees(FAILS)
    place.look()
    assert heard(web) == [("/0", "failing:r2")]


def test_a_channel_that_ends_its_thread_is_a_failed_attempt_and_is_shown(
    tmp_path: Path, web: Web
) -> None:
    place = Place(tmp_path, policy_of(web))
    place.canary()

    class Exits:
        timeout_s = 1.0
        links = NO_LINKS

        def send(self, url: str, message: Message) -> None:
            sys.exit("a plug-in")

    place.one._channels = Exits()
    place.sees(FAILS)
    place.look()
    assert place.open()["failing:r2"].deliveries[0].state == "failed"
    assert "alerting.channel" in standing(place.one._faults)


def test_an_endpoint_that_could_not_be_judged_is_reported_alone(tmp_path: Path, web: Web) -> None:
    place = Place(tmp_path, policy_of(web))
    place.canary()
    place.sight = Sight(faults={"flights": "ValueError: a window"})
    place.look()
    place.clock.go(61)
    place.look()
    assert ("/0", "blind") in heard(web)


# ---------------------------------------------------------------- the stand-in


def test_the_third_end_within_ten_minutes_calls_for_a_stand_in_until_control_lives() -> None:
    endings = Endings()
    for at in (50.0, 100.0):
        endings.note(at)
        assert not endings.calls_for_stand_in(at, None)
    endings.note(WITHIN_S)
    assert endings.calls_for_stand_in(WITHIN_S, None)
    assert endings.calls_for_stand_in(WITHIN_S + ALIVE_S, WITHIN_S + 1)
    assert not endings.calls_for_stand_in(WITHIN_S + 1 + ALIVE_S, WITHIN_S + 1)
    assert not endings.calls_for_stand_in(2 * WITHIN_S, None)
    endings.note(WITHIN_S + 50)
    assert endings.calls_for_stand_in(WITHIN_S + 50, None)


def test_the_stand_in_pages_that_control_keeps_ending_and_control_ends_that(
    tmp_path: Path, web: Web
) -> None:
    place = Place(tmp_path, policy_of(web))
    place.canary()
    web.got.clear()
    instead = place.fresh("stand-in", stands_in=True)
    for _ in range(2):
        place.look(instead)
    assert heard(web) == [("/0", "control")]
    (alert,) = place.open().values()
    assert (alert.level, alert.topic) == ("page", Topic.CONTROL)
    place.clock.go(301)
    place.look(instead)
    assert heard(web) == [("/0", "control"), ("/1", "control")]
    control = place.fresh("control")
    place.sees(WELL)
    place.look(control)
    assert heard(web, "resolved") == []
    place.clock.go(STEADY_S)
    place.look(control)
    assert sorted(heard(web, "resolved")) == [("/0", "control"), ("/1", "control")]


# ---------------------------------------------------------------- the others


def test_records_that_cannot_be_taken_in_keep_nothing_from_being_dropped(tmp_path: Path) -> None:
    place = Workplace(world(tmp_path, releases=1).state_dir)
    called: list[str] = []

    def raises(name: str, given: tuple[Any, ...]) -> bool:
        called.append(name)
        return name == "waiting"

    faults = ProcessFaults(place.clock)
    Clerk(
        Duty(place.clock, faults),
        ledger=place.ledger,
        records=Faulty(place.records, raises),
        rolls=place.rolls,
    ).look()
    assert called == ["waiting", "prune", "strip"]
    assert standing(faults) == {"clerk.ingest"}


def test_a_drill_whose_process_cannot_be_started_is_started_later(tmp_path: Path) -> None:
    made = settled(tmp_path)
    made.configure(msgspec.structs.replace(QUICK, drill=DrillPolicy(every="1h")))
    place, clock, tries = Workplace(made.state_dir), HandClock(), []

    def start(endpoint: str) -> Callable[[], bool]:
        tries.append(endpoint)
        if len(tries) == 1:
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return lambda: True

    faults = ProcessFaults(clock)
    own = Schedule(
        Duty(clock, faults),
        ledger=place.ledger,
        roster=place.roster,
        start=start,
    )
    place.roster.publish(msgspec.structs.replace(replica(made.row()), beat_at=clock.wall))
    own.look()
    assert (tries, standing(faults)) == (["flights"], {"drills.look.flights"})
    clock.go(1)
    own.look()
    assert (tries, standing(faults)) == (["flights"] * 2, set())


def test_a_diagnosis_whose_process_cannot_be_started_is_started_later(tmp_path: Path) -> None:
    site = Diagnosed(tmp_path)
    right = site.inquiry._command
    site.inquiry._command = lambda state, within_s: ("/nonexistent/program",)
    site.sight = Sight({"flights": (site.world.row().epoch, LATE)})
    site.look()
    assert (site.times, len(site.inquiry._net._failed)) == (0, 1)
    site.inquiry._command = right
    site.clock.go(1)
    site.look()
    assert site.times == 1


# ---------------------------------------------------------------- the threads


def test_a_part_that_ends_by_itself_is_run_again(tmp_path: Path) -> None:
    clock, runs, ended = SystemClock(), [], threading.Event()
    faults = ProcessFaults(clock)

    def run() -> None:
        runs.append(1)
        if len(runs) == 1:
            sys.exit("a library")
        if len(runs) > 2:
            ended.wait()

    parts = Parts(clock, faults)
    parts.start("part", SimpleNamespace(run=run, stop=ended.set))
    hangs = SimpleNamespace(run=lambda: time.sleep(30), stop=lambda: None)
    parts.start("hangs", hangs, waits=False)
    wait_until(lambda: len(runs) == 3, "the third run", 10)
    (fault,) = [fault for fault in faults.faults if fault.place == "control.part"]
    assert (fault.count, fault.text) == (2, "Ended: it returned, and is run again")
    began = time.monotonic()
    parts.stop()
    assert time.monotonic() - began < 5


def test_control_whose_server_ends_by_itself_exits_with_1(tmp_path: Path) -> None:
    """Its threads do not keep it: a supervisor starts what has ended, and not what hangs."""
    program = """
        import os, sys
        from pathlib import Path
        from kedge.config.model import Alerts, ControlBind
        from kedge.core.links import PageLinks
        from kedge.operations.setup import create_workplace
        from kedge.runtime import control

        class Ends:
            should_exit = False
            def run(self, sockets):
                pass

        state = Path(sys.argv[1])
        create_workplace(state)
        control.web.make_server = lambda app, faults, certificates: Ends()
        control.run_control(
            control.ControlSettings(
                port=0, config=state / "kedge.toml", state_dir=state, alerts=Alerts(), loopback=True,
                fence="warn", records_gb=1.0, segments=True, traces=None, bind=ControlBind(), links=PageLinks(), parent=os.getppid(),
            ),
            online=lambda: None,
        )
    """
    script = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / ".kedge")]
    ended = subprocess.run(
        script, stderr=subprocess.PIPE, text=True, check=False, timeout=60, env=models.environment()
    )
    assert (ended.returncode, "control.ended" in ended.stderr) == (1, True), ended.stderr
