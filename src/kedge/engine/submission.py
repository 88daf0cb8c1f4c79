"""Submission of a command: decide, prepare, write, and wait for the ack of every replica.

Theory of operation
-------------------
* `decide` judges the row as it is now; a refusal is raised before anything is changed.
* Two-phase: the command wishes for what the row would need (`want`). Every known replica loads it,
  answers its golden rows and reports that it is ready; only then the row moves. A release that
  becomes production in a process has both of its processes by then. A forward move, and the start
  of a drill, are refused if a replica fails or is silent. A rollback, and the return from a drill,
  are never refused for that. They name the cold replicas and their waits, give them time to load,
  and flip in any case. They never wait for a second process if the first is warm.
* The row moves by compare-and-set with the epoch that was decided on. A lost race is an answer
  ("stale: now at epoch N, by X"). There are two exceptions. A rollback always means "back", and
  decides again; a return means "as before the drill".
* Acks are counted against the roster as it was known *before* the flip. A replica that does
  not ack within the patience is named; it is never skipped.
* The receipt's parts are measured on this process's clock, from the entry of `submit`, and
  stored in the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from kedge.core.errors import KedgeError, NotAcknowledged, Refused, Stale
from kedge.core.release import commands
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    AnyEvent,
    Certify,
    Configure,
    Drill,
    Fail,
    Follow,
    Freeze,
    Pause,
    Promote,
    Promoted,
    Return,
    Rollback,
    RolledBack,
    Thaw,
)
from kedge.core.release.machine import apply, decide
from kedge.core.release.needs import NeededRelease, needs
from kedge.core.runbook import ANYWHERE, Site
from kedge.core.stored.ledger import Change, Entry, Note, Wanted
from kedge.core.stored.notes import ReceiptNote, ReceiptParts, build_note
from kedge.core.stored.roster import Member, ReplicaHold
from kedge.core.values import Placement, Refusal, Stage, State, Value
from kedge.engine import runbook
from kedge.ports import Clock, Ledger, Roster, Signal

SILENT_S = 5.0
"""Age of a heartbeat from which a replica is silent: five were due."""
ENDED_S = 3.0
"""Time off the roster after which a replica has ended. A live one writes its row each second, even
into a new roster."""
PREPARE_S = 120.0
"""How long a forward move waits for the slowest replica to load."""
COLD_S = 60.0
"""How long a cold rollback waits for a replica to load before it flips in any case."""
SECOND_S = 5.0
"""How long a cold rollback waits for a second process once each replica has a first. Both load at
the same time, and production is wrong while it waits."""
RETRIED_S = 10.0
"""How long an old failure may stand before it counts as the answer to a new command."""
ACK_S = 10.0
ANSWER_S = 0.06
"""How long a first answer is looked for in the roster if no probe was answered: replicas report one
within 20 ms."""
RETRIES = 20
"""How often a rollback decides again after a lost race. Each loss means that another command was
written; twenty in a row come from a machine, not from an operator."""

ALWAYS = (Rollback, Return)
"""Commands that always flip: nothing delays them for long, and after a lost race they run again."""
UNPREPARED = (Configure, Pause, Abort, Certify, Fail, Freeze, Thaw, Follow, commands.Hold)
"""Commands for which no replica must load anything: callers get no new release after them. A silent
replica, or one that cannot load a candidate, must not prevent holding or ending a rollout."""
MEASURED = (Rollback, Drill, Return)
"""Commands after which `submit` waits for a caller's first answer."""

Say = Callable[[str], None]
Gate = Callable[[State, int, "str | None", str], None]
"""Called before a release becomes production: the row, the release, the reason for which an
operator overrides the gate, and the actor. Raises `Refused` to stop it."""
Probe = Callable[[Member, str, int], "int | None"]


class Unready(StrEnum):
    """Why a replica could not serve a release now."""

    NOT_LOADED = "not_loaded"
    LOADING = "loading"
    FAILED = "failed"
    SILENT = "silent"
    WINDOW_OVER = "window_over"
    """`back_window` is over: by policy, the way back is no longer held."""


