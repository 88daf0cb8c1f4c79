"""Detection in simulated canaries: time to find a worse candidate, rate of blame of a healthy one.

`false_rollback` is the worst share of identical candidates that are rolled back, over alpha; `false_promotion` the
worst share of candidates at the margin or twice beyond it that a ramp promotes; `found_24h` and `promoted_aa` the
worst of the cells that are promised. `errors_vs_oracle` is the failed requests before the rollback, over those of
a test that knows both rates, at 5 % errors and 5 % share. Seeded; standard errors beside.
The scenarios are in `simulated.py`, the judge by units in `units.py`; the product's own code runs a few of them.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import product
import simulated
import spending
import uneven
from common import CPUS, Bench, talk
from product import Case
from simulated import C20K, C1000, C1000_LIGHT, GROUPS, KEYLESS, SLOW, error
from units import Design

RUNS, QUICK_RUNS = 1_000, 3
PRODUCT_RUNS = 20
APART_S = 5.0
"""For each step: the product looks once a second and holds seconds back for two."""
SEED = 100
CASES = (
    Case(KEYLESS, 5.0, held=0.05, seconds=900),
    Case(KEYLESS, 2.0, held=0.25, seconds=1_800),
    Case(SLOW, 10.0, held=0.05, seconds=1_800),
    Case(C1000, 10.0, held=0.25, seconds=900),
    Case(C1000_LIGHT, 10.0, 600.0, 0.25, seconds=2_400),
    Case(C20K, 10.0, held=0.25, seconds=900),
    Case(KEYLESS, held=0.25, seconds=1_800),
    Case(KEYLESS, seconds=7_200),
)
"""What the product's own code plays: found, late, identical and held, and a whole ramp."""


def told(line: dict[str, Any]) -> None:
    """Say one line of the table."""
    more = "".join(
        f", {name} {line[name]:.1%}"
        for name in ("promoted", "found_24h", "at_ten_alpha")
        if name in line
    )
    talk(f"  {line['scenario']}: {line['rolled_back']:.2%} ± {line['se']:.2%} rolled back{more}")


def simulate_all(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    """Return the table by group."""
    table: dict[str, list[dict[str, Any]]] = {}
    with ProcessPoolExecutor(bench.workers, initializer=spread) as pool:
        for place, (group, listed) in enumerate(GROUPS.items()):
            with bench.phase(group):
                lines = table[group] = []
                for number, scenario in enumerate(listed()):
                    runs = max(round(bench.rounds(RUNS, QUICK_RUNS) * scenario.share), 2)
                    seed = SEED * 10 * place + number
                    lines.append(
                        simulated.line(scenario, simulated.run_all(pool, scenario, seed, runs))
                    )
                    told(lines[-1])
    return table


def spread() -> None:
    """Let a process that simulates use every CPU: the bench keeps to one."""
    os.sched_setaffinity(0, set(CPUS))


def with_product(bench: Bench) -> list[dict[str, Any]]:
    """Return how the product's own code ends runs, beside the judge by units on the same streams."""
    lines = []
    with bench.phase("the product's own code"):
        for number, case in enumerate(CASES):
            found = product.compare(case, bench.rounds(PRODUCT_RUNS, 1), SEED + number, APART_S)
            where = "ramp" if case.held is None else f"at {case.held:.0%}"
            lines.append({"scenario": f"{case.world.name}: {case.ratio:g} x, {where}", **found})
            talk(
                f"  {lines[-1]['scenario']}: {found['ends']}, {found['agree']} of {found['runs']} agree"
            )
    return lines


def figures(bench: Bench, table: dict[str, list[dict[str, Any]]]) -> None:
    """Set the figures of the simulated table."""
    alpha = Design().alpha
    same = table["identical"] + table["promoted"]
    worst = max(same, key=lambda line: (line["rolled_back"], line["se"]))
    bench.note("false_rollback", worst["rolled_back"] / alpha)
    passed = max(table["not promoted"], key=lambda line: float(line["promoted"]))
    bench.note("false_promotion", passed["promoted"])
    promised = [
        one for group in ("not promoted", "found") for one in table[group] if one["promised"]
    ]
    missed = min(promised, key=lambda line: float(line["found_24h"]))
    bench.note("found_24h", missed["found_24h"])
    slowest = min(
        (one for one in table["promoted"] if one["promised"]),
        key=lambda one: float(one["promoted"]),
    )
    bench.note("promoted_aa", slowest["promoted"])
    of = {line["scenario"]: line for line in table["found"]}
    main, lab = of["5.0% at 5%"], of["5.0% at 5%, lab"]
    bench.note("errors_vs_oracle", main["errors"] / main["oracle_errors"])
    bench.note("detection_s", main["median_s"] if main["median_s"] is not None else np.inf)
    bench.note("detection_errors", main["errors"])
    bench.note("errors_vs_oracle_lab", lab["errors"] / lab["oracle_errors"])
    bench.detail |= {
        "alpha": alpha,
        "false_rollback_se": worst["se"] / alpha,
        "false_rollback_worst": worst["scenario"],
        "false_promotion_se": error(passed["promoted"], passed["runs"]),
        "false_promotion_worst": passed["scenario"],
        "found_24h_worst": missed["scenario"],
        "promoted_aa_worst": slowest["scenario"],
        "promoted_aa_s": {one["scenario"]: one["promoted_median_s"] for one in table["promoted"]},
        "table": [{"group": group, **line} for group, lines in table.items() for line in lines],
    }


def main() -> None:
    """Simulate and write the result."""
    with Bench("detection", __doc__, workers=2) as bench:
        played = with_product(bench)
        table = simulate_all(bench)
        with bench.phase("labels and cost"):
            labels = uneven.table(bench.rounds(RUNS, QUICK_RUNS), SEED)
            cost = spending.table(bench.rounds(RUNS, QUICK_RUNS), SEED)
        figures(bench, table)
        runs = sum(line["runs"] for line in played)
        bench.note("product_runs", runs)
        bench.note("product_agrees", sum(line["agree"] for line in played) / runs)
        bench.note(
            "labels_false_fail",
            max(one["rolled_back"] for one in labels if one["kind"] == "identical"),
        )
        bench.note("cost_false", max(max(one["false_pass"], one["false_fail"]) for one in cost))
        bench.detail |= {"product": played, "labels": labels, "cost": cost}


if __name__ == "__main__":
    main()
