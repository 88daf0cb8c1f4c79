"""Spans by OTLP over HTTP, with the SDK of OpenTelemetry (the extra `otel`)."""

from __future__ import annotations

import logging
from importlib.metadata import version

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from kedge.core.trace_context import SpanRecord

PATH = "/v1/traces"
QUEUE = 2048
"""Spans that wait; further ones are dropped, so that a dead collector costs no memory."""
DELAY_MS = 1000.0
TIMEOUT_S = 5.0
_SAMPLED = TraceFlags(TraceFlags.SAMPLED)


class OtlpSpans:
    """A sink that sends spans to a collector, in batches from a thread of its own."""

    def __init__(self, url: str, service: str) -> None:
        """Send to the collector at this URL as this service."""
        # The exporter logs each failed attempt with its trace; a dead collector is no fault here.
        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
        found = version("kedge")
        self._resource = Resource({"service.name": service, "service.version": found})
        self._scope = InstrumentationScope("kedge", found)
        exporter = OTLPSpanExporter(endpoint=url.rstrip("/") + PATH, timeout=TIMEOUT_S)
        self._batches = BatchSpanProcessor(
            exporter, max_queue_size=QUEUE, schedule_delay_millis=DELAY_MS
        )

    def take(self, span: SpanRecord) -> None:
        """Take a span; a full queue drops the oldest."""

        def context(number: int) -> SpanContext:
            return SpanContext(span.trace, number, is_remote=False, trace_flags=_SAMPLED)

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
        """Send what is waiting, and end the thread."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]
