"""Redis: the store for several hosts, with one packed string a key, read by one command."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any

import redis

from kedge.core.errors import Unavailable
from kedge.core.features.generations import URL_VARIABLE

PATIENCE_S = 0.25
"""Time after which a look-up is an outage: a request waits for it."""
BATCH = 5_000


def opened(where: str) -> RedisOnline:
    """Return the store at this URL, else at the environment's; the entry point `kedge.online`."""
    return RedisOnline(where or os.environ[URL_VARIABLE])


class RedisOnline:
    """Server of Redis or Valkey. A namespace is a prefix; its index is a set beside it."""

    def __init__(self, url: str, *, patience_s: float = PATIENCE_S) -> None:
        """Remember the URL (`redis://`, `rediss://` or `unix://`); connect at the first use."""
        self._redis = redis.Redis.from_url(
            url, socket_timeout=patience_s, socket_connect_timeout=patience_s
        )

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Upsert rows, a batch a round trip. A crash leaves whole rows; writing again repairs it."""
        count = 0
        batch: dict[str, bytes] = {}
        try:
            self._redis.sadd("kedge:online", namespace)
            for key, row in rows:
                batch[f"{namespace}/{key}"] = row
                count += 1
                if len(batch) >= BATCH:
                    self._put(batch)
                    batch = {}
            if batch:
                self._put(batch)
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return count

    def _put(self, batch: dict[str, bytes]) -> None:
        given: Any = batch
        self._redis.mset(given)

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """Return the rows of these keys, in order; None where there is none.

        Raises:
            Unavailable: `online_unavailable`: the server does not answer in time.
        """
        try:
            if len(keys) == 1:
                one: Any = self._redis.get(f"{namespace}/{keys[0]}")
                return [one]
            found: Any = self._redis.mget([f"{namespace}/{key}" for key in keys])
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return list(found)

    def drop(self, namespace: str) -> None:
        """Remove a namespace without blocking the server; do nothing if it is missing."""
        try:
            doomed: list[Any] = []
            for key in self._redis.scan_iter(match=f"{namespace}/*", count=BATCH):
                doomed.append(key)
                if len(doomed) >= BATCH:
                    self._redis.unlink(*doomed)
                    doomed = []
            if doomed:
                self._redis.unlink(*doomed)
            self._redis.srem("kedge:online", namespace)
        except redis.RedisError as error:
            raise _unavailable(error) from error

    def namespaces(self) -> tuple[str, ...]:
        """Return the existing namespaces."""
        try:
            found: Any = self._redis.smembers("kedge:online")
        except redis.RedisError as error:
            raise _unavailable(error) from error
        return tuple(sorted(name.decode() for name in found))

    def count(self, namespace: str) -> int:
        """Return how many keys a namespace has; 0 if it is missing. This walks the keys."""
        try:
            return sum(1 for _ in self._redis.scan_iter(match=f"{namespace}/*", count=BATCH))
        except redis.RedisError as error:
            raise _unavailable(error) from error


def _unavailable(error: Exception) -> Unavailable:
    return Unavailable(
        f"redis: {type(error).__name__}: {error}",
        code="online_unavailable",
        hint="check that the server is up and reachable from this host",
    )
