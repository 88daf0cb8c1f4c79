"""Follower of the ledger: follow, prepare, swap, acknowledge; one thread beside the serving loop.

Theory of operation
-------------------
* The follower follows the ledger's row and nothing else. A wake-up may come without a change, or
  early (SQLite writes its log before the commit is visible; the writer touches the file once
  more after it). It may also not come at all (polling then finds the change).
* Only the newest row is served: epochs in between are skipped, never replayed.
* A row is swapped in when the releases that it needs to *serve* are ready. Two-phase commands
  ensure this before they flip. If they are not ready (a cold rollback), the old snapshot still
  serves and the ack waits. So no swap makes a request wait for a load.
* One writer writes the ack after the swap, as a whole.
* Without contact for `LEASE_S` the candidate's share is dropped. A gateway that cannot learn that a
  candidate was rolled back must not continue to serve it.
* A failure in a step never ends the thread. It changes a visible state (the roster shows the
  age of the last contact, the log the fault), and the next step tries again.
* Nothing slow runs here: the recording's thread counts and writes the evidence.
* Deliberately absent: any knowledge of commands, and any communication with another replica.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from kedge.core.errors import KedgeError, Unavailable
from kedge.core.release.needs import NeededRelease, needs
from kedge.core.routing import Plan, Reason, compile_plan
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import Book, Wanted
from kedge.core.stored.roster import ProcessFault
from kedge.core.values import Placement, Stage, State
from kedge.engine.loop import Loop
from kedge.engine.pins import Pin
from kedge.engine.replica.writer import Recording
from kedge.engine.serving.live import Live
from kedge.engine.serving.pool import Handle, Pool
from kedge.engine.serving.serving import Serving
from kedge.engine.station import Station
from kedge.ports import CallerContract

LEASE_S = 30.0
"""How long a gateway continues a candidate's share without contact with the ledger."""
BEAT_S = 1.0
SAID_AT_ONCE = ("epochs", "answered", "pinned", "holds", "lease", "unwritten", "astray", "loads")
"""Fields of the roster whose changes are published at once. Counts change all the time: they are
published with the next beat."""
PENDING_S = 0.02
"""Polling interval while a model is being loaded."""
REMEMBER_S = 0.05
"""Delay from a swap to its write to disk, however often the thread is woken. Other replicas have
swapped by then (all of a host take some 25 ms), and `rollback --local` reads what is stored
there."""
ASTRAY = "replica.ledger_history"
"""Place of the fault that the ledger is not the one that was followed before."""
NO_EPOCH = -1
"""Epoch that a replica publishes for a ledger which it does not follow."""
PAUSE_S = 0.1
"""Pause after a fault of the whole step."""
LAST_WORDS_S = 3.0
"""Time for the recording to write what is left when this process ends."""

log = structlog.get_logger("kedge.replica")


