"""Readers: a few threads with connections of their own, which read the answers of views."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from kedge.core.errors import Overloaded
from kedge.workspace import Workplace

Found = TypeVar("Found")

THREADS = 2
"""Reading threads. They share the interpreter with the patrol, so more would only slow it."""
WAITING = 32
"""Maximum different views that are read or wait at once."""


class Readers:
    """A pool of threads for one event loop; requests for the same view share one answer."""

    def __init__(
        self, open_place: Callable[[], Workplace], *, name: str = "reader", threads: int = THREADS
    ) -> None:
        """Start without threads; each opens its own workplace when it starts to work."""
        self._open = open_place
        self._local = threading.local()
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
        self._shared: dict[Hashable, asyncio.Future[object]] = {}
        self._under_way = 0

    async def share(self, what: Hashable, work: Callable[[Workplace], object]) -> object:
        """Run `work`; a request for the same thing meanwhile gets the same result.

        Raises:
            Overloaded: `queue_full`.
        """
        future = self._shared.get(what)
        if future is None:
            future = self._start(work)
            self._shared[what] = future
            future.add_done_callback(lambda _: self._shared.pop(what, None))
        return await asyncio.shield(future)

    async def run(self, work: Callable[[Workplace], Found]) -> Found:
        """Run `work` for this caller alone; it is completed even if the caller disconnects.

        Raises:
            Overloaded: `queue_full`.
        """
        return await asyncio.shield(self._start(work))

    def _start(self, work: Callable[[Workplace], Found]) -> asyncio.Future[Found]:
        if self._under_way >= WAITING:
            raise Overloaded(f"{WAITING} other requests are under way", code="queue_full")
        self._under_way += 1
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self._pool, self._run, work)
        future.add_done_callback(self._ended)
        return future

    def _ended(self, _: asyncio.Future[Found]) -> None:
        self._under_way -= 1

    def _run(self, work: Callable[[Workplace], Found]) -> Found:
        place: Workplace | None = getattr(self._local, "place", None)
        if place is None:
            place = self._local.place = self._open()
        return work(place)

    def close(self) -> None:
        """Let the threads end after their present work."""
        self._pool.shutdown(wait=False, cancel_futures=True)
