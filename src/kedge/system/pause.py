"""Pause of a thread, even while the machine's clocks are changed."""

from __future__ import annotations

import threading


def pause(seconds: float) -> None:
    """Wait for some seconds. `time.sleep` raises EINVAL if a process's clock is changed."""
    threading.Event().wait(seconds)
