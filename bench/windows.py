"""The size of evidence: windows of 1,000 segments, as seconds, as minutes and as hours.

Two workers, 100 requests/s, five segment fields of 200 values each, a canary that fails 1 %. The
workers' own counter makes the windows; `seconds_mb` is an hour of them on disk, which is all that
is kept; `minutes_mb_day` and `hours_mb_day` what a day of minutes and of hours takes.
`count_us` is the counting of one request, in the recording's thread and not in a request's way.

In batches of a thousand: `count_batch_us` the same; `count_ns_metric` that by its three metrics (errors
and both latencies), with everything that their slices cost; `count_ns_cell` by what it adds to, the
three metrics in six slices: all, and one of each field; `count_ns_plain` by three metrics where the
policy has no segments, so that a metric is one slice. A request here has no id, so nothing of it is
recorded. `record_us` is what a request with an id costs more: its answer read, its row for the
outcome, and the inputs of a tenth of the units, which is the prediction log.
`offer_us` is what a request pays itself: the observation made, and appended to the batch.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
from common import Bench

from kedge.adapters.sql.rolls import SqlRolls
from kedge.adapters.sql.sqlite.create import open_evidence
from kedge.adapters.sql.windows import SqlWindows
from kedge.core.evidence.rollup import HOUR
from kedge.core.evidence.windows import CANDIDATE, PRODUCTION
from kedge.core.values import Output, Policy, Stage, State
from kedge.engine.recording.counter import Counter, SlowBounds
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.recorder import Recorder
from kedge.engine.request import Request

FIELDS, VALUES, WORKERS, RATE = 5, 200, 2, 100
METRICS, BATCH = 3, 1000
STATE = State(
    endpoint="flights",
    stage=Stage.CANARY,
    production=1,
    candidate=2,
    salt="s",
    weight=500,
    policy=Policy(
        segments=tuple(f"field{n}" for n in range(FIELDS)), output=Output(kind="score", score="p")
    ),
)
BEGIN = 1_000_000 * HOUR
BOUNDS = SlowBounds(p50=9_000, p99=20_000)
"""Known, so that every latency is compared; none of the requests is slow."""


def size(folder: Path) -> int:
    """Bytes of the store."""
    return sum(path.stat().st_size for path in folder.rglob("evidence.db*"))


def main() -> None:
    """Count hours of traffic, age them, and weigh what is left."""
    with Bench("windows", __doc__) as bench, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, rolls = SqlWindows(open_evidence(folder)), SqlRolls(open_evidence(folder))
        seconds = bench.rounds(HOUR, 600)
        with bench.phase("an hour of seconds"):
            took = fill(store, seconds)
        raw = size(folder)
        with bench.phase("minutes"):
            began = time.perf_counter()
            taken = rolls.age(BEGIN + 3 * HOUR)
            aged = time.perf_counter() - began
        minutes = weigh(folder)
        with bench.phase("hours"):
            rolls.age(BEGIN + 30 * HOUR)
        hours = weigh(folder)
        scale = HOUR / seconds
        bench.note("seconds_mb", raw * scale / 1e6)
        bench.note("minutes_mb_day", minutes * scale * 24 / 1e6)
        bench.note("hours_mb_day", hours * 24 / 1e6)
        costs = batches(bench.rounds(20, 5))
        bench.note("count_batch_us", costs["counted"] * 1e6)
        bench.note("count_ns_metric", costs["counted"] / METRICS * 1e9)
        bench.note("count_ns_cell", costs["counted"] / (METRICS * (1 + FIELDS)) * 1e9)
        bench.note("count_ns_plain", costs["plain"] / METRICS * 1e9)
        bench.note("record_us", (costs["recorded"] - costs["counted"]) * 1e6)
        bench.note("offer_us", offers(bench.rounds(20, 5)) * 1e6)
        bench.note("count_us", took / (seconds * RATE) * 1e6)
        bench.detail |= {"windows": taken, "age_s": aged, "segments": FIELDS * VALUES}


def weigh(folder: Path) -> int:
    """Bytes of what is kept as rolls."""
    return open_evidence(folder).read(
        lambda connection: int(
            connection.exec_driver_sql(
                "SELECT coalesce(sum(length(body) + 40), 0) FROM roll"
            ).scalar()
            or 0
        )
    )


def fill(store: SqlWindows, seconds: int) -> float:
    """Write the windows; seconds of counting."""
    dice = np.random.default_rng(1)
    counters = [Counter(f"w{n}", STATE) for n in range(WORKERS)]
    took = 0.0
    for second in range(seconds):
        windows = []
        for counter in counters:
            seen = [_seen(dice, second) for _ in range(RATE // WORKERS)]
            began = time.perf_counter()
            window, _ = counter.window(
                seen,
                BEGIN + second,
                BOUNDS,
                number=second,
                paired=False,
                weight=500,
                lost=0,
                streak=0,
                broken=0,
            )
            took += time.perf_counter() - began
            windows.append(window)
        store.write(windows)
    return took


def batches(times: int) -> dict[str, float]:
    """Seconds of counting one request in a batch, by what is counted: the median batch."""
    dice = np.random.default_rng(2)
    plain = msgspec.structs.replace(STATE.policy, segments=())
    counters = {
        "counted": Counter("w9", STATE),
        "recorded": Counter("w9", STATE),
        "plain": Counter("w9", msgspec.structs.replace(STATE, policy=plain)),
    }
    took: dict[str, list[float]] = {name: [] for name in counters}
    for second in range(times):
        for name, counter in counters.items():  # by turns
            seen = [_seen(dice, second, named=name == "recorded") for _ in range(BATCH)]
            began = time.perf_counter()
            counter.window(
                seen,
                BEGIN + second,
                BOUNDS,
                number=second,
                paired=False,
                weight=500,
                lost=0,
                streak=0,
                broken=0,
            )
            took[name].append(time.perf_counter() - began)
    return {name: float(np.median(each)) / BATCH for name, each in took.items()}


def offers(times: int) -> float:
    """Seconds of offering one observation: the median batch."""
    recorder = Recorder("w9", STATE)
    request = _seen(np.random.default_rng(3), 0).request
    outputs = {"p": np.array([0.5])}
    took = []
    for _ in range(times):
        began = time.perf_counter()
        for _ in range(BATCH):
            recorder.offer(
                Observation(
                    time.time(),
                    request,
                    PRODUCTION,
                    900,
                    False,  # noqa: FBT003
                    500,
                    outputs,
                    violated=False,
                )
            )
        took.append(time.perf_counter() - began)
        recorder.taken()
    return float(np.median(took)) / BATCH


def _seen(dice: np.random.Generator, second: int, *, named: bool = False) -> Observation:
    values = dice.integers(0, VALUES, FIELDS)
    columns = {f"field{n}": np.array([f"v{value}"], object) for n, value in enumerate(values)}
    candidate = bool(dice.random() < 0.05)
    name = f"{dice.integers(0, 2**62):032x}" if named else ""
    return Observation(
        float(BEGIN + second),
        Request(id=name, columns=columns, rows=1, entity=f"N{dice.integers(0, 10**6)}", draw=0),
        CANDIDATE if candidate else PRODUCTION,
        900,
        candidate and bool(dice.random() < 0.01),
        500,
        {"p": np.array([dice.random()])},
    )


if __name__ == "__main__":
    main()