class Lack(NamedTuple):
    """Why one replica cannot serve a release: the code, and the text for people."""

    code: Unready
    text: str


SILENT = Lack(Unready.SILENT, "silent")


class Receipt(Value, frozen=True):
    """The result of a command and the duration of each part, in ms since `submit` was entered."""

    endpoint: str
    epoch: int
    events: tuple[AnyEvent, ...]
    state: State
    decide_ms: float
    prepare_ms: float
    write_ms: float
    last_ack_ms: float | None
    first_old_answer_ms: float | None
    total_ms: float
    acks: dict[str, float]
    silent: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    """Replicas whose processes ended before they acknowledged: they answer no caller."""
    cold: dict[str, str] = {}
    seq: int = 0
    """The number of its first entry in the ledger; 0: nothing was written."""

    def parts(self) -> ReceiptParts:
        """Return the receipt's figures, as stored in the ledger."""
        return ReceiptParts(
            **{name: getattr(self, name) for name in ReceiptParts.__struct_fields__}
        )


class Silent(NotAcknowledged):
    """A replica is silent; the receipt shows what was done."""

    def __init__(self, receipt: Receipt) -> None:
        acks = ", ".join(sorted(receipt.acks))
        super().__init__(
            f"epoch {receipt.epoch} is written, but not acknowledged by {', '.join(receipt.silent)}"
            + (f"; acknowledged by {acks}" if acks else ""),
            hint=(
                "kedge status shows each replica; a worker whose process died leaves the roster"
                " within seconds, one that is gone with its host by kedge doctor --forget NAME"
            ),
            details={
                "receipt": receipt.parts(),
                "epoch": receipt.epoch,
                "silent": list(receipt.silent),
            },
        )
        self.receipt = receipt


class Hooks(NamedTuple):
    """Functions called around a submission: a gateway after it, and the gate before a promotion."""

    probe: Probe | None = None
    gate: Gate | None = None


NO_HOOKS = Hooks()


