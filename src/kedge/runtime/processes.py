"""What runs: a gateway worker, the supervisor of a host, control."""

from __future__ import annotations

import asyncio
import fcntl
import importlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path

import structlog
import uvicorn

from kedge.adapters import process
from kedge.adapters.process import Allowance, ProcessModel
from kedge.adapters.records import RECORDS_DIR
from kedge.adapters.records.spool import Spool
from kedge.adapters.records.store import SPOOL
from kedge.adapters.sql.sqlite.signal import DirectorySignal
from kedge.config.locate import find_workers, is_worker
from kedge.config.model import ANYONE, Alerts, Server
from kedge.core.codec import encode
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.evidence.records import JoinRow
from kedge.core.features.generations import Online
from kedge.core.stored.roster import Member
from kedge.core.values import ActorKind, Release, Stage, State
from kedge.engine.child import Command, HostLaunch, Launch
from kedge.engine.control.diagnosis import Inquiry
from kedge.engine.control.drills import Schedule, Start
from kedge.engine.control.patrol import Patrol
from kedge.engine.control.readiness import Readiness
from kedge.engine.control.retention import Clerk
from kedge.engine.pins import Apart, HostDisk
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.recording.custom import set_fence
from kedge.engine.relief import Predecessor, Relief, process_of
from kedge.engine.replica.follower import Replica
from kedge.engine.replica.writer import Recording
from kedge.engine.serving.copies import Copies
from kedge.engine.serving.last_asked import LastAsked, path_of
from kedge.engine.serving.pool import Pool
from kedge.engine.serving.serving import Serving
from kedge.engine.submission import Control, Say
from kedge.engine.supervisor import Supervisor
from kedge.engine.supervisor_lock import SupervisorLock, one_supervisor
from kedge.gateway.auth import SECRET, Tokens, make_secret, read_tokens
from kedge.gateway.contract import Contract
from kedge.gateway.http.app import Gateway
from kedge.gateway.http.connections import Connections, http_limits, raise_open_files
from kedge.gateway.http.infer import Bounds
from kedge.gateway.http.peers import Peers
from kedge.gateway.worker import Handoff, serve, take_over
from kedge.operations.alerts import alerting_of
from kedge.operations.readiness.check import checker, gate_of
from kedge.operations.registration import Loaders, import_loader
from kedge.ports import Roster
from kedge.runtime.announcement import Announcement, get_url, is_answered
from kedge.runtime.listener import listen, means, refuse_open_bind
from kedge.runtime.logs import count_faults, log_to_stderr
from kedge.runtime.outcomes import OutcomesJoiner
from kedge.runtime.parts import Parts
from kedge.runtime.paths import choose_folder, find_doors, remove_folder, sweep
from kedge.runtime.presence import Presence
from kedge.runtime.restart import ASK, PROTOCOL, Handover, Restart, Standing, obey, reap
from kedge.runtime.stand_in import stand_in_command
from kedge.runtime.state_guard import StateGuard
from kedge.runtime.turning import Turning
from kedge.system.interpreter import forbid, kedge_command, safe_environment
from kedge.system.machine import read_machine
from kedge.system.reserve import Reserve, is_short
from kedge.web import server as web
from kedge.web.api import Admin
from kedge.workspace import Workplace, host_name

log = structlog.get_logger("kedge.running")

DOOR_S = 3.0
"""How long living workers without a door are waited for: they put a deleted one back each second."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Each stops in order; a second one changes nothing, since what was accepted is answered within bounds. A terminal that
is closed sends SIGHUP: without a function for it, the supervisor would die and leave workers that nothing watches."""
LAST_WORDS = 300
"""Characters shown of the last line of a worker's log."""


# ---------------------------------------------------------------- a worker


