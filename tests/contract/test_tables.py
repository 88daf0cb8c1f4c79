"""Tables that people hand in: whatever stands in a file, each reader gives rows, or says in words what is wrong.

Nothing else than a `KedgeError` may come out of a reader: not DuckDB's faults, not Python's.
"""

from __future__ import annotations

import datetime as dt
import decimal
import json
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kedge.adapters.offline.sources import source_rows, source_times
from kedge.config.load import load
from kedge.core.errors import KedgeError
from kedge.core.evidence.answers import Target
from kedge.core.evidence.records import Outcome
from kedge.core.features.schema import Feature, Schema, Spec
from kedge.core.values import Field, Signature, TrainingSet
from kedge.engine import registration
from kedge.operations.features import training_set
from kedge.operations.features.golden import given_rows
from kedge.operations.outcomes import LineFault, OutcomeReading, Placed
from kedge.operations.outcomes import read as read_outcomes
from kedge.tabular.parquet import database
from kedge.tabular.rows import table_rows
from kedge.tabular.statistics import read_training

NOW = 1_796_000_000.0
AT = dt.datetime(2026, 11, 20, 12, 30, tzinfo=dt.UTC)
NAIVE = AT.replace(tzinfo=None)
SIGNATURES = [
    Signature((Field("x", dtype, (), nullable=True),), ())
    for dtype in ("float64", "int64", "string", "bool")
] + [Signature((Field("x", "float32", (2,)),), ())]


def said(error: KedgeError) -> str:
    """What an error says: some words, and nothing of Python's or DuckDB's insides."""
    words = str(error)
    assert words.strip()
    assert error.code
    assert not any(part in words for part in ("Traceback", "object at 0x", "INTERNAL", "<class"))
    return words


def tried(work: Callable[[], Any]) -> Any:
    """The result, or what a `KedgeError` says."""
    try:
        return work()
    except KedgeError as error:
        return said(error)


def read(path: Path, target: Target | None) -> list[Outcome | LineFault]:
    """The outcomes of a file, without their places."""
    found = read_outcomes(path, OutcomeReading(NOW, target))
    return [one.outcome if isinstance(one, Placed) else one for one in found]


def outcomes(path: Path) -> list[Outcome | LineFault]:
    found = read(path, None)
    for one in found:
        assert isinstance(one, Outcome) or str(one).strip()
    return found


def spine(path: Path, kept: Path) -> Any:
    """A spine with its raw column, its time, and a training set written of it."""
    spec = Spec(
        schema=Schema("s/1", {"f": Feature("float32")}),
        entry="m:f",
        raw=(Field("x", "float64", (), nullable=True),),
    )
    with database() as db, training_set._reading(path):
        names, rows = training_set._load(db, path, "at", None, spec, NOW)
        for field in (
            Field("x", "float64", (), nullable=True),
            Field("x", "string", (), nullable=True),
            Field("x", "float32", (2,)),
        ):
            at = training_set.Spine(path, "at", rows)
            tried(partial(training_set._taken, db, [field], names, at, 0, rows))
        db.execute(f"CREATE TABLE features AS SELECT CAST(0 AS FLOAT) AS f0 FROM range({rows})")
        told = TrainingSet(
            schema="s/1",
            transformation=1,
            code="sha256:0",
            generations=(),
            data="",
            rows=rows,
            spine=path.name,
            time="at",
            made_at="2026-11-20T12:30:00Z",
        )
        training_set._write(
            db,
            kept,
            told,
            training_set._picked(spec.schema, names, training_set._kept(["f"], list(names))),
        )
    return training_set.read_training_set(kept)


READERS: dict[str, Callable[[Path], Any]] = {
    "outcomes": outcomes,
    **{
        f"training {s.inputs[0].dtype}": partial(read_training, signature=s, raw=s.inputs)
        for s in SIGNATURES
    },
    "times": lambda path: source_times(path, "at", NOW, keys=["key"]),
    "rows": lambda path: source_rows(path, "at", keys=["key"]),
    "spine": lambda path: spine(path, path.with_name("kept.parquet")),
    "training set": training_set.read_training_set,
}
"""How a user's table is read, by each command that takes one."""


