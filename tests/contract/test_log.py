"""Values over time, in real Parquet files: written whole, read back as of any instant."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import textwrap
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from kedge.adapters.offline.log import OfflineLog, Times
from kedge.adapters.offline.sources import source_rows, source_times
from kedge.core.errors import Refused, Unavailable
from kedge.core.features.generations import Run
from kedge.core.features.schema import Feature, Schema, declared
from kedge.transforms.lookup import keys_of

RUN = Run("delays/1", 2, 1)
HOUR = 3600.0
SCHEMA = declared(
    "delays/1",
    {"mean": Feature("float32", null=True), "recent": Feature("float32", (2,), null=True)},
    ["carrier"],
)


def words(*values: str) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def slice_of(**means: float) -> dict[str, Any]:
    """A row a carrier; what is recent is its mean and one more."""
    mean = np.array([*means.values()], np.float32)
    return {"carrier": words(*means), "mean": mean, "recent": np.stack([mean, mean + 1], axis=1)}


@pytest.fixture
def log(tmp_path: Path) -> OfflineLog:
    return OfflineLog(tmp_path / "offline")


def asof(
    log: OfflineLog, carriers: list[str], at: list[float], ttl_s: float | None = None
) -> list[float | None]:
    spine = {"carrier": words(*carriers)}
    found, missing = log.asof(spine, np.array(at), RUN, SCHEMA, ttl_s)
    assert found["recent"].shape == (len(at), 2)
    assert np.array_equal(found["recent"][:, 0], found["mean"], equal_nan=True)
    assert np.array_equal(np.isnan(found["mean"]), missing)
    return [None if gone else float(x) for x, gone in zip(found["mean"], missing, strict=True)]


# ---------------------------------------------------------------- slices


def test_a_slice_comes_back_bit_by_bit(log: OfflineLog) -> None:
    bits = np.random.default_rng(1).integers(0, 2**32, 20_000, dtype=np.uint32)
    numbers = bits.view(np.float32).reshape(-1, 2, 2)
    numbers[0] = [[-0.0, 1e-45], [np.inf, -np.inf]]
    keys = np.arange(len(numbers)) - 7
    assert log.write(RUN, HOUR, ["id"], {"id": keys, "x": numbers[:, 0, 0], "m": numbers}) == 5000
    found = log.read(RUN, HOUR)
    assert list(found) == ["id", "x", "m", "kedge_at"]
    assert found["id"].dtype == np.int64
    assert np.array_equal(found["id"], keys)
    real = ~np.isnan(numbers)
    assert found["m"].shape == numbers.shape
    assert np.array_equal(found["m"].view(np.uint32)[real], numbers.view(np.uint32)[real])
    assert np.isnan(found["m"][~real]).all()
    assert np.array_equal(
        found["x"].view(np.uint32)[real[:, 0, 0]], numbers[:, 0, 0].view(np.uint32)[real[:, 0, 0]]
    )
    assert set(found["kedge_at"]) == {HOUR}


def test_other_tools_read_what_is_written(log: OfflineLog, tmp_path: Path) -> None:
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.5))
    path = tmp_path / "offline" / "delays" / "1" / "2" / "1" / "00000000003600000000.parquet"
    rows = duckdb.execute(f"SELECT * FROM '{path}'").fetchall()
    assert rows == [("AA", 1.5, [1.5, 2.5], HOUR)]


def test_ends_are_in_order_and_an_empty_slice_is_one(log: OfflineLog) -> None:
    assert log.ends(RUN) == ()
    for end in (10 * HOUR, 2 * HOUR, 1e9 + 0.25):
        log.write(RUN, end, ["carrier"], slice_of(AA=1.0))
    assert log.write(RUN, -HOUR, ["carrier"], slice_of()) == 0
    assert log.ends(RUN) == (-HOUR, 2 * HOUR, 10 * HOUR, 1e9 + 0.25)
    assert len(log.read(RUN, -HOUR)["carrier"]) == 0
    assert asof(log, ["AA"], [0.0]) == [None]
    with pytest.raises(Refused, match=r"delays/1#2@1 has no slice"):
        log.read(RUN, 5.0)


def test_a_slice_written_again_replaces_the_first(log: OfflineLog) -> None:
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.0, UA=2.0))
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=3.0))
    assert log.read(RUN, HOUR)["mean"].tolist() == [3.0]


def test_a_run_is_dropped_by_itself(log: OfflineLog) -> None:
    other = Run("delays/1", 2, 2)
    for run in (RUN, other):
        log.write(run, HOUR, ["carrier"], slice_of(AA=1.0))
    assert log.runs("delays/1") == (RUN, other)
    log.drop(RUN)
    log.drop(Run("nothing/1", 1, 1))
    assert log.runs("delays/1") == (other,)
    assert log.ends(RUN) == ()


def test_a_key_is_found_in_every_run_and_in_every_part_of_a_key(log: OfflineLog) -> None:
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.0))
    log.write(Run("delays/1", 3, 1), HOUR, ["carrier"], slice_of(Zoë=1.0))
    two = {"store": np.array([7, 8]), "town": words("Rome", "O'Slo"), "x": np.zeros(2, np.float32)}
    log.write(Run("sales/1", 1, 1), HOUR, ["store", "town"], two)
    for schema, keys, held in (
        ("delays/1", ["none", "Zoë"], True),
        ("delays/1", ["1.0"], False),
        ("sales/1", ["8"], True),
        ("sales/1", ["O'Slo"], True),
        ("sales/1", ["0"], False),
        ("nothing/1", ["AA"], False),
    ):
        assert log.holds(schema, keys) == held


def test_a_killed_writer_leaves_no_half_slice(log: OfflineLog, tmp_path: Path) -> None:
    """Killed while DuckDB writes, as often as it takes to leave a partial file."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        import numpy as np
        from kedge.adapters.offline.log import OfflineLog
        from kedge.core.features.generations import Run
        log = OfflineLog(Path(sys.argv[1]))
        columns = {"id": np.arange(300_000), "x": np.random.default_rng(1).normal(size=300_000)}
        while True:
            log.write(Run("delays/1", 2, 1), 3600.0, ["id"], columns)
    """)
    folder = tmp_path / "offline" / RUN.namespace
    writer = subprocess.Popen([sys.executable, "-c", script, str(tmp_path / "offline")])
    try:
        while not [p for p in folder.glob("*.partial") if p.exists()]:
            assert writer.poll() is None
        writer.send_signal(signal.SIGSTOP)  # what is there now stays there
    finally:
        writer.kill()
        writer.wait()
    (folder / "00000000000000000009.partial").write_bytes(b"PAR1")  # of a writer before that
    for end in log.ends(RUN):
        assert len(log.read(RUN, end)["id"]) == 300_000
    log.write(RUN, 2 * HOUR, ["id"], {"id": np.array([1]), "x": np.array([1.0])})
    assert not [*folder.glob("*.partial")]
    assert 2 * HOUR in log.ends(RUN)


def test_a_slice_that_cannot_be_written_is_not_seen(log: OfflineLog, tmp_path: Path) -> None:
    (tmp_path / "offline").mkdir()
    (tmp_path / "offline" / "delays").write_text("a file where a folder should be")
    with pytest.raises(Unavailable) as caught:
        log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.0))
    assert caught.value.code == "offline_unavailable"
    assert log.ends(RUN) == ()


# ---------------------------------------------------------------- point in time


def test_a_value_is_known_from_its_slices_end_on(log: OfflineLog) -> None:
    for end, mean in ((HOUR, 1.0), (2 * HOUR, 2.0)):
        log.write(RUN, end, ["carrier"], slice_of(AA=mean))
    at = [HOUR - 1e-3, HOUR, HOUR + 1e-3, 2 * HOUR - 1e-3, 2 * HOUR, 9 * HOUR, float("nan")]
    assert asof(log, ["AA"] * 7, at) == [None, 1.0, 1.0, 1.0, 2.0, 2.0, None]


def test_the_order_in_which_slices_were_written_does_not_matter(log: OfflineLog) -> None:
    for end, mean in ((3 * HOUR, 3.0), (HOUR, 1.0), (2 * HOUR, 2.0)):
        log.write(RUN, end, ["carrier"], slice_of(AA=mean, **({"UA": 9.0} if mean == 2.0 else {})))
    at = [3.5 * HOUR, 1.5 * HOUR, 2.5 * HOUR, 3.5 * HOUR]
    assert asof(log, ["AA", "AA", "AA", "UA"], at) == [3.0, 1.0, 2.0, 9.0]


def test_a_value_is_missing_when_it_is_older_than_its_ttl(log: OfflineLog) -> None:
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.0))
    log.write(RUN, 2 * HOUR, ["carrier"], slice_of(UA=1.0))
    at = [2 * HOUR, 2 * HOUR + 1e-3]
    assert asof(log, ["AA", "AA"], at, ttl_s=HOUR) == [1.0, None]
    assert asof(log, ["AA", "UA"], [10 * HOUR, 3 * HOUR], ttl_s=HOUR) == [None, 1.0]


def test_keys_that_were_never_written_are_missing(log: OfflineLog) -> None:
    assert asof(log, ["AA"], [HOUR]) == [None]  # not even a run
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.0))
    assert asof(log, ["ZZ", "AA", "", "AA"], [HOUR] * 4) == [None, 1.0, None, 1.0]


def test_a_null_that_is_newer_is_a_value(log: OfflineLog) -> None:
    """The key is known and its mean is not: the older mean is not dug out."""
    log.write(RUN, HOUR, ["carrier"], slice_of(AA=1.0))
    log.write(RUN, 2 * HOUR, ["carrier"], slice_of(AA=float("nan")))
    found, missing = log.asof({"carrier": words("AA")}, np.array([2 * HOUR]), RUN, SCHEMA)
    assert np.isnan(found["mean"]).all()
    assert not missing.any()


def test_keys_of_several_columns_and_of_numbers_are_joined_as_a_whole(log: OfflineLog) -> None:
    schema = Schema("delays/1", {"x": Feature("float32", null=True)}, ("origin", "number"))
    columns = {
        "origin": words("JFK", "JFK", "LGA"),
        "number": np.array([1, 2, 1]),
        "x": np.array([1, 2, 3], np.float32),
    }
    log.write(RUN, HOUR, ["origin", "number"], columns)
    spine = {
        "origin": words("LGA", "JFK", "LGA", "JFK"),
        "number": np.array([1, 2, 2, 1], np.int32),
    }
    found, missing = log.asof(spine, np.full(4, HOUR), RUN, schema)
    assert missing.tolist() == [False, False, True, False]
    assert found["x"][~missing].tolist() == [3.0, 2.0, 1.0]


ASKED: dict[str, Any] = {
    "text": words("7", "007", "7.0", " 7 ", "7.4", "8", "", "9"),
    "whole": np.array([7, 8, 9, -7]),
    "unsigned": np.array([7, 8], np.uint64),
    "float": np.array([7.0, 7.4, 8.0, np.nan, np.inf]),
    "missing": np.array([None, "7"], object),
}


@pytest.mark.parametrize("kind", ASKED)
@pytest.mark.parametrize("kept", [np.array([7, 8]), words("7", "8"), words("7", "007")])
def test_a_training_set_finds_the_keys_that_serving_finds(
    log: OfflineLog, kind: str, kept: Any
) -> None:
    """Whatever type the source, the spine and the caller have: one spelling decides."""
    schema = Schema("delays/1", {"x": Feature("float32", null=True)}, ("store",))
    log.write(RUN, HOUR, ["store"], {"store": kept, "x": np.array([1, 2], np.float32)})
    asked = ASKED[kind]
    known = set(keys_of({"store": kept}, ["store"]))
    served = [key in known for key in keys_of({"store": asked}, ["store"])]
    _, missing = log.asof({"store": asked}, np.full(len(asked), HOUR), RUN, schema)
    assert [not gone for gone in missing] == served


@pytest.mark.parametrize("near", [1239162456494753670, 2**53])
def test_a_row_without_a_key_does_not_round_the_keys_of_others(tmp_path: Path, near: int) -> None:
    path = parquet(
        tmp_path / "s.parquet",
        f"SELECT * FROM (VALUES ({near}::BIGINT, 'a', 1e9), ({near + 1}, 'b', 1e9), (NULL, 'c', 1e9),"
        f" ({near + 2}, '', 1e9)) AS v(store, town, seen)",
    )
    rows = source_rows(path, "seen", keys=("store", "town", "no such column"))
    assert rows["store"].dtype == np.int64
    assert rows["store"].tolist() == [near, near + 1]
    times = source_times(path, "seen", NOW, keys=("store", "town"))
    assert times is not None
    assert times.keyless == 2


@pytest.mark.parametrize(
    ("kind", "values", "kept"),
    [
        ("VARCHAR", "('nan'), ('NaN'), (''), (NULL)", ["nan", "NaN"]),
        ("DOUBLE", "('nan'), ('7'), (NULL)", [7.0]),
        ("FLOAT", "('nan'), ('7'), (NULL)", [7.0]),
        ("BIGINT", "(7), (NULL)", [7]),
    ],
)
def test_rows_without_a_valid_key_are_left_out_and_counted(
    tmp_path: Path, kind: str, values: str, kept: list[Any]
) -> None:
    """As `keys.spell` has it: text that says nan is a key, and a number that is NaN is none."""
    select = f"SELECT CAST(id AS {kind}) AS id, 1e9 AS seen FROM (VALUES {values}) AS v(id)"
    path = parquet(tmp_path / "s.parquet", select)
    rows = source_rows(path, "seen", keys=("id",))
    assert rows["id"].tolist() == kept
    assert None not in keys_of({"id": rows["id"]}, ["id"])
    times = source_times(path, "seen", NOW, keys=("id",))
    assert times is not None
    assert times.keyless == values.count("(") - len(kept)


def test_an_asof_join_agrees_with_a_walk_through_the_slices(log: OfflineLog) -> None:
    dice = np.random.default_rng(5)
    truth: list[tuple[float, str, float]] = []
    for n in dice.permutation(30):
        some = dice.choice(20, 12, replace=False)
        means = {f"k{k}": float(np.float32(dice.normal())) for k in some}
        log.write(RUN, n * HOUR, ["carrier"], slice_of(**means))
        truth += [(n * HOUR, key, mean) for key, mean in means.items()]
    truth.sort()
    keys = [f"k{k}" for k in dice.integers(0, 22, 3000)]
    at = (dice.integers(-2, 62, 3000) * HOUR / 2).tolist()
    known: list[float | None] = []
    for key, when in zip(keys, at, strict=True):
        before = [(end, mean) for end, k, mean in truth if k == key and end <= when]
        known.append(before[-1][1] if before and when - before[-1][0] <= 2 * HOUR else None)
    assert asof(log, keys, at, ttl_s=2 * HOUR) == known
    assert None in known


# ---------------------------------------------------------------- sources


def parquet(path: Path, query: str) -> Path:
    duckdb.sql(f"COPY ({query}) TO '{path}' (FORMAT parquet)")
    return path


@pytest.mark.parametrize(
    "kind", ["TIMESTAMP", "TIMESTAMP_NS", "TIMESTAMP WITH TIME ZONE", "DOUBLE", "BIGINT"]
)
def test_rows_of_a_time_are_read_whatever_spells_it(tmp_path: Path, kind: str) -> None:
    number = kind in ("DOUBLE", "BIGINT")
    time = "t" if number else "to_timestamp(t) AT TIME ZONE 'UTC'"
    if kind == "TIMESTAMP WITH TIME ZONE":
        time = "to_timestamp(t)"
    path = parquet(
        tmp_path / "s.parquet",
        f"SELECT CAST({time} AS {kind}) AS seen, t - {T0} AS n FROM range({T0}, {T0} + 50, 10) AS r(t)"
        f" UNION ALL SELECT NULL, -1",
    )
    found = source_rows(path, "seen", T0 + 10.0, T0 + 30.0)
    assert found["n"].tolist() == [20, 30]
    assert found["seen"].dtype == np.float64
    assert found["seen"].tolist() == [T0 + 20.0, T0 + 30.0]
    assert source_rows(path, "seen")["n"].tolist() == [0, 10, 20, 30, 40]
    assert source_times(path, "seen", NOW) == Times(T0, T0 + 40.0, without=1)


T0 = 1_700_000_000
NOW = 1_795_910_400.0
"""2026-11-29."""


def test_a_date_is_its_first_second_and_a_pattern_is_several_files(tmp_path: Path) -> None:
    (tmp_path / "1.csv").write_text("day,carrier,flights\n2001-01-02,AA,3\n2001-01-03,,\n")
    (tmp_path / "2.csv").write_text("day,carrier,flights\n2001-01-04,UA,5\n")
    second, third, fourth = (978_307_200.0 + day * 86_400 for day in (1, 2, 3))
    found = source_rows(tmp_path / "*.csv", "day", second, fourth)
    assert found["day"].tolist() == [third, fourth]
    assert found["carrier"].tolist() == ["", "UA"]
    assert found["flights"].dtype == np.float64
    assert np.isnan(found["flights"][0])
    assert source_times(tmp_path / "*.csv", "day", NOW) == Times(second, fourth, without=0)


WRITTEN = (
    "2026-11-20T10:00:00Z",
    "2026-11-20 10:00:00",
    "2026-11-20T11:00:00+01:00",
    "2026-11-20 11:00+01",
    "2026-11-20T10:00:00.000Z",
    "1795168800",
    "1795168800.0",
    " 2026-11-20T10:00:00Z ",
    "2026-11-20T11:00+0100",
)


@pytest.mark.parametrize("column", [*([one] for one in WRITTEN), list(WRITTEN)])
def test_one_instant_is_one_number_however_a_csv_writes_it(
    tmp_path: Path, column: list[str]
) -> None:
    """Each form by itself, where DuckDB would recognise one, and all of them in one column."""
    path = tmp_path / "s.csv"
    path.write_text("at,n\n" + "".join(f"{text},1\n" for text in column))
    assert set(source_rows(path, "at")["at"].tolist()) == {1_795_168_800.0}
    assert source_times(path, "at", NOW) == Times(1_795_168_800.0, 1_795_168_800.0, without=0)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("1970-01-01 00:00:00", "never set"),
        ("0", "never set"),
        ("2099-01-01", "in the future"),
        ("1763636400000", "counts milliseconds"),
        ("20261120", "a date without hyphens"),
        ("01/02/2026", "'01/02/2026' is not a valid time"),
        ("01-02-26", "is not a valid time"),
        ("2026-1-2", "is not a valid time"),
        ("epoch", "is not a valid time"),
        ("infinity", "is not a valid time"),
        ("nan", "is not a valid time"),
        ("2026-02-30", "is not a valid time"),
        ("2026-11-20 (BC)", "is not a valid time"),
        ("1950-01-01", "before 1971"),
        ("soon", "is not a valid time"),
    ],
)
@pytest.mark.parametrize("alone", [True, False])
def test_a_time_that_cannot_be_true_or_read_is_refused_with_its_row(
    tmp_path: Path, text: str, why: str, *, alone: bool
) -> None:
    path = tmp_path / "s.csv"
    good = [] if alone else ["2026-11-20 10:00:00"]
    path.write_text("at,n\n" + "".join(f"{each},1\n" for each in (*good, text, text, text, text)))
    with pytest.raises(Refused, match=f"s.csv: at, row {2 - alone}: .*{re.escape(why)}") as caught:
        source_times(path, "at", NOW)
    assert caught.value.code == "untrue_time"
    assert caught.value.details["count"] == 4
    rows: Any = caught.value.details["rows"]
    assert [row["row"] for row in rows] == [n + 2 - alone for n in range(3)]
    assert "(and 1 more)" in str(caught.value)


@pytest.mark.parametrize(
    "column",
    [
        "0::BIGINT",
        "1763636400000",
        "'2099-01-01'::TIMESTAMP",
        "'soon'",
        "TIMESTAMPTZ '1970-01-01'",
        "DATE '1970-01-01'",
        "'NaN'::DOUBLE",
        "'infinity'::TIMESTAMP",
    ],
)
def test_times_in_parquet_are_held_to_the_same(tmp_path: Path, column: str) -> None:
    path = parquet(tmp_path / "s.parquet", f"SELECT {column} AS at")
    with pytest.raises(Refused, match="row 1") as caught:
        source_times(path, "at", NOW)
    assert caught.value.code == "untrue_time"


def test_a_stated_form_is_read_as_stated(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("at,n\n01/02/2026,1\n02/01/2026,2\n,3\n")
    found = source_rows(path, "at", form="%d/%m/%Y")
    assert found["at"].tolist() == [1_769_904_000.0, 1_767_312_000.0]
    assert source_times(path, "at", NOW, "%d/%m/%Y") == Times(1_767_312_000.0, 1_769_904_000.0, 1)
    with pytest.raises(Refused, match="row 1: '01/02/2026' is not a valid time"):
        source_times(path, "at", NOW, "%Y.%m.%d")
    with pytest.raises(Refused, match="format") as caught:
        source_times(path, "at", NOW, "%Q")
    assert caught.value.code == "bad_source"


def test_another_column_whose_dates_can_be_read_in_two_ways_stays_text(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("at,day,iso,stamp\n2026-11-20,01/02/2026,2026-11-20,03/04/2026 10:00:00\n")
    found = source_rows(path, "at")
    assert (found["day"][0], found["stamp"][0]) == ("01/02/2026", "03/04/2026 10:00:00")
    assert found["iso"][0] == 1_795_132_800.0


def test_columns_are_what_numpy_has_for_them(tmp_path: Path) -> None:
    path = parquet(
        tmp_path / "s.parquet",
        "SELECT 1.0::DOUBLE AS t, 2::SMALLINT AS small, 3.25::DECIMAL(9, 2) AS price, true AS yes,"
        " 'a'::VARCHAR AS word, 'low'::ENUM('low', 'high') AS level, 7::HUGEINT AS huge,"
        " TIME '01:02:03' AS clock, 1.5::FLOAT AS x",
    )
    found = source_rows(path, "t")
    kinds = {name: column.dtype.name for name, column in found.items()}
    assert kinds == {
        "t": "float64",
        "small": "int16",
        "price": "float64",
        "yes": "bool",
        "word": "object",
        "level": "object",
        "huge": "float64",
        "clock": "object",
        "x": "float32",
    }
    assert {n: c[0] for n, c in found.items() if c.dtype == object} == {
        "word": "a",
        "level": "low",
        "clock": "01:02:03",
    }


ID = 1_239_162_456_494_753_670
"""An id of 64 bits: a float64 would take it and its neighbours for one."""


@pytest.mark.parametrize(
    ("kind", "ids", "dtype", "spelled"),
    [
        ("DECIMAL(38, 0)", [ID, ID + 1, None], "int64", [str(ID), str(ID + 1)]),
        ("DECIMAL(12, 0)", [7, -8], "int64", ["7", "-8"]),
        ("DECIMAL(20, 0)", [2**63 + 1, 2**63 + 2], "uint64", [str(2**63 + 1), str(2**63 + 2)]),
        ("UBIGINT", [2**63 + 1, 2**63 + 2], "uint64", [str(2**63 + 1), str(2**63 + 2)]),
        ("DECIMAL(38, 0)", [10**30, -1], "object", [str(10**30), "-1"]),
        ("DECIMAL(9, 2)", [7.0, 7.5], "float64", ["7", None]),
    ],
)
def test_wide_keys_never_pass_through_a_float(
    tmp_path: Path, kind: str, ids: list[Any], dtype: str, spelled: list[str | None]
) -> None:
    """Databases export ids as DECIMAL(38, 0); one without a value makes no other one a float."""
    rows = " UNION ALL ".join(
        f"SELECT {1.0 + n} AS t, {'NULL' if one is None else one}::{kind} AS id, 2::DECIMAL(38, 0) AS n"
        for n, one in enumerate(ids)
    )
    found = source_rows(parquet(tmp_path / "s.parquet", rows), "t", keys=["id"])
    assert (found["id"].dtype.name, found["n"].dtype.name) == (dtype, "int64")
    assert keys_of(found, ["id"]) == spelled
    assert len(source_rows(tmp_path / "s.parquet", "t", until=0.5, keys=["id"])["t"]) == 0


def test_an_empty_source_has_no_span(tmp_path: Path) -> None:
    path = parquet(tmp_path / "s.parquet", "SELECT 1.0 AS t WHERE false")
    assert source_times(path, "t", NOW) is None
    assert len(source_rows(path, "t")["t"]) == 0


@pytest.mark.parametrize(
    "name, content, time, says",
    [
        ("gone.parquet", None, "t", "there is no such file"),
        ("s.xlsx", b"", "t", "neither .parquet nor .csv"),
        ("s.csv", b"a,b\n1,2\n", "t", "has no column t"),
        ("s.csv", b"t,b\xe9\n2026-11-20,2\n", "t", "not UTF-8"),
        ("s.csv", b"t,b\n1795900000,caf\xe9\n", "t", "line 2: is not UTF-8"),
        ("s.csv", b"t,b\r\n1,2\r\n1,2\n", "t", "cannot be read as CSV: its rows differ"),
        ("s.parquet", b"PAR1 and no more", "t", "s.parquet"),
    ],
)
def test_a_source_that_cannot_be_read_is_refused(
    tmp_path: Path, name: str, content: bytes | None, time: str, says: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    for read in (source_rows, partial(source_times, now=NOW)):
        with pytest.raises(Refused, match=says) as caught:
            read(tmp_path / name, time)
        assert caught.value.code == "bad_source"


BEFORE = "1,1795900000,\n" * 21_000
"""More rows than DuckDB looks at."""


def test_the_type_of_a_csv_column_is_that_of_all_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text(f"store,t,seen\n{BEFORE}007,1795900000,2\n")
    found = source_rows(path, "t")
    assert (found["store"][0], found["store"][-1], found["seen"][-1]) == ("1", "007", 2)
    path.write_text(f"store,t,seen\n{BEFORE}7,1795900000,2\n8,1795900000,x\n")
    found = source_rows(path, "t")
    assert (found["store"][-1], found["seen"][-1]) == (8, "x")


def test_the_type_of_a_csv_column_is_that_of_all_files(tmp_path: Path) -> None:
    for name, row in (("a", "1,1795900000,"), ("b", "2,1795900000,1.5"), ("c", "007,1795900000,3")):
        (tmp_path / f"{name}.csv").write_text(f"store,t,seen\n{row}\n")
    found = source_rows(tmp_path / "[ab].csv", "t")
    assert (found["store"].tolist(), found["seen"][1]) == ([1, 2], 1.5)
    assert source_rows(tmp_path / "*.csv", "t")["store"].tolist() == ["1", "2", "007"]


def test_a_missing_column_names_those_that_are_there(tmp_path: Path) -> None:
    (tmp_path / "s.csv").write_text("when,carrier\n1,AA\n")
    with pytest.raises(Refused) as caught:
        source_rows(tmp_path / "s.csv", "at")
    assert caught.value.hint == "it has when, carrier"
