"""Training sets through the command line: made as of each row's time, and models tied to them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest

from e2e.place import Site
from kedge.adapters.offline.log import OfflineLog
from kedge.core.errors import Refused
from kedge.core.features.generations import Run
from kedge.operations.features.training_set import BATCH, make, read_training_set
from kedge.transforms.bundle import Transform
from kedge.workspace import Workplace

pytestmark = pytest.mark.e2e

HOUR = 3600.0
T0 = 978_307_200.0
"""2001-01-01, from which the hours of this file are counted."""
POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'features = {schema = "view/1"}\n'
    "[endpoints.flights.fields]\n"
    'minutes = {dtype = "float64"}\n'
    'word = {dtype = "string", nullable = true}\n'
)
FEATURES = """
import kedge
import numpy as np

delays = kedge.schema("delays/1", keys=["word"], fields={
    "mean": kedge.Field("float32", default=-1.0),
    "last": kedge.Field("float32", shape=(2,), null=True),
})
view = kedge.schema("view/1", fields={
    "x": kedge.Field("float64", range=(0, 24)),
    "word": kedge.Field("string", null=True),
    "mean": kedge.Field("float32"),
    "spread": kedge.Field("float32", shape=(2,), null=True),
})


@kedge.materialise(delays, source="delays.csv", time="seen", every="1h", ttl="3h")
def late(rows, at):
    mean = rows["mean"].astype("float32")
    return {"word": rows["word"], "mean": mean, "last": np.stack([mean, mean], axis=1)}


@kedge.transform(view, reads=delays)
def columns(raw, delays):
    if (raw["minutes"] == 13).any():
        raise ValueError("thirteen")
    return {"x": raw["minutes"] / 60.0, "word": np.where(raw["word"] == None, "", raw["word"]),
            "mean": delays["mean"], "spread": delays["last"] * np.float32(2)}
"""


def words(*values: str) -> Any:
    column = np.empty(len(values), dtype=object)
    column[:] = values
    return column


def keep(site: Site, number: int, end: float, **means: float) -> None:
    """A slice of delays/1#1@number, as the runner writes it."""
    mean = np.array([*means.values()], np.float32)
    columns = {"word": words(*means), "mean": mean, "last": np.stack([mean, mean / 3], axis=1)}
    log = OfflineLog(site.root / ".kedge" / "offline")
    log.write(Run("delays/1", 1, number), end, ["word"], columns)


def spine(site: Site, query: str, name: str = "labels.parquet") -> Path:
    duckdb.execute(f"COPY ({query}) TO '{site.root / name}' (FORMAT parquet)")
    return site.root / name


ROWS = """SELECT * FROM (VALUES
    (120.0, 'aa', TIMESTAMP '2001-01-01 00:59:59', true, 7.5::DECIMAL(9, 2), DATE '2026-01-01', 0.5),
    (120.0, 'aa', TIMESTAMP '2001-01-01 01:00:00', false, NULL, NULL, 0.25),
    (6000.0, 'aa', TIMESTAMP '2001-01-01 04:00:00', true, 1.5, DATE '2026-01-02', 0.5),
    (60.0, 'aa', TIMESTAMP '2001-01-01 06:00:00', true, 1.5, DATE '2026-01-02', 0.5),
    (60.0, NULL, TIMESTAMP '2001-01-01 02:30:00', true, 1.5, DATE '2026-01-02', 0.5)
) AS r(minutes, word, asked, late, fare, day, X)"""


def two_runs(site: Site) -> None:
    """Apply a view and a transformation, and keep slices of two runs; nothing is started."""
    (site.root / "features.py").write_text(FEATURES)
    site.run("init", "flights")
    site.run("apply")
    (site.root / "delays.csv").write_text("word,seen,mean\naa,2001-01-01 00:30:00,1.0\n")
    site.run("features", "apply", "features.py")
    runs = Workplace(site.root / ".kedge").generations
    for _ in range(2):
        runs.stand(runs.begin("delays/1", 1), "ready")
    keep(site, 1, T0 + HOUR, aa=9.0)
    keep(site, 2, T0 + HOUR, aa=1.0, bb=2.0)
    keep(site, 2, T0 + 2 * HOUR, aa=3.0)


@pytest.fixture
def site(copy_site: Callable[..., Site]) -> Site:
    return copy_site(two_runs, policy=POLICY)


def made(site: Site, *words: str, path: Path | None = None, check: bool = True) -> Any:
    given = path or spine(site, ROWS)
    return site.data(
        "features",
        "training-set",
        "flights",
        "--spine",
        str(given),
        "--time",
        "asked",
        "--out",
        "train.parquet",
        *words,
        check=check,
    )


def refused(found: Any) -> tuple[str, str]:
    return found["error"]["code"], found["error"]["message"]


