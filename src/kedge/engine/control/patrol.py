"""Patrol: observes, judges, and submits an operator's commands, with the figures that it saw.

Theory of operation
-------------------
* One patrol leads; the others wait for its lock, which the kernel releases however it dies.
* The patrol remembers only what is written: a watch is folded from stored windows, and its
  snapshot states which windows it has folded. The process that takes over folds the rest.
* A command carries the epoch that it was decided on. If the row moved in between, the ledger
  refuses the command, and the next look decides again. So no command is carried out twice, and
  one that was decided but not written is decided again.
* Backward moves run at once, on this thread. Forward moves wait for replicas to load, so they run
  on another thread: watching never waits for them.
* The patrol does not touch an endpoint that was restored from a backup until a person confirms it:
  the original may still be running.
* A fault of one endpoint is counted and shown, and does not stop the others. What was folded of its
  windows until then is dropped. The next look begins with the stored snapshot, so that no window
  counts twice.
* Deliberately absent: any judgement. `core.evidence` and `core.automation` judge.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial

import msgspec
import structlog

from kedge.core.alerts.alerts import Raise, Sight
from kedge.core.alerts.conditions import of_replicas
from kedge.core.automation import Decision, PatrolFacts, binding, decide
from kedge.core.errors import KedgeError, Stale
from kedge.core.release.commands import AnyCommand, Pause, Rollback
from kedge.core.stored.notes import VerdictNote, build_note
from kedge.core.values import Stage, State
from kedge.engine.control.continuity import Continuity
from kedge.engine.control.drills import Returns
from kedge.engine.findings import newest_finding
from kedge.engine.loop import Duty, Loop
from kedge.engine.recording.own_loss import own_loss
from kedge.engine.submission import Control
from kedge.engine.watch import Watch, judged
from kedge.ports import Ledger, RecordStore, Roster, WindowStore

TICK_S = 0.5
"""Interval between looks: twice a second, so that a breach waits for half a second at most."""
BATCH = 2_000
"""Limit of windows folded in one look; the next look folds the rest, at once."""
KEEP_S = 2.0
"""Interval between snapshots; what is lost with the patrol is folded again."""
LABELS = 5_000
"""Limit of labels folded in one look."""
COVERED_S = 10.0
"""Interval between counts of label coverage."""
UNREADY_S = 60.0
"""How long a promotion that readiness refused is not tried again: readiness is judged as seldom."""
LARGE = 1 << 20
LARGE_KEEP_S = 30.0
"""Interval between snapshots of a megabyte and more: folding again is cheaper than writing."""

log = structlog.get_logger("kedge.patrol")


class Patrol:
    """Watches every rollout while it leads."""

    def __init__(
        self,
        duty: Duty,
        *,
        ledger: Ledger,
        store: WindowStore,
        control: Callable[[], Control],
        records: RecordStore,
        roster: Roster,
    ) -> None:
        clock, by = duty.clock, duty.by
        self._ledger = ledger
        self._store = store
        self._control = control
        self._clock = clock
        self._by = by
        self._records = records
        self._roster = roster
        self._continuity = Continuity(store=store, ledger=ledger, roster=roster, clock=clock, by=by)
        self._returns = Returns(ledger=ledger, control=control, clock=clock, by=by)
        self._covered_at: dict[str, float] = {}
        self._watches: dict[str, Watch] = {}
        self._kept_at: dict[str, float] = {}
        self._said: dict[str, tuple[str, str]] = {}
        self._forward: dict[str, threading.Thread] = {}
        self._unready: dict[str, tuple[int, float]] = {}
        """By endpoint: the epoch of a promotion that was refused, and until when."""
        self._fault = ""
        self._faults = duty.faults
        self._behind = False
        """Whether the last look left something to fold at once."""
        self.sight = Sight()
        """What it saw last; replaced as a whole, so that another thread may read it."""
        self.loop = Loop(
            duty,
            "patrol.look",
            self.look,
            every_s=TICK_S,
            forget=self._watches.clear,
            told=self._note_fault,
            last=partial(self._keep, force=True),
        )
        self._net = self.loop.net

    def look(self) -> bool:
        """Look once at every rollout; return True if there is more to fold at once."""
        self._behind = False
        decisions: dict[str, tuple[int, Decision]] = {}
        faults: dict[str, str] = {}
        known = self._ledger.read().states
        states = {name: state for name, state in known.items() if not state.unconfirmed}
        self._net.run("patrol.continuity", partial(self._continuity.look, states, self._watches))
        for state in states.values():
            name = state.endpoint
            self._net.run(f"patrol.return.{name}", partial(self._returns.look, state))
            place = f"patrol.look.{name}"
            if state.compared is None:
                self._watches.pop(name, None)
                self._net.forget(place)
            elif not self._net.run(place, partial(self._look_at, state, decisions)):
                faults[name] = self._faults.standing(place)
        self.sight = Sight(decisions, faults=faults, replicas=self._replicas())
        self._keep()
        return self._behind

    def _look_at(self, state: State, decisions: dict[str, tuple[int, Decision]]) -> None:
        """Look at one rollout, decide and act."""
        try:
            decision, facts = self._judge(state)
        except KedgeError:
            raise  # nothing was folded
        except BaseException:
            self._watches.pop(state.endpoint, None)
            raise
        decisions[state.endpoint] = (state.epoch, decision)
        place = f"patrol.act.{state.endpoint}"
        self._net.run(place, partial(self._act, state, decision, facts))

    def _judge(self, state: State) -> tuple[Decision, PatrolFacts]:
        watch = self._watch(state)
        behind = self._gather(state, watch)
        behind = self._gather_labels(state, watch) or behind
        self._behind = self._behind or behind
        self._continuity.check(state, watch)
        facts = msgspec.structs.replace(
            watch.facts(self._clock.unix()),
            unwritten=unwritten(self._roster) or self._continuity.hold(state.endpoint),
        )
        decision = decide(state, facts)
        if isinstance(decision.command, Rollback | Pause):
            facts = self._known(state, facts)
            decision = decide(state, facts)
        return decision, facts

    def _replicas(self) -> tuple[Raise, ...]:
        """Return the faults that replicas report."""
        try:
            members = self._roster.members()
        except KedgeError:
            return self.sight.replicas  # an unreadable roster resolves nothing
        return of_replicas(
            {member.name: member.astray for member in members if member.astray},
            {member.name: member.unwritten for member in members if member.unwritten},
        )

    def _watch(self, state: State) -> Watch:
        """Return the watch of this rollout: the one in memory, the stored one, or a new one."""
        watch = self._watches.get(state.endpoint)
        if watch is None or not watch.fits(state):
            watch = self._continuity.open(state)
            self._watches[state.endpoint] = watch
        return watch

    def _gather(self, state: State, watch: Watch) -> bool:
        position, windows = self._store.read(state.endpoint, watch.cursor, BATCH)
        for window in windows:
            watch.fold(window)
        watch.cursor = position
        return len(windows) == BATCH

    def _gather_labels(self, state: State, watch: Watch) -> bool:
        """Fold late labels; return whether there may be more. The rest never waits for this."""
        now = self._clock.monotonic()
        try:
            behind = fold_labels(self._records, state, watch, self._clock.unix())
            if now >= self._covered_at.get(state.endpoint, 0.0):
                self._covered_at[state.endpoint] = now + COVERED_S
                watch.label_coverage = covered(self._records, watch, state)
        except KedgeError as error:
            log.warning("patrol.labels_lost", endpoint=state.endpoint, fault=str(error))
            return False
        return behind

    def _known(self, state: State, facts: PatrolFacts) -> PatrolFacts:
        """Return the facts with the newest diagnosis, without waiting for one."""
        try:
            finding = newest_finding(self._ledger, state.endpoint)
        except KedgeError as error:
            log.warning("patrol.finding_lost", endpoint=state.endpoint, fault=str(error))
            return facts
        return msgspec.structs.replace(facts, finding=finding, now=self._clock.unix())

    # ------------------------------------------------------------ acting

    def _act(self, state: State, decision: Decision, facts: PatrolFacts) -> None:
        """Record a new verdict, and submit the command that was decided."""
        told = (decision.verdict, decision.code)
        command = decision.command
        if self._said.get(state.endpoint) != told and decision.verdict != "inconclusive":
            self._said[state.endpoint] = told
            log.info(
                "patrol.verdict",
                endpoint=state.endpoint,
                verdict=decision.verdict,
                code=decision.code,
                reason=decision.reason,
            )
            if command is None:
                self._ledger.note(
                    state.endpoint,
                    build_note(figures(state, decision, facts)),
                    by=self._by,
                    reason=decision.reason,
                    at=self._clock.now(),
                )
        command = command or binding(state, decision)
        if command is None:
            return
        seen = msgspec.to_builtins(figures(state, decision, facts))
        carried = msgspec.structs.replace(command, evidence=seen)
        if isinstance(carried, Pause) and decision.verdict == "fail":
            carried = msgspec.structs.replace(carried, failure=decision.reason)
        if isinstance(command, Rollback | Pause):
            self._submit(state, carried, decision.reason)
            return
        epoch, until = self._unready.get(state.endpoint, (-1, 0.0))
        if epoch == state.epoch and self._clock.monotonic() < until:
            return
        under_way = self._forward.get(state.endpoint)
        if under_way is None or not under_way.is_alive():
            submit = partial(self._submit, state, carried, decision.reason)
            place = f"patrol.submit.{state.endpoint}"
            thread = threading.Thread(
                target=self._faults.attempt, args=(place, submit), daemon=True
            )
            self._forward[state.endpoint] = thread
            thread.start()

    def _submit(self, state: State, command: AnyCommand, reason: str) -> None:
        name = type(command).__name__.lower()
        try:
            self._control().submit(
                state.endpoint, command, by=self._by, reason=reason, expect=state.epoch
            )
        except Stale:
            log.info("patrol.overtaken", endpoint=state.endpoint, command=name)
        except KedgeError as error:
            if error.code == "not_ready":
                self._unready[state.endpoint] = state.epoch, self._clock.monotonic() + UNREADY_S
            log.warning(
                "patrol.refused",
                endpoint=state.endpoint,
                command=name,
                fault=f"{error.code}: {error}",
            )
        else:
            log.info("patrol.acted", endpoint=state.endpoint, command=name, reason=reason)

    # ------------------------------------------------------------ keeping

    def _keep(self, *, force: bool = False) -> None:
        now = self._clock.monotonic()
        for endpoint, watch in self._watches.items():
            if force or now >= self._kept_at.get(endpoint, 0.0):
                keep = partial(self._keep_one, endpoint, watch, now)
                self._net.run(f"patrol.keep.{endpoint}", keep)

    def _keep_one(self, endpoint: str, watch: Watch, now: float) -> None:
        body = watch.snapshot()
        self._kept_at[endpoint] = now + (LARGE_KEEP_S if len(body) > LARGE else KEEP_S)
        self._store.keep(endpoint, watch.key, body)

    def _note_fault(self, fault: str) -> None:
        if fault != self._fault:
            self._fault = fault
            self.sight = self.sight._replace(fault=fault)
            if fault:
                log.warning("patrol.blind", fault=fault)
            else:
                log.info("patrol.sees")


def unwritten(roster: Roster) -> str:
    """Return which replicas cannot write their counts, and why; empty if all can."""
    try:
        mute = [m for m in roster.members() if m.unwritten]
    except KedgeError as error:
        return f"the roster cannot be read: {error}"
    if not mute:
        return ""
    return f"{len(mute)} replicas cannot write what they count: {mute[0].name}: {mute[0].unwritten}"


def fold_labels(
    records: RecordStore, state: State, watch: Watch, at: float, patience_s: float = 0.0
) -> bool:
    """Fold the labels that were joined since the last call; return True if there may be more.

    If labels were corrected since then, all are folded again. A fold under way is completed first,
    so that a series of corrections cannot prevent its end. So there may be more after its last
    batch, too: the labels that were corrected meanwhile. If the policy's function judges them and
    its child is not ready within `patience_s`, they wait.
    """
    was_left = watch.labels_left
    if not was_left:
        newest, first = records.corrected(state.endpoint, watch.labels.corrected)
        if newest > watch.labels.corrected:
            watch.correct(newest, first)
    after, rows = records.labels(state.endpoint, watch.labels.cursor, LABELS)
    if after < watch.labels.cursor:
        watch.correct(0, 0)  # labels.db is new: labels that are handed in again are folded again
        return True
    own, watch.own_fault = None, ""
    if rows and watch.own is not None:
        own, fault = own_loss(watch.own).measure(rows, patience_s)
        if own is None:
            watch.own_fault = f"{watch.own} gives no losses yet: {fault}"
            return False
    if rows:
        watch.fold_labels(rows, after, at, own)
    watch.labels_left = len(rows) == LABELS
    return watch.labels_left or was_left


def covered(records: RecordStore, watch: Watch, state: State) -> dict[str, tuple[int, int]]:
    """Return by arm the predictions of this comparison with a label, and all of them."""
    found: dict[str, tuple[int, int]] = {}
    for arm in records.coverage(state.endpoint):
        if (arm.production, arm.candidate, arm.salt) == watch.comparison:
            labelled = sum(arm.labelled.values())
            found[arm.arm] = (labelled, arm.predictions)
    return found


def figures(state: State, decision: Decision, facts: PatrolFacts) -> VerdictNote:
    """Return the figures behind a decision, for its ledger entry."""
    return VerdictNote(
        verdict=decision.verdict,
        code=decision.code,
        candidate=f"r{judged(state)[1]}",
        subject=judged(state)[1],
        production=f"r{judged(state)[0]}",
        stage=state.stage.value,
        weight=state.weight / 100 if state.stage is Stage.CANARY else None,
        overall=facts.overall,
        verdicts=facts.verdicts,
        units=facts.units,
        requests=facts.requests,
        callers=facts.callers,
        pairs=facts.pairs,
        mirrored=facts.mirrored,
        copied=facts.copied,
        healthy_s=facts.healthy_s,
        step_s=facts.step_s,
        streak=facts.streak,
        broken=facts.broken,
        crashes=facts.crashes,
        silent_s=facts.silent_s,
        routed=facts.routed,
        unasked=facts.unasked,
        spread=dict(facts.spread),
    )