def every_reader(path: Path, *names: str) -> dict[str, Any]:
    """What each reader, or each that is named, makes of a file."""
    return {name: tried(partial(READERS[name], path)) for name in names or READERS}


# ---------------------------------------------------------------- Parquet, every type of Arrow

VALUES: dict[str, pa.Array] = {
    "bool": pa.array([True, None]),
    **{f"int{n}": pa.array([1, None], getattr(pa, f"int{n}")()) for n in (8, 16, 32, 64)},
    **{f"uint{n}": pa.array([1, None], getattr(pa, f"uint{n}")()) for n in (8, 16, 32, 64)},
    "uint64 large": pa.array([2**64 - 1, 0], pa.uint64()),
    "float16": pa.array([1.0, None], pa.float16()),
    "float32": pa.array([1.0, float("nan")], pa.float32()),
    "float64": pa.array([float("inf"), None]),
    "decimal": pa.array([decimal.Decimal("1.00"), None], pa.decimal128(10, 2)),
    "decimal wide": pa.array([decimal.Decimal(10) ** 37, None], pa.decimal128(38, 0)),
    "decimal256": pa.array([decimal.Decimal(10) ** 60, None], pa.decimal256(76, 2)),
    "string": pa.array(["yes", None]),
    "large string": pa.array(["yes", None], pa.large_string()),
    "string view": pa.array(["yes", None], pa.string_view()),
    "huge string": pa.array(["x" * 300_000, None]),
    "dictionary": pa.array(["a", "b"]).dictionary_encode(),
    "dictionary of ints": pa.array([1, 2]).dictionary_encode(),
    "binary": pa.array([b"\xff\x00", None]),
    "fixed binary": pa.array([b"0123456789abcdef", None], pa.binary(16)),
    "uuid": pa.array([uuid.UUID(int=7).bytes, None], pa.uuid()),
    "null": pa.nulls(2),
    **{
        f"zoned {unit}": pa.array([AT, None], pa.timestamp(unit, "UTC"))
        for unit in ("s", "ms", "us", "ns")
    },
    "Berlin ns": pa.array([AT, None], pa.timestamp("ns", "Europe/Berlin")),
    "offset": pa.array([AT, None], pa.timestamp("us", "+05:30")),
    **{
        f"naive {unit}": pa.array([NAIVE, None], pa.timestamp(unit))
        for unit in ("s", "ms", "us", "ns")
    },
    "far": pa.array([2**62, None], pa.timestamp("us")),
    "date32": pa.array([AT.date(), None], pa.date32()),
    "date64": pa.array([AT.date(), None], pa.date64()),
    "far date": pa.array([2**31 - 1, None], pa.date32()),
    "time32": pa.array([dt.time(9, 30), None], pa.time32("s")),
    "time64": pa.array([dt.time(9, 30), None], pa.time64("ns")),
    **{f"duration {unit}": pa.array([90, None], pa.duration(unit)) for unit in ("s", "ns")},
    "list": pa.array([[1.0, 2.0], None]),
    "list of nulls": pa.array([[None, 2.0], [1.0, 2.0]]),
    "ragged list": pa.array([[1.0], [1.0, 2.0]]),
    "fixed list": pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float32(), 2)),
    "list of zoned": pa.array([[AT], None], pa.list_(pa.timestamp("ns", "UTC"))),
    "list of decimals": pa.array([[decimal.Decimal("1.5")], None], pa.list_(pa.decimal128(9, 2))),
    "list of lists": pa.array([[[1.0], [2.0]], None]),
    "list of structs": pa.array([[{"a": 1}], None]),
    "list of strings": pa.array([["a", "b"], None]),
    "struct": pa.array([{"a": 1, "b": AT}, None]),
    "map": pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int64())),
}


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


