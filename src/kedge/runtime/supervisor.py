"""Supervisor of a host: it starts and restarts gateway workers, model processes and control."""

from __future__ import annotations

import importlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import structlog

from kedge.adapters import process
from kedge.adapters.sql.sqlite.signal import DirectorySignal
from kedge.config.locate import find_workers, is_worker
from kedge.config.model import Alerts, ServerSettings
from kedge.core.codec import encode
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.features.generations import Online
from kedge.core.values import ActorKind, State
from kedge.engine.child import HostLaunch, Launch
from kedge.engine.loop import Duty
from kedge.engine.pins import HostDisk
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.relief import Predecessor, Relief, process_of
from kedge.engine.submission import Say
from kedge.engine.supervisor import Launches, Supervisor
from kedge.engine.supervisor_lock import SupervisorLock, one_supervisor
from kedge.gateway.auth import CALLERS, TESTERS, make_secret, read_tokens
from kedge.gateway.http.connections import raise_open_files
from kedge.gateway.worker import take_over
from kedge.operations.registration import Loaders, import_loader
from kedge.operations.tokens import make_link, read_admin_token
from kedge.runtime.announcement import Announcement, get_url, is_answered
from kedge.runtime.listener import listen, means, refuse_open_bind
from kedge.runtime.logs import count_faults, log_to_stderr
from kedge.runtime.paths import choose_folder, find_doors, remove_folder, sweep
from kedge.runtime.presence import station_of
from kedge.runtime.restart import ASK, PROTOCOL, Handover, Restart, Standing, obey, reap
from kedge.runtime.stand_in import StandInSettings, stand_in_command
from kedge.runtime.state_guard import guard_state
from kedge.system.interpreter import kedge_command
from kedge.system.machine import read_machine
from kedge.workspace import Workplace, host_name, new_member, site_of

log = structlog.get_logger("kedge.supervisor")

DOOR_S = 3.0
"""Seconds to wait for living workers without a door: they make a deleted one again each second."""
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that stop it in order. A second one changes nothing, since accepted requests are answered
within bounds. A closed terminal sends SIGHUP: without a handler for it, the supervisor would die
and leave workers that nothing watches."""
LAST_WORDS = 300
"""Maximum characters shown of the last line of a worker's log."""


class HostSettings(NamedTuple):
    """The supervisor's settings from kedge.toml and the command line."""

    server: ServerSettings
    online: Online
    alerts: Alerts
    config: Path
    state_dir: Path
    with_control: bool
    control_url: str
    run_for: float | None


def run_supervisor(
    settings: HostSettings,
    *,
    say: Say,
    ready: Callable[[], None],
    handed: Handover | None = None,
) -> None:
    """Run everything on this host until a stop signal; then stop it in order.

    `ready` is called when no refusal is possible any more: this process holds the lock and the
    port. `handed` is the handover of the image before, when the process has executed itself again.
    """
    log_to_stderr()
    server, state_dir = settings.server, settings.state_dir
    refuse_open_bind(server)
    raise_open_files()
    place = Workplace(
        state_dir,
        patience_s=1.0,
        actor=ActorKind.SUPERVISOR,
        fence=server.fence,
        online=lambda: settings.online,
    )
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
        supervisor = supervisor_of(place, settings, run_dir, listener, relief, signal_, faults)
        restart = restart_of(supervisor, relief, lock, listener, server, state_dir, image, faults)
        _listen_to_signals(supervisor.stop, restart.ask)
        restart.started(waiting=relief.waiting)
        if handed is not None:
            handed.take()
        obey()
        if settings.run_for is not None:
            threading.Timer(settings.run_for, supervisor.stop).start()
        say_not_fenced(server.fence, say)
        login = partial(describe_login, state_dir, settings.control_url)
        announcement = announcement_of(
            supervisor,
            server,
            listener,
            state_dir / "logs",
            say,
            login if settings.with_control else lambda: "",
        )
        guard = partial(
            guard_state, Duty(place.clock, faults), state_dir, partial(lock.keep, state_dir)
        )
        for part, start in (("announcement", announcement.start), ("guard", guard)):
            # After the handover nothing replaces this process: a thread that cannot be started
            # must not end it.
            faults.attempt(f"supervisor.{part}", start)
        # An exception leaves the children alive: the next supervisor takes them over.
        supervisor.run()
        announcement.stop()
        remove_folder(run_dir)
        say(
            "stopped: callers are refused until kedge up runs again; kedge restart replaces code"
            " and settings without an outage"
        )


