"""Supervisor of the processes of one host: gateway workers, model processes, control.

The supervisor derives what should run and remembers nothing: workers from the settings, model
processes from the ledger's rows and wishes. It restarts a process that died, after growing waits if
it died at once. An orphan (its supervisor was killed, or executed itself again) continues serving
until the new workers are ready. It is then told to drain. Neither is an outage.

A fault costs only its step: each part of a step, and each child in it, runs in a net. Only `stop`
stops the children. If `run` ends in any other way, they continue serving.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import structlog

from kedge.core.errors import KedgeError, Refused, Stale, Unavailable
from kedge.core.release.needs import PRODUCTION_COPIES, needs
from kedge.core.stored.ledger import Book
from kedge.core.stored.notes import PinDrifts, build_note
from kedge.core.stored.roster import Member
from kedge.core.values import ActorKind, Placement, State
from kedge.engine.child import CAUSES, Child, Died, HostLaunch, Launch, Spare, WorkerHung, is_alive
from kedge.engine.loop import Net
from kedge.engine.memory_bounds import MemoryBounds
from kedge.engine.pins import Apart, KeptPins, Pin
from kedge.engine.relief import Predecessor, Process, Relief, process_of
from kedge.engine.serving.last_asked import path_of, read_last_asked
from kedge.engine.serving.pool import socket_of
from kedge.engine.stand_in import Endings
from kedge.engine.station import Station
from kedge.engine.submission import SILENT_S
from kedge.system.door import ModelDoor
from kedge.system.files import keep_folder
from kedge.system.machine import Machine

log = structlog.get_logger("kedge.supervisor")

STEADY_S = 10.0
STOP_S = 15.0
"""Time for a child to end after SIGTERM; workers have the time of their drain in addition."""
BEAT_S = 1.0
LINGER_S = 10.0
"""How long a model process stays after the last row that needed it: for in-flight requests of
workers that have not swapped yet."""

CONTROL = "control"
"""The child that judges, rolls back and sends alerts."""


class Restarting(Protocol):
    """Makes this process execute itself again on request."""

    @property
    def known(self) -> set[int]:
        """The children that it waits for itself."""

    def step(self, now: float) -> None:
        """Do what is due."""

    def stop(self) -> None:
        """End what is under way."""


@dataclass(frozen=True, slots=True)
class Launches:
    """How the processes of a host are started."""

    workers: Mapping[str, Launch]
    """By name; each inherits the listener."""
    listener_fd: int | None
    host: HostLaunch
    """For the process of a model."""
    others: Mapping[str, Launch]
    environment: Mapping[str, str]
    host_environment: Mapping[str, str]
    log_dir: Path
    stand_in: Launch | None = None


class Supervisor:
    """Runs the processes that should run on this host until it is stopped."""

    def __init__(
        self,
        station: Station,
        launches: Launches,
        *,
        run_dir: Path,
        machine: Machine,
        drain_s: float,
        close_door: Callable[[], None],
        relief: Relief,
        reap: Callable[[set[int]], list[int]],
    ) -> None:
        disk, clock, faults = station.disk, station.duty.clock, station.duty.faults
        self._member = station.member
        self._ledger = station.ledger
        self._stamp = station.stamp
        self._roster = station.roster
        self._disk = disk
        self._signal = station.signal
        self._clock = clock
        self._faults = faults
        self._net = Net(faults, clock)
        self._spare = Spare()
        self._run_dir = run_dir
        self._launches = launches
        self._memory = MemoryBounds(
            machine,
            len(launches.workers),
            run_dir=run_dir,
            faults=faults,
            net=self._net,
            move=self._move,
        )
        self._drain_s = drain_s
        self._close_door = close_door
        self._relief = relief
        self._reap_others = reap
        self.restart: Restarting | None = None
        self._book = Book(states=disk.remembered())
        self._pinned = KeptPins(disk, self._faults)
        self._seen: object = None
        self._contact = clock.monotonic() - SILENT_S
        self._beat_at = clock.monotonic() - BEAT_S
        self._stopping = False
        log_dir, listener = launches.log_dir, launches.listener_fd
        fds = () if listener is None else (listener,)
        started = partial(Child, environment=launches.environment)
        self.children = {
            name: started(name, launch, fds=own, log_path=log_dir / f"{name}.log")
            for lines, own in ((launches.workers, fds), (launches.others, ()))
            for name, launch in lines.items()
        }
        self.hosts: dict[tuple[str, int, int], Child] = {}
        self._wished: set[tuple[str, int, float]] = set()
        self._endings = Endings()
        self._stand_in: Child | None = None
        """Sends alerts while control keeps ending; wanted while `unneeded_at` is None."""
        if launches.stand_in is not None:
            self._stand_in = started(
                "stand-in", launches.stand_in, log_path=log_dir / "stand-in.log"
            )
            self._stand_in.unneeded_at = 0.0

    def stop(self) -> None:
        """Ask `run` to end."""
        self._stopping = True
        with suppress(OSError):  # it looks by itself soon
            self._signal.wake()

    def run(self) -> None:
        """Supervise until stopped, then stop everything in order: workers drain first."""
        while not self._stopping:
            self._step()
            self._wait()
        self._stop_all()
        self._signal.close()

    def _wait(self) -> None:
        pause = 0.05 if self._relief.predecessors or self._starting() else 0.2
        if not self._net.run("supervisor.wait", partial(self._signal.wait, pause)):
            self._clock.sleep(pause)

    def _starting(self) -> bool:
        now = self._clock.monotonic()
        return any(
            now - child.started_at < STEADY_S
            for child in (*self.children.values(), *self.hosts.values())
        )

    def _step(self) -> None:
        now = self._clock.monotonic()
        self._net.run("supervisor.run_dir", self._keep_run_dir)
        self._net.run("supervisor.read", self._read)
        self._net.run("supervisor.plan", partial(self._plan_hosts, now))
        for child in (*self.hosts.values(), *self.children.values()):
            self._net.run(f"supervisor.tend.{child.name}", partial(self._tend_due, child, now))
            self._net.run(f"supervisor.log.{child.name}", partial(self._tend_log, child))
            if child.door is not None:
                self._net.run(f"supervisor.door.{child.name}", child.door.tend)
        self._net.run("supervisor.stand_in", partial(self._tend_stand_in, now))
        self._net.run("supervisor.reap", self._reap)
        self._net.run("supervisor.pins", self._hand_in_pins)
        self._net.run("supervisor.relieve", partial(self._relief.step, now, ready=self._all_ready))
        if self.restart is not None:
            self._net.run("supervisor.restart", partial(self.restart.step, now))
        self._net.run("supervisor.beat", self._beat)

    def _keep_run_dir(self) -> None:
        """Make the run directory again if a cleanup job deleted it."""
        try:
            keep_folder(self._run_dir)
            self._faults.clear("supervisor.run_directory")
        except OSError as error:
            self._faults.note("supervisor.run_directory", error)

    def _read(self) -> None:
        before, self._seen = self._seen, None  # after any exception, the ledger counts as not read
        try:
            stamp = self._stamp()
            if stamp != before or self._clock.monotonic() - self._contact > BEAT_S:
                self._book = self._ledger.read()
        except Unavailable as error:
            self._faults.note("supervisor.ledger", error)
            return
        self._seen = stamp
        self._contact = self._clock.monotonic()
        self._faults.clear("supervisor.ledger")

    # ------------------------------------------------------------ model processes

    def _plan_hosts(self, now: float) -> None:
        """Derive which model processes should run; start new ones, let old ones linger."""
        self._renew()
        pins, apart = self._pinned.read()
        wished: set[tuple[str, int, int]] = set()
        unplanned: set[str] = set()
        for name, row in self._book.states.items():
            state = pins[name].state if name in pins else row
            if not self._net.run(
                f"supervisor.plan.{name}", partial(self._wish, state, apart, wished)
            ):
                unplanned.add(name)
        self._memory.limit([child for child in self.children.values() if child.fds])
        for key, child in list(self.hosts.items()):
            if key in wished or key[0] in unplanned:
                child.unneeded_at = None
            elif child.unneeded_at is None:
                child.unneeded_at = now
            elif now - child.unneeded_at > LINGER_S:
                # A model that hangs within predict does not react to the SIGTERM.
                late = now - child.unneeded_at > LINGER_S + STOP_S
                child.tell(signal.SIGKILL if late else signal.SIGTERM)
                if child.process is None or child.process.poll() is not None:
                    self._drop(key, child)

    def _wish(
        self,
        state: State,
        apart: Mapping[tuple[str, int], object],
        wished: set[tuple[str, int, int]],
    ) -> None:
        """Add the model processes that one endpoint needs."""
        unix, name = self._clock.unix(), state.endpoint
        wanted = tuple(
            (w.release, w.placement, w.copies)
            for w in self._book.wanted
            if w.endpoint == name and w.until > unix
        )
        self._memory.inline.pop(name, None)
        for need in needs(state, wanted, now=unix):
            moved = need.placement is Placement.INLINE and (name, need.release) in apart
            if moved or need.placement is Placement.PROCESS:
                for copy in range(PRODUCTION_COPIES if moved else need.copies):
                    wished.add((name, need.release, copy))
                    self._host(state, need.release, copy)
            else:
                self._memory.hold(name, need.release, state.policy.memory_mb)

    def _drop(self, key: tuple[str, int, int], child: Child) -> None:
        """Forget a model process that is gone and not needed, and its faults with it."""
        del self.hosts[key]
        child.log.close()
        if child.door is not None:
            child.door.close()
        for part in ("tend", "start", "log", "door", "child"):
            self._net.forget(f"supervisor.{part}.{child.name}")

    def _renew(self) -> None:
        """Start failed processes at once after a new wish: an operator may have fixed the cause."""
        wishes = {(w.endpoint, w.release, w.until) for w in self._book.wanted}
        for endpoint, release, _ in wishes - self._wished:
            for key, child in self.hosts.items():
                if key[:2] == (endpoint, release):
                    child.deaths = 0
                    self._net.forget(f"supervisor.start.{child.name}")
        self._wished = wishes

    def _host(self, state: State, release: int, copy: int) -> None:
        key = (state.endpoint, release, copy)
        if key not in self.hosts:
            socket = socket_of(self._run_dir, *key)
            child = Child(
                f"{state.endpoint}-r{release}-{copy}",
                self._launches.host(state, release, socket),
                environment=self._launches.host_environment,
                log_path=self._launches.log_dir / f"{state.endpoint}-r{release}.log",
            )
            child.door = ModelDoor(socket)
            child.memory_limit = self._memory.for_model(state.policy.memory_mb)
            self.hosts[key] = child

    def _tend_due(self, child: Child, now: float) -> None:
        """Tend a child, unless an earlier image's process of its kind must end first."""
        if child.fds or child.memory_limit is not None or not self._relief.others_alive(now):
            self._tend(child, now)

    def _tend(self, child: Child, now: float) -> None:
        """Start a child when it is due; note its death; end it when it holds too much memory."""
        process, place = child.process, f"supervisor.child.{child.name}"
        if process is not None and process.poll() is not None:
            steady = now - child.started_at > STEADY_S
            child.deaths = 1 if steady else child.deaths + 1
            child.process = None
            how = f"it ended with code {process.returncode}, {child.deaths} times in a row"
            if not child.fds and child.memory_limit is not None and process.returncode in CAUSES:
                how = f"{CAUSES[process.returncode]}; {how}"
            self._faults.note(place, Died(f"{how}; its log: {child.log.path}{child.last_line()}"))
            log.warning(
                "supervisor.died", child=child.name, code=process.returncode, deaths=child.deaths
            )
            if child.name == CONTROL:
                self._endings.note(now)
            if child.fds and process.returncode == -signal.SIGPROF:
                self._net.run(f"supervisor.move.{child.name}", partial(self._move_hung, child.name))
            self._forget(process.pid)
        elif process is not None and now - child.started_at > STEADY_S:
            self._faults.clear(place)
        self._memory.tend(child, now)
        if child.door is not None and child.door.is_crowded:
            log.warning("supervisor.too_many_files", child=child.name)
            child.tell(signal.SIGKILL)
        if child.unneeded_at is None and child.process is None and child.due(now):
            start = partial(child.start, now, self._spare)
            self._net.run(f"supervisor.start.{child.name}", start)

    def _tend_stand_in(self, now: float) -> None:
        """Run the stand-in while control keeps ending."""
        child, control = self._stand_in, self.children.get(CONTROL)
        if child is None or control is None:
            return
        alive = control.process is not None and control.process.poll() is None
        wanted = self._endings.calls_for_stand_in(now, control.started_at if alive else None)
        if wanted and child.unneeded_at is not None:
            log.error("supervisor.control_keeps_ending", log=str(control.log.path))
        child.unneeded_at = None if wanted else child.unneeded_at or now
        if wanted:
            self._tend(child, now)
        elif child.process is not None:
            child.tell(signal.SIGTERM)
            if child.process.poll() is not None:
                child.process, child.deaths = None, 0
                self._net.forget(f"supervisor.child.{child.name}")
        self._net.run(f"supervisor.log.{child.name}", partial(self._tend_log, child))

    def _tend_log(self, child: Child) -> None:
        """Keep the child's log bounded; raise the error that keeps its output from the log."""
        child.log.bound()
        if child.log_fault is not None:
            raise child.log_fault

    def _move_hung(self, worker: str) -> None:
        """Move the release that a hung worker was asking into a process on this host."""
        asked = read_last_asked(path_of(self._run_dir, worker))
        what = "no model was being asked" if asked is None else f"{asked[0]} r{asked[1]} was asked"
        log.error("worker.hung", worker=worker, told=what)
        self._faults.note(f"{worker}.loop", WorkerHung(f"its serving loop stood still: {what}"))
        self._faults.clear(f"{worker}.loop")  # the worker is gone; its count stays
        self._move(asked, code="hung", why=f"the serving loop of {worker} stood still in it")

    def _move(
        self, asked: tuple[str, int] | None, *, code: Literal["hung", "memory"], why: str
    ) -> None:
        """Move a release that a worker was asking into a process on this host."""
        if asked is None or asked[0] not in self._book.states:
            return
        endpoint, release = asked
        try:
            self._disk.set_apart(
                Apart(endpoint=endpoint, release=release, code=code, why=why, at=self._clock.now())
            )
        except OSError as error:
            self._faults.note("supervisor.set_apart", error)

    def _forget(self, pid: int) -> None:
        """Remove the row of a child that this supervisor saw die: a worker's, or control's."""
        try:
            for member in self._roster.members():
                if (member.host, member.pid) == (self._member.host, pid):
                    self._roster.leave(member.name)
        except KedgeError as error:
            self._faults.note("supervisor.roster", error)

    # ------------------------------------------------------------ pins, orphans, heartbeat

    def _hand_in_pins(self) -> None:
        """Submit host pins once the ledger is reachable, each with the epoch that it left."""
        if self._seen is None:
            return
        for endpoint, pin in self._disk.pins().items():
            row = self._book.states.get(endpoint)
            if row is not None and not pin.drift:
                self._net.run(f"supervisor.pin.{endpoint}", partial(self._hand_in, pin, row))

    def _hand_in(self, pin: Pin, row: State) -> None:
        endpoint = row.endpoint
        try:
            if row.epoch != pin.left:
                raise Stale(f"the row moved from epoch {pin.left} to {row.epoch} meanwhile")
            at = self._clock.now()
            self._ledger.append(
                endpoint,
                pin.events(row, at),
                expect=pin.left,
                by=pin.by,
                reason=f"pinned by hand at {pin.at}: {pin.reason}",
                at=at,
                actor=ActorKind.PERSON,
            )
            self._disk.unpin(endpoint)
            log.info("supervisor.pin_handed_in", endpoint=endpoint, epoch=pin.left)
        except Refused as error:
            self._disk.write(msgspec.structs.replace(pin, drift=str(error)))
            log.warning("supervisor.pin_drifts", endpoint=endpoint, fault=str(error))
            self._note_drift(endpoint, str(error))
        except Unavailable:
            return

    def _note_drift(self, endpoint: str, fault: str) -> None:
        try:
            self._ledger.note(
                endpoint,
                build_note(PinDrifts(host=self._member.host, why=fault)),
                by="supervisor",
                reason="",
                at=self._clock.now(),
            )
        except KedgeError as error:
            self._faults.note("supervisor.ledger", error)

    def _reap(self) -> None:
        """Wait for processes that an earlier image started, and orphans of the whole namespace."""
        mine = (*self.children.values(), *self.hosts.values(), *self._beside())
        known = {child.process.pid for child in mine if child.process is not None}
        for pid in self._reap_others(known | (self.restart.known if self.restart else set())):
            self._forget(pid)

    def _beside(self) -> tuple[Child, ...]:
        """Return the stand-in, if there is one."""
        return () if self._stand_in is None else (self._stand_in,)

    def _all_ready(self) -> bool:
        """Return whether each new worker is open, and serves what the relieved workers serve."""
        workers = [child for child in self.children.values() if child.fds]
        if not all((self._run_dir / f"{child.name}.handoff").exists() for child in workers):
            return False
        try:
            members = {m.pid: m for m in self._roster.members() if m.kind == "gateway"}
        except KedgeError as error:
            self._faults.note("supervisor.roster", error)
            return True  # a worker that is open has waited for its models
        old, due = self._relief.workers, set[str]()
        for pid, member in members.items():
            if pid in old:
                due.update(member.epochs, member.pinned)
        due &= {name for name, state in self._book.states.items() if state.production is not None}
        for child in workers:
            new = members.get(child.process.pid) if child.process is not None else None
            if new is None or due - {*new.epochs, *new.pinned}:
                return False
        return True

    def as_predecessor(self) -> Predecessor:
        """Return what this image has started, in the form that the next image reads."""

        def running(children: Iterable[Child]) -> tuple[Process, ...]:
            return tuple(process_of(c.process.pid) for c in children if c.process is not None)

        return Predecessor(
            folder=str(self._run_dir),
            workers=running(c for c in self.children.values() if c.fds),
            hosts=running(self.hosts.values()),
            others=running((*(c for c in self.children.values() if not c.fds), *self._beside())),
            served=not self._relief.waiting,
        )

    def _beat(self) -> None:
        now, unix = self._clock.monotonic(), self._clock.unix()
        if now - self._beat_at < BEAT_S:
            return
        self._beat_at = now
        self._roster.publish(
            msgspec.structs.replace(
                self._member,
                beat_at=unix,
                ledger_at=unix - (now - self._contact),
                faults=self._faults.faults,
                limited=self._faults.limited,
            )
        )
        for member in self._roster.members():
            if self._died(member, self._clock.unix()):
                self._roster.leave(member.name)
        self._faults.clear("supervisor.roster")

    def _died(self, member: Member, now: float) -> bool:
        """Return whether a worker died unseen: while the ledger or the supervisor was away.

        Otherwise every rollback would wait for it. If two containers have one name, the workers of
        the other have no process here; but they still report.
        """
        if (member.kind, member.host) != ("gateway", self._member.host):
            return False
        return now - member.beat_at > SILENT_S and not is_alive(member.pid)

    # ------------------------------------------------------------ stopping

    def _stop_all(self) -> None:
        """Stop everything, workers first, so that their models outlive their last request."""
        if self.restart is not None:
            self._net.run("supervisor.stop.restart", self.restart.stop)
        beside = [*self.children.values(), *self._beside()]
        self._stop_kind("workers", beside, STOP_S + self._drain_s)
        self._stop_kind("hosts", list(self.hosts.values()), STOP_S)
        for child in self.hosts.values():
            if child.door is not None:
                self._net.run("supervisor.stop.door", child.door.close)
        self._net.run("supervisor.stop.relief", self._relief.clear)
        self._net.run("supervisor.leave", partial(self._roster.leave, self._member.name))

    def _stop_kind(
        self, kind: Literal["workers", "hosts"], children: list[Child], within_s: float
    ) -> None:
        """Stop one kind of children, including those of earlier images."""
        began, place = self._clock.monotonic(), f"supervisor.stop.{kind}"
        self._net.run(f"{place}.ask", partial(self._relief.stop, kind))
        self._stop_some(children, within_s)
        wait = partial(self._relief.wait, kind, self._clock, began + within_s)
        self._net.run(f"{place}.wait", wait)

    def _stop_some(self, children: list[Child], within_s: float) -> None:
        for child in children:
            with suppress(OSError):
                child.tell(signal.SIGTERM)
        # The workers answer the callers that wait in the socket. If it stayed open here, more would
        # arrive and be cut off at the end.
        with suppress(OSError):
            self._close_door()
        deadline = self._clock.monotonic() + within_s
        for child in children:
            with suppress(OSError, subprocess.TimeoutExpired):
                self._stop_one(child, max(0.1, deadline - self._clock.monotonic()))

    @staticmethod
    def _stop_one(child: Child, patience_s: float) -> None:
        if child.process is None:
            return
        try:
            child.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            log.warning("supervisor.killed", child=child.name)
            child.tell(signal.SIGKILL)
            child.process.wait(5)
