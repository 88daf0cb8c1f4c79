"""Generations: materialised values by key, and the runs that a release reads.

A *run* is one generation of one materialised transformation version: `carrier_delays/1#2@1`. Each
run stores its values under its own namespace, so a flip between runs moves a pointer and no value.
A release names every run that its transformation reads: `a/1#2@1+b/1#1@3`.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from math import ceil, floor, inf
from typing import Literal

import msgspec

from kedge.core.features.schema import Schema
from kedge.core.values import Value

META = "\x1emeta"
"""The key of a namespace's mark; no entity's key begins like this."""
_LABEL = re.compile(r"([a-z][a-z0-9_]{0,39}/[1-9][0-9]{0,5})#([1-9][0-9]*)@([1-9][0-9]*)")


class Run(Value, frozen=True, order=True):
    """One generation of a materialised transformation version."""

    schema: str
    transformation: int
    number: int

    @property
    def label(self) -> str:
        """The displayed name: carrier_delays/1#2@1."""
        return f"{self.schema}#{self.transformation}@{self.number}"

    @property
    def view(self) -> str:
        """The view of the run, without its number: carrier_delays."""
        return self.schema.partition("/")[0]

    @property
    def namespace(self) -> str:
        """The namespace of its values: carrier_delays/1/2/1."""
        return f"{self.schema}/{self.transformation}/{self.number}"


class Mark(Value, frozen=True):
    """The progress of a run, stored beside its values, and written with them or after them."""

    watermark: float
    """The end of the run's newest slice, Unix seconds."""
    rows: int
    """Rows written so far; a key counts each time that it is written."""
    ttl_s: float | None = None
    """The age limit of a value when it is read."""


URL_VARIABLE = "KEDGE_ONLINE_URL"
"""The environment variable for the URL of an online store: it can hold a password, and kedge.toml
is in a repository."""
Standing = Literal["building", "ready", "dropped"]
"""State of a run: no release reads one that is `building`; the values of a `dropped` one are
deleted."""
Rule = Literal["default", "refuse", "production"]


class LookupRules(Value, frozen=True):
    """The rules for a value that is missing, too old, or cannot be read."""

    missing: Rule = "default"
    expired: Rule = "default"
    outage: Rule = "default"


class Online(Value, frozen=True):
    """The online store and the rules, as `[online]` of kedge.toml defines them."""

    store: str = "sqlite"
    where: str = ""
    """A path or a URL; empty if the environment holds the URL."""
    rules: LookupRules = LookupRules()


def run_of(label: str) -> Run | None:
    """Return the run with this label; None if the label is invalid."""
    found = _LABEL.fullmatch(label)
    return Run(found[1], int(found[2]), int(found[3])) if found is not None else None


def runs_of(generation: str | None) -> tuple[Run, ...]:
    """Return the runs that a release's generation names, in the order in which it reads them."""
    found = (run_of(label) for label in generation.split("+")) if generation else ()
    return tuple(run for run in found if run is not None)


def generation_of(runs: Sequence[Run]) -> str:
    """Return the generation of a release that reads these runs."""
    return "+".join(run.label for run in runs)


# ---------------------------------------------------------------- time


def last_end(at: float, every_s: float) -> float:
    """Return the end of the newest complete slice. Slices begin at multiples since 1970."""
    return floor(at / every_s) * every_s


def ends(after: float, at: float, every_s: float) -> Iterator[float]:
    """Yield the ends of the slices that are complete at `at`, from the first one after `after`."""
    number = floor(after / every_s) + 1
    while number * every_s <= at:
        yield number * every_s
        number += 1


def due(
    times: Iterable[tuple[int, float]],
    known: Iterable[float],
    after: float,
    at: float,
    every_s: float,
    back_s: float,
) -> list[range]:
    """Return the non-empty slices of those that `ends` yields, as ranges of their numbers.

    A slice's number times its length is its end. Where two rows are further apart than a slice
    looks back, the slices between them have no input.

    Args:
        times: the numbers of the slices in which rows became known, and the newest row of each.
        known: ends of slices that are already computed.
        after: as in `ends`.
        at: as in `ends`.
        every_s: the length of a slice.
        back_s: how far back a slice looks. Infinite: to the first row.
    """
    first, last = floor(after / every_s) + 1, floor(at / every_s)
    spans = [(round(end / every_s),) * 2 for end in known]
    spans += [
        (number, last if back_s == inf else ceil((newest + back_s) / every_s) - 1)
        for number, newest in times
    ]
    found: list[range] = []
    for begin, end in sorted(spans):
        begin, end = max(begin, first), min(end, last)  # noqa: PLW2901 - the part that is asked for
        if found and begin <= found[-1].stop:
            found[-1] = range(found[-1].start, max(found[-1].stop, end + 1))
        elif begin <= end:
            found.append(range(begin, end + 1))
    return found


def slices(after: float, at: float, every_s: float) -> int:
    """Return how many ends `ends` yields."""
    return max(0, floor(at / every_s) - floor(after / every_s))


def patience_s(every_s: float, ttl_s: float | None) -> float:
    """Return the lag at which a run becomes stale: the age limit of its values, else two slices."""
    return ttl_s if ttl_s is not None else 2 * every_s


# ---------------------------------------------------------------- rows by key


def width_of(schema: Schema) -> int:
    """Return how many numbers a row of a materialised schema has."""
    total = 0
    for feature in schema.fields.values():
        size = 1
        for length in feature.shape:
            size *= length
        total += size
    return total


def row_bytes(schema: Schema) -> int:
    """Return the length of a packed row: the time at which it became known, then its numbers."""
    return struct.calcsize(f"<d{width_of(schema)}f")


def pack_mark(mark: Mark) -> bytes:
    """Encode a mark for storage."""
    return msgspec.msgpack.encode(mark)


def mark_of(raw: bytes | None) -> Mark | None:
    """Return the stored mark; None if it is missing or invalid."""
    try:
        return msgspec.msgpack.decode(raw, type=Mark) if raw is not None else None
    except msgspec.DecodeError:
        return None


# ---------------------------------------------------------------- removal


def unneeded(runs: Mapping[Run, str], held: AbstractSet[Run]) -> tuple[Run, ...]:
    """Return the runs that can be dropped: no follower reads them, and a newer one is ready.

    Args:
        runs: every run, and whether it is `building`, `ready` or `dropped`.
        held: the runs of releases that are live, a way back, or loaded on any replica.
    """
    newest: dict[str, Run] = {}
    for run in sorted(run for run, standing in runs.items() if standing == "ready"):
        newest[run.schema] = run
    return tuple(
        run
        for run, standing in runs.items()
        if standing == "ready" and run not in held and run != newest[run.schema]
    )
