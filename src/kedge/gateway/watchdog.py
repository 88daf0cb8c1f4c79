"""Watchdog of a gateway worker: it ends a worker whose serving loop makes no progress.

Each turn of the loop resets it. There are two, since no single clock distinguishes both kinds of
hang from a machine that slept or a worker that was stopped:

* *working*: an alarm of the kernel that counts processor time. Its signal keeps its default action,
  so it works even while C code holds the interpreter forever, and needs no thread.
* *waiting*: a thread that counts its own seconds. They pass only while this process runs, so a stop
  or a sleep adds one second and not an hour. It ends the worker by the same signal.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

HANG_S = 10.0
"""Maximum processor time without a turn of the loop. The longest regular holds of the loop are two.
One answer of a plain model takes at most some tenths of a second for a request's maximum rows. The
other is garbage collection. Ten seconds are far above both on a busy machine, and a third of the
time that a caller waits."""
WAIT_TICKS = 30
"""Maximum seconds of the waiting thread without a turn: as long as a caller waits, so that no
caller of this loop is left. It is longer than `HANG_S` since a busy machine may delay the loop."""
FEED_S = 1.0


class _Turns:
    """Turns of the loop: the loop counts them, and the thread compares the count."""

    def __init__(self) -> None:
        """Start at zero."""
        self.count = 0
        self.ended = threading.Event()

    async def feed(self) -> None:
        """Count each turn, and reset the kernel's alarm."""
        while True:
            self.count += 1
            signal.setitimer(signal.ITIMER_PROF, HANG_S)
            await asyncio.sleep(FEED_S)

    def watch(self) -> None:
        """End this process when `WAIT_TICKS` of this thread pass without a turn."""
        seen, ticks = self.count, 0
        while not self.ended.wait(FEED_S):
            seen, ticks = (seen, ticks + 1) if self.count == seen else (self.count, 0)
            if ticks >= WAIT_TICKS:
                os.kill(os.getpid(), signal.SIGPROF)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[None]:
    """End this process when the running loop makes no progress; call it on the main thread."""
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    turns = _Turns()
    feeding = asyncio.create_task(turns.feed())
    threading.Thread(target=turns.watch, name="kedge-watchdog", daemon=True).start()
    try:
        yield
    finally:
        turns.ended.set()
        feeding.cancel()
        signal.setitimer(signal.ITIMER_PROF, 0)