def run_worker(server: Server, *, slot: str, fd: int, run_dir: Path, state_dir: Path) -> None:
    """Be one gateway worker. Returns when it was told to stop."""
    raise_open_files()
    set_fence(state_dir, server.fence)
    forbid("pandas")  # scikit-learn's imputers import it where it is installed
    listener = socket.socket(fileno=fd)
    place = Workplace(state_dir, patience_s=0.2)
    host, port = listener.getsockname()[:2]
    member = Member(
        name=f"{host_name()}/{slot}.{os.getpid()}",
        host=host_name(),
        pid=os.getpid(),
        kind="gateway",
        address=f"{host}:{port}",
        started_at=place.clock.now(),
        beat_at=0.0,
        ledger_at=0.0,
    )
    serving = Serving(place.clock.monotonic, LastAsked(path_of(run_dir, slot)), Copies())
    signal_ = place.ledger_signal()
    faults = ProcessFaults(place.clock, signal_.wake)
    count_faults(faults.passed)
    spool = Spool(state_dir / RECORDS_DIR / SPOOL, member.name.replace("/", "."))

    def spooled(rows: Sequence[JoinRow]) -> int:
        spool.roll(place.clock.unix())
        if rows and is_short(state_dir):
            faults.limit("disk_reserve", len(rows))
            return len(rows)
        return spool.append(rows)

    links = Links(Allowance())
    pool = Pool(
        loaders=Loaders(),
        artifacts=place.artifacts,
        connect=links.connect,
        run_dir=run_dir,
        clock=place.clock,
        changed=signal_.wake,
        faults=faults,
        apart=place.disk.apart,
        set_apart=partial(set_apart, place),
    )
    replica = Replica(
        member=member,
        slot=slot,
        ledger=place.ledger,
        stamp=place.ledger.stamp,
        roster=place.roster,
        disk=place.disk,
        pool=pool,
        serving=serving,
        signal=signal_,
        contract=contract_of,
        clock=place.clock,
        lease_s=server.lease_s,
        faults=faults,
        recording=Recording(
            member.name,
            windows=place.windows,
            evidence=place.evidence,
            spool=spooled,
            lives=serving.lives,
            clock=place.clock,
            faults=faults,
        ),
    )
    bounds = bounds_of(server, state_dir)
    Reserve(state_dir, faults.note, faults.clear).start(faults.attempt)
    connections = Connections(http_limits(bounds.body), peers=bounds.peers, limit=faults.limit)
    StateGuard(state_dir, faults, place.clock).start()
    gateway = Gateway(serving, bounds, ready=lambda: bool(serving.lives()), limit=faults.limit)
    try:
        serve(
            gateway,
            connections,
            replica,
            listener,
            drain_s=server.drain_s,
            handoff=Handoff(listener, run_dir / f"{slot}.handoff", faults),
            on_loop=links.bind,
            served=lambda: served_beside(place.roster, member),
        )
    finally:
        pool.close()


def bounds_of(server: Server, state_dir: Path) -> Bounds:
    """Return what one worker takes of its callers, and whom it believes."""
    anyone = server.entity_from == ANYONE
    tokens = [Path(server.tester_token_file)] if server.tester_token_file else []
    return Bounds(
        body=int(server.max_body_mb * 2**20),
        requests=server.max_in_flight,
        testers=Tokens(state_dir / SECRET, *tokens),
        peers=Peers(server.trusted_peers, None if anyone else tuple(server.entity_from)),
    )


def served_beside(roster: Roster, own: Member) -> set[str]:
    """The endpoints that the other living workers of this host serve."""
    try:
        members = roster.members()
    except KedgeError:
        return set()
    return {
        endpoint
        for member in members
        if (member.kind, member.host) == ("gateway", own.host)
        and member.pid != own.pid
        and is_worker(member.pid)
        for endpoint in (*member.epochs, *member.pinned)
    }


def set_apart(place: Workplace, release: Release, why: str) -> None:
    """Have a release that is not proven plain run in a process on this host."""
    log.warning("replica.not_plain", endpoint=release.endpoint, release=release.label, why=why)
    place.disk.set_apart(
        Apart(
            endpoint=release.endpoint,
            release=release.number,
            code="not_plain",
            why=why,
            at=place.clock.now(),
        )
    )


class Links:
    """Connections to model processes, made from the replica's thread for the serving loop."""

    def __init__(self, allowance: Allowance) -> None:
        self._allowance = allowance
        self._loop: asyncio.AbstractEventLoop | None = None

    def bind(self) -> None:
        """Remember the running loop."""
        self._loop = asyncio.get_running_loop()

    def connect(self, path: Path, release: Release, in_flight: int) -> ProcessModel:
        """Connect; the connection lives on the serving loop."""
        assert self._loop is not None
        return ProcessModel(
            path,
            release.signature,
            loop=self._loop,
            in_flight=in_flight,
            allowance=self._allowance,
        )


def contract_of(state: State) -> Contract:
    """Compile an endpoint's contract."""
    return Contract(state.fields, rows=state.policy.limits.rows, entity=state.policy.entity)


# ---------------------------------------------------------------- the supervisor


