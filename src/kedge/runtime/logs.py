"""Logs of kedge's processes: events as text or JSON lines on standard error, never an exception."""

from __future__ import annotations

import logging
import sys
from contextlib import suppress
from typing import Any

import structlog

from kedge import streams
from kedge.terminal import clean_event

_Filtering: Any = structlog.make_filtering_bound_logger(logging.NOTSET)


class _Unfailing(_Filtering):  # type: ignore[misc]
    """A logger whose caller goes on, whatever an event's values raise when they are rendered."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **given: Any) -> Any:
        try:
            return super()._proxy_to_logger(method_name, event, **given)
        except Exception as error:  # noqa: BLE001 - a value's own text may raise anything
            with suppress(Exception):
                plain = {"event": str(event), "unloggable": type(error).__name__}
                return super()._proxy_to_logger(method_name, **plain)


def log_to_stderr() -> None:
    """Write events to stderr: as text at a terminal, else as JSON lines for the log files.

    Both standard streams of this process become unfailing (`kedge.streams`).
    """
    streams.guard()
    logging.raiseExceptions = False  # the standard library's loggers drop what they cannot write
    people = sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            *((clean_event,) if people else ()),
            structlog.dev.ConsoleRenderer() if people else structlog.processors.JSONRenderer(),
        ],
        wrapper_class=_Unfailing,
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
