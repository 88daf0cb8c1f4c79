"""Control process: patrol, alerting, diagnosis, readiness, drills, retention, and the API."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import structlog
import uvicorn
from starlette.routing import Route

from kedge.adapters.artifacts.quarantine import Quarantine
from kedge.config.model import Alerts, ControlBind
from kedge.core.alerts.alerts import Sight
from kedge.core.errors import KedgeError
from kedge.core.features.generations import Online
from kedge.core.hosts import spell_host
from kedge.core.links import PageLinks, host_of
from kedge.core.values import ActorKind, Stage, State
from kedge.engine.child import Command
from kedge.engine.control.diagnosis import Inquiry
from kedge.engine.control.drills import Schedule, Start
from kedge.engine.control.lead import Lead
from kedge.engine.control.patrol import Patrol
from kedge.engine.control.readiness import Readiness
from kedge.engine.control.retention import Clerk
from kedge.engine.loop import Duty, Loop
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.submission import Control
from kedge.operations.alerts import alerting_of
from kedge.operations.evidence.read import evidence_of
from kedge.operations.feed import Feed
from kedge.operations.metrics import MetricsReader
from kedge.operations.outcomes import hand_in_lines
from kedge.operations.readiness.check import checker, gate_of
from kedge.operations.status.read import status_of
from kedge.runtime.access import Doors, access_of, certificates_of, open_doors, proxy_of
from kedge.runtime.dashboard import dashboard_of, sampling_of
from kedge.runtime.logs import count_faults, log_to_stderr
from kedge.runtime.loop_timer import LoopTimer
from kedge.runtime.metrics import MetricsLoop
from kedge.runtime.outcomes import OutcomesJoiner
from kedge.runtime.parts import Parts
from kedge.runtime.presence import Presence
from kedge.runtime.state_guard import guard_state
from kedge.runtime.traces import traces_of
from kedge.system.interpreter import kedge_command, safe_environment
from kedge.web import server as web
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.auth import Gatekeeper, check_scraper
from kedge.web.children import Children, RemoteCaller
from kedge.web.dashboard.rates import TrafficSampler
from kedge.web.events import Streams
from kedge.web.labels import Join
from kedge.web.login import Login
from kedge.web.metrics import make_routes
from kedge.web.readers import Readers
from kedge.web.repeats import AnswerStore
from kedge.web.routes import Api
from kedge.web.uploads import Uploads
from kedge.web.writes import Writes
from kedge.workspace import Workplace, host_name, site_of

log = structlog.get_logger("kedge.control")

LOOK_S = 0.5
"""Interval at which control checks that its supervisor lives and its loops make progress."""


EVENTS_S = 0.25
"""Interval at which events are looked for: what a page shows is at most this much later."""


SWEEP_S = 60.0
"""Interval at which expired uploads are removed; they expire after hours."""


class ControlSettings(NamedTuple):
    """Control's settings from kedge.toml and the command line."""

    port: int
    config: Path
    state_dir: Path
    alerts: Alerts
    loopback: bool
    fence: str
    records_gb: float
    bind: ControlBind
    links: PageLinks
    traces: str | None
    """The URL of a collector of spans; None: rollbacks are not traced."""
    segments: bool
    """Whether exported metrics name segments."""
    parent: int
    """Process id of the supervisor; control ends when that process does."""


def patrol_of(duty: Duty, settings: ControlSettings, online: Callable[[], Online]) -> Patrol:
    """Build the patrol, which watches every rollout, with its own connections."""
    open_place = partial(Workplace, settings.state_dir, actor=ActorKind.PATROL)
    place = open_place(patience_s=1.0)

    def control() -> Control:
        site = site_of(settings.config, settings.links)
        mine = open_place(fence=settings.fence, site=site, online=online)
        # A lambda, because the gate takes a function of one text.
        say = lambda text: log.warning("patrol.warned", told=text)  # noqa: E731
        return mine.control(say, None, gate_of(mine, loopback=settings.loopback, say=say))

    return Patrol(
        duty,
        ledger=place.ledger,
        store=place.windows,
        control=control,
        records=place.records,
        roster=place.roster,
    )


def inquiry_of(duty: Duty, place: Workplace, sight: Callable[[], Sight], config: Path) -> Inquiry:
    """Build the inquiry, which diagnoses production; only its thread uses this workplace."""

    def command(state: State, within_s: float) -> Command:
        line = (*_own_command(config), "diagnose", state.endpoint)
        # In other stages no caller meets the candidate, and the patrol reports enough about it.
        about = () if state.stage is Stage.CANARY else ("--production",)
        return (*line, *about, "--within", f"{within_s:g}", "--json")

    return Inquiry(duty, ledger=place.ledger, records=place.records, sight=sight, command=command)


