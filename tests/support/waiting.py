"""Waiting for an event: the one loop of the suite that polls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

Found = TypeVar("Found")

MOST_S = 0.5
"""Maximum pause between two looks."""


def wait_until(
    look: Callable[[], Found | None],
    what: str | Callable[[], str],
    within_s: float = 10.0,
    *,
    every_s: float = 0.01,
) -> Found:
    """Return what `look` returns once it is true; fail with `what` if it stays false.

    A look that takes long, as a command does, is repeated after a pause as long: otherwise it would
    slow down what it waits for. The last look comes after the deadline, so that a machine that is
    busy elsewhere does not fail a test whose event has happened.
    """
    end = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        if found := look():
            return found
        now = time.monotonic()
        if began >= end:
            raise AssertionError(_say(what, within_s))
        time.sleep(min(max(every_s, now - began), MOST_S))


async def wait_on_loop_until(
    look: Callable[[], object],
    what: str | Callable[[], str],
    within_s: float = 10.0,
    *,
    every_s: float = 0.005,
) -> None:
    """Wait as `wait_until`, while the loop runs."""
    end = time.monotonic() + within_s
    while True:
        began = time.monotonic()
        if look():
            return
        if began >= end:
            raise AssertionError(_say(what, within_s))
        await asyncio.sleep(every_s)


def _say(what: str | Callable[[], str], within_s: float) -> str:
    said = what if isinstance(what, str) else what()
    return f"waited {within_s:g} s for {said}"
