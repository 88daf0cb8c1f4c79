"""Judges the readiness of every endpoint, beside the patrol, and says which checks fail.

Theory of operation
-------------------
* A thread of its own, once a minute: it may wait for a proof, and no look of the patrol waits for it.
* A row that has moved within the minute is left alone: what stands for seconds is nobody's business.
* What a check costs and what is filed is `check`'s affair; this says when, and keeps the newest word.
* A fault costs this look. The endpoint's last word stands, and the next look is another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import structlog

from kedge.core.errors import KedgeError
from kedge.core.values import State
from kedge.ports import Ledger

EVERY_S = 60.0
"""How often it looks: a person who mended something looks again after about as long."""

log = structlog.get_logger("kedge.readiness")


class Readiness:
    """What is known of the readiness of endpoints that have something in production."""

    def __init__(
        self, *, ledger: Ledger, check: Callable[[State], tuple[str, ...]],
        leads: Callable[[], bool],
    ) -> None:  # fmt: skip
        """Judge by `check`, which names the checks that fail; only while this one leads."""
        self._ledger = ledger
        self._check = check
        self._leads = leads
        self._epochs: dict[str, int] = {}
        self._stopping = threading.Event()
        self.unready: Mapping[str, tuple[str, ...]] = {}
        """By endpoint: the checks that fail. Replaced whole, so that another thread may read it."""

    def stop(self) -> None:
        """End after the present look."""
        self._stopping.set()

    def run(self) -> None:
        """Look until stopped."""
        while not self._stopping.wait(EVERY_S):
            try:
                self.look()
            except Exception as error:  # noqa: BLE001 - control must live; the fault is logged
                log.warning("readiness.lost", fault=f"{type(error).__name__}: {error}")

    def look(self) -> None:
        """Look once at every endpoint that stood still since the last look."""
        if not self._leads():
            self._epochs, self.unready = {}, {}
            return
        states = self._ledger.read().states
        before, self._epochs = self._epochs, {n: state.epoch for n, state in states.items()}
        for name, state in states.items():
            if state.production is None or before.get(name) != state.epoch:
                continue
            try:
                names = self._check(state)
            except KedgeError as error:
                log.warning("readiness.lost", endpoint=name, fault=f"{error.code}: {error}")
                continue
            if self.unready.get(name) != names:
                log.info("readiness.judged", endpoint=name, failed=list(names))
            self.unready = {**self.unready, name: names}
        self.unready = {name: names for name, names in self.unready.items() if name in states}
