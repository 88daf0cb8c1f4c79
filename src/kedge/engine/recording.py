"""Writes what was observed, once a second: windows for the judge, join rows for the outcomes.

Runs on the replica's thread. Nothing here reaches a request: what cannot be written is lost,
counted and logged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import structlog

from kedge.core.errors import KedgeError
from kedge.core.policy import tolerated_latency
from kedge.core.records import JoinRow
from kedge.core.values import State
from kedge.core.windows import Window
from kedge.engine.observe import Recorder
from kedge.engine.windows import SLOW_FLOOR_US, Bounds, Counter
from kedge.ports import WindowStore

log = structlog.get_logger("kedge.recording")

LEAST = 200
"""Production answers from which its quantiles are worth a bound: two lie above the p99."""
WAITING = 120
"""Windows kept while the store cannot be written: two minutes of one comparison."""

Spool = Callable[[Sequence[JoinRow]], int]


class Recording:
    """One worker's pen."""

    def __init__(
        self, replica: str, store: WindowStore, spool: Spool, unix: Callable[[], float]
    ) -> None:
        self._replica = replica
        self._store = store
        self._spool = spool
        self._unix = unix
        self._counters: dict[tuple[object, ...], tuple[str, Counter]] = {}
        self._bounds: dict[tuple[object, ...], Bounds] = {}
        self._number = 0
        self._waiting: list[Window] = []
        self._lost = 0
        self.unwritten = ""
        """Why windows cannot be written; empty when they can."""

    def flush(self, watched: Iterable[tuple[State, Recorder]]) -> None:
        """Count and write what was offered since the last call."""
        rows: list[JoinRow] = []
        for state, recorder in watched:
            self._count(state, recorder, rows)
        self._waiting, over = self._waiting[-WAITING:], self._waiting[:-WAITING]
        self._lost += len(over)
        self._lost += self._spool(rows)
        try:
            self._store.write(self._waiting)
        except KedgeError as error:
            if not self.unwritten:
                log.warning("recording.store_lost", fault=str(error), replica=self._replica)
            self.unwritten = str(error)
        else:
            self._waiting, self.unwritten = [], ""

    def _count(self, state: State, recorder: Recorder, rows: list[JoinRow]) -> None:
        key = (state.endpoint, *recorder.key)
        policy = state.policy_digest
        if key not in self._counters or self._counters[key][0] != policy:
            self._counters[key] = (policy, Counter(self._replica, state))
        counter = self._counters[key][1]
        seen, lost, streak, broken = recorder.taken()
        # What could not be written a second ago is told with what can be now.
        lost, self._lost = lost + self._lost, 0
        if not state.divided:
            logged, torn = counter.logged(one for one in seen if not one.mirrored)
            rows += logged
            self._lost += lost + torn
            lost = 0
            seen = [one for one in seen if one.mirrored]
            if state.compared is None or not seen:
                return
        # The bounds of a second come from before it: they may not depend on what they judge.
        bounds = self._bounds.get(key, Bounds())
        self._bounds[key] = recorder.bounds(tolerated_latency(state.policy), SLOW_FLOOR_US, LEAST)
        at = int(self._unix())
        strata = sorted({(one.weight, one.mirrored) for one in seen})
        if not strata and (lost or streak or broken):
            strata = [(state.stratum, state.mirrored is not None)]
        for weight, paired in strata:
            mine = [one for one in seen if (one.weight, one.mirrored) == (weight, paired)]
            self._number += 1
            window, more = counter.window(
                mine, at, bounds, number=self._number, paired=paired, weight=weight,
                lost=lost, streak=streak, broken=broken,
            )  # fmt: skip
            lost = streak = broken = 0
            self._waiting.append(window)
            rows += more
