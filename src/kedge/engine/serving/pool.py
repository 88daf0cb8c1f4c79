"""Pool of warm releases: loads what this replica needs ahead of time, and drops it afterwards.

A release is held *inline* (the model object) or in a *process* (a connection to the host's model
process, which the supervisor runs). Inline loads run on a separate thread. The serving loop never
waits for a load, and a flip only selects among ready releases. A release that is no longer needed
stays for a grace period. So a request that is under way keeps the model that it was given.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Collection, Mapping
from functools import partial
from math import inf
from pathlib import Path
from queue import SimpleQueue

import msgspec

from kedge.columns import check_proof
from kedge.core.errors import KedgeError
from kedge.core.evidence.windows import CALLERS, INSTANT_S
from kedge.core.release.needs import PRODUCTION_COPIES, NeededRelease
from kedge.core.stored.roster import ReplicaHold
from kedge.core.values import Placement, Release, State
from kedge.engine.loop import Duty, Net
from kedge.engine.serving.absence import Absence
from kedge.inspection import RULE, plainness
from kedge.ports import Artifacts, Loader, Model, RemoteModel
from kedge.system.interpreter import find_forbidden

GRACE_S = 5.0
"""How long a release stays loaded after the last row that needed it."""
RETRY_S = (5.0, 10.0, 30.0, 60.0)
"""Waits before a failed load is tried again: an operator may restore a damaged artifact
meanwhile."""

LARGEST_S = 60.0
"""How long a large request is remembered: twice the longest that production may take for one."""

Key = tuple[str, int, Placement]
Connect = Callable[[Path, Release, int], RemoteModel]


class Silence:
    """The time for which a process has sent nothing although it was asked."""

    __slots__ = ("_asked", "_seconds", "_since")

    def __init__(self) -> None:
        self._since: float | None = None
        self._asked = 0
        self._seconds: tuple[int, ...] = ()

    def asked(self, now: float) -> None:
        """Note a request that is sent, or would be sent if a process were there."""
        if self._since is None:
            self._since = now
        self._asked += 1
        if len(self._seconds) < CALLERS and int(now) not in self._seconds:
            self._seconds = (*self._seconds, int(now))

    def heard(self) -> None:
        """Note that the process answered something: it is alive."""
        if self._since is not None:
            self._since, self._asked, self._seconds = None, 0, ()

    def overdue(self, now: float, deadline_s: float) -> bool:
        """Return whether several requests wait, and the first for longer than its deadline."""
        return (
            self._since is not None
            and self._asked >= Breaker.OVERDUE
            and now - self._since > deadline_s
        )

    def lasts_s(self, now: float) -> float:
        """Return how long the silence has lasted; 0 unless it was asked in several seconds."""
        if self._since is None or len(self._seconds) < CALLERS:
            return 0.0
        return now - self._since


class Breaker:
    """Withholds requests from a candidate that keeps failing or is silent, and tries it again.

    The waits between two trials grow.
    """

    FAILURES = 20
    """Failures in a row that open the breaker, as many as end a rollout; those of one instant count
    once. A smaller number would withhold requests from one of two identical releases that fail a
    third of their requests."""
    OVERDUE = 5
    """Requests that wait for a silent process before the breaker opens and callers stop waiting."""
    FIRST_S, LONGEST_S = 1.0, 30.0

    def __init__(self) -> None:
        self.silence = Silence()
        self._failures = 0
        self._failed_at = -inf
        self._wait_s = self.FIRST_S
        self._until: float | None = None
        self._trying = False
        self._silent = False
        """Whether the breaker opened because of silence."""

    def allows(self, now: float, deadline_s: float = inf) -> bool:
        """Return whether a request may go to the candidate; an open breaker allows one trial."""
        if self._until is None:
            if not self.silence.overdue(now, deadline_s):
                return True
            self._silent, self._until = True, now + self._wait_s
        if now < self._until:
            return False
        self._trying = True
        if self._silent:  # no event reports a failed trial: the next trial is the sign
            self._wait_s = min(self._wait_s * 2, self.LONGEST_S)
        self._until = now + self._wait_s
        return True

    @property
    def open(self) -> bool:
        """Whether the breaker withholds requests now."""
        return self._until is not None

    def heard(self) -> None:
        """Note a sign of life; a breaker that opened because of silence closes."""
        self.silence.heard()
        if self._silent:
            self._close()

    def succeeded(self) -> None:
        """Note that the candidate answered."""
        self.heard()
        if self._failures:
            self._close()

    def _close(self) -> None:
        self._failures, self._wait_s = 0, self.FIRST_S
        self._until, self._trying, self._silent = None, False, False

    def failed(self, now: float) -> None:
        """Note that the candidate failed or died.

        A request that fails while the breaker is open, and was not its trial, began before it
        opened.
        """
        if self._until is None:
            if now - self._failed_at < INSTANT_S:
                return
            self._failures, self._failed_at = self._failures + 1, now
            if self._failures >= self.FAILURES:
                self._until = now + self._wait_s
        elif self._trying:
            self._trying = False
            self._wait_s = min(self._wait_s * 2, self.LONGEST_S)
            self._until = now + self._wait_s


class Handle:
    """One release that is ready to answer on this replica."""

    __slots__ = (
        "absence",
        "breaker",
        "inline",
        "lane",
        "largest",
        "mark",
        "met",
        "release",
        "remotes",
        "told",
    )

    def __init__(
        self, release: Release, inline: Model | None = None, remotes: tuple[RemoteModel, ...] = ()
    ) -> None:
        self.release = release
        self.inline = inline
        self.remotes = remotes
        self.absence = Absence()
        self.breaker = Breaker()
        self.lane = asyncio.Lock()
        """Serialises requests of testers and probes to a candidate, so that they do not fill the
        process that answers callers."""
        self.largest = (0, 0.0)
        """The most rows of one recent request, and its time: a process is silent while it works on
        it."""
        self.met = False
        """Whether its process was ever there: a process that has not started yet is no failure."""
        self.told: dict[str, int] = {}
        self.mark = 0
        """Its mark in the note of the last asked release; 0 without one."""

    def asks(self, rows: int, now: float) -> None:
        """Note a request that goes to its process."""
        if rows >= self.largest[0] or now - self.largest[1] > LARGEST_S:
            self.largest = rows, now

    def before(self, now: float) -> int:
        """Return how many rows may be ahead of a request in its process, which answers by batch."""
        return self.largest[0] if now - self.largest[1] <= LARGEST_S else 0

    def violations(self) -> dict[str, int]:
        """Return how many values its transformation gave out of range or unseen since last time."""
        total: dict[str, int] = {}
        for remote in self.remotes:
            for name, count in list(remote.violations.items()):
                total[name] = total.get(name, 0) + count
        found = {name: count - self.told.get(name, 0) for name, count in total.items()}
        self.told = total
        return {name: count for name, count in found.items() if count > 0}


class _Slot:
    def __init__(self, release: Release, *, moved: bool = False) -> None:
        self.release = release
        self.moved = moved
        """Whether it was made to run inline, and runs in a process on this host."""
        self.state = "loading"
        self.detail = ""
        self.load_s = release.load_s
        self.handle: Handle | None = None
        self.unneeded_at: float | None = None
        self.attempts = 0
        self.retry_at: float | None = None
        self.unfenced: tuple[str, ...] = ()
        """Parts of the fence that are missing in its processes."""
        self.copies = 0
        """Number of its processes that answer."""
        self.wanted = 0
        """Number of its processes that are wanted; 0 inline."""
        self.spare_at: float | None = None
        """Since when it has more connections than wanted; None: it has not."""

    @property
    def waits(self) -> bool:
        """Whether a part of it is still loading and has not failed."""
        return self.state == "loading" or (
            self.state == "ready" and self.copies < self.wanted and not self.detail
        )


class NotPlain(Exception):
    """A release was made to run inline, and is not proven plain: it runs in a process."""


class HostStatus(msgspec.Struct):
    """The status that a model process writes to a file beside its socket."""

    state: str = "loading"
    detail: str = ""
    load_s: float = 0.0
    pid: int = 0
    unfenced: tuple[str, ...] = ()
    """Parts of the fence that are missing."""


def socket_of(run_dir: Path, endpoint: str, release: int, copy: int) -> Path:
    """Return the path of the socket of a release's model process."""
    return run_dir / f"{endpoint}-r{release}-{copy}.sock"


