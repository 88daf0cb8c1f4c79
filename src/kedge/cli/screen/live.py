"""Live view on a terminal: a screen that is drawn again each second until Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType

from kedge.cli.blocks import Paragraph, Screen, bad, faint
from kedge.cli.screen.draw import draw
from kedge.core.errors import Unavailable
from kedge.core.time.instants import stamp
from kedge.system.terminal import enter_screen, get_size, leave_screen, paint, show_drawn

EVERY_S = 1.0
NARROWEST, WIDEST = 20, 200
"""Limits of the columns of a screen."""


class LiveView:
    """Shows a result on the second screen of the terminal, which has no history to fill.

    However it ends, the terminal is as before. Then the last result is printed, to be kept. While
    the result cannot be read, the last one stays, with its age.
    """

    def __init__(self, title: str, read: Callable[[], Screen], clock: Callable[[], float]) -> None:
        """Store what is shown.

        Args:
            title: the command.
            read: reads the result.
            clock: Unix time.
        """
        self._title, self._read, self._clock = title, read, clock
        self._screen: Screen | None = None
        self._read_at = 0.0
        self._fault = ""
        self._ended = self._suspended = False
        # A signal may arrive anywhere, also inside a lock of an event or within a write.
        self._woken, self._wake = os.pipe()
        os.set_blocking(self._wake, False)

    def run(self) -> None:
        """Show it until Ctrl-C.

        Raises:
            KedgeError: the result cannot be read, and there is no earlier one.
        """
        with self._signals(), contextlib.suppress(KeyboardInterrupt):
            self._look()
            try:
                enter_screen()
                self._repeat()
            finally:
                self._ended = True
                with contextlib.suppress(OSError):  # the terminal is gone
                    leave_screen()
        if self._screen is not None:
            show_drawn(draw(self._screen, get_width()))

    def _repeat(self) -> None:
        woken = select.poll()
        woken.register(self._woken, select.POLLIN)
        while not self._ended:
            self._paint()
            if not woken.poll(EVERY_S * 1000):
                self._look()
                continue
            os.read(self._woken, 1_024)
            if self._suspended:
                self._suspend()

    def _look(self) -> None:
        """Read the result; keep the last one if that fails."""
        try:
            self._screen = self._read()
        except Unavailable as error:
            if self._screen is None:
                raise
            self._fault = f"it cannot be read: {error.code}: {error}"
        else:
            self._read_at, self._fault = self._clock(), ""

    def _suspend(self) -> None:
        """Stop as Ctrl-Z asks, on the first screen, and show the result again afterwards."""
        self._suspended = False
        leave_screen()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter_screen()

    def _paint(self) -> None:
        """Draw the result, as much of it as the terminal has lines for."""
        size, now = get_size(), self._clock()
        head = f"{self._title}  {stamp(now)[:19]}Z, every second; Ctrl-C ends"
        above = [Paragraph(faint(head))]
        if self._fault:
            age = f"{max(now - self._read_at, 0):.0f} s old"
            above.append(Paragraph((bad("! "), f"{self._fault}; the last result is {age}")))
        lines = draw([*above, Paragraph(""), *(self._screen or ())], get_width() - 1).split("\n")
        if len(lines) > size.lines:
            cut = len(lines) - size.lines + 1
            lines[-cut:] = [f"... {cut} more lines: make the window taller"[: get_width() - 1]]
        paint(lines)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """Handle the signals of a terminal, and restore their handlers."""
        handlers: dict[signal.Signals, Callable[[int, FrameType | None], object]] = {
            signal.SIGINT: self._end,
            signal.SIGTERM: self._exit,
            signal.SIGHUP: self._exit,
            signal.SIGTSTP: self._change,
            signal.SIGWINCH: self._change,
        }
        before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _end(self, *_: object) -> None:
        # Python drops an exception raised inside a destructor, and Ctrl-C may arrive in one.
        if not self._ended:
            self._ended = True
            raise KeyboardInterrupt

    def _exit(self, number: int, _: FrameType | None) -> None:
        if not self._ended:
            self._ended = True
            sys.exit(128 + number)

    def _change(self, number: int, _: FrameType | None) -> None:
        self._suspended |= number == signal.SIGTSTP
        with contextlib.suppress(BlockingIOError):  # as many signals wait as a pipe holds
            os.write(self._wake, b".")


def get_width() -> int:
    """Return the columns of a screen on this terminal."""
    return min(max(get_size().columns, NARROWEST), WIDEST)
