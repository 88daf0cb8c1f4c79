"""How long the judge thinks: one interval of 10,000 (metric, segment) rows, folded and judged.

`judge_ms` is `fold`, `overall` and the verdicts of everything, as the patrol asks for them, on a
judge that knows all its rows; wall-clock medians over intervals of drawn counts.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from common import SERVER_CPU, Bench, on
from kedge.core.monitor import Interval, Key

from kedge.core import monitor
from kedge.core.policy import rules
from kedge.core.values import Policy

METRICS = ("errors", "latency.p50", "latency.p99", "quality")
ROWS = 10_000
RULES = rules(Policy(), paired=False)


def intervals(count: int, seed: int = 1) -> list[Interval]:
    """Intervals of a canary at about 11 %, 2 % of the units bad on both arms."""
    rng = np.random.default_rng(seed)
    segments = ["", *(f"origin={n}" for n in range(ROWS // len(METRICS) - 1))]
    found = []
    for n in range(count):
        keys: tuple[Key, ...] = tuple(
            (metric, segment) for metric in METRICS for segment in segments
        )
        units = np.stack([rng.poisson(40, ROWS), rng.poisson(5, ROWS)], axis=1)
        counts = np.concatenate([units, rng.binomial(units, 0.02)], axis=1)
        found.append(Interval(60.0 * n, keys, counts))
    return found


def main() -> None:
    """Measure and write the result."""
    with Bench("judge", __doc__) as bench, on({SERVER_CPU}):
        measure(bench)


def measure(bench: Bench) -> None:
    """Time every interval, after the few that make the rows."""
    every = intervals(50 if bench.quick else 300)
    whole: set[Key] = {(metric, "") for metric in METRICS}
    judge = monitor.begin(0.0, RULES.rails)
    took: list[tuple[float, float, float]] = []
    with bench.phase("10,000 rows"):
        for interval in every:
            start = time.perf_counter()
            judge = monitor.fold(judge, interval)
            folded = time.perf_counter()
            monitor.overall(judge, RULES)
            alarmed = time.perf_counter()
            monitor.verdicts(judge, RULES, only=whole)
            took.append((folded - start, alarmed - folded, time.perf_counter() - alarmed))
    known = took[5:]
    total = sorted(1e3 * sum(parts) for parts in known)
    bench.note("judge_ms", statistics.median(total))
    bench.detail |= {
        "rows": ROWS,
        "intervals": len(known),
        "p99_ms": total[int(0.99 * len(total))],
        "fold_ms": 1e3 * statistics.median(parts[0] for parts in known),
        "overall_ms": 1e3 * statistics.median(parts[1] for parts in known),
        "verdicts_ms": 1e3 * statistics.median(parts[2] for parts in known),
    }


if __name__ == "__main__":
    main()
