"""The control process: patrol, alerting, diagnosis, readiness, drills and retention, and its API."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from kedge.config.model import Alerts
from kedge.core.features.generations import Online
from kedge.core.values import ActorKind, Stage, State
from kedge.engine.child import Command
from kedge.engine.control.diagnosis import Inquiry
from kedge.engine.control.drills import Schedule, Start
from kedge.engine.control.patrol import Patrol
from kedge.engine.control.readiness import Readiness
from kedge.engine.control.retention import Clerk
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.submission import Control
from kedge.operations.alerts import alerting_of
from kedge.operations.readiness.check import checker, gate_of
from kedge.runtime.logs import count_faults, log_to_stderr
from kedge.runtime.loop_timer import LoopTimer
from kedge.runtime.outcomes import OutcomesJoiner
from kedge.runtime.parts import Parts
from kedge.runtime.presence import Presence
from kedge.runtime.state_guard import StateGuard
from kedge.system.interpreter import kedge_command, safe_environment
from kedge.system.pause import pause
from kedge.system.reserve import Reserve
from kedge.web import server as web
from kedge.web.api import Admin
from kedge.workspace import Workplace, host_name

log = structlog.get_logger("kedge.control")


def patrol_of(
    state_dir: Path,
    online: Callable[[], Online],
    faults: ProcessFaults,
    *,
    loopback: bool,
    fence: str,
    config: Path,
) -> Patrol:
    """What watches every rollout, with connections of its own."""
    place = Workplace(state_dir, patience_s=1.0, actor=ActorKind.PATROL)

    def control() -> Control:
        mine = Workplace(
            state_dir, patience_s=5.0, actor=ActorKind.PATROL, fence=fence, config=config
        )
        # As a gate takes it.
        say = lambda text: log.warning("patrol.warned", told=text)  # noqa: E731
        return mine.control(say, None, gate_of(mine, online, loopback=loopback, say=say))

    lock = (state_dir / "patrol.lock").open("a+")

    def leads() -> bool:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    return Patrol(
        ledger=place.ledger,
        store=place.windows,
        clock=place.clock,
        leads=leads,
        control=control,
        faults=faults,
        by=f"patrol@{host_name()}",
        records=place.records,
        roster=place.roster,
    )


def inquiry_of(place: Workplace, patrol: Patrol, config: Path, faults: ProcessFaults) -> Inquiry:
    """What has production diagnosed, with this place's connections for its thread alone."""

    def command(state: State, within_s: float) -> Command:
        line = (*_own_command(config), "diagnose", state.endpoint)
        # Of a candidate that no caller meets the patrol says enough.
        about = () if state.stage is Stage.CANARY else ("--production",)
        return (*line, *about, "--within", f"{within_s:g}", "--json")

    return Inquiry(
        ledger=place.ledger,
        records=place.records,
        sight=lambda: patrol.sight,
        clock=place.clock,
        leads=patrol.leads,
        command=command,
        by=f"patrol@{host_name()}",
        faults=faults,
    )


def _own_command(config: Path) -> tuple[str, ...]:
    """A command that control starts by itself, and whose entries say so."""
    return tuple(kedge_command("--config", str(config), f"--acting-as={ActorKind.CONTROL}"))


def drills_of(config: Path) -> Start:
    """How a drill that is due is started: as a person would, in a process of its own."""

    def start(endpoint: str) -> Callable[[], bool]:
        child = subprocess.Popen(  # noqa: S603 - our own command
            [*_own_command(config), "drill", endpoint, "--json"],
            env={**safe_environment(), "KEDGE_ACTOR": f"patrol@{host_name()}"},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )
        return lambda: child.poll() is None

    return start


def clerk_of(place: Workplace, faults: ProcessFaults) -> Clerk:
    """Return what takes in the records of workers, and ages what is old."""
    return Clerk(
        ledger=place.ledger,
        records=place.records,
        rolls=place.rolls,
        clock=place.clock,
        faults=faults,
    )


