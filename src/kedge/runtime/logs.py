"""Logs of kedge's processes: events as text or JSON lines on standard error, never an exception.

A warning or an error that names a fault is also counted, so that `kedge status` shows it.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, MutableMapping
from contextlib import suppress
from typing import Any

import structlog

from kedge.system import streams
from kedge.system.terminal import clean_event

Count = Callable[[str, str], None]
"""A function that takes the place of a fault and its text."""

LOUD = ("warning", "error", "critical")
COUNTED = "process.fault"
"""Name of the event of a fault that is counted where it is logged."""

_Filtering: Any = structlog.make_filtering_bound_logger(logging.NOTSET)


class _Unfailing(_Filtering):  # type: ignore[misc]
    """A logger that never raises, even if an event's values raise when they are rendered."""

    def _proxy_to_logger(self, method_name: str, event: str | None = None, **given: Any) -> Any:
        try:
            return super()._proxy_to_logger(method_name, event, **given)
        except Exception as error:  # noqa: BLE001 - str() of a value may raise anything
            with suppress(Exception):
                plain = {"event": str(event), "unloggable": type(error).__name__}
                return super()._proxy_to_logger(method_name, **plain)


class _Counting(logging.Handler):
    """A handler that counts the warnings of the standard library's loggers."""

    def __init__(self, count: Count) -> None:
        super().__init__(logging.WARNING)
        self._count = count

    def emit(self, record: logging.LogRecord) -> None:
        """Count one warning; if its text cannot be rendered, only the text is lost."""
        with suppress(Exception):
            self._count(record.name.removeprefix("kedge."), record.getMessage())


def count_faults(count: Count) -> None:
    """Count every warning and error of this process that names a fault.

    An event names its fault in the field `fault`. kedge's adapters use the standard library's
    loggers. Call this after `log_to_stderr`.
    """

    def counting(_: Any, level: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        if level in LOUD and event.get("event") != COUNTED and event.get("fault"):
            with suppress(Exception):
                count(str(event["event"]), str(event["fault"]))
        return event

    configured = structlog.get_config()["processors"]
    structlog.configure(processors=[counting, *configured])
    logging.getLogger("kedge").addHandler(_Counting(count))
    # Python prints a warning itself only if no handler took it.
    logging.getLogger("kedge").addHandler(logging.StreamHandler(sys.stderr))


def log_to_stderr() -> None:
    """Write events to stderr: as text on a terminal, else as JSON lines for the log files.

    It also makes both standard streams of this process unfailing (`kedge.system.streams`).
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
