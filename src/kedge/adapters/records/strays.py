"""Stray ids: ids of an hour's predictions that do not contain the hour of their storage.

Callers chose them, so a label's id may be in any hour. Each batch of predictions stores four bytes
for each such request, and a search reads only hours where one of those matches.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import numpy as np

from kedge.core.evidence.records import requests_of

TABLE = "CREATE TABLE stray (endpoint TEXT NOT NULL, hashes BLOB NOT NULL);"
BITS = 22
"""Bits of a hash that are compared first: four million values, so that an hour uses few of them."""


def pack(requests: Iterable[str]) -> bytes:
    """Return the packed hashes of these requests."""
    return np.array(sorted({_hash(request) for request in requests}), np.uint32).tobytes()


class NameSearch:
    """Search for a set of names."""

    def __init__(self, names: Iterable[str]) -> None:
        """Hash every request that a name may mean."""
        self._names: dict[int, list[str]] = {}
        for name in names:
            for request in requests_of(name):
                self._names.setdefault(_hash(request), []).append(name)
        self._places = np.zeros(1 << BITS, np.bool_)
        self._places[np.array(list(self._names), np.uint32) & ((1 << BITS) - 1)] = True

    def among(self, packed: Iterable[bytes]) -> set[str]:
        """Return the names that may be among these: few false matches, and all true ones."""
        hashes = np.frombuffer(b"".join(packed), np.uint32)
        near = hashes[self._places[hashes & ((1 << BITS) - 1)]]
        return {name for each in near.tolist() for name in self._names.get(each, ())}


def _hash(request: str) -> int:
    return crc32(request.encode("utf-8", "surrogatepass"))
