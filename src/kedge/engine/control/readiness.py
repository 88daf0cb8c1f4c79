"""Readiness loop: judges every endpoint's readiness, beside the patrol, and reports failing checks.

Theory of operation
-------------------
* It runs on a separate thread, once a minute: it may wait for a proof, and the patrol never waits
  for it.
* It skips a row that moved within the minute: a state of seconds is not reported.
* `check` decides what a check costs and what is recorded; this loop schedules it, and holds the
  result.
* A fault costs the look at one endpoint. Its last result stands until the next look.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog

from kedge.core.values import State
from kedge.engine.loop import Duty, Loop
from kedge.ports import Ledger

EVERY_S = 60.0
"""Interval between looks: after a fix, an operator looks again after about this time."""

log = structlog.get_logger("kedge.readiness")


class Readiness:
    """The readiness of the endpoints that have a production release."""

    def __init__(
        self, duty: Duty, *, ledger: Ledger, check: Callable[[State], tuple[str, ...]]
    ) -> None:
        """Judge by `check`, which returns the checks that fail; only while this process leads."""
        self._ledger = ledger
        self._check = check
        self._epochs: dict[str, int] = {}
        self.unready: Mapping[str, tuple[str, ...]] = {}
        """By endpoint: the checks that fail. Replaced as a whole, so that another thread may read
        it."""
        self.loop = Loop(
            duty,
            "readiness.look",
            self.look,
            every_s=EVERY_S,
            rests_first=True,
            forget=self._forget,
        )
        self._net = self.loop.net

    def _forget(self) -> None:
        self._epochs, self.unready = {}, {}

    def look(self) -> None:
        """Look once at every endpoint whose row has not moved since the last look."""
        states = self._ledger.read().states
        before, self._epochs = self._epochs, {n: state.epoch for n, state in states.items()}
        for name, state in states.items():
            moved = before.get(name) != state.epoch
            if state.production is None or moved or state.unconfirmed:
                continue
            self._net.run(f"readiness.check.{name}", partial(self._judge, state))
        self.unready = {name: names for name, names in self.unready.items() if name in states}

    def _judge(self, state: State) -> None:
        name, names = state.endpoint, self._check(state)
        if self.unready.get(name) != names:
            log.info("readiness.judged", endpoint=name, failed=list(names))
        self.unready = {**self.unready, name: names}