def run_supervisor(
    server: Server,
    online: Online,
    *,
    alerts: Alerts,
    config: Path,
    state_dir: Path,
    with_control: bool,
    run_for: float | None,
    say: Say,
    ready: Callable[[], None],
    handed: Handover | None = None,
) -> None:
    """Run everything on this host until a signal says to stop; then stop it in order.

    `ready` is called when nothing can refuse any more: the lock is held, the port is ours.
    `handed` is what the image before this one left, when the process has executed itself again.
    """
    log_to_stderr()
    refuse_open_bind(server.host, "server.host")
    raise_open_files()
    place = Workplace(state_dir, patience_s=1.0, actor=ActorKind.SUPERVISOR)
    prepare(place, server)
    with one_supervisor(state_dir, handed.lock if handed else None) as lock:
        image = handed.image if handed else 0
        run_dir = choose_folder(state_dir, f"{os.getpid()}-{image}" if image else str(os.getpid()))
        predecessors, listener = _take_over(place, server, run_dir, handed)
        ready()
        signal_ = DirectorySignal(state_dir / "ledger", place.disk.pins_dir)
        faults = ProcessFaults(place.clock, signal_.wake)
        count_faults(faults.passed)
        relief = Relief(predecessors, remove_folder)
        supervisor = Supervisor(
            member=Member(
                name=f"{host_name()}/supervisor.{os.getpid()}",
                host=host_name(),
                pid=os.getpid(),
                kind="supervisor",
                address="",
                started_at=place.clock.now(),
                beat_at=0.0,
                ledger_at=0.0,
            ),
            ledger=place.ledger,
            stamp=place.ledger.stamp,
            roster=place.roster,
            disk=place.disk,
            signal_=signal_,
            clock=place.clock,
            run_dir=run_dir,
            log_dir=state_dir / "logs",
            workers=worker_commands(server, run_dir, state_dir, listener.fileno()),
            listener_fd=listener.fileno(),
            host_launch=host_launch(state_dir, online, server.fence),
            others=control_command(config, os.getpid()) if with_control else {},
            stand_in=(
                Launch(stand_in_command(state_dir, os.getpid()), encode(alerts))
                if with_control
                else None
            ),
            drain_s=server.drain_s,
            close_door=listener.close,
            relief=relief,
            reap=reap,
            environment=process.environment(),
            host_environment=process.fenced_environment(),
            faults=faults,
            machine=read_machine(),
        )
        Reserve(state_dir, faults.note, faults.clear).start(faults.attempt)
        restart = restart_of(supervisor, relief, lock, listener, server, state_dir, image, faults)
        _listen_to_signals(supervisor.stop, restart.ask)
        restart.started(waiting=relief.waiting)
        if handed is not None:
            handed.take()
        obey()
        if run_for is not None:
            threading.Timer(run_for, supervisor.stop).start()
        say_not_fenced(server.fence, say)
        announcement = announcement_of(supervisor, server, listener, state_dir / "logs", say)
        announcement.start()
        StateGuard(state_dir, faults, place.clock, partial(lock.keep, state_dir)).start()
        # An exception leaves it with the children alive: the next supervisor takes them over.
        supervisor.run()
        announcement.stop()
        remove_folder(run_dir)
        say(
            "stopped: callers are refused until kedge up runs again; kedge restart replaces code"
            " and settings without an outage"
        )


def prepare(place: Workplace, server: Server) -> None:
    """Make what this host's processes need, and remove what earlier ones left. Raises as `read_tokens`."""
    if server.tester_token_file:
        read_tokens(Path(server.tester_token_file))
    make_secret(place.state_dir)
    with suppress(Unavailable):  # first: on a full disk it makes room for all that is opened here
        place.database.read(lambda _: None)
    with suppress(OSError, Unavailable):  # the preflight has named what cannot be written
        place.disk.pins_dir.mkdir(parents=True, exist_ok=True)
        place.artifacts.sweep()


def _take_over(
    place: Workplace, server: Server, run_dir: Path, handed: Handover | None
) -> tuple[list[Predecessor], socket.socket]:
    """What served here before, and the listener: from the image before this one, or from the machine."""
    if handed is not None:
        return handed.predecessors, socket.socket(fileno=os.dup(handed.listener))
    orphans, listener = inherit(place, server, run_dir)
    workers = tuple(process_of(pid) for pid in orphans)
    return ([Predecessor(workers=workers)] if workers else []), listener


def _listen_to_signals(stop: Callable[[], None], restart: Callable[[], None]) -> None:
    for number in STOPS:
        # What is ignored from outside stays ignored: nohup does so with SIGHUP.
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop())
    signal.signal(ASK, lambda *_: restart())


def say_not_fenced(fence: str, say: Say) -> None:
    """Say what this machine's kernel lacks of the fence around models, if anything."""
    lacking = process.missing()
    if not lacking:
        return
    what = (
        "a model's process could read and do what this user can"
        if fence == "warn"
        else 'no model is loaded in a process, since [server] fence is "require"'
    )
    say(f"NOT FENCED: this machine lacks {', '.join(lacking)}: {what}; kedge help security")