class Replica:
    """The follower of one worker. `run` is the thread; everything else is private to it."""

    def __init__(
        self,
        station: Station,
        *,
        slot: str,
        recording: Recording,
        pool: Pool,
        serving: Serving,
        contract: Callable[[State], CallerContract],
        lease_s: float = LEASE_S,
    ) -> None:
        duty, disk = station.duty, station.disk
        self._member = member = station.member
        self._slot = slot
        self._ledger = station.ledger
        self._stamp = station.stamp
        self._roster = station.roster
        self._recording = recording
        self._disk = disk
        self._pool = pool
        self._serving = serving
        self._signal = station.signal
        self._contract = contract
        self._clock = clock = duty.clock
        self._faults = duty.faults
        self._loop = Loop(duty, "replica.step", self._turn, every_s=PAUSE_S, last=self._end)
        self._net = self._loop.net
        self._wishes: dict[str, tuple[NeededRelease, ...]] = {}
        self._lease_s = lease_s
        for name in disk.set_aside_unreadable(slot):
            log.warning("replica.state_unreadable", kept=name, replica=member.name)
        self._book = Book(states=disk.remembered())
        self._head = max(disk.heads().values(), key=lambda head: head.seq, default=None)
        self._kept_head: Head | None = None
        self._astray = ""
        self._pins: dict[str, Pin] = {}
        self._seen: object = None
        self._contact = clock.monotonic() - 2 * lease_s
        self._fault = ""
        self._unremembered: list[Live] = []
        self._remember_at = 0.0
        self._published, self._published_at = member, clock.monotonic() - BEAT_S
        self._due = 0.0
        self.started = threading.Event()
        """Set once every endpoint that can be served from what is known is served."""
        self.missing: dict[str, bool] = {}
        """Endpoints that should be served and are not yet, each with whether its load has
        failed."""

    def stop(self) -> None:
        """End the thread after its current step."""
        self._loop.stop()
        self._signal.wake()

    def run(self) -> None:
        """Follow the ledger until stopped."""
        self._loop.run()

    def _end(self) -> None:
        for part in (self._remember, self._last_words, self._signal.close):
            self._faults.attempt("replica.stop", part)

    def _turn(self) -> bool:
        """Wait for work and do it; return True, since the next turn waits itself."""
        self._net.run("replica.recording", self._recording.start)
        woken = self._signal.wait(PENDING_S if self._pending() else BEAT_S / 4)
        if self._to_remember() and self._clock.monotonic() >= self._remember_at:
            self._net.run("replica.remember", self._remember)
        # Every reader of the ledger wakes this thread too, perhaps all the time.
        due = not woken or self._clock.monotonic() >= self._due
        if self._read() or due or self._unsaid():
            self._step()
        if due:
            self._due = self._clock.monotonic() + BEAT_S / 4
        return True

    def _pending(self) -> bool:
        """Return whether something without a signal is under way: a load, or a file to write."""
        return self._to_remember() or not self._pool.settled

    def _to_remember(self) -> bool:
        return bool(self._unremembered) or self._kept_head != self._head

    def _unsaid(self) -> bool:
        """Return whether the roster lacks the end of a load or the first answer of an epoch."""
        return self._pool.holds() != self._member.holds or any(
            live.answered and self._member.answered.get(live.state.endpoint, -1) < live.state.epoch
            for live in self._serving.lives()
        )

    def _read(self) -> bool:
        """Read the ledger if it has changed; return whether there is something new to act on."""
        before = self._pins
        self._net.run("replica.pins", self._read_pins)
        moved = before != self._pins
        try:
            stamp = self._stamp()
            if stamp != self._seen:
                moved = self._follow(self._ledger.read(self._head)) or moved
                self._seen = stamp
            if not self._astray:
                self._contact = self._clock.monotonic()
            self._note_fault("")
            self._faults.clear("replica.ledger")
        except Unavailable as error:
            self._seen = None
            self._note_fault(f"{error.code}: {error}")
            self._faults.note("replica.ledger", error)
        return moved

    def _follow(self, book: Book) -> bool:
        """Follow the rows that were read, unless their history is not the one followed before.

        A ledger without the newest entry that was seen was replaced by an older copy, or rewritten.
        Until an operator accepts it, it counts as lost: what is served stays, and a candidate's
        share ends.
        """
        if not book.follows:
            assert self._head is not None
            if not self._astray:
                self._remember_at = self._clock.monotonic()
            self._astray = (
                f"the ledger's history is missing entry {self._head.short}, which was its newest:"
                " an older copy was put in its place, or it was rewritten"
            )
            self._faults.note(ASTRAY, RuntimeError(self._astray))
            return True
        self._astray = ""
        self._faults.clear(ASTRAY)
        self._book = book
        if book.head is not None and book.head != self._head:
            if not self._to_remember():
                self._remember_at = self._clock.monotonic() + REMEMBER_S
            self._head = book.head
        return True

    def _read_pins(self) -> None:
        self._pins = self._disk.pins()

    def _note_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            if fault:
                log.warning("replica.ledger_lost", fault=fault, replica=self._member.name)
            else:
                log.info("replica.ledger_back", replica=self._member.name)

    def _step(self) -> None:
        """Keep what is needed, serve what can be served, publish it."""
        now = self._clock.unix()
        states = {
            name: self._pins[name].state if name in self._pins else state
            for name, state in self._book.states.items()
        }
        wanted = [w for w in self._book.wanted if w.until > now]
        self._wishes = {name: wish for name, wish in self._wishes.items() if name in states}
        for state in states.values():
            place = f"replica.needs.{state.endpoint}"
            self._net.run(place, partial(self._wish, state, wanted, now))
        lease = self._clock.monotonic() - self._contact <= self._lease_s
        self._serve_all(states, lease=lease)
        self._pool.keep(
            states,
            self._wishes,
            frozenset(((w.endpoint, w.release, w.placement), w.until) for w in wanted),
        )
        self._serve_all(states, lease=lease)
        self._publish(states, lease)
        if not self.started.is_set():
            self.missing = self._missing(states)
            if not self.missing:
                self.started.set()

    def _wish(self, state: State, wanted: list[Wanted], now: float) -> None:
        """Derive what one endpoint needs; on a fault, what it needed before stays."""
        mine = tuple(
            (w.release, w.placement, w.copies) for w in wanted if w.endpoint == state.endpoint
        )
        self._wishes[state.endpoint] = needs(state, mine, now=now)

    def _serve_all(self, states: dict[str, State], *, lease: bool) -> None:
        for name, state in states.items():
            wishes, pinned = self._wishes.get(name, ()), name in self._pins
            serve = partial(self._serve, state, wishes, lease=lease, pinned=pinned)
            self._net.run(f"replica.serve.{name}", serve)

    def _missing(self, states: dict[str, State]) -> dict[str, bool]:
        failed = {(h.endpoint, h.release) for h in self._pool.holds() if h.state == "failed"}
        return {
            name: (name, state.production) in failed
            for name, state in states.items()
            if state.production is not None and self._serving.live(name) is None
        }

    def _serve(
        self, state: State, wishes: tuple[NeededRelease, ...], *, lease: bool, pinned: bool
    ) -> None:
        """Swap the row in if it is not served yet and what it needs is ready."""
        if state.production is None:
            return
        live = self._serving.live(state.endpoint)
        handles = self._handles(state, wishes)
        current = (state.epoch, lease, pinned)
        if live is not None and current == (live.state.epoch, live.lease, live.pinned):
            if live.handles != handles and state.production in handles:
                live.handles = handles
            return
        if state.production not in handles:
            return
        plan = compile_plan(state, lease=lease)
        if pinned:
            plan = _pinned(plan)
        # The contract is compiled only when it changed: most epochs have the same one.
        same = live is not None and live.state.fields == state.fields
        contract = live.contract if same and live is not None else self._contract(state)
        fresh = Live(
            state=state,
            plan=plan,
            handles=handles,
            contract=contract,
            recorder=self._recording.recorder(state, self._name(state)),
            lease=lease,
            pinned=pinned,
            first_answer=self._signal.wake,
        )
        fresh.refresh_deadline()
        self._serving.swap(fresh)
        if live is None or live.state.epoch != state.epoch:
            log.info(
                "replica.swapped",
                endpoint=state.endpoint,
                epoch=state.epoch,
                production=state.production,
                candidate=state.candidate,
            )

    def _handles(self, state: State, wishes: tuple[NeededRelease, ...]) -> dict[int, Handle]:
        """Return ready releases: production placed as released, a candidate in a process."""
        found: dict[int, Handle] = {}
        beside = state.compared
        for need in wishes:
            own = state.releases[need.release].placement
            at = Placement.PROCESS if need.release == beside else own
            handle = self._pool.handle(state.endpoint, need.release, at) or (
                self._pool.handle(state.endpoint, need.release, own)
            )
            if handle is not None and (
                handle.inline is not None
                or any(remote.ready for remote in handle.remotes)
                or need.release == beside
            ):
                found[need.release] = handle
        return found

    def _name(self, state: State) -> str:
        """Return the name under which this process counts a comparison that starts now."""
        return f"{self._member.name}@{self._member.started_at}/{state.epoch}"

    def _publish(self, states: dict[str, State], lease: bool) -> None:
        """Publish what is served: at once if it changed, else once a second."""
        now = self._clock.monotonic()
        lives = self._serving.lives()
        answered = {
            live.state.endpoint: (
                live.state.epoch
                if live.answered
                else self._member.answered.get(live.state.endpoint, -1)
            )
            for live in lives
        }
        said = msgspec.structs.replace(
            self._member,
            # An epoch of another history acknowledges nothing of this one.
            epochs={
                live.state.endpoint: NO_EPOCH if self._astray else live.state.epoch
                for live in lives
                if not live.pinned
            }
            | {
                n: s.epoch
                for n, s in states.items()
                if s.stage is Stage.EMPTY and n not in self._pins
            },
            answered=answered,
            pinned={
                live.state.endpoint: live.state.production
                for live in lives
                if live.pinned and live.state.production is not None
            },
            holds=self._pool.holds(),
            lease=lease,
            unwritten=self._recording.fault(),
            head=self._head,
            astray=self._astray,
            faults=self._faults.faults,
            limited=self._faults.limited,
            loads=self._pool.loads,
        )
        changed = any(
            getattr(self._published, name) != getattr(said, name) for name in SAID_AT_ONCE
        ) or _standing(said.faults) != _standing(self._published.faults)
        if not changed and now - self._published_at < BEAT_S:
            return
        swapped = (said.epochs, said.pinned) != (self._member.epochs, self._member.pinned)
        self._member = msgspec.structs.replace(
            said,
            beat_at=self._clock.unix(),
            ledger_at=self._clock.unix() - (now - self._contact),
        )
        try:
            self._roster.publish(self._member)
            self._published, self._published_at = self._member, now
            self._faults.clear("replica.roster")
        except KedgeError as error:
            self._faults.note("replica.roster", error)
        if swapped:
            if not self._unremembered:
                self._remember_at = self._clock.monotonic() + REMEMBER_S
            self._unremembered = [live for live in lives if not live.pinned]

    def _remember(self) -> None:
        """Store what is served on this host's disk: soon, but not while others swap."""
        lives, self._unremembered = self._unremembered, []
        for live in lives:
            place = f"replica.remember.{live.state.endpoint}"
            self._keep(place, partial(self._disk.remember, self._slot, live.state))
        head, before, self._kept_head = self._head, self._kept_head, self._head
        if head is not None and before != head:
            place = "replica.remember_head"
            self._keep(place, partial(self._disk.remember_head, self._slot, head))

    def _keep(self, place: str, write: Callable[[], None]) -> None:
        """Write a file; if that fails, the next swap writes the next one."""
        if self._faults.attempt(place, write):
            self._faults.clear(place)

    def _last_words(self) -> None:
        self._recording.close(LAST_WORDS_S)
        try:
            self._roster.leave(self._member.name)
        except KedgeError as error:
            self._faults.note("replica.roster", error)


def _standing(faults: tuple[ProcessFault, ...]) -> list[tuple[str, bool]]:
    """Return the faults without their counts."""
    return [(fault.place, fault.standing) for fault in faults]


def _pinned(plan: Plan) -> Plan:
    outside = msgspec.structs.replace(plan.outside, reason=Reason.PINNED)
    return msgspec.structs.replace(plan, outside=outside)
