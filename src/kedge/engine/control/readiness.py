"""Judges the readiness of every endpoint, beside the patrol, and says which checks fail.

Theory of operation
-------------------
* A thread of its own, once a minute: it may wait for a proof, and no look of the patrol waits for it.
* A row that has moved within the minute is left alone: a state of seconds is not reported.
* What a check costs and what is filed is `check`'s affair; this says when, and keeps the newest word.
* A fault costs the look at one endpoint. Its last word stands, and the next look is another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import structlog

from kedge.core.values import State
from kedge.engine.loop import Duty, Loop
from kedge.ports import Ledger

EVERY_S = 60.0
"""How often it looks: a person who fixed something looks again after about as long."""

log = structlog.get_logger("kedge.readiness")


class Readiness:
    """What is known of the readiness of endpoints that have something in production."""

    def __init__(
        self, duty: Duty, *, ledger: Ledger, check: Callable[[State], tuple[str, ...]]
    ) -> None:
        """Judge by `check`, which names the checks that fail; only while this one leads."""
        self._ledger = ledger
        self._check = check
        self._epochs: dict[str, int] = {}
        self.unready: Mapping[str, tuple[str, ...]] = {}
        """By endpoint: the checks that fail. Replaced whole, so that another thread may read it."""
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
        """Look once at every endpoint that stood still since the last look."""
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