IDS, ONES, SECONDS = pa.array(["a", "b"]), pa.array([1.0, 0.0]), pa.array([AT.timestamp()] * 2)


@pytest.mark.parametrize("kind", VALUES)
def test_a_parquet_column_of_any_type_is_read_or_named_in_each_role(
    tmp_path: Path, kind: str
) -> None:
    """As the label, a field and a key; then as the time and the id."""
    path, values = tmp_path / "a.parquet", VALUES[kind]
    write(path, id=IDS, value=values, x=values, key=values, at=SECONDS)
    told = every_reader(path, "outcomes", "training float64", "training string", "rows", "spine")
    write(path, id=values, value=ONES, at=values, label_version=values, x=ONES)
    told |= every_reader(path, "times") | {"ids": tried(lambda: outcomes(path))}
    for words in told.values():
        assert not isinstance(words, str) or "x" in words or "at" in words or "parquet" in words


def test_unneeded_data_is_not_read_and_does_no_harm(tmp_path: Path) -> None:
    beside = {f"c{n}": values for n, values in enumerate(VALUES.values())}
    path = write(tmp_path / "a.parquet", id=IDS, value=ONES, x=ONES, key=IDS, at=SECONDS, **beside)
    told = every_reader(path)
    assert [type(one) for one in told["outcomes"]] == [Outcome, Outcome]
    assert told["training float64"].rows == {"x": [1.0, 0.0]}
    assert told["times"].first == AT.timestamp()
    assert len(told["rows"]["c1"]) == 2
    assert told["spine"].rows == 2


@pytest.mark.parametrize(
    "kind", [kind for kind in VALUES if kind.startswith(("zoned", "Berlin", "offset"))]
)
def test_an_instant_with_a_zone_is_the_same_instant_in_every_unit(
    tmp_path: Path, kind: str
) -> None:
    path, ids = tmp_path / "a.parquet", pa.array(["a", "b"])
    write(path, id=ids, value=pa.array([1, 0]), at=VALUES[kind], x=VALUES[kind], key=ids)
    first, second = outcomes(path)
    assert (first, second) == (Outcome("a", 1.0, AT.timestamp()), Outcome("b", 0.0, None))
    times = source_times(path, "at", NOW)
    assert times is not None
    assert (times.first, times.without) == (AT.timestamp(), 1)
    assert read_training(path, SIGNATURES[0]).rows["x"] == [AT.timestamp(), None]


@pytest.mark.parametrize(
    "kind, label",
    [
        ("decimal", 1.0),
        ("dictionary", "a"),
        ("bool", True),
        ("uint64 large", str(2**64 - 1)),
        ("large string", "yes"),
        ("dictionary of ints", 1.0),
        ("uuid", str(uuid.UUID(int=7))),
        ("float16", 1.0),
        ("duration s", 90.0),
    ],
)
def test_labels_keep_their_value_whatever_their_width(
    tmp_path: Path, kind: str, label: Any
) -> None:
    path = write(tmp_path / "a.parquet", id=pa.array(["a", "b"]), value=VALUES[kind])
    assert outcomes(path)[0] == Outcome("a", label)


def test_a_file_is_read_by_its_own_name(tmp_path: Path) -> None:
    """Stars, brackets, quotes and folders called id=5 mean nothing in the name of one file."""
    for name in ("a[1].parquet", "b*.parquet", "c'd\".parquet", "id=5/value=9/e.parquet"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, id=pa.array(["a"]), value=pa.array([1.0]), x=pa.array([3.0]), at=pa.array([AT]))
        assert outcomes(path) == [Outcome("a", 1.0, AT.timestamp())]
        assert read_training(path, SIGNATURES[0]).rows["x"] == [3.0]
        if "=" not in name:
            assert source_rows(path, "at")["x"].tolist() == [3.0]