def supervisor_of(
    place: Workplace,
    settings: HostSettings,
    run_dir: Path,
    listener: socket.socket,
    relief: Relief,
    signal_: DirectorySignal,
    faults: ProcessFaults,
) -> Supervisor:
    """Build the supervisor of this host."""
    own, state_dir, server = os.getpid(), place.state_dir, settings.server
    told = StandInSettings(settings.alerts, site_of(settings.config, server.links))
    stand_in = Launch(stand_in_command(state_dir, own), encode(told))
    launches = Launches(
        workers=worker_commands(server, run_dir, state_dir, listener.fileno()),
        listener_fd=listener.fileno(),
        host=host_launch(place),
        others=control_command(settings.config, own) if settings.with_control else {},
        environment=process.environment(),
        host_environment=process.fenced_environment(),
        log_dir=state_dir / "logs",
        stand_in=stand_in if settings.with_control else None,
    )
    member = new_member("supervisor", "supervisor", place.clock.now())
    return Supervisor(
        station_of(place, Duty(place.clock, faults), member, signal_),
        launches,
        run_dir=run_dir,
        machine=read_machine(),
        drain_s=server.drain_s,
        close_door=listener.close,
        relief=relief,
        reap=reap,
    )


def prepare(place: Workplace, server: ServerSettings) -> None:
    """Make the files that this host's processes need; remove old ones. Raise as `read_tokens`."""
    for setting in (TESTERS, CALLERS):
        path = getattr(server, setting)
        if path:
            read_tokens(Path(path), f"server.{setting}")
    make_secret(place.state_dir)
    with suppress(Unavailable):  # first: on a full disk it frees room for the files opened here
        place.database.read(lambda _: None)
    with suppress(OSError, Unavailable):  # the preflight has already reported unwritable paths
        place.disk.pins_dir.mkdir(parents=True, exist_ok=True)
        place.artifacts.sweep()


def _take_over(
    place: Workplace, server: ServerSettings, run_dir: Path, handed: Handover | None
) -> tuple[list[Predecessor], socket.socket]:
    """Return the earlier workers and the listener, from the image before or from the machine."""
    if handed is not None:
        return handed.predecessors, socket.socket(fileno=os.dup(handed.listener))
    orphans, listener = inherit(place, server, run_dir)
    workers = tuple(process_of(pid) for pid in orphans)
    return ([Predecessor(workers=workers)] if workers else []), listener


def _listen_to_signals(stop: Callable[[], None], restart: Callable[[], None]) -> None:
    for number in STOPS:
        # A signal that the starter ignores stays ignored: nohup ignores SIGHUP.
        if number == signal.SIGTERM or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: stop())
    signal.signal(ASK, lambda *_: restart())


def say_not_fenced(fence: str, say: Say) -> None:
    """Print which parts of the fence around models this machine's kernel does not support."""
    lacking = process.missing()
    if not lacking:
        return
    what = (
        "a model's process could read and do what this user can"
        if fence == "warn"
        else 'no model is loaded in a process, since [server] fence is "require"'
    )
    say(f"NOT FENCED: this machine is missing {', '.join(lacking)}: {what}; kedge help security")


