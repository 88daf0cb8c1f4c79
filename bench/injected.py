"""Products with one injected cause: two models, two feature pipelines, and a window of requests.

Two families that have nothing in common but the causes. The first is small: six numbers, a balanced
binary outcome. The second has twelve columns, words and nulls among them, and by turns a rare
binary outcome under another link and a number with noise that depends on the inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

from kedge.core.diagnosis.facts import Facts, Sample
from kedge.core.values import Output

CAUSES = ("noise", "model", "features", "data", "harder_inputs", "concept", "label_mix")
Floats = NDArray[np.float64]
Rng = np.random.Generator


@dataclass
class Case:
    """What a product draws: its reference, today's requests, and the answers of the four cells."""

    cause: str
    output: Output
    metric: str
    reference: Sample
    columns: dict[str, NDArray[Any]]
    truth: Floats
    answers: dict[tuple[str, str], Floats]
    swaps: dict[str, tuple[Floats | None, Floats | None]] = field(default_factory=dict)
    units: NDArray[Any] | None = None
    at: Floats | None = None

    def facts(self, labelled: int, rng: Rng) -> Facts:
        """With so many labels, wherever they fall."""
        truth = np.full(len(self.truth), np.nan)
        known = rng.choice(len(truth), min(labelled, len(truth)), replace=False)
        truth[known] = self.truth[known]
        return Facts(
            output=self.output,
            metric=self.metric,
            new="r3",
            old="r2",
            current=Sample(columns=self.columns, truth=truth, units=self.units, at=self.at),
            answers=self.answers,
            reference=self.reference,
            swaps=self.swaps,
        )


# ---------------------------------------------------------------- the first family

AMOUNT = 3


def raw(rng: Rng, n: int, *, hard: bool = False) -> Floats:
    """Six numbers, one of them an amount. `hard`: more of them near the boundary."""
    if hard:
        big = raw(rng, 8 * n)
        return big[rng.random(len(big)) < np.exp(-np.abs(logit(big)))][:n]
    x = rng.normal(size=(n, 6))
    x[:, AMOUNT] = np.exp(0.5 * x[:, AMOUNT])
    return x


def logit(x: Floats, concept: float = 0.0) -> Floats:
    """The truth behind the outcomes."""
    amount = np.log(x[:, AMOUNT])
    s = 1.6 * x[:, 0] * (x[:, 1] > 0) - 1.1 * x[:, 1] + 2.2 * amount + 0.5 * x[:, 2] - 0.4
    return s + concept * (-2.6 * amount - 1.0 * x[:, 2])


def drawn(rng: Rng, x: Floats, concept: float = 0.0) -> Floats:
    """Outcomes."""
    return (rng.random(len(x)) < 1 / (1 + np.exp(-logit(x, concept)))).astype(np.float64)


def first(x: Floats) -> Floats:
    """The old transformation."""
    return x[:, :5].copy()


def second(x: Floats) -> Floats:
    """The new one: a harmless re-definition, and a column more."""
    f = x.copy()
    f[:, 4] = x[:, 4] * 0.5 + x[:, 5] * 0.5
    return f


def cents(x: Floats) -> Floats:
    """The new one with a bug: cents instead of euros."""
    f = second(x)
    f[:, AMOUNT] *= 100
    return f


def table(x: Floats) -> dict[str, NDArray[Any]]:
    """Columns by name."""
    return {f"x{n}": x[:, n] for n in range(x.shape[1])}


def boosted(x: Floats, y: Floats) -> Callable[[Floats], Floats]:
    """A classifier's probability of yes."""
    model = HistGradientBoostingClassifier(max_iter=60, learning_rate=0.1, random_state=0)
    model.fit(x, y)
    return lambda f: model.predict_proba(f)[:, 1]


