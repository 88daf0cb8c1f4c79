"""Point in time: a value of a source is never used for a row that was asked before it was known."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kedge.adapters.offline.log import OfflineLog, instant_of
from kedge.adapters.offline.sources import source_times
from kedge.core.features.generations import Run, ends, last_end
from kedge.core.features.schema import Feature, Spec, TransformVersion, View, declared
from kedge.core.time.instants import iso, read_instant
from kedge.core.values import Field
from kedge.operations.features.materialise import Materialised, computed, keyed
from kedge.operations.features.training_set import Spine, _load, _taken
from kedge.tabular.parquet import database

RUN = Run("spend/1", 1, 1)
SCHEMA = declared("spend/1", {"total": Feature("float32", null=True)}, ["store"])
BEGIN = 1_795_168_800
"""2026-11-20T10:00:00Z."""
NANO = 10**9
KINDS = ("TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "DOUBLE", "text")

instants = st.builds(
    lambda second, off: (BEGIN + second) * NANO + off,
    st.integers(0, 3),
    st.sampled_from([0, -1, 1, -999, 999, -1_000, 1_000, 500_000_000]),
)
"""Nanoseconds, close to the ends of slices: there a value begins to be known."""
stores = st.sampled_from(["a", "b"])


class Row(NamedTuple):
    store: str
    amount: int
    at: int


def written(at: int, kind: str) -> str:
    """An instant as SQL that makes a column of this type."""
    seconds, nanos = divmod(at, NANO)
    if kind == "DOUBLE":
        return repr(at / NANO)
    if kind == "text":
        return f"'{iso(seconds).removesuffix('Z')}.{nanos:09d}Z'"
    if kind == "TIMESTAMP_NS":
        return f"make_timestamp_ns({at})"
    plain = f"make_timestamp({at // 1000})"
    return plain if kind == "TIMESTAMP" else f"{plain} AT TIME ZONE 'UTC'"


def exact(at: int, kind: str) -> Fraction:
    """What of an instant such a column keeps, in seconds."""
    if kind == "DOUBLE":
        return Fraction(at / NANO)
    if kind in ("TIMESTAMP_NS", "text"):
        return Fraction(at, NANO)
    return Fraction(at // 1000, 10**6)


def parquet(path: Path, columns: Mapping[str, list[str]]) -> Path:
    """Write rows of SQL expressions."""
    rows = ", ".join(f"({', '.join(row)})" for row in zip(*columns.values(), strict=True))
    with database() as db:
        db.execute(
            f"COPY (SELECT * FROM (VALUES {rows}) AS v({', '.join(columns)})) TO '{path}' (FORMAT parquet)"
        )
    return path


def total(rows: Any, _end: float) -> dict[str, Any]:
    """What is materialised: the sum of every amount that is known."""
    names = sorted(set(rows["store"].tolist()))
    sums = [float(rows["amount"][rows["store"] == name].sum()) for name in names]
    return {"store": np.array(names, object), "total": np.array(sums, np.float32)}


def known(
    rows: list[Row], asked: Row, kinds: tuple[str, str], lookback: int | None
) -> float | None:
    """The reference: by exact fractions, row by row."""
    source, spine = kinds
    at, first = exact(asked.at, spine), min(exact(row.at, source) for row in rows)
    last = at.numerator // at.denominator
    for end in range(last, int(first) - 1, -1):
        seen = [
            row.amount
            for row in rows
            if row.store == asked.store
            and exact(row.at, source) <= end
            and (lookback is None or exact(row.at, source) > end - lookback)
        ]
        if seen:
            return float(sum(seen))
    return None


@given(
    rows=st.lists(st.builds(Row, stores, st.integers(1, 9), instants), min_size=1, max_size=12),
    asked=st.lists(st.builds(Row, stores, st.just(0), instants), min_size=1, max_size=24),
    kinds=st.tuples(st.sampled_from(KINDS), st.sampled_from(KINDS)),
    lookback=st.sampled_from([None, 2]),
)
@settings(max_examples=8, deadline=None)
def test_no_value_from_after_a_rows_time_is_ever_used(
    rows: list[Row], asked: list[Row], kinds: tuple[str, str], lookback: int | None
) -> None:
    """From a source over slices and the offline log to the rows of a spine, by the code that serves."""
    source_kind, spine_kind = kinds
    view = View(
        source="s.parquet", time="seen", every="1s", lookback=f"{lookback}s" if lookback else None
    )
    spec = Spec(schema=SCHEMA, entry="a:b", raw=(Field("store", "string"),), view=view)
    made = Materialised(TransformVersion("spend/1", 1, ""), spec, view, total)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        source = parquet(
            folder / "s.parquet",
            {
                "store": [f"'{row.store}'" for row in rows],
                "amount": [str(row.amount) for row in rows],
                "seen": [written(row.at, source_kind) for row in rows],
            },
        )
        spine = parquet(
            folder / "spine.parquet",
            {
                "store": [f"'{row.store}'" for row in asked],
                "asked": [written(row.at, spine_kind) for row in asked],
            },
        )
        log = OfflineLog(folder / "offline")
        times = source_times(source, "seen", BEGIN + 100.0)
        assert times is not None
        for end in ends(last_end(times.first - 1e-6, 1.0), BEGIN + 6.0, 1.0):
            columns, _, _ = keyed(computed(made, source, end), SCHEMA)
            if columns:
                log.write(RUN, end, SCHEMA.keys, columns)
        db = stack.enter_context(database())
        names, count = _load(db, spine, "asked", None, spec, BEGIN + 100.0)
        raw, at = _taken(db, list(spec.raw), names, Spine(spine, "asked", count), 0, count)
        found, missing = log.asof(raw, at, RUN, SCHEMA)
    values = [None if gone else float(x) for x, gone in zip(found["total"], missing, strict=True)]
    assert values == [known(rows, row, kinds, lookback) for row in asked]


PARTS = (
    ("2026-11-20", "20261120", "2026-1-2", "2026-W47-5", "2026-02-30", "2024-02-29", "20.11.2026"),
    ("", " ", "T", "t", "  "),
    ("", "10:00", "10:00:00", "100000", "10", "23:59:59", "24:00:00", "10:00:61", "1:00"),
    ("", ".5", ",25", ".123456789", ".1234567", ".", ".000000999"),
    (
        "",
        "Z",
        "z",
        " Z",
        "+01:00",
        "+0100",
        "+01",
        " +05:30",
        "-00:00",
        "UTC",
        "+25:00",
        "+1",
        "+01:60",
    ),
)


def test_a_time_is_read_alike_in_labels_sources_and_spines() -> None:
    """Every combination of the parts: both readers refuse it, or both give the same instant."""
    texts = ["".join(parts) for parts in product(*PARTS)]
    texts = [
        text for text in texts if not text.replace(".", "").strip().isdigit()
    ]  # those are numbers
    with database() as db:
        db.execute("CREATE TABLE given AS SELECT unnest(?) AS seen", [texts])
        when = instant_of("seen", {"seen": "VARCHAR"}, "given")
        by_sql = [at for (at,) in db.execute(f"SELECT {when} FROM given").fetchall()]
    differ = [text for text, at in zip(texts, by_sql, strict=True) if not same(text, at)]
    assert not differ
    assert sum(at is not None for at in by_sql) > 500


def same(text: str, at: float | None) -> bool:
    try:
        read = read_instant(text)
    except ValueError:
        return at is None
    return at is not None and abs(read - at) < 1e-6