def host_status(socket: Path) -> HostStatus:
    """Read the status of a model process; "loading" if it has written none.

    Raises:
        OSError: it cannot be read.
    """
    try:
        return msgspec.json.decode(
            socket.with_name(socket.name + ".json").read_bytes(), type=HostStatus
        )
    except (FileNotFoundError, msgspec.DecodeError):
        return HostStatus()


class Pool:
    """The releases that this replica holds. `keep` and `holds` belong to the replica's thread."""

    def __init__(
        self,
        duty: Duty,
        *,
        loaders: Mapping[str, Loader],
        artifacts: Artifacts,
        connect: Connect,
        run_dir: Path,
        changed: Callable[[], None],
        apart: Callable[[], Collection[tuple[str, int]]] = tuple,
        set_apart: Callable[[Release, str], None] = lambda *_: None,
    ) -> None:
        """Start with nothing held.

        Args:
            duty: of the worker.
            loaders: by flavour.
            artifacts: where the models are stored.
            connect: connects to a model process.
            run_dir: the directory of the sockets of model processes.
            changed: called when a load ended.
            apart: releases that run in a process on this host, whatever they were made for.
            set_apart: adds one to them, with the reason.
        """
        self._loaders = loaders
        self._artifacts = artifacts
        self._connect = connect
        self._run_dir = run_dir
        self._clock = duty.clock
        self._changed = changed
        self._faults = duty.faults
        self._net = Net(duty.faults, duty.clock)
        self._apart = apart
        self._set_apart = set_apart
        self._moved: Collection[tuple[str, int]] = ()
        self._slots: dict[Key, _Slot] = {}
        self._wished: frozenset[tuple[Key, float]] = frozenset()
        self.loads: dict[str, int] = {}
        """How often each model was loaded inline since this process began, by digest."""
        self._queue: SimpleQueue[tuple[Key, _Slot] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._load_all, name="kedge-loader", daemon=True)
        self._thread.start()

    def keep(
        self,
        states: Mapping[str, State],
        needs: Mapping[str, tuple[NeededRelease, ...]],
        wished: frozenset[tuple[Key, float]] = frozenset(),
    ) -> None:
        """Start loading what is needed and missing; drop what was not needed for a while.

        `wished` is what commands ask for, each with the time of its wish. A new wish tries a failed
        load again at once, since an operator may have fixed its cause.
        """
        now = self._clock.monotonic()
        self._net.run("replica.apart", self._read_apart)
        for key, _ in wished - self._wished:
            slot = self._slots.get(key)
            if slot is not None and slot.retry_at is not None:
                slot.retry_at = now
        self._wished = wished
        needed: set[Key] = set()
        for endpoint, wishes in needs.items():
            for need in wishes:
                key = (endpoint, need.release, need.placement)
                needed.add(key)
                ensure = partial(self._ensure, key, states[endpoint], now, need.copies)
                self._net.run(f"replica.hold.{endpoint}", ensure)
        for key, slot in list(self._slots.items()):
            if key in needed:
                slot.unneeded_at = None
            elif slot.unneeded_at is None:
                slot.unneeded_at = now
            elif now - slot.unneeded_at > GRACE_S:
                del self._slots[key]
                self._close(slot)

    def _read_apart(self) -> None:
        self._moved = self._apart()

    def _ensure(self, key: Key, state: State, now: float, copies: int) -> None:
        _, number, placement = key
        slot = self._slots.get(key)
        release = state.releases[number]
        moved = placement is Placement.INLINE and key[:2] in self._moved
        if slot is None or slot.release.digest != release.digest or slot.moved != moved:
            held, slot = slot, _Slot(release, moved=moved)
            if moved and held is not None:
                slot.handle = held.handle  # it continues answering until its process does
            self._slots[key] = slot
            if placement is Placement.INLINE and not moved:
                self._queue.put((key, slot))
        elif slot.retry_at is not None and now >= slot.retry_at:
            slot.retry_at = None
            self._queue.put((key, slot))
        if moved:
            copies = PRODUCTION_COPIES
        if moved or placement is Placement.PROCESS:
            self._attach(slot, state, copies)
            self._detach(slot, copies, now)

    def _attach(self, slot: _Slot, state: State, wanted: int) -> None:
        """Connect to the host's processes; a production release has two."""
        endpoint, number = state.endpoint, slot.release.number
        bound = state.policy.limits.shadow_in_flight
        have = slot.handle.remotes if slot.handle is not None else ()
        remotes = list(have)
        for copy in range(len(have), wanted):
            socket = socket_of(self._run_dir, endpoint, number, copy)
            if socket.exists():
                remotes.append(self._connect(socket, slot.release, bound))
            else:
                break
        if len(remotes) > len(have):
            if slot.handle is None:
                slot.handle = Handle(slot.release)
            slot.handle.remotes = tuple(remotes)
        there = [remote.ready for remote in remotes[:wanted]]
        if sum(there) != slot.copies:
            paths = [
                socket_of(self._run_dir, endpoint, number, n) for n, t in enumerate(there) if t
            ]
            lacking = {part for path in paths for part in host_status(path).unfenced}
            slot.unfenced = tuple(sorted(lacking))
        slot.copies, slot.wanted = sum(there), wanted
        if slot.copies:
            if slot.handle is not None and slot.handle.inline is not None:
                slot.handle = Handle(slot.release, remotes=tuple(remotes))
            slot.state, slot.detail = "ready", ""
            if slot.handle is not None:
                slot.handle.met = True
            missing = [n for n in range(wanted) if n >= len(there) or not there[n]]
        else:
            missing = [0]
        for copy in missing:
            status = host_status(socket_of(self._run_dir, endpoint, number, copy))
            if not slot.copies:
                slot.state = "failed" if status.state == "failed" else "loading"
                slot.detail, slot.attempts = status.detail, status.pid
            elif status.state == "failed":  # the others answer; it reports the fault of this one
                slot.detail, slot.attempts = status.detail, status.pid

    @staticmethod
    def _detach(slot: _Slot, wanted: int, now: float) -> None:
        """Disconnect from processes no longer wanted: after a wish, production's second one."""
        handle = slot.handle
        if handle is None or len(handle.remotes) <= wanted:
            slot.spare_at = None
        elif slot.spare_at is None:
            slot.spare_at = now
        elif now - slot.spare_at > GRACE_S:
            spare, handle.remotes = handle.remotes[wanted:], handle.remotes[:wanted]
            for remote in spare:
                remote.hang_up()

    def handle(self, endpoint: str, release: int, placement: Placement) -> Handle | None:
        """Return a release that is ready, or None."""
        slot = self._slots.get((endpoint, release, placement))
        return slot.handle if slot is not None and slot.handle is not None else None

    def holds(self) -> tuple[ReplicaHold, ...]:
        """Return each held release with its state, for the roster."""
        return tuple(
            ReplicaHold(
                endpoint=endpoint,
                release=number,
                placement=placement,
                state=slot.state,
                load_s=slot.load_s,
                detail=slot.detail,
                attempt=slot.attempts,
                copies=slot.copies,
                unfenced=slot.unfenced,
            )
            for (endpoint, number, placement), slot in sorted(self._slots.items())
        )

    @property
    def settled(self) -> bool:
        """Return whether nothing is being loaded or waited for."""
        return not any(slot.waits for slot in self._slots.values())

    def close(self) -> None:
        """Stop loading, and disconnect."""
        self._queue.put(None)
        for slot in self._slots.values():
            self._close(slot)

    def _close(self, slot: _Slot) -> None:
        for remote in slot.handle.remotes if slot.handle is not None else ():
            remote.hang_up()

    def _load_all(self) -> None:
        while (job := self._queue.get()) is not None:
            if self._faults.attempt("replica.loader", partial(self._load_next, job[1])):
                self._faults.clear("replica.loader")

    def _load_next(self, slot: _Slot) -> None:
        if slot.unneeded_at is None:
            self._load(slot)
            self._changed()
        else:
            slot.retry_at = 0.0  # nothing needs it now; the next need tries at once

    def _model(self, loader: Loader, release: Release) -> Model:
        """Return the model: the one that is held already, or a newly loaded one.

        Raises:
            NotPlain: it must not run here.
        """
        trusted = self._may_be_inline(release)
        for slot in list(self._slots.values()):
            held = slot.handle.inline if slot.handle is not None else None
            if held is not None and slot.release.model_digest == release.model_digest:
                return held
        model = loader.load(self._artifacts.verify(release.model_digest), release.trusted)
        found = plainness(model)
        if not trusted and not found.proven:
            raise NotPlain(found.why)
        self._prove(model, release.model_digest)
        loaded = self.loads.get(release.model_digest, 0)
        self.loads = {**self.loads, release.model_digest: loaded + 1}  # another thread reads it
        return model

    def _may_be_inline(self, release: Release) -> bool:
        """Return whether an operator allows a release to run inline without a proof.

        Raises:
            NotPlain: a transformation runs before it, or it needs modules that no worker imports,
                whatever an operator allows. Also if no operator allows it and the release is
                already known not to be plain.
        """
        if release.code is not None:
            raise NotPlain("a transformation runs before it")
        proof = self._artifacts.proof(release.model_digest)
        if proof.plain is not None and proof.plain.apart:
            raise NotPlain(proof.plain.why)
        if proof.inline:
            return True
        if proof.plain is not None and proof.plain.rule == RULE and not proof.plain.proven:
            raise NotPlain(proof.plain.why)
        return False

    def _prove(self, model: Model, digest: str) -> None:
        raised: list[BaseException] = []
        fault = check_proof(model, self._artifacts.proof(digest), raised.append)
        if fault is not None:
            raise KedgeError(f"golden rows: {fault}") from (raised[0] if raised else None)

    def _load(self, slot: _Slot) -> None:
        """Load, verify and prove one release inline. Never raises: a failure is a state."""
        started = self._clock.monotonic()
        slot.attempts += 1
        try:
            model = self._loaded(slot)
        # A loader may raise anything, and may even exit.
        except BaseException as error:  # noqa: BLE001
            slot.detail = f"{type(error).__name__}: {error}"
            slot.state = "failed"
            wait_s = RETRY_S[min(slot.attempts, len(RETRY_S)) - 1]
            slot.retry_at = self._clock.monotonic() + wait_s
            return
        if model is None:
            return
        # A model that was loaded already does not show how long a cold load takes.
        slot.load_s = max(self._clock.monotonic() - started, slot.release.load_s)
        slot.handle = Handle(slot.release, inline=model)
        slot.detail = ""
        slot.state = "ready"

    def _loaded(self, slot: _Slot) -> Model | None:
        """Return the model; None if it is not plain, and runs in a process from now on."""
        try:
            loader = self._loaders.get(slot.release.flavour)
            if loader is None:
                raise KedgeError(f"no loader for flavour {slot.release.flavour} is installed")
            return self._model(loader, slot.release)
        except Exception as error:
            why = _why_apart(error)
            if not why:
                raise
            slot.detail = why
            self._set_apart(slot.release, why)
            return None


def _why_apart(error: Exception) -> str:
    """Return why a release that could not be loaded here runs in a process; empty if it failed."""
    if isinstance(error, NotPlain):
        return str(error)
    module = find_forbidden(error)
    return f"it needs {module}, which is imported in model processes only" if module else ""
