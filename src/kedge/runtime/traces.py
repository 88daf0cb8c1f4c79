"""Traces of a process: the sink of its spans, and the loop that sends a span for each rollback."""

from __future__ import annotations

import importlib
from collections.abc import Callable

from kedge.core.errors import BadConfig
from kedge.core.time.instants import read_instant
from kedge.core.trace_context import rollback_spans
from kedge.engine.loop import Duty, Loop
from kedge.ports.traces import LOST_SPANS, SpanSink
from kedge.workspace import Workplace

EVERY_S = 2.0
ENTRIES = 500


def open_sink(url: str, service: str, limit: Callable[[str, int], None]) -> SpanSink:
    """Open the sink of spans at a collector's URL.

    Args:
        url: the collector.
        service: the name of this process in the spans.
        limit: called from any thread with `LOST_SPANS` and the number of spans that were lost.

    Raises:
        BadConfig: the extra `otel` is not installed.
    """
    try:
        # By name: the SDK is optional, and its import takes a tenth of a second.
        adapter = importlib.import_module("kedge.adapters.traces.otlp")
    except ModuleNotFoundError as error:
        raise BadConfig(
            [f"server.traces: needs the extra otel ({error.name} is not installed)"],
            hint="pip install 'kedge[otel]'",
        ) from None
    sink: SpanSink = adapter.OtlpSpans(url, service, lambda count: limit(LOST_SPANS, count))
    return sink


class RollbackTraces:
    """Sends a span for each rollback of any actor: the ledger has its receipt."""

    def __init__(self, duty: Duty, place: Workplace, sink: SpanSink) -> None:
        """Read this workplace's ledger from its present end on."""
        self._place = place
        self._sink = sink
        self._seq: int | None = None
        self.loop = Loop(duty, "control.traces", self.look, every_s=EVERY_S, last=sink.close)

    def look(self) -> bool:
        """Send what is new; return whether there may be more."""
        if self._seq is None:
            head = self._place.ledger.read().head
            self._seq = head.seq if head is not None else 0
        entries = self._place.ledger.later(self._seq, ENTRIES)
        for entry in entries:
            self._seq = entry.seq
            for span in rollback_spans(entry, read_instant(entry.at)):
                self._sink.take(span)
        return len(entries) == ENTRIES


def traces_of(url: str | None, duty: Duty, place: Callable[[], Workplace]) -> dict[str, Loop]:
    """Return the loop that sends spans of rollbacks, by its name; none without a collector."""
    if url is None:
        return {}
    sink = open_sink(url, "kedge-control", duty.faults.limit)
    return {"traces": RollbackTraces(duty, place(), sink).loop}
