"""Traces of requests: a span for each sampled request, sent after its answer has left."""

from __future__ import annotations

from collections.abc import Callable, Iterable, MutableMapping
from random import getrandbits
from time import time_ns
from typing import TYPE_CHECKING, Any

from kedge.core.trace_context import HEADER, SpanRecord, TraceParent, read_context
from kedge.ports.traces import LOST_SPANS, SpanSink

if TYPE_CHECKING:
    from kedge.engine.request import Request
    from kedge.engine.serving.live import Answer, Live

MOST = 200
"""Spans a second of one worker: a caller that marks every request as sampled costs no more."""
KEY = "kedge.span"
"""Where the ASGI scope has the span of a request that is under way."""


class OpenSpan:
    """The span of a request that is under way."""

    __slots__ = ("began_ns", "context", "parent", "state")

    def __init__(self, context: TraceParent, parent: int | None, state: str = "") -> None:
        self.context = context
        self.parent = parent
        self.state = state
        """The `tracestate` of the caller."""
        self.began_ns = time_ns()

    @property
    def header(self) -> tuple[bytes, bytes]:
        """The header by which the answer names its span."""
        return HEADER, self.context.text.encode()


class RequestTraces:
    """Decides which requests are traced, and makes their spans. The serving loop uses it."""

    def __init__(self, sink: SpanSink, share: float, limit: Callable[[str], None]) -> None:
        """Trace this share of the requests whose callers do not decide.

        `limit` is called with `LOST_SPANS` for each span that exceeds `MOST`.
        """
        self._sink = sink
        self._limit = limit
        self._below = share * 2**32
        self._second = 0
        self._count = 0

    def begin(self, scope: MutableMapping[str, Any]) -> OpenSpan:
        """Begin the span of a request, and keep it in the scope, where an error finds it."""
        span = scope[KEY] = self._begin(scope["headers"])
        return span

    def _begin(self, headers: Iterable[tuple[bytes, bytes]]) -> OpenSpan:
        """Begin a span. It is sampled as its caller's span is, else by chance."""
        parent, state = read_context(headers)
        span = getrandbits(64) or 1
        if parent is None:
            trace = getrandbits(128) or 1
            return OpenSpan(TraceParent(trace, span, getrandbits(32) < self._below), None)
        return OpenSpan(TraceParent(parent.trace, span, parent.sampled), parent.span, state)

    def end(self, span: OpenSpan, live: Live, request: Request, answer: Answer) -> None:
        """End the span of a request that was answered."""
        if span.context.sampled:
            choice = answer.choice
            attributes: dict[str, str | int] = {
                "kedge.endpoint": live.state.endpoint,
                "kedge.epoch": live.state.epoch,
                "kedge.release": f"r{choice.release}",
                "kedge.arm": str(choice.arm),
                "kedge.reason": str(choice.reason),
                "kedge.rows": request.rows,
                "kedge.request_id": request.id,
                "kedge.model_us": answer.micros,
            }
            if answer.failover is not None:
                attributes["kedge.failover"] = answer.failover
            self._take(span, attributes)

    def fail(self, span: OpenSpan, endpoint: str, code: str) -> None:
        """End the span of a request that was refused or failed."""
        if span.context.sampled:
            self._take(span, {"kedge.endpoint": endpoint}, code)

    def _take(self, span: OpenSpan, attributes: dict[str, str | int], fault: str = "") -> None:
        now = time_ns()
        if now // 1_000_000_000 != self._second:
            self._second, self._count = now // 1_000_000_000, 0
        self._count += 1
        if self._count > MOST:
            self._limit(LOST_SPANS)
            return
        context = span.context
        self._sink.take(
            SpanRecord(
                "kedge.infer",
                context.trace,
                context.span,
                span.parent,
                span.began_ns,
                now,
                attributes,
                fault,
                serves=True,
                state=span.state,
            )
        )