def test_a_row_has_what_was_known_at_its_time_and_the_labels_that_it_came_with(site: Site) -> None:
    found = made(site)
    assert (found["schema"], found["transformation"], found["rows"]) == ("view/1", 1, 5)
    assert found["generations"] == ["delays/1#1@2"]
    assert found["missing"] == {"delays/1#1@2": 3}
    assert found["violations"] == {"x.range": 1}
    assert found["left_out"] == ["word", "X"]
    cursor = duckdb.execute(f"SELECT * FROM '{site.root}/train.parquet'")
    assert [column[0] for column in cursor.description or ()] == [
        "x",
        "word",
        "mean",
        "spread",
        "minutes",
        "asked",
        "late",
        "fare",
        "day",
    ]
    rows = cursor.fetchall()
    third = float(np.float32(1) / np.float32(3) * np.float32(2))
    assert [row[:4] for row in rows] == [
        (2.0, "aa", -1.0, [None, None]),
        (2.0, "aa", 1.0, [2.0, third]),
        (100.0, "aa", 3.0, [6.0, 2.0]),
        (1.0, "aa", -1.0, [None, None]),  # its value was an hour too old
        (1.0, "", -1.0, [None, None]),
    ]
    assert [row[6] for row in rows] == [True, False, True, True, True]
    assert [str(row[7]) for row in rows] == ["7.50", "None", "1.50", "1.50", "1.50"]
    other = made(site, "--generation", "delays/1#1@1")
    assert other["generations"] == ["delays/1#1@1"]
    assert other["data"] != found["data"]


def test_a_feature_of_the_whole_batch_is_made_row_by_row(site: Site) -> None:
    """As a caller gets it who asks one row: less its own mean, which is nothing."""
    text = FEATURES.replace('raw["minutes"] / 60.0', 'raw["minutes"] - raw["minutes"].mean()')
    (site.root / "features.py").write_text(text)
    (_, told) = site.data("features", "apply", "features.py")["transformations"]
    assert told["rows"] == "dependent"
    found = made(site, "--transformation", "2")
    assert found["by_row"]
    path = site.root / "train.parquet"
    assert duckdb.execute(f"SELECT count(*), max(abs(x)) FROM '{path}'").fetchone() == (5, 0.0)
    assert not made(site, "--transformation", "1")["by_row"]


def test_features_are_those_of_the_bundle_bit_by_bit_over_many_batches(site: Site) -> None:
    """And the digest is of the content: who made it, and in what pieces, has no part in it."""
    rows = 2 * BATCH + 17
    given = spine(
        site,
        "SELECT (n % 1441) / 1.1 AS minutes, ['aa', 'bb', 'cc'][n % 3 + 1] AS word,"
        f" {T0} + (n % 5) * 3600.0 AS asked, n AS number FROM range({rows}) AS r(n)",
    )
    assert made(site, path=given)["rows"] == rows
    path = site.root / "train.parquet"
    got = duckdb.execute(
        f"SELECT x, word, mean, spread[1] AS s0, spread[2] AS s1, minutes, asked, number FROM '{path}'"
    ).fetchnumpy()
    assert got["number"].tolist() == list(range(rows))
    place = Workplace(site.root / ".kedge")
    (code,) = place.features.versions("view/1")
    transform = Transform(place.artifacts.verify(code.digest))
    mean, gone = np.full(rows, -1, np.float32), np.ones(rows, dtype=bool)
    last = np.full((rows, 2), np.nan, np.float32)
    for word, since, until, value in (
        ("aa", 1, 2, 1.0),
        ("aa", 2, 5, 3.0),
        ("bb", 1, 4, 2.0),
        ("bb", 4, 5, 2.0),
    ):
        here = (
            (got["word"] == word)
            & (got["asked"] >= T0 + since * HOUR)
            & (got["asked"] < T0 + until * HOUR)
        )
        mean[here], gone[here] = value, False
        last[here] = np.array([value, np.float32(value) / np.float32(3)], np.float32)
    wanted = transform.applied(
        {"minutes": got["minutes"].copy(), "word": got["word"].copy()},
        [{"mean": mean, "last": last}],
    )
    assert np.array_equal(got["x"].view(np.uint64), wanted["x"].view(np.uint64))
    assert np.array_equal(got["mean"].view(np.uint32), wanted["mean"].view(np.uint32))
    assert got["word"].tolist() == wanted["word"].tolist()
    for n in range(2):
        assert np.ma.getmaskarray(got[f"s{n}"]).tolist() == gone.tolist()
        there = np.ma.getdata(got[f"s{n}"])[~gone]
        assert np.array_equal(there.view(np.uint32), wanted["spread"][~gone, n].view(np.uint32))
    told = read_training_set(path)
    (said,) = duckdb.execute(f"SELECT value FROM parquet_kv_metadata('{path}')").fetchone() or ()
    for name, more, order in (
        ("other", "ROW_GROUP_SIZE 3000", "number"),
        ("turned", "", "-number"),
    ):
        again = site.root / f"{name}.parquet"
        duckdb.execute(
            f"COPY (SELECT * FROM '{path}' ORDER BY {order}) TO '{again}' (FORMAT parquet, COMPRESSION gzip,"
            f" {more + ',' if more else ''} KV_METADATA {{kedge: '{said.decode()}'}})"
        )
    assert read_training_set(site.root / "other.parquet") == told
    result = site.data(
        "register", "flights", site.model("m"), "--training-set", "turned.parquet", check=False
    )
    assert refused(result)[0] == "bad_training_set"


