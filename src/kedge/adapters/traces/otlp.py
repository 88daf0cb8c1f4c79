"""Spans by OTLP over HTTP, with the SDK of OpenTelemetry (the extra `otel`)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from importlib.metadata import version
from threading import Thread

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)

from kedge.core.trace_context import SpanRecord

PATH = "/v1/traces"
QUEUE = 2048
"""Spans that wait; further ones are dropped, so that a dead collector costs no memory."""
DELAY_MS = 1000.0
TIMEOUT_S = 5.0
CLOSE_S = 2.0
"""How long a process that ends waits for its last spans."""
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class _Counted(SpanExporter):
    """An exporter that counts the spans that it could not send, and can be told to end."""

    def __init__(self, exporter: SpanExporter, lost: Callable[[int], None]) -> None:
        self._exporter = exporter
        self._lost = lost
        self.left = 0
        """Spans that left the queue, sent or not."""
        self.ended = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, unless the process ends."""
        self.left += len(spans)
        sent = SpanExportResult.FAILURE if self.ended else self._exporter.export(spans)
        if sent is not SpanExportResult.SUCCESS:
            self._lost(len(spans))
        return sent

    def shutdown(self) -> None:
        """End; a transmission that waits for its next attempt is given up."""
        self.ended = True
        self._exporter.shutdown()


class OtlpSpans:
    """A sink that sends spans to a collector, in batches from a thread of its own."""

    def __init__(self, url: str, service: str, lost: Callable[[int], None]) -> None:
        """Send to the collector at this URL as this service; `lost` gets a number of spans."""
        # The exporter logs each failed attempt with its trace; a dead collector is no fault here.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        found = version("kedge")
        self._resource = Resource({"service.name": service, "service.version": found})
        self._scope = InstrumentationScope("kedge", found)
        exporter = OTLPSpanExporter(endpoint=url.rstrip("/") + PATH, timeout=TIMEOUT_S)
        self._counted = _Counted(exporter, lost)
        self._taken = 0
        self._lost = lost
        self._batches = BatchSpanProcessor(
            self._counted, max_queue_size=QUEUE, schedule_delay_millis=DELAY_MS
        )

    def take(self, span: SpanRecord) -> None:
        """Take a span; a full queue drops it."""
        if self._taken - self._counted.left >= QUEUE:
            self._lost(1)
            return
        self._taken += 1
        state = TraceState.from_header([span.state]) if span.state else None

        def context(number: int) -> SpanContext:
            return SpanContext(
                span.trace, number, is_remote=False, trace_flags=_SAMPLED, trace_state=state
            )

        failed = Status(StatusCode.ERROR, span.fault) if span.fault else Status()
        self._batches.on_end(
            ReadableSpan(
                span.name,
                context=context(span.span),
                parent=context(span.parent) if span.parent is not None else None,
                resource=self._resource,
                attributes=span.attributes,
                kind=SpanKind.SERVER if span.serves else SpanKind.INTERNAL,
                status=failed,
                start_time=span.start_ns,
                end_time=span.end_ns,
                instrumentation_scope=self._scope,
            )
        )

    def close(self) -> None:
        """Send what is waiting for at most `CLOSE_S`: a collector must not delay a restart."""
        ending = Thread(target=self._batches.shutdown, daemon=True)
        ending.start()
        ending.join(CLOSE_S)
        self._counted.shutdown()
