"""Stray ids: those of an hour's predictions that do not say which hour they are kept under.

Callers chose them, so a label's id may be in any hour. Each batch of predictions leaves four bytes
for each such request beside them, and a search looks only into hours where one of those fits.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import numpy as np

from kedge.core.evidence.records import requests_of

TABLE = "CREATE TABLE stray (endpoint TEXT NOT NULL, hashes BLOB NOT NULL);"
BITS = 22
"""Bits of a hash that are looked at first: four million places, so that most of an hour's are empty."""


def pack(requests: Iterable[str]) -> bytes:
    """Return the hashes of these requests."""
    return np.array(sorted({_hash(request) for request in requests}), np.uint32).tobytes()


class NameSearch:
    """The names that a search is for."""

    def __init__(self, names: Iterable[str]) -> None:
        """Hash every request that a name may mean."""
        self._names: dict[int, list[str]] = {}
        for name in names:
            for request in requests_of(name):
                self._names.setdefault(_hash(request), []).append(name)
        self._places = np.zeros(1 << BITS, np.bool_)
        self._places[np.array(list(self._names), np.uint32) & ((1 << BITS) - 1)] = True

    def among(self, packed: Iterable[bytes]) -> set[str]:
        """Return the names that may be among these: few that are not, and all that are."""
        hashes = np.frombuffer(b"".join(packed), np.uint32)
        near = hashes[self._places[hashes & ((1 << BITS) - 1)]]
        return {name for each in near.tolist() for name in self._names.get(each, ())}


def _hash(request: str) -> int:
    return crc32(request.encode("utf-8", "surrogatepass"))
