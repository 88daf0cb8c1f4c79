"""The time of the judge: one second of 10,000 (metric, segment) rows, folded and judged.

`judge_ms` is `fold`, `overall` and the verdicts of everything, as the patrol asks for them, on a
judge that knows all its rows; wall-clock medians over seconds of drawn counts. Half of the bad
units are callers, which are looked up one by one. The looks at callers' counts, 23 in 14 days, are
timed apart (`look_ms`).
"""

from __future__ import annotations

import statistics
import time

import numpy as np
from common import SERVER_CPU, Bench, on

from kedge.core.automation import rules
from kedge.core.evidence.events import Caller, Second
from kedge.core.evidence.judge import Judge
from kedge.core.evidence.rules import Key
from kedge.core.evidence.verdicts import overall, verdicts
from kedge.core.values import Guardrail, Policy

METRICS = ("errors", "latency.p50", "latency.p99", "violations")
ROWS = 10_000
WEIGHT = 1_100
CALLERS = 100
"""Bad callers in a second: 10 % of a thousand requests."""
RULES = rules(Policy(guardrails={"violations": Guardrail(worse_by=0.5)}), paired=False)
SEGMENTS = [f"origin={n}" for n in range(ROWS // len(METRICS) - 1)]


def seconds(count: int, seed: int = 1) -> list[Second]:
    """Return seconds of a canary at 11 %, 2 % of the requests bad on both arms."""
    rng = np.random.default_rng(seed)
    names = ["", *SEGMENTS]
    found = []
    for n in range(count):
        units = np.stack([rng.poisson(40, len(names)), rng.poisson(5, len(names))], axis=1)
        met = {name: (int(a), int(b)) for name, (a, b) in zip(names, units, strict=True)}
        keyless = {}
        for metric in METRICS:
            bad = rng.binomial(units, 0.02)
            keyless[metric] = {
                name: (int(a), int(b)) for name, (a, b) in zip(names, bad, strict=True) if a or b
            }
        callers = [
            Caller(
                int(u),
                int(u % 10_000),
                "errors",
                int(u % 10_000 < WEIGHT),
                1,
                (SEGMENTS[u % len(SEGMENTS)],),
            )
            for u in rng.integers(0, 20_000, CALLERS)
        ]
        found.append(Second(at=float(n), callers=callers, keyless=keyless, met=met, timed=met))
    return found


def main() -> None:
    """Measure and write the result."""
    with Bench("judge", __doc__) as bench, on({SERVER_CPU}):
        measure(bench)


def measure(bench: Bench) -> None:
    """Time every interval, after the few that make the rows."""
    every = seconds(40 if bench.quick else 200)
    whole: set[Key] = {(name, "") for name in RULES.rails}
    judge = Judge(RULES, paired=False)
    took: list[tuple[float, float, float]] = []
    with bench.phase("10,000 rows"):
        for second in every:
            start = time.perf_counter()
            judge.fold(WEIGHT, second)
            folded = time.perf_counter()
            overall(judge)
            alarmed = time.perf_counter()
            verdicts(judge, {"": (10**6, 10**6)}, only=whole)
            took.append((folded - start, alarmed - folded, time.perf_counter() - alarmed))
    start = time.perf_counter()
    judge.fold(WEIGHT, Second(at=700.0))
    look = time.perf_counter() - start
    known = took[5:]
    total = sorted(1e3 * sum(parts) for parts in known)
    bench.note("judge_ms", statistics.median(total))
    bench.detail |= {
        "rows": len(judge.rows),
        "seconds": len(known),
        "look_ms": 1e3 * look,
        "p99_ms": total[int(0.99 * len(total))],
        "fold_ms": 1e3 * statistics.median(parts[0] for parts in known),
        "overall_ms": 1e3 * statistics.median(parts[1] for parts in known),
        "verdicts_ms": 1e3 * statistics.median(parts[2] for parts in known),
    }


if __name__ == "__main__":
    main()