class Control:
    """Submits commands. One instance belongs to one thread."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        roster: Roster,
        signal: Signal,
        clock: Clock,
        say: Say = lambda text: None,
        hooks: Hooks = NO_HOOKS,
        prepare_s: float = PREPARE_S,
        site: Site = ANYWHERE,
    ) -> None:
        self._ledger = ledger
        self._roster = roster
        self._signal = signal
        self._clock = clock
        self._say = say
        self._probe, self._gate = hooks
        self._prepare_s = prepare_s
        self._site = site

    def submit(
        self,
        endpoint: str,
        command: AnyCommand,
        *,
        by: str,
        reason: str = "",
        expect: int | None = None,
    ) -> Receipt:
        """Carry a command out.

        Args:
            endpoint: whose row.
            command: the command.
            by: the actor.
            reason: why, for the ledger.
            expect: the epoch that the caller saw; None: any.

        Raises:
            Refused: the rules refuse it, or a replica could not prepare.
            Stale: the row moved on since `expect`, or between deciding and writing.
            Silent: written, but a replica does not acknowledge it.
            Unavailable: the ledger cannot be reached.
        """
        started = self._clock.monotonic()
        for _ in range(RETRIES):
            try:
                return self._once(endpoint, command, by, reason, expect, started)
            except Stale:
                if not isinstance(command, ALWAYS) or expect is not None:
                    raise
        raise Stale(
            f"{endpoint} changes faster than a rollback can be written", hint="kedge history"
        )

    def _once(
        self,
        endpoint: str,
        command: AnyCommand,
        by: str,
        reason: str,
        expect: int | None,
        started: float,
    ) -> Receipt:
        at = self._clock.now()
        state = self._ledger.read().states.get(endpoint, State(endpoint=endpoint))
        if expect is not None and expect != state.epoch:
            raise self._stale(endpoint, state.epoch)
        events, after = _decided(state, command, at)
        if isinstance(command, Promote):
            self._ask_gate(state, events, command.override, by)
        members = replicas(self._roster.members())
        decided = self._clock.monotonic()
        cold = self._prepare(state, after, command, members, by)
        prepared = self._clock.monotonic()
        entries = self._ledger.append(
            endpoint, events, expect=state.epoch, by=by, reason=reason, at=at
        )
        times = started, decided, prepared, self._clock.monotonic()
        return self._told(command, after, events, members, times, cold, entries, by)

    def rehearse(self, endpoint: str, command: AnyCommand, *, by: str) -> Receipt:
        """Decide and prepare as `submit` does, and write nothing: the row stays as it is.

        Raises:
            Refused: the rules refuse it, or a replica could not prepare.
            Unavailable: the ledger cannot be reached.
        """
        started, at = self._clock.monotonic(), self._clock.now()
        state = self._ledger.read().states.get(endpoint, State(endpoint=endpoint))
        events, after = _decided(state, command, at)
        members = replicas(self._roster.members())
        decided = self._clock.monotonic()
        cold = self._prepare(state, after, command, members, by)
        prepared = self._clock.monotonic()
        return Receipt(
            endpoint=endpoint,
            epoch=state.epoch,
            events=events,
            state=after,
            decide_ms=_ms(started, decided),
            prepare_ms=_ms(decided, prepared),
            write_ms=0.0,
            last_ack_ms=None,
            first_old_answer_ms=None,
            total_ms=_ms(started, prepared),
            acks={},
            cold=cold,
        )

    def together(
        self,
        commands: Mapping[str, AnyCommand],
        *,
        by: str,
        reason: str,
        head: tuple[str, int],
        override: str | None = None,
    ) -> tuple[Receipt, ...]:
        """Carry commands out on several endpoints, and move a schema's head: all or nothing.

        Every replica of each endpoint is prepared before any row moves. `override` is an operator's
        reason to move endpoints that are not ready for it.

        Raises:
            Refused: the rules refuse one of them, or a replica could not prepare.
            Stale: one of the rows moved on meanwhile.
            NotAcknowledged, Unavailable: as `submit`; all rows have moved, or none.
        """
        started, at = self._clock.monotonic(), self._clock.now()
        states = self._ledger.read().states
        moves = {name: _decided(states[name], command, at) for name, command in commands.items()}
        for name, (events, _) in moves.items():
            self._ask_gate(states[name], events, override, by)
        members = replicas(self._roster.members())
        decided = self._clock.monotonic()
        cold = {
            name: self._prepare(states[name], after, commands[name], members, by)
            for name, (_, after) in moves.items()
        }
        for name, (_, after) in moves.items():  # the first wish may have expired meanwhile
            self._prepare(states[name], after, commands[name], members, by)
        prepared = self._clock.monotonic()
        changes = [Change(name, events, states[name].epoch) for name, (events, _) in moves.items()]
        entries = self._ledger.append_all(changes, by=by, reason=reason, at=at, head=head)
        times = started, decided, prepared, self._clock.monotonic()
        told: list[Receipt] = []
        silent: list[NotAcknowledged] = []
        for (name, (events, after)), written in zip(moves.items(), entries, strict=True):
            try:
                told.append(
                    self._told(
                        commands[name], after, events, members, times, cold[name], written, by
                    )
                )
            except NotAcknowledged as error:  # the others have moved too, and get their receipts
                silent.append(error)
        if silent:
            raise NotAcknowledged(
                "; ".join(map(str, silent)),
                hint=silent[0].hint,
                details={"endpoints": [e.details for e in silent]},
            )
        return tuple(told)

    def _told(
        self,
        command: AnyCommand,
        after: State,
        events: tuple[AnyEvent, ...],
        members: tuple[Member, ...],
        times: tuple[float, float, float, float],
        cold: dict[str, str],
        entries: tuple[Entry, ...],
        by: str,
    ) -> Receipt:
        """Wait for the acks of what was written, and store the durations.

        Raises:
            Silent: a replica does not acknowledge it.
        """
        started, decided, prepared, written = times
        acks, ended = self._await_acks(after.endpoint, after.epoch, members, started)
        silent = tuple(sorted({m.name for m in members} - acks.keys() - ended))
        first = None
        if isinstance(command, MEASURED) and not silent:
            first = self._first_answer(after.endpoint, after, members, started)
        receipt = Receipt(
            endpoint=after.endpoint,
            epoch=after.epoch,
            events=events,
            state=after,
            decide_ms=_ms(started, decided),
            prepare_ms=_ms(decided, prepared),
            write_ms=_ms(prepared, written),
            last_ack_ms=max(acks.values(), default=None) if not silent else None,
            first_old_answer_ms=first,
            total_ms=_ms(started, self._clock.monotonic()),
            acks=acks,
            silent=silent,
            ended=tuple(sorted(ended)),
            cold=cold,
            seq=entries[0].seq,
        )
        self._store(receipt, command, entries, by)
        if any(isinstance(event, Promoted | RolledBack) for event in events):
            self._file_runbook(after, by)
        if silent:
            raise Silent(receipt)
        return receipt

    def _ask_gate(
        self, state: State, events: tuple[AnyEvent, ...], override: str | None, by: str
    ) -> None:
        """Ask the gate if a release would become production.

        Raises:
            Refused: the gate refuses it.
        """
        for event in events:
            if isinstance(event, Promoted) and self._gate is not None:
                self._gate(state, event.release, override, by)

    def _stale(self, endpoint: str, epoch: int) -> Stale:
        last = next(
            (e for e in self._ledger.history(endpoint, 20) if not isinstance(e.event, Note)), None
        )
        who = (
            f", by {last.by}" + (f", because {last.reason}" if last.reason else "") if last else ""
        )
        return Stale(
            f"stale: {endpoint} is now at epoch {epoch}{who}",
            hint=f"kedge status {endpoint} shows what is live; then decide again",
            details={
                "epoch": epoch,
                "by": last.by if last else "",
                "reason": last.reason if last else "",
            },
        )

    # ------------------------------------------------------------ prepare

    def _prepare(
        self, state: State, after: State, command: AnyCommand, members: tuple[Member, ...], by: str
    ) -> dict[str, str]:
        """Wait until every replica holds what the new row serves; return cold ones, and why."""
        if isinstance(command, UNPREPARED) or after.stage is Stage.EMPTY or not members:
            return {}
        # One process of a release that is production already is enough here: it does not become it.
        serves = [
            first_of(need) if need.release == state.production else need
            for need in needs(after, now=self._clock.unix())
            if need.release in (after.production, after.candidate)
        ]
        lacks = lacking(members, state.endpoint, serves)
        if not lacks:
            return {}
        missing = {name: lack.text for name, lack in lacks.items()}
        rollback = isinstance(command, ALWAYS)
        if rollback and not lacking(members, state.endpoint, [*map(first_of, serves)]):
            self._say(
                "a rollback does not wait for a second process: "
                + "; ".join(f"{name}: {text}" for name, text in sorted(missing.items()))
            )
            return {}
        self._announce(missing, after, rollback=rollback)
        patience = COLD_S if rollback else self._prepare_s
        left = self._await_ready(state.endpoint, serves, members, patience, by, rollback=rollback)
        if left and not rollback:
            raise Refused(
                "not every replica could prepare: "
                + "; ".join(f"{name}: {lack.text}" for name, lack in sorted(left.items())),
                code="not_prepared",
                hint=(
                    "production was not touched; fix what is named and try again. Processes that"
                    " run find a library or a loader that was installed since after kedge restart"
                ),
                details={"replicas": {name: lack.text for name, lack in left.items()}},
            )
        return missing

    def _announce(self, missing: dict[str, str], after: State, *, rollback: bool) -> None:
        serving = after.releases.get(after.production) if after.production is not None else None
        if rollback and serving is not None:
            self._say(
                f"cold: {serving.label} is not loaded on {', '.join(sorted(missing))}; "
                f"loading took {serving.load_s:.1f} s when it was measured"
            )
        else:
            self._say(f"preparing on {', '.join(sorted(missing))}")

    def _await_ready(
        self,
        endpoint: str,
        serves: list[NeededRelease],
        members: tuple[Member, ...],
        patience: float,
        by: str,
        *,
        rollback: bool,
    ) -> dict[str, Lack]:
        """Wish for what is to be served, wait, and return why replicas are still not ready."""
        started = self._clock.monotonic()
        deadline = started + patience
        renew, first_at = 0.0, None
        firsts = [*map(first_of, serves)]
        old = attempts(members, endpoint, serves)
        while True:
            now = self._clock.monotonic()
            if now >= renew:
                renew = now + 5.0
                for need in serves:
                    self._ledger.want(
                        Wanted(
                            endpoint=endpoint,
                            release=need.release,
                            placement=need.placement,
                            until=self._clock.unix() + 15.0,
                            by=by,
                            copies=need.copies,
                        )
                    )
            known = {m.name: m for m in replicas(self._roster.members())}
            present = tuple(known[m.name] for m in members if m.name in known)
            left = lacking(present, endpoint, serves)
            silent = {m.name: SILENT for m in present if self._clock.unix() - m.beat_at > SILENT_S}
            # A load that failed before this command is tried again: its cause may be fixed by now.
            again = now < started + RETRIED_S and old & attempts(present, endpoint, serves)
            failed = {n for n, lack in left.items() if lack.code is Unready.FAILED and not again}
            if (
                not left
                or now >= deadline
                or (failed and not rollback)
                or (silent and not rollback)
            ):
                return left | (silent if not rollback else {})
            if rollback and left.keys() <= failed | silent.keys():
                return left
            if rollback and not lacking(present, endpoint, firsts):
                first_at = now if first_at is None else first_at
                if now - first_at >= SECOND_S:
                    return left
            self._signal.wait(0.05)

    # ------------------------------------------------------------ after the flip

    def _await_acks(
        self, endpoint: str, epoch: int, members: tuple[Member, ...], started: float
    ) -> tuple[dict[str, float], set[str]]:
        """Return when each replica acknowledged the epoch, and which replicas ended meanwhile."""
        missing = {member.name for member in members}
        acks: dict[str, float] = {}
        seen = dict.fromkeys(missing, self._clock.monotonic())
        ended: set[str] = set()
        deadline = self._clock.monotonic() + ACK_S
        while missing:
            now = self._clock.monotonic()
            for member in self._roster.members():
                seen[member.name] = now
                pinned = endpoint in member.pinned
                if member.name in missing and (member.epochs.get(endpoint, -1) >= epoch or pinned):
                    acks[member.name] = _ms(started, self._clock.monotonic())
                    missing.discard(member.name)
            ended |= {name for name in missing if now - seen[name] > ENDED_S}
            missing -= ended
            if not missing or self._clock.monotonic() >= deadline:
                break
            self._signal.wait(0.005)
        return acks, ended

    def _first_answer(
        self, endpoint: str, after: State, members: tuple[Member, ...], started: float
    ) -> float | None:
        """Return when a caller first got the old release: by a marked probe, else from traffic.

        The probe comes first, because a replica reports its first answer after its next look.
        """
        probed = (
            self._probe is not None and self._probe(member, endpoint, after.epoch)
            for member in members
        )
        if any((n and n == after.production) or self._seen_answer(after) for n in probed):
            return _ms(started, self._clock.monotonic())
        until = self._clock.monotonic() + ANSWER_S
        while members and self._clock.monotonic() < until:
            self._signal.wait(0.005)
            if self._seen_answer(after):
                return _ms(started, self._clock.monotonic())
        return None

    def _seen_answer(self, after: State) -> bool:
        """Return whether a replica reports that it answered a caller since the flip."""
        return any(
            member.answered.get(after.endpoint, -1) >= after.epoch
            for member in self._roster.members()
        )

    def _store(
        self, receipt: Receipt, command: AnyCommand, entries: tuple[Entry, ...], by: str
    ) -> None:
        parts = msgspec.structs.asdict(receipt.parts())
        body = ReceiptNote(of=entries[0].seq, command=type(command).__name__.lower(), **parts)
        self._ledger.note(
            receipt.endpoint,
            build_note(body),
            by=by,
            reason="",
            at=self._clock.now(),
        )

    def _file_runbook(self, after: State, by: str) -> None:
        """Record the runbook for the new state. A fault of it never fails the command."""
        try:
            runbook.filed(self._ledger, self._clock, after, self._site, by=by)
        except KedgeError as error:
            self._say(f"the runbook could not be recorded: {error}")


def _decided(state: State, command: AnyCommand, at: str) -> tuple[tuple[AnyEvent, ...], State]:
    """Return the events of a command and the row after it.

    Raises:
        Refused: the rules refuse it.
    """
    events = decide(state, command, at)
    if isinstance(events, Refusal):
        raise Refused(events.message, code=events.code, hint=events.hint)
    after = state
    for event in events:
        after = apply(after, event)
    return events, after


def replicas(members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Return the members that serve."""
    return tuple(member for member in members if member.kind == "gateway")


