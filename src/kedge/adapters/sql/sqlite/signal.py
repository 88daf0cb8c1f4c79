"""Signal: the wake-up after a write in a directory. The ledger is the truth."""

from __future__ import annotations

import os
import select
import threading
import weakref
from pathlib import Path
from typing import Any

_inotify: Any
try:
    import inotify_simple as _linux

    _inotify = _linux
except (ImportError, OSError):  # not Linux
    _inotify = None

POLL_S = 0.05
"""Interval at which a missing directory is looked for, and at which everything is checked without
inotify."""


class DirectorySignal:
    """Wake-up when a file in one of the directories is written, made, moved in or deleted.

    SQLite writes its log first and commits later, so the wake-up precedes the visible change.
    `Database.write` touches the file once the change is visible, which wakes again. A caller that
    waits with a timeout finds the rest (a writer that was killed in between).

    It may wake without a change, and wakes once for many writes. A directory that is missing,
    deleted or replaced is watched again as soon as it exists, and that wakes too. One thread calls
    `wait`; any thread may call `wake`, and another thread `close`.
    """

    def __init__(self, *directories: Path) -> None:
        """Watch from now on: no later write is missed, even before the first `wait`."""
        self._missing = {directory.absolute() for directory in directories}
        self._watched: dict[int, Path] = {}
        self._lock = threading.Lock()
        self._closed = False
        self._ear, self._bell = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        # The descriptors close with the last reference, not in `close`. Otherwise a late `wake`
        # would write into a newer file with the same number, or need a lock, which a signal handler
        # must not wait for.
        weakref.finalize(self, _hang_up, self._ear, self._bell)
        self._poll = select.poll()
        self._poll.register(self._ear, select.POLLIN)
        self._notify: Any = _notifier()
        if self._notify is not None:
            self._poll.register(self._notify.fileno(), select.POLLIN)
            self._watch_missing()

    def wait(self, timeout_s: float) -> bool:
        """Return True when something may have changed, False after `timeout_s` or `close`.

        Without inotify it sleeps for at most 50 ms and returns True.
        """
        with self._lock:
            if self._closed:
                return False
            if self._notify is None:
                self._sleep(min(timeout_s, POLL_S))
                self._drain()
                return not self._closed
            return self._wait(timeout_s)

    def wake(self) -> None:
        """Make the present or next `wait` return True at once, from any thread or handler."""
        try:
            os.write(self._bell, b"!")
        except OSError:
            return  # full: a wake-up is pending; or it failed, and a waiter polls soon

    def close(self) -> None:
        """Close the signal; a thread in `wait` leaves it first."""
        self._closed = True
        self.wake()
        with self._lock:
            if self._notify is not None:
                self._notify.close()
                self._notify = None

    # ------------------------------------------------------------ one wait

    def _wait(self, timeout_s: float) -> bool:
        left = max(0.0, timeout_s)
        while True:
            if self._missing and self._watch_missing():
                self._drain()
                return True
            slept = min(left, POLL_S) if self._missing else left
            self._sleep(slept)
            if self._drain():
                return not self._closed
            left -= slept
            if left <= 0.0:
                return False

    def _sleep(self, seconds: float) -> None:
        # Whole milliseconds, rounded up: rounded down, the last one would be a busy loop.
        self._poll.poll(-int(-seconds * 1000 // 1))

    def _drain(self) -> bool:
        """Read everything that is pending. Return True if there was something."""
        rung = False
        try:
            rung = bool(os.read(self._ear, 4096))
        except BlockingIOError:
            rung = False
        events = self._notify.read(timeout=0) if self._notify is not None else []
        gone = _inotify.flags.MOVE_SELF | _inotify.flags.IGNORED if events else 0
        for event in events:
            if event.mask & gone:
                self._lost(event.wd)
        return rung or bool(events)

    # ------------------------------------------------------------ the watches

    def _watch_missing(self) -> bool:
        """Watch directories that exist by now. Return True if there was one."""
        flags = _inotify.flags
        mask = (
            flags.MODIFY
            | flags.CREATE
            | flags.MOVED_TO
            | flags.DELETE
            | flags.CLOSE_WRITE
            | flags.ATTRIB
            | flags.MOVE_SELF
            | flags.DELETE_SELF
            | flags.ONLYDIR
        )
        found = False
        for directory in tuple(self._missing):
            try:
                watch = self._notify.add_watch(directory, mask)
            except OSError:
                continue  # it does not exist (yet): tried again within POLL_S
            self._watched[watch] = directory
            self._missing.discard(directory)
            found = True
        return found

    def _lost(self, watch: int) -> None:
        """Handle a directory that left its place, though its inode may exist elsewhere."""
        directory = self._watched.pop(watch, None)
        if directory is None:
            return
        self._missing.add(directory)
        try:
            self._notify.rm_watch(watch)
        except OSError:
            return  # deleted: the kernel removed the watch itself


def _hang_up(ear: int, bell: int) -> None:
    os.close(ear)
    os.close(bell)


def _notifier() -> Any:
    if _inotify is None:
        return None
    try:
        return _inotify.INotify(nonblocking=True)
    except OSError:  # the user's limit of instances is reached: poll instead
        return None
