"""Writer of observations, once a second: counts, windows for the judge, rows for the outcomes.

Theory of operation
-------------------
* It runs on a separate thread (`start`). The replica's thread acknowledges commands, so it must not
  count: counting a second of batch requests takes a second.
* It rests for as long as it has worked, about every millisecond. So the serving loop, which needs
  the same interpreter, gets its turn however much there is to count.
* A fault here never reaches a request: what cannot be written is lost, counted and logged.
* What waits is bounded: observations by the recorder (`BOUND`, `ROWS`), windows by `WAITING`, what
  is remembered of comparisons by `COMPARISONS` and `COUNTERS`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from operator import attrgetter

import structlog

from kedge.core.automation import tolerated_latency
from kedge.core.errors import KedgeError
from kedge.core.evidence.records import JoinRow
from kedge.core.evidence.unrecorded import FAULT, SPOOL
from kedge.core.evidence.windows import Window
from kedge.core.stored.roster import Tally
from kedge.core.values import State
from kedge.engine.loop import Duty, Loop
from kedge.engine.recording.counter import QUIET, SLOW_FLOOR_US, Counter, SlowBounds
from kedge.engine.recording.recorder import Recorder, Taken
from kedge.engine.serving.live import Live, watched
from kedge.ports import EvidenceStore, WindowStore

log = structlog.get_logger("kedge.recording")

BEAT_S = 1.0
SILENT_S = 5.0
"""Time without a finished beat, while requests arrive, after which the recording is silent: five
beats were due."""
SILENT = f"nothing was written for more than {SILENT_S:g} s while requests came"
LEAST = 200
"""Minimum number of production answers for a bound from their quantiles: two lie above the p99."""
WAITING = 120
"""Windows stored in memory while the store cannot be written: two minutes of one comparison."""
COMPARISONS = 64
"""Comparisons whose counts this process remembers. An older one that returns counts under a new
name, so that it does not overwrite its earlier counts."""
COUNTERS = 8
"""Comparisons whose units are remembered, 20 MB each at most. One that returns after this many
others checks its split from the beginning."""
TURN_S = 0.001
"""How long counting continues before it rests for the same time: a request waits for at most this
and one part of the counting (`counter.PART`)."""

_STRATUM = attrgetter("weight", "mirrored")

Spool = Callable[[Sequence[JoinRow]], int]
Key = tuple[object, ...]


class Recording:
    """The writer of one worker."""

    def __init__(
        self,
        duty: Duty,
        replica: str,
        *,
        windows: WindowStore,
        evidence: EvidenceStore,
        spool: Spool,
        lives: Callable[[], list[Live]],
    ) -> None:
        self._replica = replica
        self._windows = windows
        self._evidence = evidence
        self._spool = spool
        self._lives = lives
        self._clock = duty.clock
        self._faults = duty.faults
        self._lock = threading.Lock()
        self._recorders: dict[Key, Recorder] = {}
        self._watched: dict[Key, tuple[State, Recorder]] = {}
        self._counters: dict[Key, tuple[str, Counter, SlowBounds]] = {}
        self._told: dict[tuple[str, str], Tally] = {}
        self._number = 0
        self._waiting: list[Window] = []
        self._lost = 0
        self._began = 0.0
        self._loop = Loop(
            duty,
            "recording.beat",
            self._beat,
            every_s=BEAT_S,
            rests_first=True,
            last=self._beat,
        )
        self._net = self._loop.net
        self._thread = threading.Thread(target=self._loop.run, name="kedge-recording", daemon=True)
        self._told_at: float | None = None
        self._told_requests = 0
        self.unwritten = ""
        """Why windows cannot be written; empty if they can."""

    def start(self) -> None:
        """Start to write once a second, unless it has started."""
        if self._thread.ident is None:
            self._told_at = self._clock.monotonic()
            self._thread.start()

    def close(self, patience_s: float) -> None:
        """Write what is left and end; what takes longer than the patience is lost."""
        self._loop.stop()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def recorder(self, state: State, name: str) -> Recorder:
        """Return the comparison's counts, or new ones; earlier counts continue, so they only grow.

        The replica's thread calls this. `name` is given to new counts.
        """
        key = (state.endpoint, state.production, state.candidate, state.salt)
        with self._lock:
            found = self._recorders.pop(key, None)
            while found is None and len(self._recorders) >= COMPARISONS:
                self._recorders.pop(next(iter(self._recorders)))
            found = self._recorders[key] = found or Recorder(name, state)
            if watched(state):
                self._watched[key] = (state, found)
        return found

    # ------------------------------------------------------------ the thread

    def fault(self) -> str:
        """Return why counts are not written; empty if they are. Other threads call this."""
        if self.unwritten or self._told_at is None:
            return self.unwritten
        silent = self._clock.monotonic() - self._told_at > SILENT_S
        return SILENT if silent and self._requests() > self._told_requests else ""

    def _requests(self) -> int:
        with self._lock:
            recorders = list(self._recorders.values())
        return sum(recorder.requests() for recorder in recorders)

    def _beat(self) -> None:
        """Record one second. A fault loses that second only."""
        before = self._requests()
        if not self._net.run("recording.tell", self._tell):
            self._blotted(self._faults.standing("recording.tell"))
        self._told_at, self._told_requests = self._clock.monotonic(), before

    def _blotted(self, fault: str) -> None:
        if not self.unwritten:
            log.warning("recording.store_lost", fault=fault, replica=self._replica)
        self.unwritten = fault

    def _tell(self) -> None:
        lives = self._lives()
        for live in lives:
            place = f"recording.deadline.{live.state.endpoint}"
            self._net.run(place, partial(_look_at, live))
        with self._lock:
            pairs = dict(self._watched)
            recorders = list(self._recorders.values())
        self._net.run("recording.counts", partial(self._publish, recorders))
        failed = self.flush(pairs.values())
        current = {id(live.recorder) for live in lives}
        with self._lock:
            for key, pair in pairs.items():
                gone = id(pair[1]) not in current and pair[1] not in failed
                if gone and self._watched.get(key) is pair:
                    del self._watched[key]

    def _publish(self, recorders: list[Recorder]) -> None:
        """Write the counts that changed; what is not written now is written with the next beat."""
        tallies = [recorder.tally() for recorder in recorders]
        fresh = [t for t in tallies if self._told.get((t.endpoint, t.replica)) != t]
        self._evidence.publish(fresh)
        self._told = {(tally.endpoint, tally.replica): tally for tally in tallies}

    def flush(self, pairs: Iterable[tuple[State, Recorder]]) -> list[Recorder]:
        """Count and write what was offered since the last call, each comparison in its own net.

        Returns the recorders that could not be counted: they are tried again.
        """
        self._began = self._clock.monotonic()
        fault, failed = "", list[Recorder]()
        for state, recorder in pairs:
            place = f"recording.count.{state.endpoint}"
            if not self._net.run(place, partial(self._count_one, state, recorder)):
                fault = self._faults.standing(place)
                failed.append(recorder)
        self._waiting, over = self._waiting[-WAITING:], self._waiting[:-WAITING]
        self._lost += len(over)
        try:
            self._windows.write(self._waiting)
        except KedgeError as error:
            fault = str(error)
        else:
            self._waiting = []
        if fault:
            self._blotted(fault)
        self.unwritten = fault
        return failed

    def _count_one(self, state: State, recorder: Recorder) -> None:
        """Count what one comparison has collected; on a fault it is lost, and counted as lost."""
        taken, rows = recorder.taken(), list[JoinRow]()
        lost, self._lost = self._lost, 0
        try:
            self._count(state, recorder, taken, lost, rows)
            dropped = self._spool(rows)
            self._lost += dropped
            if dropped:
                self._faults.limit("records_dropped", dropped)
                recorder.lack(SPOOL, dropped)
        except BaseException:
            self._lost += lost + len(taken[0]) + taken[1]
            told = [
                one.request.rows for one in taken.seen if one.ours is not None and not one.again
            ]
            recorder.lack(FAULT, sum(told))
            raise

    def _count(
        self, state: State, recorder: Recorder, taken: Taken, unwritten: int, rows: list[JoinRow]
    ) -> None:
        counter, bounds = self._counter(state, recorder)
        seen, lost, broken, streak, conduct = taken
        lost += unwritten  # add what could not be written a second ago
        if not state.divided:
            logged, torn = counter.logged([one for one in seen if not one.mirrored])
            rows += logged
            self._lost += lost + torn
            lost = 0
            seen = [one for one in seen if one.mirrored]
            if state.compared is None or not seen:
                return
        at = int(self._clock.unix())
        strata = sorted(set(map(_STRATUM, seen)))
        done = conduct.routed or conduct.crashes or conduct.unasked or conduct.answered
        if not strata and (lost or streak or broken or done or conduct.late):
            strata = [(state.stratum, state.mirrored is not None)]
        for weight, paired in strata:
            mine = (
                seen
                if len(strata) == 1
                else [one for one in seen if _STRATUM(one) == (weight, paired)]
            )
            self._number += 1
            window, more = counter.window(
                mine,
                at,
                bounds,
                number=self._number,
                paired=paired,
                weight=weight,
                lost=lost,
                streak=streak,
                broken=broken,
                conduct=conduct,
            )
            lost = streak = broken = 0
            conduct = QUIET
            self._waiting.append(window)
            if counter.uncompared:
                recorder.count("shadow.not_compared", counter.uncompared)
                counter.uncompared = 0
            rows += more

    def _counter(self, state: State, recorder: Recorder) -> tuple[Counter, SlowBounds]:
        """Return the counter of this comparison, and the bounds for the second to be counted.

        The bounds come from earlier seconds: they must not depend on what they judge.
        """
        # A drill, and a rollback to the drilled release, have the same production. It is compared
        # with nothing in the drill, and with a release after the rollback.
        key = (state.endpoint, *recorder.key, state.compared)
        policy = state.policy_digest
        kept = self._counters.pop(key, None)
        if kept is None or kept[0] != policy:
            counter = Counter(self._replica, state, self._rest)
            kept = (policy, counter, kept[2] if kept else SlowBounds())
        while len(self._counters) >= COUNTERS:
            self._counters.pop(next(iter(self._counters)))
        _, counter, bounds = kept
        after = recorder.bounds(tolerated_latency(state.policy), SLOW_FLOOR_US, LEAST)
        self._counters[key] = (policy, counter, after)
        return counter, bounds

    def _rest(self) -> None:
        """Rest between two parts of the counting, for as long as the last part took."""
        worked = self._clock.monotonic() - self._began
        if worked >= TURN_S:
            self._loop.rest(worked)
            self._began = self._clock.monotonic()


def _look_at(live: Live) -> None:
    """Refresh the limits of callers' waits, and count the violations of transformations."""
    live.refresh_deadline()
    _count_violations(live)


def _count_violations(live: Live) -> None:
    """Count by arm the values that transformations gave out of range or unseen."""
    arms = {"production": live.state.production, "candidate": live.state.candidate}
    for arm, number in arms.items():
        handle = live.handles.get(number) if number is not None else None
        for name, count in handle.violations().items() if handle is not None else ():
            live.recorder.count(f"violations.{arm}.{name}", count)
