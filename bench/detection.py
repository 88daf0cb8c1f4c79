"""How soon a worse candidate is found, and how often a healthy one is blamed: simulated canaries.

`false_rollback` is the worst share of healthy candidates rolled back within a day, over alpha.
`errors_vs_oracle` is the failed requests before the rollback, over those of a test that knows both
rates, at 5 % errors and 5 % share, on the policy as shipped; `errors_vs_oracle_lab` with the whole
stake on errors, and no segments. Seeded; standard errors beside. Scenarios: docs/reference/benchmarks.md.
"""

from __future__ import annotations

from math import inf, log, sqrt
from typing import Any

import canaries
import msgspec
import numpy as np
from canaries import P0, RATE, Oracle, Product, Second, real_judge, second
from common import Bench, talk
from kedge.core.monitor import Interval, Key, Rules
from numpy.typing import NDArray

from kedge.core import monitor, stats
from kedge.core.policy import rules
from kedge.core.stats import ALARM_GRID
from kedge.core.values import Policy

SHIPPED = rules(Policy(), paired=False)
LAB = msgspec.structs.replace(
    SHIPPED, segment_stake=0.0,
    rails={**SHIPPED.rails, "errors": msgspec.structs.replace(SHIPPED.rails["errors"], weight=1.0)},
)  # fmt: skip
SHARES = (0.01, 0.05, 0.25, 0.50)
DAY_S = 86_400
Rates = tuple[float, float]