def announcement_of(
    supervisor: Supervisor,
    server: ServerSettings,
    listener: socket.socket,
    logs: Path,
    say: Say,
    login: Callable[[], str],
) -> Announcement:
    """Build the announcement that prints "serving" once a worker answers."""
    host, port = listener.getsockname()[:2]

    def last_words(worker: str) -> str:
        try:
            lines = (logs / f"{worker}.log").read_text(errors="replace").strip().splitlines()
        except OSError as error:
            return str(error)
        return printable((lines or ["it printed nothing"])[-1])

    return Announcement(
        answered=lambda: is_answered(host, port),
        say=say,
        login=login,
        last_words=last_words,
        deaths=lambda: {n: c.deaths for n, c in supervisor.children.items() if c.fds},
        serving=(
            f"serving on {get_url(host, port)} with {server.workers}"
            f" worker{'s' if server.workers != 1 else ''}; logs in {logs}; Ctrl-C stops"
        ),
    )


def describe_login(state_dir: Path, base: str) -> str:
    """Return the line about the dashboard; empty until control has its admin token and answers.

    Only a terminal gets a link: others may read a log, and the link is a key for 15 minutes.
    """
    where = urlsplit(base)
    answers = where.scheme == "https" or is_answered(
        where.hostname or "", where.port or 0, "/health"
    )
    if not read_admin_token(state_dir) or not answers:
        return ""
    if not sys.stderr.isatty():
        return f"dashboard on {base}; kedge login prints a link to it"
    place = Workplace(state_dir)
    try:
        return f"dashboard: {make_link(place, base).url}"
    except KedgeError:
        return ""
    finally:
        place.database.close()
        place.sessions.close()


def printable(line: str) -> str:
    """Return a line of a log for a terminal: short, and without control characters."""
    return "".join(c if c.isprintable() else "?" for c in line[-LAST_WORDS:])


def restart_of(
    supervisor: Supervisor,
    relief: Relief,
    lock: SupervisorLock,
    listener: socket.socket,
    server: ServerSettings,
    state_dir: Path,
    image: int,
    faults: ProcessFaults,
) -> Restart:
    """Build the restart of this process, with the handover that the next image needs."""
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


def try_out(server: ServerSettings, state_dir: Path, standing: Standing) -> None:
    """Raise if this code with these settings cannot continue from another image's state.

    Raises:
        Refused: the listening socket or the state directory would change, or a loader is missing.
    """
    importlib.import_module("kedge.adapters.process.__main__")
    refuse_open_bind(server)
    if standing.protocol != PROTOCOL:
        raise Refused(
            "this version cannot take over from the one that runs",
            code="handover_unknown",
            hint="stop kedge up and start it again; callers are refused meanwhile",
        )
    if server.port not in (0, standing.port) or not means(server.host, standing.host):
        raise Refused(
            f"[server] has {server.host}:{server.port}, and a restart keeps the socket"
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
    place: Workplace, server: ServerSettings, run_dir: Path
) -> tuple[tuple[int, ...], socket.socket]:
    """Return the workers that a killed supervisor left, and the socket on which they listen.

    If workers live but no door is found, it waits until they have made theirs again.
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
    """Return this state directory's living workers; remove dead ones of this host from the roster.

    If the roster cannot be read, they are found by their command lines: it must not stop serving.
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


def worker_commands(
    server: ServerSettings, run_dir: Path, state_dir: Path, fd: int
) -> dict[str, Launch]:
    """Return the launch of each gateway worker."""
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
    """Return control's launch; it ends with its parent, even if that dies during the imports."""
    line = kedge_command("--config", str(config), "control", "--parent", str(parent))
    return {"control": Launch(tuple(line))}


def host_launch(place: Workplace) -> HostLaunch:
    """Return a function that builds the launch of a release's model process."""
    online = place.online

    def build(state: State, release: int, path: Path) -> Launch:
        chosen = state.releases[release]
        command = tuple(
            process.command(
                socket=path,
                artifacts=place.state_dir / "artifacts",
                digest=chosen.model_digest,
                flavour=chosen.flavour,
                trusted=chosen.trusted,
                memory_mb=state.policy.memory_mb,
                code=chosen.code,
                generation=chosen.generation,
                online=online,
                fence=place.fence,
            )
        )
        return Launch(command, process.first_words(chosen.generation, online))

    return build
