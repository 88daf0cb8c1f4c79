"""Retention of records and windows: stores what workers wrote, and removes what is old.

The loop runs beside the patrol, so that many outcomes or a slow disk delay no verdict.
"""

from __future__ import annotations

from functools import partial

import structlog

from kedge.core.evidence.records import Ingested
from kedge.core.time.durations import seconds
from kedge.core.values import State
from kedge.engine.loop import Duty, Loop
from kedge.ports import Ledger, RecordStore, RollStore

TICK_S = 2.0
"""Interval between looks; a worker closes its file every ten seconds."""
PRUNE_S = 3_600.0
AGE_S = 60.0

log = structlog.get_logger("kedge.clerk")


class Clerk:
    """The clerk of one host. Several may run: the store allows one write at a time."""

    def __init__(
        self, duty: Duty, *, ledger: Ledger, records: RecordStore, rolls: RollStore
    ) -> None:
        self._ledger = ledger
        self._rolls = rolls
        self._records = records
        self._clock = duty.clock
        self._pruned_at = -PRUNE_S
        self._aged_at = -AGE_S
        self._limit = duty.faults.limit
        self.loop = Loop(duty, "clerk.look", self.look, every_s=TICK_S)
        self._net = self.loop.net

    def look(self) -> None:
        """Store everything that waits; once an hour, remove what is too old.

        Each part runs in a net: a fault while storing does not stop the removal.
        """
        self._net.run("clerk.ingest", self._ingest)
        now = self._clock.monotonic()
        if now - self._aged_at >= AGE_S:
            self._aged_at = now
            self._net.run("clerk.age", lambda: self._rolls.age(self._clock.unix()))
        if now - self._pruned_at >= PRUNE_S:
            self._pruned_at = now
            self._net.run("clerk.prune", lambda: self._records.prune(self._clock.unix()))
            self._net.run("clerk.strip", self._strip_all)

    def _ingest(self) -> None:
        while self._records.waiting() and not self.loop.is_stopped:
            taken = self._records.ingest(self._clock.unix())
            if taken.torn or taken.damaged:
                log.warning("clerk.damaged", torn=taken.torn, damaged=taken.damaged)
            if taken.reused:
                log.warning("clerk.ids_reused", rows=taken.reused, withdrawn=taken.withdrawn)
            if taken.adopted.early:
                log.warning("clerk.labels_early", labels=taken.adopted.early)
            if taken.bare or taken.over or taken.hours:
                log.warning(
                    "clerk.records_full",
                    without_inputs=taken.bare,
                    rows=taken.over,
                    hours=taken.hours,
                )
            bounded = {
                "records.id_reused": taken.reused,
                "records.hour_inputs": taken.bare,
                "records.hour_rows": taken.over,
                "records.oldest_hours": taken.hours,
                "records.early_labels": taken.adopted.early,
                "records.torn": taken.torn,
            }
            for bound, count in bounded.items():
                if count:
                    self._limit(bound, count)
            if taken == Ingested():
                break

    def _strip_all(self) -> None:
        for state in self._ledger.read().states.values():
            self._net.run(f"clerk.strip.{state.endpoint}", partial(self._strip, state))

    def _strip(self, state: State) -> None:
        kept_s = seconds(state.policy.log.retention)
        self._records.strip(self._clock.unix(), kept_s, state.endpoint)
