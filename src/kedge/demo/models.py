"""Train three models on January to June: a modest one, one with label leakage, a better one.

v1 knows what is known before departure. v2 was also given `dep_delay`: the column stood in the
table, it is by far the best predictor, and every offline figure improved. But a departure delay
is known after departure, and the question is asked before: in production the field is null.
That is what a shadow is for: offline, on the stored table, nothing looks wrong. v3 is honest again,
and better than v1: four times the trees on the same columns.

    python -m kedge.demo.models --out DIR [--cache DIR]

writes, for each: model/ (model.skops and signature.json, the artifact to register)
and golden.json (real rows for `kedge register --golden`). It adds training.csv (a sample of the training
rows for `--training`), and, for all, metrics.json and report.txt.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import log_loss, roc_auc_score
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OrdinalEncoder
from skops.io import dump

from kedge.core.values import Dtype, Field, Signature
from kedge.demo import flights as data
from kedge.demo.figures import METRICS, ModelFigures, OfflineQuality, TrainingReport
from kedge.system.terminal import show

FEATURES = {"v1": data.KNOWN, "v2": (*data.KNOWN, "dep_delay"), "v3": data.KNOWN}
TRAINING_MONTHS = (1, 6)
HOLDOUT_MONTHS = (7, 12)
TREES = {"v1": 10, "v2": 40, "v3": 40}
GOLDEN_ROWS = 20
TRAINING_ROWS = 20_000
SEED = 2013

Rows = NDArray[np.object_]


def build(trees: int = TREES["v1"]) -> Pipeline:
    """Compose the untrained model: strings to numbers, then boosted trees, which take NaN as it is.

    Columns go by number, so that a row is a plain array and no data frame is needed to ask. A
    string that was never seen in training becomes -1 and not an error.
    """
    strings = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    columns = list(range(len(data.STRINGS)))
    return Pipeline(
        [
            ("encode", ColumnTransformer([("strings", strings, columns)], remainder="passthrough")),
            ("trees", HistGradientBoostingClassifier(max_iter=trees, random_state=SEED)),
        ]
    )


def measure(label: NDArray[np.int8], score: NDArray[np.float64]) -> OfflineQuality:
    """Compute the figures of an offline report on a model."""
    return OfflineQuality(
        auc=float(roc_auc_score(label, score)),
        log_loss=float(log_loss(label, score)),
        right=float(((score > 0.5) == label).mean()),
        called_late=float((score > 0.5).mean()),
        mean_p_late=float(score.mean()),
    )


def scores(model: Pipeline, rows: Rows) -> NDArray[np.float64]:
    """Return the probability of being late, row by row."""
    found: NDArray[np.float64] = model.predict_proba(rows)[:, 1]
    return found


def train(out: Path, flights: data.Flights) -> TrainingReport:
    """Train all, write their directories, and return their figures."""
    training = flights.months(*TRAINING_MONTHS).labelled()
    holdout = flights.months(*HOLDOUT_MONTHS).labelled()
    trained: dict[str, ModelFigures] = {}
    live: dict[str, NDArray[np.float64]] = {}
    for version, names in FEATURES.items():
        started = time.perf_counter()
        model = build(TREES[version]).fit(training.matrix(names), training.label)
        fit_s = time.perf_counter() - started
        rows = holdout.matrix(names)
        offline = measure(holdout.label, scores(model, rows))
        if "dep_delay" in names:
            rows[:, names.index("dep_delay")] = float("nan")
        live[version] = scores(model, rows)
        trained[version] = ModelFigures(
            features=len(names),
            fit_s=round(fit_s, 2),
            row_us=round(time_a_row(model, rows), 1),
            offline=offline,
            before_departure=measure(holdout.label, live[version]),
        )
        write(out / version, model, training, names)
    agree = (live["v1"] > 0.5) == (live["v2"] > 0.5)
    same = yardstick(training, holdout)
    month = holdout.columns["month"]
    found = TrainingReport(
        training_rows=len(training),
        holdout_rows=len(holdout),
        holdout_late=float(holdout.label.mean()),
        **trained,
        agreement_v1_v2=float(agree.mean()),
        agreement_two_honest=float(same.mean()),
        agreement_two_honest_by_month={
            str(m): float(same[month == m].mean()) for m in np.unique(month).tolist()
        },
    )
    (out / METRICS).write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    return found


def yardstick(training: data.Flights, holdout: data.Flights) -> NDArray[np.bool_]:
    """Compute how often two honest models agree, each trained on half of the flights.

    No two models agree always; without this figure an agreement means little.
    """
    rows, asked = training.matrix(data.KNOWN), holdout.matrix(data.KNOWN)
    late = [
        scores(build().fit(rows[half::2], training.label[half::2]), asked) > 0.5 for half in (0, 1)
    ]
    same: NDArray[np.bool_] = late[0] == late[1]
    return same


def time_a_row(model: Pipeline, rows: Rows, asked: int = 200) -> float:
    """Measure the median microseconds to answer one row."""
    spent = []
    for i in range(asked):
        started = time.perf_counter()
        model.predict_proba(rows[i : i + 1])
        spent.append(time.perf_counter() - started)
    return float(np.median(spent)) * 1e6


def write(folder: Path, model: Pipeline, training: data.Flights, names: tuple[str, ...]) -> None:
    """Write the files for `kedge register`."""
    artifact = folder / "model"
    artifact.mkdir(parents=True, exist_ok=True)
    dump(model, artifact / "model.skops")
    write_json(artifact / "signature.json", msgspec.to_builtins(signature(training, names)))
    dice = np.random.default_rng(SEED)
    sample = training.take(np.sort(dice.choice(len(training), TRAINING_ROWS, replace=False)))
    golden = sample.take(np.linspace(0, len(sample) - 1, GOLDEN_ROWS).astype(int))
    write_json(folder / "golden.json", {"inputs": {name: golden.values(name) for name in names}})
    with (folder / "training.csv").open("w", encoding="utf-8", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(names)
        lines.writerows(zip(*(sample.values(name) for name in names), strict=True))


def signature(flights: data.Flights, names: tuple[str, ...]) -> Signature:
    """Return the signature of the model."""
    kinds = {
        name: "string" if name in data.STRINGS else str(flights.columns[name].dtype)
        for name in names
    }
    return Signature(
        inputs=tuple(
            Field(name, msgspec.convert(kind, Dtype), nullable=name in data.NULLABLE)
            for name, kind in kinds.items()
        ),
        outputs=(Field("p_late", "float64"), Field("late", "int64")),
    )


def write_json(path: Path, value: object) -> None:
    """Write a JSON file."""
    path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def report(found: TrainingReport) -> str:
    """Return the figures as text: first the misleading ones, then the cause."""

    def line(name: str, of: OfflineQuality, remark: str = "") -> str:
        return (
            f"  {name:26}{of.auc:7.3f}{of.log_loss:10.3f}"
            f"{of.right:8.1%}{of.called_late:13.1%}{remark}\n"
        )

    return (
        f"Trained on {found.training_rows:,} flights of January to June; "
        f"held out: {found.holdout_rows:,} of July to December, "
        f"{found.holdout_late:.1%} late.\n\n"
        f"  {'':26}{'AUC':>7}{'log loss':>10}{'right':>8}{'called late':>13}\n"
        + line("v1 offline", found.v1.offline)
        + line("v2 offline", found.v2.offline, "   <- looks much better")
        + line("v2 asked before departure", found.v2.before_departure, "   <- dep_delay is null")
        + line("v3 offline", found.v3.offline, "   <- honest, and better than v1")
        + f"\nTwo honest models agree on {found.agreement_two_honest:.1%} of these flights; "
        f"v1 and v2, asked before departure, on {found.agreement_v1_v2:.1%}.\n"
        f"One row takes v1 {found.v1.row_us / 1e3:.1f} ms.\n"
    )


def main() -> None:
    """Load, train, write, and print the metrics."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--out", type=Path, required=True, help="where v1/, v2/ and v3/ are written"
    )
    parser.add_argument("--cache", type=Path, help="where the parsed flights are kept")
    asked = parser.parse_args()
    text = report(train(asked.out, data.load(asked.cache)))
    (asked.out / "report.txt").write_text(text, encoding="utf-8")
    show(text.rstrip("\n"))


if __name__ == "__main__":
    main()
