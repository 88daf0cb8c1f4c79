"""Lookups by key during a request: the precomputed values that a transformation reads.

A row in an online store is the time up to which it was computed (Unix seconds, float64), then its
numbers (float32), little-endian. A value that is missing, too old or unreachable is counted. A rule
decides the answer: the field's default, a refusal, or production instead of a candidate.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge.core.errors import ModelFailure, Unavailable, UnfitModel
from kedge.core.features.generations import (
    META,
    LookupRules,
    Mark,
    Online,
    Run,
    mark_of,
    row_bytes,
    runs_of,
    width_of,
)
from kedge.core.features.schema import Schema, Spec
from kedge.core.keys import spell_all
from kedge.transforms.store import open_store

if TYPE_CHECKING:
    from kedge.ports import OnlineStore
    from kedge.typing import Columns

EXCUSED = "features_unread"
"""Code of a failure that no release caused: production answers, and the candidate is not blamed."""
REST_S, LONGEST_S = 1.0, 30.0
"""First and longest pause after a store failed; it doubles each time. A store that hangs costs a
request its full patience, so it must not cost more than one in that time."""
MARK_S = 60.0
"""Interval between two reads of a run's mark: a newer declaration may have changed its `ttl`."""


def keys_of(columns: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[str | None]:
    """Return the keys of rows; None where a row has no key."""
    return spell_all([np.asarray(columns[name]).tolist() for name in names])


def pack(
    schema: Schema, keys: Sequence[str], at: float, columns: Mapping[str, NDArray[Any]]
) -> Iterator[tuple[str, bytes]]:
    """Yield rows in the form in which a store holds them.

    Args:
        schema: gives the fields and their order.
        keys: one key for each row.
        at: the time up to which the rows were computed: the end of their slice, Unix seconds.
        columns: float32 arrays of (rows, *shape).
    """
    size = row_bytes(schema)
    rows = np.empty(len(keys), np.dtype([("at", "<f8"), ("values", "<f4", (width_of(schema),))]))
    rows["at"] = at
    parts = [np.asarray(columns[name], "<f4").reshape(len(keys), -1) for name in schema.fields]
    rows["values"] = np.concatenate(parts, axis=1)
    raw = rows.tobytes()
    return ((key, raw[n * size : n * size + size]) for n, key in enumerate(keys))


def lookups_of(
    spec: Spec, generation: str | None, online: Online, *, alone: bool
) -> tuple[Lookup, ...]:
    """Return the lookups of a release, in the order of its transformation's arguments.

    Args:
        spec: the transformation's description.
        generation: the release's generation: the runs that it reads.
        online: the stores that hold the runs.
        alone: whether no other process can answer: rule `production` is then `default`.

    Raises:
        UnfitModel: `no_generation`: the release names no run of a schema that it reads;
            `generation_gone`; or the store cannot be opened.
    """
    runs = {run.schema: run for run in runs_of(generation)}
    lacking = [schema.name for schema in spec.read if schema.name not in runs]
    if lacking:
        raise UnfitModel(
            f"the release names no run of {', '.join(lacking)}",
            code="no_generation",
            hint="make another: kedge features roll, or promote the version again",
        )
    if not spec.read:
        return ()
    store = open_store(online)
    clocks = time.time, time.monotonic
    return tuple(
        Lookup(store, runs[schema.name], schema, online.rules, clocks, alone=alone)
        for schema in spec.read
    )


class Lookup:
    """One run of a schema, read by key. It belongs to one thread."""

    def __init__(
        self,
        store: OnlineStore,
        run: Run,
        schema: Schema,
        rules: LookupRules,
        clocks: tuple[Callable[[], float], Callable[[], float]],
        *,
        alone: bool = True,
    ) -> None:
        """Read the run's mark. A store that is unreachable now is an outage and prevents nothing.

        Args:
            store: the store.
            run: the generation.
            schema: the run's schema.
            rules: the rules for missing values.
            clocks: Unix time, and a monotonic clock; seconds.
            alone: whether no other process can answer: rule `production` is then `default`.

        Raises:
            UnfitModel: `generation_gone`: the store has nothing of this run.
        """
        self._store, self._run, self._schema = store, run, schema
        self._space = run.namespace
        self._view = schema.name.partition("/")[0]
        self._unix, self._monotonic = clocks
        self._rules = {"missing": rules.missing, "expired": rules.expired, "outage": rules.outage}
        self.alone = alone
        """Whether no other process can answer; it may change between two questions."""
        self._row = struct.Struct(f"<d{width_of(schema)}f")
        self._plan: list[tuple[str, int, int, tuple[int, ...]]] = []
        defaults: list[float] = []
        for name, feature in schema.fields.items():
            size = int(np.prod(feature.shape, dtype=int))
            self._plan.append((name, len(defaults), len(defaults) + size, feature.shape))
            given = feature.default
            defaults += [given if isinstance(given, float | int) else float("nan")] * size
        self._defaults = np.asarray(defaults, np.float32)
        self._mark: Mark | None = None
        self._mark_due = self._rest_until = 0.0
        self._rest_s = REST_S
        self.marks: NDArray[np.bool_] | None = None
        """Rows of the last question without a usable value; None when all rows had one."""
        self.counts: dict[str, int] = {}
        """Cumulative numbers of rows by `VIEW.missing`, `VIEW.expired` and `VIEW.outage`."""
        self._look(first=True)

    def _look(self, *, first: bool = False) -> None:
        """Read the mark.

        Raises:
            UnfitModel: `generation_gone`, when this is the first look.
        """
        self._mark_due = self._monotonic()  # until it was read: with the next question
        try:
            # Listing the namespaces also detects a store that replaced another one.
            there = self._space in self._store.namespaces()
            raw = self._store.read(self._space, [META])[0] if there else None
        except Unavailable:
            return
        mark = mark_of(raw)
        if mark is None and first:
            raise UnfitModel(
                f"the online store has nothing of {self._run.label}",
                code="generation_gone",
                hint=f"kedge features materialise {self._schema.name} writes it again",
            )
        self._mark = mark or self._mark
        self._mark_due += MARK_S

    def columns(self, given: Columns) -> Columns:
        """Return the values of these rows' keys: float32 columns of (rows, *shape).

        Raises:
            ModelFailure: `features_missing`, `features_expired`, `features_outage` where the
                rule refuses; `features_unread` where production must answer.
        """
        keys = keys_of(given, self._schema.keys)
        values = np.tile(self._defaults, (len(keys), 1))
        now = self._monotonic()
        self.marks = None
        if now < self._rest_until:
            return self._out(values)
        try:
            if now >= self._mark_due:
                self._look()
            found = self._read(keys)
        except Unavailable:
            self._rest_until = self._monotonic() + self._rest_s
            self._rest_s = min(self._rest_s * 2, LONGEST_S)
            return self._out(values)
        self._rest_s = REST_S
        missing, expired = self._filled(values, found)
        if missing or expired:
            self._count("missing", missing)
            self._count("expired", expired)
            self._ruled("missing", missing)
            self._ruled("expired", expired)
        return self._cut(values)

    def _read(self, keys: Sequence[str | None]) -> Sequence[bytes | None]:
        """Return the store's value of each key; None for a row without a key."""
        if None not in keys:
            return self._store.read(self._space, keys)  # type: ignore[arg-type]
        known = [key for key in keys if key is not None]
        found = iter(self._store.read(self._space, known) if known else ())
        return [None if key is None else next(found) for key in keys]

    def _filled(
        self, values: NDArray[np.float32], found: Sequence[bytes | None]
    ) -> tuple[int, int]:
        """Fill in the values that are valid; return how many are missing, and too old."""
        ttl = self._mark.ttl_s if self._mark is not None else None
        oldest = float("-inf") if ttl is None else self._unix() - ttl
        missing = expired = 0
        size, unpack = self._row.size, self._row.unpack
        absent = []
        for n, raw in enumerate(found):
            if raw is None or len(raw) != size:
                missing += 1
                absent.append(n)
                continue
            at, *numbers = unpack(raw)
            if at < oldest:
                expired += 1
                absent.append(n)
            else:
                values[n] = numbers
        if absent:
            self.marks = np.zeros(len(found), bool)
            self.marks[absent] = True
        return missing, expired

    def _out(self, values: NDArray[np.float32]) -> Columns:
        """Return the answer for rows of a store that cannot be reached."""
        self.marks = np.ones(len(values), bool)
        self._count("outage", len(values))
        self._ruled("outage", len(values))
        return self._cut(values)

    def _count(self, what: str, rows: int) -> None:
        if rows:
            name = f"{self._view}.{what}"
            self.counts[name] = self.counts.get(name, 0) + rows

    def _ruled(self, what: str, rows: int) -> None:
        """Apply the rule to missing values.

        Raises:
            ModelFailure: there is such a row, and the rule is not `default`.
        """
        rule = self._rules[what]
        if not rows or rule == "default" or (rule == "production" and self.alone):
            return
        keys = "1 key has" if rows == 1 else f"{rows} keys have"
        told = {
            "missing": f"{keys} no value",
            "expired": f"{keys} a value that is too old",
            "outage": "the online store cannot be asked",
        }[what]
        raise _failure(f"{self._run.label}: {told}", what, excused=rule == "production")

    def _cut(self, values: NDArray[np.float32]) -> Columns:
        return {
            name: values[:, begin] if not shape else values[:, begin:end].reshape(-1, *shape)
            for name, begin, end, shape in self._plan
        }


def _failure(told: str, what: str, *, excused: bool) -> ModelFailure:
    if excused:
        return ModelFailure(told, code="features_unread")
    if what == "missing":
        return ModelFailure(told, code="features_missing")
    if what == "expired":
        return ModelFailure(told, code="features_expired")
    return ModelFailure(told, code="features_outage")
