"""Late labels: a million of them joined to ten million predictions of a day.

`labels_s` is `Records.join` of all labels, in batches as `kedge outcomes` hands them in, shuffled;
`labels_mb` the peak memory of the process that joins. `ingest_rows_per_s` says how fast predictions
come out of the spool before that.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from common import Bench, talk

from kedge.adapters.records.spool import Spool
from kedge.adapters.records.store import SPOOL, Records
from kedge.core.evidence.records import HOUR_S, JoinRow, Outcome

NOW = 500_000 * HOUR_S + 0.0
CHUNK = 100_000
BATCH = 20_000


def name(number: int, total: int) -> tuple[str, float]:
    """The id and the second of one prediction: UUIDv7, spread over a day."""
    at = NOW - 24 * HOUR_S + 24 * HOUR_S * number / total
    text = f"{int(at * 1000) << 80 | 7 << 76 | 2 << 62 | number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}", at


def predict(directory: Path, total: int) -> float:
    """Spool and ingest the predictions; seconds that taking them in took."""
    records, took = Records(directory), 0.0
    for start in range(0, total, CHUNK):
        with Spool(directory / SPOOL, "w0", bound=1 << 34) as spool:
            rows = []
            for number in range(start, min(start + CHUNK, total)):
                key, at = name(number, total)
                rows.append(
                    JoinRow(
                        id=f"{key}/0",
                        at=at,
                        unit=f"N{number % 50_000}",
                        endpoint="flights",
                        production=1,
                        candidate=2,
                        salt="s",
                        weight=500,
                        arm="production" if number % 20 else "candidate",
                        failed=False,
                        segments=("origin=JFK", "carrier=UA"),
                        score=0.7,
                        decision="1",
                    )
                )
            assert spool.append(rows) == 0
        began = time.perf_counter()
        while records.waiting():
            records.ingest(NOW)
        took += time.perf_counter() - began
    return took


def join(told: Connection, directory: Path, total: int, labels: int) -> None:
    """Join the labels; runs in a process of its own, so that its memory is its own."""
    chosen = np.random.default_rng(1).choice(total, labels, replace=False)
    records, joined = Records(directory), 0
    began = time.perf_counter()
    for start in range(0, labels, BATCH):
        outcomes = [
            Outcome(name(int(n), total)[0], float(n % 3 == 0))
            for n in chosen[start : start + BATCH]
        ]
        joined += records.join("flights", outcomes, NOW).joined
    took = time.perf_counter() - began
    told.send((took, joined, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def main() -> None:
    """Make a day, then label it."""
    with Bench("labels", __doc__) as bench, tempfile.TemporaryDirectory() as folder:
        total, labels = bench.rounds(10_000_000, 200_000), bench.rounds(1_000_000, 20_000)
        directory = Path(folder)
        with bench.phase("predictions"):
            took = predict(directory, total)
        talk(f"  {total:,} predictions taken in within {took:.0f} s")
        size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
        with bench.phase("labels"):
            told, tell = multiprocessing.get_context("spawn").Pipe()
            child = multiprocessing.get_context("spawn").Process(
                target=join, args=(tell, directory, total, labels)
            )
            child.start()
            seconds, joined, peak = told.recv()
            child.join()
        assert joined == labels
        bench.note("labels_s", seconds)
        bench.note("labels_mb", peak)
        bench.note("ingest_rows_per_s", total / took)
        bench.detail |= {"predictions": total, "labels": labels, "bytes_a_prediction": size / total}


if __name__ == "__main__":
    main()