def small(seed: tuple[int, ...], cause: str, n: int = 4_000, causes: tuple[str, ...] = ()) -> Case:
    """A product of the first family; `causes` are injected beside `cause`."""
    rng = np.random.default_rng(seed)
    every = {cause, *causes}
    x = raw(rng, 12_000)
    y = drawn(rng, x)
    old = boosted(first(x), y)
    if "model" in every:  # trained on a broken join of labels
        y = np.where(rng.random(len(y)) < 0.35, rng.random(len(y)) < y.mean(), y)
    new = boosted(second(x), y)
    before = raw(rng, n)
    reference = Sample(columns=table(before), truth=drawn(rng, before), scores=old(first(before)))
    x = raw(rng, n, hard="harder_inputs" in every)
    y = drawn(rng, x, 1.0 if "concept" in every else 0.0)
    if "label_mix" in every:
        big = raw(rng, 6 * n)
        yes = drawn(rng, big) > 0.5
        chosen = [
            rng.choice(np.flatnonzero(yes), 3 * n // 4),
            rng.choice(np.flatnonzero(~yes), n // 4),
        ]
        keep = rng.permutation(np.concatenate(chosen))
        x, y = big[keep], yes[keep].astype(np.float64)
    if "data" in every:
        x[rng.random(len(x)) < 0.3, AMOUNT] = np.nan
    serving = cents if "features" in every else second
    swaps: dict[str, tuple[Floats | None, Floats | None]] = {}
    for k in range(5):
        mixed = first(x)
        mixed[:, k] = serving(x)[:, k]
        back = serving(x)
        back[:, k] = first(x)[:, k]
        swaps[f"x{k}"] = old(mixed), new(back)
    return Case(
        cause,
        Output(kind="binary", score="p"),
        "brier",
        reference,
        table(x),
        y,
        {
            ("new", "new"): new(serving(x)),
            ("old", "old"): old(first(x)),
            ("new", "old"): new(second(x)),
            ("old", "new"): old(serving(x)[:, :5]),
        },
        swaps,
    )


# ---------------------------------------------------------------- the second family

CITIES = ("oslo", "lima", "kyoto", "accra", "perth", "quito")
PLANS = ("free", "pro", "team")


def wide(rng: Rng, n: int) -> dict[str, NDArray[Any]]:
    """Twelve columns: skewed, counted, heavy-tailed, cyclic, words, and one with nulls of its own."""
    city = rng.choice(CITIES, n, p=(0.35, 0.25, 0.15, 0.1, 0.1, 0.05))
    found: dict[str, NDArray[Any]] = {
        "age": rng.gamma(6, 7, n),
        "visits": rng.poisson(3, n).astype(np.float64),
        "spend": np.exp(rng.normal(3, 0.8, n)),
        "hour": rng.integers(0, 24, n).astype(np.float64),
        "ratio": rng.beta(2, 5, n),
        "delay": rng.standard_t(4, n),
        "load": rng.uniform(-2, 2, n),
        "rank": rng.normal(size=n),
        "depth": rng.exponential(1, n),
        "tenure": np.where(rng.random(n) < 0.05, np.nan, rng.uniform(0, 10, n)),
    }
    return {**found, "city": city.astype(object), "plan": rng.choice(PLANS, n).astype(object)}


def signal(c: dict[str, NDArray[Any]], concept: float = 0.0) -> Floats:
    """What the outcomes depend on."""
    city = np.array([CITIES.index(word) for word in c["city"]], np.float64)
    base = (
        1.1 * (np.log(c["spend"]) - 3)
        + 0.9 * np.sin(c["hour"] / 24 * 2 * np.pi)
        - 0.8 * c["load"] * (c["plan"] == "free")
        + 0.35 * (city - 1)
        + 1.5 * (c["ratio"] - 0.3)
        + 0.4 * np.tanh(c["delay"])
    )
    return np.asarray(base - concept * (0.9 * (np.log(c["spend"]) - 3) + 0.3 * (city - 1)))


def noise(c: dict[str, NDArray[Any]]) -> Floats:
    """How much of an outcome is chance."""
    return np.asarray(0.25 + 0.9 * (c["load"] > 1.0) + 0.3 * (c["plan"] == "team"))


def matrix(c: dict[str, NDArray[Any]], *, new: bool = False, bug: bool = False) -> Floats:
    """Columns as numbers; the new transformation joins two and, with the bug, counts hours in seconds."""
    hour = c["hour"] * (3_600 if bug else 1)
    city = np.array([CITIES.index(w) if w in CITIES else np.nan for w in c["city"]], np.float64)
    plan = np.array([PLANS.index(w) if w in PLANS else np.nan for w in c["plan"]], np.float64)
    depth = (c["depth"] + c["visits"]) / 2 if new else c["depth"]
    plain = [
        c["age"],
        c["visits"],
        c["spend"],
        hour,
        c["ratio"],
        c["delay"],
        c["load"],
        c["rank"],
        depth,
        c["tenure"],
        city,
        plan,
    ]
    return np.stack(plain, axis=1)


def outcome(rng: Rng, c: dict[str, NDArray[Any]], concept: float, *, binary: bool) -> Floats:
    """A rare yes by the complementary log-log link, or a number."""
    s = signal(c, concept)
    if binary:
        return (rng.random(len(s)) < 1 - np.exp(-np.exp(1.3 * s - 2.4))).astype(np.float64)
    return np.asarray(2 * s + noise(c) * rng.normal(size=len(s)))


def fitted(x: Floats, y: Floats, *, binary: bool) -> Callable[[Floats], Floats]:
    """A model of the second family."""
    if binary:
        return boosted(x, y)
    model = HistGradientBoostingRegressor(max_iter=60, learning_rate=0.1, random_state=0)
    model.fit(x, y)
    return model.predict  # type: ignore[no-any-return]


def taken(c: dict[str, NDArray[Any]], rows: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Some rows of every column."""
    return {name: column[rows] for name, column in c.items()}


def large(seed: tuple[int, ...], cause: str, n: int = 8_000) -> Case:
    """A product of the second family. A label mix needs two outcomes, so it is always binary."""
    rng = np.random.default_rng(seed)
    binary = cause == "label_mix" or seed[-1] % 2 == 0
    c = wide(rng, 12_000)
    y = outcome(rng, c, 0.0, binary=binary)
    old = fitted(matrix(c), y, binary=binary)
    if cause == "model":  # a quarter of the outcomes joined to another row
        y = np.where(rng.random(len(y)) < 0.25, rng.permutation(y), y)
    new = fitted(matrix(c, new=True), y, binary=binary)
    before = wide(rng, n)
    reference = Sample(
        columns=before, truth=outcome(rng, before, 0.0, binary=binary), scores=old(matrix(before))
    )
    c = wide(rng, n if cause not in ("harder_inputs", "label_mix") else 8 * n)
    if cause == "harder_inputs":
        s = signal(c)
        hard = 1.3 * np.exp(-np.abs(s - 1.4)) if binary else 0.15 + 0.85 * (noise(c) > 1)
        c = taken(c, np.flatnonzero(rng.random(len(s)) < hard)[:n])
    y = outcome(rng, c, 1.0 if cause == "concept" else 0.0, binary=binary)
    if cause == "label_mix":
        yes, no = np.flatnonzero(y > 0.5), np.flatnonzero(y < 0.5)
        share = min(2.0 * len(yes) / len(y), 0.6)
        rows = np.concatenate([rng.choice(yes, int(share * n)), rng.choice(no, n - int(share * n))])
        rows = rng.permutation(rows)
        c, y = taken(c, rows), y[rows]
    if cause == "data":  # a new spelling of a word: unseen
        broken = rng.random(n) < 0.25
        c["city"] = np.where(broken & (c["city"] == "oslo"), "OSLO", c["city"])
    bug = cause == "features"
    output = (
        Output(kind="binary", score="p")
        if binary
        else Output(kind="score", score="y", tolerance=1.0)
    )
    return Case(
        cause,
        output,
        "log_loss" if binary else "absolute_error",
        reference,
        c,
        y,
        {
            ("new", "new"): new(matrix(c, new=True, bug=bug)),
            ("old", "old"): old(matrix(c)),
            ("new", "old"): new(matrix(c, new=True)),
            ("old", "new"): old(matrix(c, new=True, bug=bug)),
        },
    )