def lacking(
    members: tuple[Member, ...], endpoint: str, serves: list[NeededRelease]
) -> dict[str, Lack]:
    """Return the replicas that do not hold what is to be served, each with the state of the load.

    If several releases are missing on a replica, one that failed to load is named.
    """
    found: dict[str, Lack] = {}
    for member in members:
        for need in serves:
            hold = _hold(member, endpoint, need.release, need.placement)
            if hold is not None and hold.state == "ready" and not _is_short(hold, need):
                continue
            known = found.get(member.name)
            if known is None or known.code is not Unready.FAILED:
                found[member.name] = _lack(hold, need)
    return found


def first_of(need: NeededRelease) -> NeededRelease:
    """Return the same need, met by one process: enough to answer until that process dies."""
    return replace(need, copies=1)


def _is_short(hold: ReplicaHold, need: NeededRelease) -> bool:
    """Return whether some of its processes answer and not all; a replica without counts has all."""
    return 0 < hold.copies < need.copies


def _lack(hold: ReplicaHold | None, need: NeededRelease) -> Lack:
    where = f"(r{need.release}, {need.placement})"
    if hold is None:
        return Lack(Unready.NOT_LOADED, f"not loaded {where}")
    if hold.state == "failed":
        return Lack(Unready.FAILED, f"failed: {hold.detail} (r{need.release})")
    if _is_short(hold, need):
        text = f"{hold.copies} of {need.copies} processes ready"
        if hold.detail:
            return Lack(Unready.FAILED, f"{text}, failed: {hold.detail} (r{need.release})")
        return Lack(Unready.LOADING, f"{text} {where}")
    return Lack(Unready.LOADING, f"{f'{hold.state} {hold.detail}'.strip()} {where}")


def attempts(
    members: tuple[Member, ...], endpoint: str, serves: list[NeededRelease]
) -> set[tuple[str, int, str, int]]:
    """Return the failed loads of what is to be served, each with the number of its try."""
    needed = {(need.release, need.placement) for need in serves}
    return {
        (member.name, hold.release, hold.placement, hold.attempt)
        for member in members
        for hold in member.holds
        if hold.endpoint == endpoint
        and (hold.state == "failed" or (hold.state == "ready" and hold.detail))
        and (hold.release, hold.placement) in needed
    }


def _hold(member: Member, endpoint: str, release: int, placement: Placement) -> ReplicaHold | None:
    for hold in member.holds:
        if (hold.endpoint, hold.release, hold.placement) == (endpoint, release, placement):
            return hold
    return None


def _ms(since: float, until: float) -> float:
    return round((until - since) * 1e3, 3)