def test_a_model_is_tied_to_the_set_that_it_was_trained_on(site: Site) -> None:
    found = made(site)
    registered = site.data(
        "register", "flights", site.model("m"), "--training-set", "train.parquet"
    )
    assert registered["schema"] == "view/1"
    told = {k: found[k] for k in registered["trained_on"]}
    assert registered["trained_on"] == told
    (version,) = site.data("versions", "flights")
    assert version["trained_on"] == told
    assert "trained on view/1#1, delays/1#1@2: 5 rows" in site.run("versions", "flights").stdout
    (proof,) = (site.root / ".kedge" / "artifacts").glob(f"{version['digest'][7:]}/proof.json")
    statistics = json.loads(proof.read_bytes())["statistics"]
    assert (statistics["x"]["count"], statistics["x"]["maximum"]) == (5, 100.0)
    assert statistics["word"]["values"] == {"aa": 4, "": 1}
    same = site.data("register", "flights", site.model("m"), "--training-set", "train.parquet")
    assert same["new"] is False
    made(site, "--generation", "delays/1#1@1")
    other = site.data(
        "register", "flights", site.model("m"), "--training-set", "train.parquet", check=False
    )
    assert refused(other)[0] == "bad_training_set"
    assert "v1 already" in refused(other)[1]
    misfit = site.data(
        "register",
        "flights",
        site.model("n"),
        "--training-set",
        "train.parquet",
        "--schema",
        "view/2",
        check=False,
    )
    assert refused(misfit)[0] == "schema_misfit"
    plain = spine(site, "SELECT 1.0 AS x, 'a' AS word", "plain.parquet")
    result = site.data(
        "register", "flights", site.model("n"), "--training-set", str(plain), check=False
    )
    assert refused(result) == ("bad_training_set", f"{plain} does not state how it was made")


REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("SELECT 1.0 AS minutes, 978307200.0 AS asked", {}, "bad_source", "no column word"),
    ("SELECT 1.0 AS minutes, 'a' AS word", {}, "bad_source", "no column asked"),
    (
        "SELECT 1.0 AS minutes, 7 AS word, 978307200 AS asked",
        {},
        "bad_source",
        "word is int32, not string",
    ),
    (
        "SELECT NULL::DOUBLE AS minutes, 'a' AS word, 978307200 AS asked",
        {},
        "bad_source",
        "missing in row 0",
    ),
    (
        "SELECT 1.0 AS minutes, 'a' AS word, NULL::INT AS asked",
        {},
        "bad_source",
        "asked is missing",
    ),
    (
        "SELECT 1.0 AS minutes, 'a' AS word, 978307200 AS asked WHERE false",
        {},
        "bad_source",
        "no rows",
    ),
    (
        "SELECT 1.0 AS minutes, 'a' AS word, 1763636400000 AS asked",
        {},
        "untrue_time",
        "counts milliseconds",
    ),
    (
        "SELECT 1.0 AS minutes, 'a' AS word, '01/02/2026' AS asked",
        {},
        "untrue_time",
        "row 1: '01/02/2026'",
    ),
    (
        "SELECT 13.0 AS minutes, 'a' AS word, 978307200 AS asked",
        {},
        "transform_raised",
        "ValueError: thirteen",
    ),
    (ROWS, {"generation": "delays/1#1@9"}, "no_generation", "nothing of delays/1#1@9"),
    (ROWS, {"generation": "other/1#1@1"}, "no_generation", "not a run of what view/1 reads"),
    (ROWS, {"transformation": 7}, "unknown_transformation", "no transformation 7"),
    (ROWS, {"schema": "view/9"}, "unknown_schema", "no schema view/9"),
    (ROWS, {"out": "labels.parquet"}, "bad_source", "the spine itself"),
    (ROWS, {"out": "features.py/train.parquet"}, "export_failed", "cannot be written"),
]


def test_a_training_set_that_cannot_be_made_is_refused_and_leaves_no_file(site: Site) -> None:
    place = Workplace(site.root / ".kedge")
    for query, more, code, says in REFUSED:
        out = site.root / more.pop("out", "train.parquet")
        with pytest.raises(Refused, match=says) as caught:
            make(place, "flights", spine=spine(site, query), time="asked", out=out, **more)
        assert caught.value.code == code
        assert not [path.name for path in site.root.glob("*train*")]


def test_without_any_run_there_is_no_generation(site: Site) -> None:
    log = OfflineLog(site.root / ".kedge" / "offline")
    for run in log.runs("delays/1"):
        log.drop(run)
    assert refused(made(site, check=False)) == (
        "no_generation",
        "nothing of delays/1 is in the offline log",
    )
