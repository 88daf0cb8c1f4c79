"""Automatic diagnosis of production: when it fails after a promotion, and when labels arrive.

Theory of operation
-------------------
* The loop runs beside the patrol, on a separate thread. Each diagnosis runs in a niced process, one
  at a time, with a time limit. Nothing waits for it; the next decision reads what it records.
* A failing contrast after a promotion is diagnosed at once, and once for each epoch. If production
  is worse than it was, with nothing to compare it with, no contrast shows it. So an endpoint with
  new labels is also diagnosed every hour. Both are the same diagnosis as `kedge diagnose`.
* The newest diagnosis is read from the ledger, so that a new control does not repeat it.
* Deliberately absent: any judgement, and any command.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import IO, NamedTuple

import structlog

from kedge.core.alerts.alerts import Sight
from kedge.core.errors import Refused
from kedge.core.values import Stage, State
from kedge.engine.findings import newest_finding
from kedge.engine.loop import Duty, Loop
from kedge.ports import Ledger, RecordStore
from kedge.system.interpreter import safe_environment

TICK_S = 2.0
EVERY_S = 3_600.0
"""How often an endpoint with new labels is diagnosed. It costs some ten seconds of one niced core.
Labels mostly arrive in batches, and a cause that no contrast shows allows no quick rollback."""
AGAIN_S = 600.0
"""Shortest time between two diagnoses of an endpoint, whatever fails."""
LABELS = 50
"""Minimum number of new labels for a diagnosis: with fewer it could not tell."""
WITHIN_S = 300.0
"""Longest duration of one diagnosis: ten times what 100,000 requests take."""
LOOK_S = 30.0
"""Interval between looks for new labels."""

log = structlog.get_logger("kedge.inquiry")

Command = Callable[[State, float], Sequence[str]]
"""Returns the command that diagnoses an endpoint, in its current row, within this many seconds."""


class _Running(NamedTuple):
    endpoint: str
    child: subprocess.Popen[bytes]
    said: IO[bytes]
    until: float


class Inquiry:
    """The inquiry of one control."""

    def __init__(
        self,
        duty: Duty,
        *,
        ledger: Ledger,
        records: RecordStore,
        sight: Callable[[], Sight],
        command: Command,
    ) -> None:
        self._ledger = ledger
        self._records = records
        self._sight = sight
        self._clock = duty.clock
        self._command = command
        self._by = duty.by
        self._running: _Running | None = None
        self._begun: dict[str, float] = {}
        """By endpoint: when its last diagnosis began, Unix time."""
        self._labels: dict[str, int] = {}
        self._failed: dict[str, int] = {}
        """By endpoint: the epoch whose failure was diagnosed."""
        self._looked: dict[str, float] = {}
        self.loop = Loop(
            duty,
            "inquiry.look",
            self.look,
            every_s=TICK_S,
            forget=partial(self._end, "another control leads"),
            last=partial(self._end, "control stops"),
        )
        self._net = self.loop.net

    def look(self) -> None:
        """End the diagnosis that is done or overdue, and start one that is due."""
        self._net.run("inquiry.reap", self._reap)
        if self._running is None:
            self._net.run("inquiry.read", self._look_at_all)

    def _look_at_all(self) -> None:
        for state in self._ledger.read().states.values():
            idle = state.drill is None and self._running is None
            if state.production is not None and idle and not state.unconfirmed:
                self._net.run(f"inquiry.look.{state.endpoint}", partial(self._look_at, state))

    def _look_at(self, state: State) -> None:
        if not self._due(state):
            return
        try:
            self._begin(state)
        except BaseException:
            self._begun.pop(state.endpoint, None)  # it is still due
            self._failed.pop(state.endpoint, None)
            raise

    # ------------------------------------------------------------ when

    def _due(self, state: State) -> bool:
        name, now = state.endpoint, self._clock.unix()
        if name not in self._begun:
            self._begun[name] = self._last(name)
            # The last diagnosis has seen earlier labels.
            fresh = now - self._begun[name] < EVERY_S
            self._labels[name] = self._records.newest_label(name) if fresh else 0
        since = now - self._begun[name]
        if 0 <= since < AGAIN_S:
            return False
        if self._fails(state):
            self._failed[name] = state.epoch
            return True
        if 0 <= since < EVERY_S or self._clock.monotonic() < self._looked.get(name, 0.0):
            return False
        self._looked[name] = self._clock.monotonic() + LOOK_S
        after, rows = self._records.labels(name, self._labels[name], LABELS)
        self._labels[name] = min(self._labels[name], after)  # fewer: the store is new
        return len(rows) >= LABELS

    def _last(self, name: str) -> float:
        """Return when any process last diagnosed an endpoint; 0 if unknown."""
        try:
            known = newest_finding(self._ledger, name)
        except Refused:  # another version of kedge recorded it
            return 0.0
        return known.at if known is not None else 0.0

    def _fails(self, state: State) -> bool:
        """Return whether it fails against the release that was left, not diagnosed yet."""
        epoch, decision = self._sight().decisions.get(state.endpoint, (-1, None))
        return (
            decision is not None
            and epoch == state.epoch
            and state.stage is Stage.SETTLED
            and decision.verdict == "fail"
            and self._failed.get(state.endpoint) != epoch
        )

    # ------------------------------------------------------------ the process

    def _begin(self, state: State) -> None:
        endpoint = state.endpoint
        self._begun[endpoint] = self._clock.unix()
        self._labels[endpoint] = self._records.newest_label(endpoint)
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process has ended
        try:
            child = subprocess.Popen(  # noqa: S603 - our own interpreter
                self._command(state, WITHIN_S),
                stdin=subprocess.DEVNULL,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**safe_environment(), "KEDGE_ACTOR": self._by},
            )
        except BaseException:
            said.close()
            raise
        self._running = _Running(endpoint, child, said, self._clock.monotonic() + WITHIN_S)
        log.info("inquiry.begun", endpoint=endpoint)

    def _reap(self) -> None:
        running = self._running
        if running is None:
            return
        code = running.child.poll()
        if code is None:
            if self._clock.monotonic() >= running.until:
                self._end(f"it took longer than {WITHIN_S:g} s")
            return
        self._running = None
        with running.said as said:
            if code:
                said.seek(max(said.seek(0, os.SEEK_END) - 500, 0))
                words = said.read().decode(errors="replace")
                log.warning("inquiry.failed", endpoint=running.endpoint, exit=code, said=words)
            else:
                log.info("inquiry.done", endpoint=running.endpoint)

    def _end(self, why: str) -> None:
        running = self._running
        if running is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(running.child.pid, signal.SIGKILL)
        running.child.wait()
        running.said.close()
        self._running = None
        log.warning("inquiry.killed", endpoint=running.endpoint, why=why)