def _own_command(config: Path) -> tuple[str, ...]:
    """Return the start of a command line whose ledger entries name control as the actor."""
    return tuple(kedge_command("--config", str(config), f"--acting-as={ActorKind.CONTROL}"))


def drills_of(config: Path, by: str) -> Start:
    """Return a function that starts a due drill as an operator would, in its own process."""

    def start(endpoint: str) -> Callable[[], bool]:
        child = subprocess.Popen(  # noqa: S603 - our own command
            [*_own_command(config), "drill", endpoint, "--json"],
            env={**safe_environment(), "KEDGE_ACTOR": by},
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
        )
        return lambda: child.poll() is None

    return start


def readiness_of(duty: Duty, place: Workplace) -> Readiness:
    """Build the check of every endpoint's readiness, with its own workplace."""
    check = checker(place, by=f"readiness@{host_name()}")
    return Readiness(duty, ledger=place.ledger, check=check)


def schedule_of(duty: Duty, place: Workplace, config: Path) -> Schedule:
    """Build the schedule that starts and ends drills, with its own workplace."""
    start = drills_of(config, duty.by)
    return Schedule(duty, ledger=place.ledger, roster=place.roster, start=start)


def run_control(settings: ControlSettings, *, online: Callable[[], Online]) -> None:
    """Watch every rollout, send alerts and serve the API on loopback, until a signal to stop.

    Control also stops when its parent process has changed.

    Raises:
        Unavailable: `port_taken`; control has started nothing.
    """
    log_to_stderr()
    config, state_dir = settings.config, settings.state_dir
    doors = open_doors(settings.bind, settings.port, config.parent)
    place, joining = (Workplace(state_dir, patience_s=1.0) for _ in range(2))
    for each in (place, joining):
        each.records.keep(settings.records_gb)
    faults = ProcessFaults(place.clock)
    count_faults(faults.passed)
    joiner = joiner_of(joining, config)
    own = place_opener(settings, online)
    earlier = Admin(partial(status_of, place), partial(evidence_of, place), joiner.join)
    duty = Duty(place.clock, faults)
    site = http_of(settings, duty, own, doors, earlier)
    server = site.server
    guard_state(duty, state_dir)
    leading = replace(duty, leads=Lead(state_dir).take, by=f"patrol@{host_name()}")
    patrol = patrol_of(leading, settings, online)
    readiness = readiness_of(leading, own())
    sight = lambda: patrol.sight._replace(unready=readiness.unready)  # noqa: E731 - as it takes it
    alerting = alerting_of(leading, own(), sight, settings.alerts)
    clerk = Clerk(duty, ledger=place.ledger, records=place.records, rolls=place.rolls)
    loops = {
        "patrol": patrol.loop,
        "alerting": alerting.loop,
        "clerk": clerk.loop,
        "drills": schedule_of(leading, own(), config).loop,
        "inquiry": inquiry_of(leading, own(), lambda: patrol.sight, config).loop,
        **site.loops,
        **traces_of(settings.traces, duty, own),
        "presence": Presence(duty, own().roster).loop,
    }
    turning = {name: loops[name] for name in ("patrol", "alerting")}
    timer = LoopTimer(turning, place.clock, faults)
    watch_parent(duty, server, settings.parent, timer).start("kedge-parent")
    parts = Parts(place.clock, faults)
    try:
        for name, loop in loops.items():
            parts.start(name, loop)
        # Control does not wait for a running proof when it stops; the proof ends with it.
        parts.start("readiness", readiness.loop, waits=False)
        server.run(sockets=doors.listeners)
    finally:
        timer.stop()
        parts.stop()
    if not server.should_exit:
        log.error("control.ended", fault="the server of the status API ended by itself")
        sys.exit(1)


def place_opener(settings: ControlSettings, online: Callable[[], Online]) -> partial[Workplace]:
    """Return a function that opens the state directory with connections of its own."""
    return partial(
        Workplace,
        settings.state_dir,
        patience_s=1.0,
        actor=ActorKind.CONTROL,
        fence=settings.fence,
        site=site_of(settings.config, settings.links),
        online=online,
    )


class HttpSide(NamedTuple):
    """Control's server, and the loops that feed it."""

    server: uvicorn.Server
    loops: dict[str, Loop]


