"""A pause of a thread, whatever the machine's clocks are."""

from __future__ import annotations

import threading


def pause(seconds: float) -> None:
    """Wait for some seconds. `time.sleep` raises EINVAL where a process's clock is moved."""
    threading.Event().wait(seconds)
