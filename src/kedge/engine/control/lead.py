"""Lead among the control processes of one state directory: the lock of the patrol."""

from __future__ import annotations

import os
from pathlib import Path

from kedge.system.locks import open_lock, try_lock

NAME = "patrol.lock"


class Lead:
    """The claim of one process to the lead."""

    def __init__(self, state_dir: Path) -> None:
        """Open the lock.

        Raises:
            OSError: it cannot be made.
        """
        self._lock = open_lock(state_dir / NAME)

    def take(self) -> bool:
        """Take the lead if it is free; return whether this process leads, from then to its end."""
        return try_lock(self._lock)


def is_led(state_dir: Path) -> bool:
    """Return whether a process leads. If none does, the lock is released at once."""
    try:
        handle = os.open(state_dir / NAME, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return not try_lock(handle)
    finally:
        os.close(handle)
