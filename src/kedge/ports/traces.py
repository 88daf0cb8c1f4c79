"""Traces: where spans that have ended go."""

from __future__ import annotations

from typing import Protocol

from kedge.core.trace_context import SpanRecord

LOST_SPANS = "spans"
"""The limit under which a process counts the spans that it dropped or could not send."""


class SpanSink(Protocol):
    """Takes spans without waiting; it drops what it cannot send."""

    def take(self, span: SpanRecord) -> None:
        """Take a span. Never blocks, and never raises."""

    def close(self) -> None:
        """Send what is waiting, for a short time, and end."""