def http_of(
    settings: ControlSettings,
    duty: Duty,
    own: Callable[..., Workplace],
    doors: Doors,
    earlier: Admin,
) -> HttpSide:
    """Build control's server with its routes, and the loops that feed it."""
    faults, bind, folder = duty.faults, settings.bind, settings.config.parent
    persons = partial(own, actor=ActorKind.PERSON)
    readers, sampler = Readers(persons), TrafficSampler()
    streams = Streams(readers, faults, lambda: server.should_exit)
    metrics = MetricsLoop(duty, MetricsReader(own(), segments=settings.segments))
    quarantine = Quarantine(settings.state_dir, duty.clock.unix)
    uploads = Uploads(quarantine)
    writes = writes_of(settings, persons, duty.clock.unix, uploads, earlier.join)
    access = access_of(duty, own, doors.port, proxy_of(bind, folder, faults))
    routes = [
        *Api(readers, streams, writes, uploads, earlier.bodies).routes(),
        *make_routes(metrics.page, partial(check_scraper, access.gate)),
        *_pages(settings, persons, duty, access.gate, sampler, lambda: server.should_exit),
    ]
    front = Front(earlier, routes, faults, gate=access.gate, names=_names(settings))
    server = web.make_server(front, faults, doors.certificates)
    loops = {
        "events": events_of(duty, own(), streams),
        "metrics": metrics.loop,
        "access": access.loop,
        "rates": sampling_of(duty, own(), sampler),
        "uploads": sweeping_of(duty, quarantine),
        **certificates_of(duty, doors.certificates),
    }
    return HttpSide(server, loops)


def _names(settings: ControlSettings) -> tuple[str, ...]:
    """Return the names that a request may be addressed to; a link has that of the public URL."""
    bind, public = settings.bind, host_of(settings.links.public_url)
    return tuple(map(spell_host, (bind.host, *bind.hosts, *filter(None, [public]))))


def joiner_of(place: Workplace, config: Path) -> OutcomesJoiner:
    """Build the part that joins posted outcomes: small batches here, others in a process."""
    return OutcomesJoiner(
        partial(hand_in_lines, place),
        lambda endpoint: (*_own_command(config), "outcomes", endpoint, "--file", "-", "--json"),
    )


def events_of(duty: Duty, place: Workplace, streams: Streams) -> Loop:
    """Build the loop that looks for events and gives them to the open streams."""
    feed = Feed(place)

    def look() -> None:
        wanted = streams.wanted
        if wanted is not None and not wanted:
            feed.forget()
        try:
            found = feed.look(wanted)
        except KedgeError as error:
            streams.publish((), error)
            raise
        streams.publish(found)

    return Loop(duty, "control.events", look, every_s=EVENTS_S)


def _pages(
    settings: ControlSettings,
    open_place: Callable[[], Workplace],
    duty: Duty,
    gate: Gatekeeper,
    sampler: TrafficSampler,
    is_stopping: Callable[[], bool],
) -> list[Route]:
    """Return the routes of the dashboard and of its login."""
    pages = dashboard_of(
        duty.clock,
        open_place,
        guard=gate,
        diagnose=lambda name: (*_own_command(settings.config), "diagnose", name, "--json"),
        sampler=sampler,
        loopback=settings.loopback,
        is_stopping=is_stopping,
    )
    return [*Login(gate, pages.draw_login).routes(), *pages.routes()]


def writes_of(
    settings: ControlSettings,
    open_place: Callable[..., Workplace],
    unix: Callable[[], float],
    uploads: Uploads,
    join: Join,
) -> Writes:
    """Build the writes of the API: in threads of control, or as commands of their own."""

    def line(caller: RemoteCaller, expect: int | None) -> tuple[str, ...]:
        seen = () if expect is None else (f"--expect={expect}",)
        who = f"--allowed-by={caller.holder}"
        return tuple(kedge_command("--config", str(settings.config), who, *seen))

    def environment(caller: RemoteCaller) -> dict[str, str]:
        return {**safe_environment(), "KEDGE_ACTOR": caller.name}

    return Writes(
        lambda token: open_place(token=token, patience_s=5.0),
        Children(line, environment),
        AnswerStore(settings.state_dir, unix),
        uploads,
        join,
    )


def sweeping_of(duty: Duty, quarantine: Quarantine) -> Loop:
    """Build the loop that removes expired uploads and the remains of crashes, and counts them."""

    def look() -> None:
        for _ in range(quarantine.sweep()):
            duty.faults.limit("control.upload_expired")

    return Loop(duty, "control.uploads", look, every_s=SWEEP_S)


def watch_parent(duty: Duty, server: uvicorn.Server, parent: int, timer: LoopTimer) -> Loop:
    """Build the loop that resets the timer, and ends control when its supervisor is gone.

    Control serves no callers: without its supervisor it only occupies a port.
    """

    def look() -> None:
        if os.getppid() == parent:
            timer.look()
        else:
            loop.stop()

    def end() -> None:
        timer.stop()
        server.should_exit = True

    loop = Loop(duty, "control.turning", look, every_s=LOOK_S, last=end)
    return loop