@pytest.mark.parametrize("raw", [b"", b"PAR1", b"PAR1" + b"\0" * 64 + b"PAR1", b"id,value\na,1\n"])
@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_file_that_is_not_what_its_name_says_is_named(
    tmp_path: Path, raw: bytes, ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(raw)
    every_reader(path)


@pytest.mark.parametrize("ending", ["parquet", "csv", "jsonl"])
def test_a_folder_and_a_closed_file_are_named(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / f"a.{ending}"
    folder.mkdir()
    assert all(isinstance(one, str | list) for one in every_reader(folder).values())
    gone = tmp_path / f"b.{ending}"
    gone.symlink_to(tmp_path / "nowhere")
    every_reader(gone)


def test_a_parquet_file_that_was_cut_or_changed_is_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.parquet",
        id=pa.array(["a"] * 500),
        value=pa.array([1.0] * 500),
        x=pa.array(range(500)),
        at=pa.array([AT] * 500),
        key=pa.array(["k"] * 500),
    )
    whole = path.read_bytes()
    for size in range(0, len(whole), len(whole) // 12):
        path.write_bytes(whole[:size])
        every_reader(path, "outcomes", "rows")
        path.write_bytes(
            whole[:size] + bytes(255 - b for b in whole[size : size + 40]) + whole[size + 40 :]
        )
        every_reader(path, "outcomes", "training float64", "spine")


# ---------------------------------------------------------------- text

WORDS = st.one_of(
    st.sampled_from(
        [
            "1",
            "0.5",
            "-1e400",
            "NaN",
            "inf",
            "yes",
            "007",
            "9" * 400,
            "",
            " ",
            "NA",
            "null",
            "true",
            "2026-11-20T12:30:00Z",
            "2026-11-20",
            "01/02/2026",
            "1796000000",
            "0x10",
            "1_000",
            '"',
            '""',
            "\ufeff",
            "\x00",
            "\u202e",
            "a\nb",
            "a\rb",
            "a,b",
            "[1,2]",
            "{}",
            "😀",
            "é" * 2000,
        ]
    ),
    st.text(max_size=20),
)
NAMES = st.sampled_from(
    ["id", "value", "at", "x", "key", "label_version", "valeu", "ID", "", "id", "x"]
)
FEW = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def cell(word: str, *, quote: bool) -> str:
    return '"' + word.replace('"', '""') + '"' if quote else word


@FEW
@given(
    header=st.lists(NAMES, max_size=7),
    rows=st.lists(st.lists(WORDS, max_size=8), max_size=5),
    quote=st.booleans(),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "utf-8 cut"]),
    end=st.sampled_from(["\n", "\r\n", "\r", ""]),
)
def test_a_csv_file_with_anything_in_it_is_read_or_named(
    tmp_path: Path, header: list[str], rows: list[list[str]], quote: bool, encoding: str, end: str
) -> None:
    lines = [",".join(header), *(",".join(cell(word, quote=quote) for word in row) for row in rows)]
    text = end.join(lines).encode(encoding.removesuffix(" cut"), errors="replace")
    path = tmp_path / "a.csv"
    path.write_bytes(text[:-1] + b"\xc3" if encoding.endswith("cut") else text)
    every_reader(path, "outcomes", "training float64", "training string", "times", "rows", "spine")


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([2**63, -(2**63) - 1, 2**64, 10**30, 10**400]),
        st.floats(),
        st.text(max_size=9),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
LINES = st.one_of(
    st.dictionaries(NAMES, JSON, max_size=6).map(lambda row: json.dumps(row).encode()),
    st.sampled_from(
        [
            b"",
            b"   ",
            b"{",
            b"[]",
            b"7",
            b'{"id": "a", "id": "b", "value": 1, "value": 2}',
            b'{"id": "a", "value": NaN}',
            b'{"id": "\xff", "value": 1}',
            b'\xef\xbb\xbf{"id": "a", "value": 1, "x": 1}',
            b"\xff\xfe{\0",
            b"\0",
            b'{"x": ' + b"[" * 5_000 + b"]" * 5_000 + b"}",
            b'{"x": ' + b"9" * 5_000 + b"}",
            b'{"x": 1e99999}',
            b'{"id": "a", "value": "' + b"x" * 100_000 + b'"}',
            b'{"x": "\\ud800"}',
        ]
    ),
    st.binary(max_size=40),
)