def announcement_of(
    supervisor: Supervisor, server: Server, listener: socket.socket, logs: Path, say: Say
) -> Announcement:
    """Build what says "serving" once a worker answers."""
    host, port = listener.getsockname()[:2]

    def last_words(worker: str) -> str:
        try:
            lines = (logs / f"{worker}.log").read_text(errors="replace").strip().splitlines()
        except OSError as error:
            return str(error)
        return printable((lines or ["it said nothing"])[-1])

    return Announcement(
        answered=lambda: is_answered(host, port),
        say=say,
        last_words=last_words,
        deaths=lambda: {n: c.deaths for n, c in supervisor.children.items() if c.fds},
        serving=(
            f"serving on {get_url(host, port)} with {server.workers}"
            f" worker{'s' if server.workers != 1 else ''}; logs in {logs}; Ctrl-C stops"
        ),
    )


def printable(line: str) -> str:
    """Return a line of a log as a terminal may have it: short, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in line[-LAST_WORDS:])


def restart_of(
    supervisor: Supervisor,
    relief: Relief,
    lock: SupervisorLock,
    listener: socket.socket,
    server: Server,
    state_dir: Path,
    image: int,
    faults: ProcessFaults,
) -> Restart:
    """Build what executes this process again, with everything that the next image needs."""
    host, port = listener.getsockname()[:2]

    def handover() -> Handover:
        return Handover(
            listener=listener.fileno(),
            lock=lock.descriptor,
            image=image + 1,
            predecessors=[*relief.predecessors, supervisor.as_predecessor()],
        )

    standing = Standing(host=host, port=port, state_dir=str(state_dir))
    restart = Restart(
        lock,
        standing,
        workers=server.workers,
        image=image,
        handover=handover,
        relief=relief,
        faults=faults,
    )
    supervisor.restart = restart
    relief.relieved = restart.relieved
    return restart


def try_out(server: Server, state_dir: Path, standing: Standing) -> None:
    """Raise if this code with these settings could not go on where another image stands.

    Raises:
        Refused: the listening socket or the state directory would be another, or a loader is missing.
    """
    importlib.import_module("kedge.adapters.process.__main__")
    refuse_open_bind(server.host, "server.host")
    if standing.protocol != PROTOCOL:
        raise Refused(
            "this version cannot take over from the one that runs",
            code="handover_unknown",
            hint="stop kedge up and start it again; callers are refused meanwhile",
        )
    if server.port not in (0, standing.port) or not means(server.host, standing.host):
        raise Refused(
            f"[server] says {server.host}:{server.port}, and a restart keeps the socket"
            f" {standing.host}:{standing.port}",
            code="socket_changed",
            hint="stop kedge up and start it again to move: callers are refused meanwhile",
        )
    if state_dir.resolve() != Path(standing.state_dir).resolve():
        raise Refused(
            f"the state directory is {standing.state_dir}, and would be {state_dir}",
            code="state_dir_changed",
            hint="stop kedge up and start it again to move",
        )
    loaders = Loaders()
    for state in HostDisk(state_dir).remembered().values():
        for release in (state.production, state.candidate, state.back):
            flavour = state.releases[release].flavour if release in state.releases else None
            if flavour is None:
                continue
            try:
                import_loader(loaders, flavour)
            except KeyError:
                raise Refused(
                    f"{state.endpoint} has a {flavour} model, and no loader for it is installed",
                    code="loader_missing",
                    hint=f"pip install 'kedge[{flavour}]'",
                ) from None


def inherit(
    place: Workplace, server: Server, run_dir: Path
) -> tuple[tuple[int, ...], socket.socket]:
    """The workers that a killed predecessor left behind, and the socket on which they listen.

    Where workers live but no door is found, they are given the time to make theirs again.
    """
    orphans = known_workers(place)
    until = place.clock.monotonic() + (DOOR_S if orphans else 0.0)
    while True:
        for door in find_doors(place.state_dir):
            listener = take_over(door)
            if listener is None:
                continue
            if server.port in (0, listener.getsockname()[1]):
                log.info("supervisor.took_over", orphans=len(orphans))
                return orphans, listener
            listener.close()
        if place.clock.monotonic() >= until:
            break
        place.clock.sleep(0.1)
    sweep(place.state_dir, keep=run_dir)
    return orphans, listen(server.host, server.port)


def known_workers(place: Workplace) -> tuple[int, ...]:
    """The living workers of this state directory; the roster forgets members of this host that are gone.

    Where the roster cannot be read, they are found by their command lines: it is no reason not to serve.
    """
    found = []
    try:
        for member in place.roster.members():
            if member.host != host_name():
                continue
            if member.kind == "gateway" and is_worker(member.pid):
                found.append(member.pid)
            else:
                place.roster.leave(member.name)
    except KedgeError as error:
        log.warning("supervisor.no_roster", fault=str(error))
        return find_workers(place.state_dir)
    return tuple(found)


def worker_commands(server: Server, run_dir: Path, state_dir: Path, fd: int) -> dict[str, Launch]:
    """How each gateway worker is started."""
    return {
        f"w{number}": Launch(
            tuple(
                kedge_command(
                    "gateway-worker",
                    "--slot",
                    f"w{number}",
                    "--fd",
                    str(fd),
                    "--run-dir",
                    str(run_dir),
                    "--server",
                    encode(server).decode(),
                    "--state-dir",
                    str(state_dir),
                )
            )
        )
        for number in range(server.workers)
    }


def control_command(config: Path, parent: int) -> dict[str, Launch]:
    """How control is started; it ends with its parent, even one that dies while control imports."""
    line = kedge_command("--config", str(config), "control", "--parent", str(parent))
    return {"control": Launch(tuple(line))}


def host_launch(state_dir: Path, online: Online, fence: str) -> HostLaunch:
    """How the model process of a release is started."""

    def build(state: State, release: int, path: Path) -> Launch:
        chosen = state.releases[release]
        command = tuple(
            process.command(
                socket=path,
                artifacts=state_dir / "artifacts",
                digest=chosen.model_digest,
                flavour=chosen.flavour,
                trusted=chosen.trusted,
                memory_mb=state.policy.memory_mb,
                code=chosen.code,
                generation=chosen.generation,
                online=online,
                fence=fence,
            )
        )
        return Launch(command, process.first_words(chosen.generation, online))

    return build


# ---------------------------------------------------------------- control


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
        say = lambda text: log.warning("patrol.warned", told=text)  # noqa: E731 - as a gate takes it
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
    clerk = Clerk(
        ledger=place.ledger,
        records=place.records,
        rolls=place.rolls,
        clock=place.clock,
        faults=faults,
    )
    own = partial(Workplace, state_dir, patience_s=1.0, actor=ActorKind.CONTROL, fence=fence)
    judging, mine, watched = own(), own(), own()
    readiness = Readiness(
        ledger=judging.ledger,
        leads=patrol.leads,
        clock=place.clock,
        faults=faults,
        check=checker(judging, online, by=f"readiness@{host_name()}"),
    )
    sight = lambda: patrol.sight._replace(unready=readiness.unready)  # noqa: E731 - as it takes it
    alerting = alerting_of(own(), sight, patrol.leads, alerts, faults)
    schedule = Schedule(
        ledger=mine.ledger,
        roster=mine.roster,
        clock=place.clock,
        leads=patrol.leads,
        start=drills_of(config),
        faults=faults,
    )
    inquiry = inquiry_of(own(), patrol, config, faults)
    presence = Presence(host_name(), watched.roster, watched.clock, faults)
    turning = Turning(
        {"patrol": lambda: patrol.began, "alerting": lambda: alerting.began}, place.clock, faults
    )
    ending = partial(_end_with_parent, server, parent, turning, faults)
    threading.Thread(target=ending, daemon=True).start()
    StateGuard(state_dir, faults, place.clock).start()
    parts = Parts(place.clock, faults)
    try:
        for name, part in (
            ("patrol", patrol),
            ("clerk", clerk),
            ("alerting", alerting),
            ("drills", schedule),
            ("inquiry", inquiry),
            ("presence", presence),
        ):
            parts.start(name, part.run, part.stop)
        # Control does not wait for a proof when it is told to stop, and the proof dies with it.
        parts.start("readiness", readiness.run, readiness.stop, waits=False)
        server.run(sockets=[listener])
    finally:
        turning.stop()
        parts.stop()
    if not server.should_exit:
        log.error("control.ended", fault="the server of the status API ended by itself")
        sys.exit(1)


def _end_with_parent(
    server: uvicorn.Server, parent: int, turning: Turning, faults: ProcessFaults
) -> None:
    """Control serves no callers: without its supervisor it only holds a port."""
    pause = threading.Event()  # `time.sleep` raises where a clock is bent (EINVAL)
    while os.getppid() == parent:
        faults.attempt("control.turning", turning.look)
        pause.wait(0.5)
    turning.stop()
    server.should_exit = True
