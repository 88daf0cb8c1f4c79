"""Proofs: golden rows, and what the training set looked like."""

from __future__ import annotations

from typing import Any, Literal

from kedge.core.values.structs import Value
from kedge.core.values.version import Plainness

Origin = Literal["given", "training", "log", "made", "unknown"]
"""`given`: by a person. `training`: rows of the training set. `log`: of the prediction log. `made`: by
kedge. `unknown`: kept by a version of kedge that did not note it."""
RowsMark = Literal["independent", "dependent", "unknown"]
"""Whether an answer to a row is the same whatever rows are asked with it. `unknown`: not tested."""


class ColumnStatistics(Value, frozen=True):
    """What one column of the training set looked like.

    Null and NaN are counted in `nulls` and in nothing else. `values` holds up to the 50 most
    frequent strings or booleans with their counts; the rest is `count - nulls` less their sum.
    `distinct` stops at 10,000: then there are at least that many.
    """

    count: int
    nulls: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    values: dict[str, int] = {}
    distinct: int = 0
    longest: int | None = None
    """Values of the longest list where the length is open, else characters of the longest text."""


class Proof(Value, frozen=True):
    """Golden rows: what every replica must hear from the model before the model may serve."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    rtol: float = 1e-4
    atol: float = 1e-6
    statistics: dict[str, ColumnStatistics] = {}
    origin: Origin = "unknown"
    """Where the rows come from."""
    rows: RowsMark = "unknown"
    """The batch mark: whether answers depend on the rows asked together. Only `independent` is ever merged across requests."""
    tested: int = 0
    """Rows that were asked alone, in pairs and all together for it."""
    why: str = ""
    """The first answer that differed, or why nothing was tested; in words, for people."""
    raw: dict[str, list[Any]] = {}
    """Rows of a model's training set before their transformation: what a newer one of the same schema is compared on."""
    plain: Plainness | None = None
    """What the walk over the loaded model found. None: not walked yet."""
    inline: str = ""
    """Who let it run inline although it was not proven plain, and why."""
    written_with: dict[str, str] = {}
    """Version of each library that wrote the model, by the name of its distribution."""
    needs: tuple[str, ...] = ()
    """Modules that it needs where it is served, beside those of its loader."""
    assumed: tuple[str, ...] = ()
    tolerant: tuple[str, ...] = ()
    """As `Described` has them: inputs whose type nothing said, and those in which null would be answered."""
