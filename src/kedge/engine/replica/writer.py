"""Writer of what was observed, once a second: counts, windows for the judge, rows for the outcomes.

Theory of operation
-------------------
* A thread of its own (`run`). The replica's thread acknowledges commands, so it may not count: a
  second of batch requests is a second of counting.
* It rests as long as it has worked, every millisecond or so. So the serving loop, which needs
  the same interpreter, keeps its turn however much there is to count.
* Nothing here reaches a request: what cannot be written is lost, counted and logged.
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
"""Without a finished beat for so long while requests come the recording is silent: five were due."""
SILENT = f"nothing was written for more than {SILENT_S:g} s while requests came"
LEAST = 200
"""Production answers from which its quantiles are worth a bound: two lie above the p99."""
WAITING = 120
"""Windows kept while the store cannot be written: two minutes of one comparison."""
COMPARISONS = 64
"""Comparisons whose counts this process keeps; an older one that comes back counts under a new
name, so that nothing it counted before is written over."""
COUNTERS = 8
"""Comparisons whose units are remembered, 20 MB each at most. One that comes back after so many
others checks its split from the beginning."""
TURN_S = 0.001
"""Counting goes on for so long before it rests as long: a request meets at most this and one part of
the counting (`windows.PART`) beside it."""

_STRATUM = attrgetter("weight", "mirrored")

Spool = Callable[[Sequence[JoinRow]], int]
Key = tuple[object, ...]


class Recording:
    """One worker's pen."""

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
        """Why windows cannot be written; empty when they can."""

    def start(self) -> None:
        """Begin to write, once a second; nothing where it has begun."""
        if self._thread.ident is None:
            self._told_at = self._clock.monotonic()
            self._thread.start()

    def close(self, patience_s: float) -> None:
        """Write what is left and end; what takes longer than the patience is lost."""
        self._loop.stop()
        if self._thread.is_alive():
            self._thread.join(patience_s)

    def recorder(self, state: State, name: str) -> Recorder:
        """The comparison's counts: those it had, when it comes back, so that they only grow.

        Called by the replica's thread. `name` is given to counts that begin.
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
        """Why what is counted is not written; empty when it is. For another thread to ask."""
        if self.unwritten or self._told_at is None:
            return self.unwritten
        silent = self._clock.monotonic() - self._told_at > SILENT_S
        return SILENT if silent and self._requests() > self._told_requests else ""

    def _requests(self) -> int:
        with self._lock:
            recorders = list(self._recorders.values())
        return sum(recorder.requests() for recorder in recorders)

    def _beat(self) -> None:
        """Tell one second. A fault costs what was being told, and the next second is another."""
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
        """Write the counts that changed; what is not written now is written with the next."""
        tallies = [recorder.tally() for recorder in recorders]
        fresh = [t for t in tallies if self._told.get((t.endpoint, t.replica)) != t]
        self._evidence.publish(fresh)
        self._told = {(tally.endpoint, tally.replica): tally for tally in tallies}

    def flush(self, pairs: Iterable[tuple[State, Recorder]]) -> list[Recorder]:
        """Count and write what was offered since the last call; each comparison has its own net.

        Returns those that could not be counted: they are tried again.
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
        """Count what one comparison has gathered; where that fails, it is lost and counted as lost."""
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
        lost += unwritten  # what could not be written a second ago is told with what can be now
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
        """What counts this comparison, and the bounds of the second that is to be counted.

        They come from before it: they may not depend on what they judge.
        """
        # A drill, and a rollback to what it was about, count one production: compared with
        # nothing, then with something.
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
        """Between two parts of the counting: leave others the interpreter as long as it was ours."""
        worked = self._clock.monotonic() - self._began
        if worked >= TURN_S:
            self._loop.rest(worked)
            self._began = self._clock.monotonic()


def _look_at(live: Live) -> None:
    """Refresh what callers wait for at most, and count what transformations gave."""
    live.refresh_deadline()
    _count_violations(live)


def _count_violations(live: Live) -> None:
    """Count by arm what transformations gave out of range or unseen."""
    arms = {"production": live.state.production, "candidate": live.state.candidate}
    for arm, number in arms.items():
        handle = live.handles.get(number) if number is not None else None
        for name, count in handle.violations().items() if handle is not None else ():
            live.recorder.count(f"violations.{arm}.{name}", count)