def readiness_of(
    place: Workplace, patrol: Patrol, online: Callable[[], Online], faults: ProcessFaults
) -> Readiness:
    """Return what checks the readiness of every endpoint, with a workplace of its own."""
    return Readiness(
        ledger=place.ledger,
        leads=patrol.leads,
        clock=place.clock,
        faults=faults,
        check=checker(place, online, by=f"readiness@{host_name()}"),
    )


def schedule_of(place: Workplace, patrol: Patrol, config: Path, faults: ProcessFaults) -> Schedule:
    """Return what starts and ends drills, with a workplace of its own."""
    return Schedule(
        ledger=place.ledger,
        roster=place.roster,
        clock=place.clock,
        leads=patrol.leads,
        start=drills_of(config),
        faults=faults,
    )


def run_control(
    port: int,
    *,
    config: Path,
    state_dir: Path,
    alerts: Alerts,
    online: Callable[[], Online],
    loopback: bool,
    fence: str,
    status: Callable[[Workplace, str | None], object],
    evidence: Callable[[Workplace, str], object],
    hand_in: Callable[..., object],
    parent: int,
    records_gb: float,
) -> None:
    """Watch every rollout, tell people, and serve the API on loopback, until a signal says to stop.

    It also stops when `parent` is no longer its parent process.

    Raises:
        Unavailable: `port_taken`; nothing was started.
    """
    log_to_stderr()
    listener = web.listen(port)
    place, joining = (Workplace(state_dir, patience_s=1.0) for _ in range(2))
    for each in (place, joining):
        each.records.keep(records_gb)
    faults = ProcessFaults(place.clock)
    count_faults(faults.passed)
    joiner = OutcomesJoiner(
        partial(hand_in, joining),
        lambda endpoint: (*_own_command(config), "outcomes", endpoint, "--file", "-", "--json"),
    )
    server = web.make_server(
        Admin(partial(status, place), partial(evidence, place), joiner.join, faults), faults
    )
    Reserve(state_dir, faults.note, faults.clear).start(faults.attempt)
    patrol = patrol_of(state_dir, online, faults, loopback=loopback, fence=fence, config=config)
    own = partial(Workplace, state_dir, patience_s=1.0, actor=ActorKind.CONTROL, fence=fence)
    readiness = readiness_of(own(), patrol, online, faults)
    sight = lambda: patrol.sight._replace(unready=readiness.unready)  # noqa: E731 - as it takes it
    alerting = alerting_of(own(), sight, patrol.leads, alerts, faults)
    timer = LoopTimer(
        {"patrol": lambda: patrol.began, "alerting": lambda: alerting.began}, place.clock, faults
    )
    ending = partial(_end_with_parent, server, parent, timer, faults)
    threading.Thread(target=ending, daemon=True).start()
    StateGuard(state_dir, faults, place.clock).start()
    parts = Parts(place.clock, faults)
    try:
        for name, part in (
            ("patrol", patrol),
            ("clerk", clerk_of(place, faults)),
            ("alerting", alerting),
            ("drills", schedule_of(own(), patrol, config, faults)),
            ("inquiry", inquiry_of(own(), patrol, config, faults)),
            ("presence", Presence(own().roster, place.clock, faults)),
        ):
            parts.start(name, part.run, part.stop)
        # Control does not wait for a proof when it is told to stop, and the proof dies with it.
        parts.start("readiness", readiness.run, readiness.stop, waits=False)
        server.run(sockets=[listener])
    finally:
        timer.stop()
        parts.stop()
    if not server.should_exit:
        log.error("control.ended", fault="the server of the status API ended by itself")
        sys.exit(1)


def _end_with_parent(
    server: uvicorn.Server, parent: int, timer: LoopTimer, faults: ProcessFaults
) -> None:
    """Control serves no callers: without its supervisor it only holds a port."""
    while os.getppid() == parent:
        faults.attempt("control.turning", timer.look)
        pause(0.5)
    timer.stop()
    server.should_exit = True