class Runs:
    """Many canaries at once, watched by every rule until all have decided or the time is over."""

    def __init__(self, runs: int, seconds: int, rates: Any, *, share: Any, seed: int, asked: Rules,
                 oracle: float | None = None, minutes: bool = True, since: int = 0) -> None:  # fmt: skip
        rng = np.random.Generator(np.random.SFC64(seed))
        product = Product(runs, asked)
        self.found, self.errors = np.full(runs, inf), np.zeros(runs)
        self.oracle_found, self.oracle_errors = np.full(runs, inf), np.zeros(runs)
        knows = None
        whole = np.zeros((seconds // 60 + 1, runs, 4), dtype=np.int32) if minutes else None
        for n in range(seconds):
            weight = share(n) if callable(share) else share
            production, candidate = rates(n)
            now = second(rng, runs, weight, production, candidate)
            if whole is not None:
                whole[n // 60, :, :2] += now.units
                whole[n // 60, :, 2:] += now.bad
            live = np.isinf(self.found)
            if n >= since:
                self.errors += live * now.bad[:, 1]
            self.found[live & product.take(n + 1.0, now)] = n + 1.0
            if oracle is not None:
                knows = knows or Oracle(runs, weight, oracle, asked.alpha)
                open_ = np.isinf(self.oracle_found)
                self.oracle_errors += open_ * now.bad[:, 1]
                self.oracle_found[open_ & knows.take(now)] = n + 1.0
            if whole is None and not live.any():
                break
        self.minutes = whole

    def share(self) -> tuple[float, float]:
        """How many were rolled back, and its standard error (at least that of half a run)."""
        n = len(self.found)
        p = float(np.isfinite(self.found).mean())
        return p, sqrt(max(p * (1 - p), 0.5 / n * (1 - 0.5 / n)) / n)

    def median(self) -> float:
        """Median seconds until the rollback."""
        return float(np.quantile(self.found, 0.5, method="higher"))

    def others(self, seed: int, share: float) -> dict[str, dict[str, float | None]]:
        """The same runs, watched by what others ship; they look once a minute or hour."""
        assert self.minutes is not None
        units0, units, bad0, bad = (self.minutes[:, :, i].T.astype(np.int64) for i in range(4))
        rng = np.random.Generator(np.random.SFC64(seed))
        compared = rng.binomial(bad0, min(share / (1 - share), 1.0))
        total = np.cumsum(bad, axis=1)
        found = {
            "argo-like": canaries.argo_like(units, bad),
            "kayenta-like": canaries.kayenta_like(bad, compared),
            "peeking z": canaries.peeking(units, bad, units0, bad0),
        }
        shown: dict[str, dict[str, float | None]] = {}
        for name, stop in found.items():
            last = np.where(np.isinf(stop), bad.shape[1], stop).astype(int) - 1
            middle = float(np.quantile(stop, 0.5, method="higher"))
            shown[name] = {
                "rolled_back": float(np.isfinite(stop).mean()),
                "median_s": None if middle == inf else 60 * middle,
                "errors": float(total[np.arange(len(stop)), last].mean()),
            }
        return shown


def row(name: str, runs: Runs, **more: Any) -> dict[str, Any]:
    """One line of the table."""
    share, error = runs.share()
    middle = runs.median()
    found = {
        "scenario": name, "runs": len(runs.found), "rolled_back": share, "se": round(error, 5),
        "median_s": None if middle == inf else middle, "errors": float(runs.errors.mean()),
        "errors_se": float(runs.errors.std() / sqrt(len(runs.errors))), **more,
    }  # fmt: skip
    talk(
        f"  {name}: {share:.2%} ± {error:.2%} rolled back, median {middle:g} s, {found['errors']:.1f} failed"
    )
    return found


def constant(*rates: float) -> Any:
    """The same rates all the time."""
    return lambda _: rates


def healthy(bench: Bench) -> list[dict[str, Any]]:
    """A/A at four shares for a day, and what must not be blamed on a candidate."""
    runs, seconds = bench.rounds(600, 60), DAY_S if not bench.quick else 1_800
    table = []
    with bench.phase("healthy candidates"):
        for n, share in enumerate(SHARES):
            one = Runs(runs, seconds, constant(P0, P0), share=share, seed=100 + n, asked=SHIPPED)
            table.append(row(f"A/A at {share:.0%}", one, others=one.others(1, share)))
    with bench.phase("shared trouble"):
        incident = Runs(runs, min(seconds, 10_800), lambda n: (0.06, 0.06) if 3_600 <= n < 4_500 else (P0, P0),
                        share=0.05, seed=110, asked=SHIPPED)  # fmt: skip
        table.append(row("shared incident", incident, others=incident.others(1, 0.05)))
        steps = ((600, 0.01), (1_200, 0.05), (2_400, 0.25), (3_600, 0.5))
        ramp = Runs(runs, 3_600, lambda n: (2 * P0, 2 * P0) if n >= 1_200 else (P0, P0),
                    share=lambda n: next(w for end, w in steps if n < end), seed=111, asked=SHIPPED)  # fmt: skip
        table.append(row("ramp into a bad hour (Simpson)", ramp, others=ramp.others(1, 0.25)))
        off = Runs(
            runs,
            min(seconds, 21_600),
            constant(P0, P0),
            share=0.06,
            seed=112,
            asked=SHIPPED,
            minutes=False,
        )
        table.append(row("6 % given where 5 % was set", off))
    return table


def worse(bench: Bench) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Candidates that fail more; beside the oracle and the others."""
    runs = bench.rounds(1_000, 60)
    table, figures = [], {}
    with bench.phase("worse candidates"):
        for n, (share, p) in enumerate(
            [(0.05, 0.05), (0.25, 0.02), (0.01, 0.05), (0.05, 0.02), (0.5, 0.015)]
        ):
            seconds = 3_600 if p == 0.05 and share > 0.01 else 14_400
            one = Runs(
                runs, seconds, constant(P0, p), share=share, seed=200 + n, asked=SHIPPED, oracle=p
            )
            table.append(row(
                f"{p:.1%} at {share:.0%}", one, others=one.others(1, share),
                oracle_median_s=float(np.median(one.oracle_found)), oracle_errors=float(one.oracle_errors.mean()),
            ))  # fmt: skip
            if n == 0:
                figures["errors_vs_oracle"] = float(one.errors.mean() / one.oracle_errors.mean())
                figures["detection_s"] = one.median()
                figures["detection_errors"] = float(one.errors.mean())
                lab = Runs(
                    runs,
                    3_600,
                    constant(P0, p),
                    share=share,
                    seed=200,
                    asked=LAB,
                    oracle=p,
                    minutes=False,
                )
                figures["errors_vs_oracle_lab"] = float(
                    lab.errors.mean() / lab.oracle_errors.mean()
                )
                table.append(row("5.0% at 5%, lab", lab))
        late = Runs(
            runs, 14_400, lambda n: (P0, 0.05 if n >= 7_200 else P0), share=0.05, seed=220,
            asked=SHIPPED, minutes=False, since=7_200,
        )  # fmt: skip
        late.found -= 7_200
        table.append(row("5.0% at 5%, from the second hour on", late))
    return table, figures


def one_unit(bench: Bench) -> list[dict[str, Any]]:
    """Callers that fail repeat, three times on the mean, over 8 workers: units against requests."""
    runs, steps, share, mean = bench.rounds(1_000, 100), 2_160, 0.05, 3.0
    rng = np.random.Generator(np.random.SFC64(300))
    wealth = {
        name: np.full((runs, len(ALARM_GRID)), log(stats.placed(0)))
        for name in ("units", "requests")
    }
    blamed = {name: np.zeros(runs, dtype=bool) for name in wealth}
    needed = log(1 / SHIPPED.alpha) - log(
        SHIPPED.rails["errors"].weight * (1 - SHIPPED.segment_stake)
    )
    for _ in range(steps):
        callers = rng.poisson(10 * RATE * P0 / mean, runs)
        theirs = rng.binomial(callers, share)
        each = np.stack([callers - theirs, theirs], axis=1)
        repeated = each + np.where(
            each > 0, rng.negative_binomial(np.maximum(each, 1), 1 / mean), 0
        )
        for name, bad in (("units", each), ("requests", repeated)):
            wealth[name] += stats.label_sums(np.full(runs, share), bad.astype(float), ALARM_GRID)
            blamed[name] |= stats.log_mixture(wealth[name]) >= needed
    return [{"scenario": f"one caller repeats, counting {name}", "runs": runs,
             "rolled_back": float(hit.mean())} for name, hit in blamed.items()]  # fmt: skip


def segments(bench: Bench) -> list[dict[str, Any]]:
    """100 segments: a healthy candidate, and one that fails five times as often in five of them."""
    runs = bench.rounds(150, 10)
    keys: tuple[Key, ...] = (("errors", ""), *(("errors", f"s={n}") for n in range(100)))
    table = []
    for name, bad_ones in (("100 segments, healthy", 0), ("100 segments, five of them 5 %", 5)):
        rng = np.random.Generator(np.random.SFC64(400 + bad_ones))
        found: list[float] = []
        for _ in range(runs):
            judge, hit = monitor.begin(0.0, SHIPPED.rails), inf
            for minute in range(60):
                units = np.stack([rng.poisson(45, 100), rng.poisson(15, 100)], axis=1)
                p = np.full((100, 2), P0)
                p[:bad_ones, 1] = 0.05
                cells = np.concatenate([units, rng.binomial(units, p)], axis=1)
                counts = np.concatenate([cells.sum(axis=0, keepdims=True), cells])
                judge = monitor.fold(judge, Interval(60.0 * (minute + 1), keys, counts))
                if monitor.overall(judge, SHIPPED).verdict == "fail":
                    hit = 60.0 * (minute + 1)
                    break
            found.append(hit)
        share = float(np.isfinite(found).mean())
        middle = float(np.quantile(found, 0.5, method="higher"))
        table.append({"scenario": name, "runs": runs, "rolled_back": share,
                      "se": sqrt(max(share * (1 - share), 0.5 / runs) / runs),
                      "median_s": None if middle == inf else middle})  # fmt: skip
        talk(f"  {name}: {share:.1%} rolled back, median {middle:g} s")
    return table


def faithful(bench: Bench) -> int:
    """Whether `Product` stops when `core.monitor` does, run by run; how many were compared."""
    runs = bench.rounds(40, 8)
    rng = np.random.Generator(np.random.SFC64(7))
    for share, p in ((0.05, 0.05), (0.01, 0.03), (0.5, P0)):
        drawn: list[Second] = [second(rng, runs, share, P0, p) for _ in range(900)]
        product, found = Product(runs, SHIPPED), np.full(runs, inf)
        for n, now in enumerate(drawn):
            hit: NDArray[np.bool_] = product.take(n + 1.0, now)
            found[hit & np.isinf(found)] = n + 1.0
        real = np.array([real_judge(drawn, run, SHIPPED) for run in range(runs)])
        assert np.array_equal(real, found), (share, p, real, found)
    return 3 * runs


def main() -> None:
    """Simulate and write the result."""
    with Bench("detection", __doc__) as bench:
        compared = faithful(bench)
        table = healthy(bench)
        wrong, se = max((line["rolled_back"], line["se"]) for line in table[:4])
        found, figures = worse(bench)
        table += found
        with bench.phase("units and segments"):
            table += one_unit(bench) + segments(bench)
        bench.note("false_rollback", wrong / SHIPPED.alpha)
        for name, value in figures.items():
            bench.note(name, value)
        bench.detail |= {"table": table, "alpha": SHIPPED.alpha, "false_rollback_se": se / SHIPPED.alpha,
                         "compared_with_the_judge": compared}  # fmt: skip


if __name__ == "__main__":
    main()