@FEW
@given(lines=st.lists(LINES, max_size=6), ending=st.sampled_from(["jsonl", "ndjson"]))
def test_json_lines_with_anything_in_them_are_read_or_named(
    tmp_path: Path, lines: list[bytes], ending: str
) -> None:
    path = tmp_path / f"a.{ending}"
    path.write_bytes(b"\n".join(lines))
    every_reader(path, "outcomes", *(name for name in READERS if name.startswith("training ")))


@FEW
@given(
    raw=st.one_of(
        LINES,
        st.dictionaries(st.sampled_from(["inputs", "outputs", "rtol", "atol"]), JSON).map(
            lambda row: json.dumps(row).encode()
        ),
    )
)
def test_golden_rows_and_kedge_toml_with_anything_in_them_are_read_or_named(
    tmp_path: Path, raw: bytes
) -> None:
    path = tmp_path / "a"
    path.write_bytes(raw)
    golden = tried(lambda: registration._golden(path, tmp_path))
    if isinstance(golden, registration.Golden):
        for signature in SIGNATURES:
            tried(partial(registration._check_given, golden, signature))
    tried(lambda: given_rows(path))
    tried(lambda: load(path))


# ---------------------------------------------------------------- bounds and promises


def test_json_lines_of_a_training_set_are_held_up_to_a_bound(tmp_path: Path) -> None:
    """A file without line ends is refused before it is in memory."""
    path = tmp_path / "a.jsonl"
    with path.open("wb") as file:
        file.write(b'{"x": 1}\n')
        file.truncate(1 << 40)  # a hole of a terabyte: one line
    words = tried(lambda: read_training(path, SIGNATURES[0]))
    assert "line 2 has more than" in words


@pytest.mark.parametrize(
    "names, fault", [("id,value,value", "value twice"), ("id,id,value", "id twice")]
)
def test_a_csv_that_names_a_column_twice_is_refused(tmp_path: Path, names: str, fault: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"{names}\na,b,c\n")
    (one,) = outcomes(path)
    assert fault in str(one)
    path.write_text("x,x\n1,2\n")
    assert "column x stands there twice" in tried(lambda: read_training(path, SIGNATURES[0]))


def test_every_target_reads_what_duckdb_gives(tmp_path: Path) -> None:
    """What an output declares decides; the readers give it the same values for every form of file."""
    table = {"id": ["a", "b"], "value": ["007", "8"]}
    parquet = write(tmp_path / "a.parquet", **{name: pa.array(v) for name, v in table.items()})
    text = tmp_path / "a.csv"
    text.write_text("id,value\na,007\nb,8\n")
    lines = tmp_path / "a.jsonl"
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows_of(table)))
    target = Target(dtype="string", kind="class")
    found = [read(p, target) for p in (parquet, text, lines)]
    assert found[0] == found[1] == found[2] == [Outcome("a", "007"), Outcome("b", "8")]


def rows_of(table: dict[str, list[Any]]) -> Iterable[dict[str, Any]]:
    return (dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True))


def test_a_spine_that_pandas_wrote_keeps_no_row_index(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", x=ONES, at=SECONDS, __index_level_0__=pa.array([0, 1]))
    spine(path, tmp_path / "kept.parquet")
    assert pq.read_schema(tmp_path / "kept.parquet").names == ["f", "x", "at"]


def test_wide_whole_numbers_of_a_training_set_stay_whole(tmp_path: Path) -> None:
    path = tmp_path / "train.parquet"
    ids = [2**53 + 1, 10**30]
    wide = pa.array(map(decimal.Decimal, ids), pa.decimal128(38, 0))
    pq.write_table(pa.table({"id": wide, "n": pa.array([2, 2], pa.decimal256(50, 0))}), path)
    assert [row for _, row in table_rows(path, ["id", "n"])] == [{"id": x, "n": 2} for x in ids]
