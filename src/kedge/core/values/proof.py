"""Proofs: golden rows with their expected answers, and the statistics of the training set."""

from __future__ import annotations

from typing import Any, Literal

from kedge.core.values.structs import Value
from kedge.core.values.version import Plainness

Origin = Literal["given", "training", "log", "made", "unknown"]
"""`given`: by a person. `training`: rows of the training set. `log`: of the prediction log. `made`:
by kedge. `unknown`: stored by a version of kedge that did not record it."""
RowsMark = Literal["independent", "dependent", "unknown"]
"""Whether the answer to a row is the same in every batch. `unknown`: not tested."""


class ColumnStatistics(Value, frozen=True):
    """Statistics of one column of the training set.

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
    """Golden rows: inputs with the answers that every replica checks before the model may serve."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    rtol: float = 1e-4
    atol: float = 1e-6
    statistics: dict[str, ColumnStatistics] = {}
    origin: Origin = "unknown"
    """The origin of the rows."""
    rows: RowsMark = "unknown"
    """The batch mark: whether answers depend on the batch. Requests are merged only if
    `independent`."""
    tested: int = 0
    """Rows that were asked alone, in pairs and all together to test this."""
    why: str = ""
    """The first answer that differed, or why nothing was tested; for display."""
    raw: dict[str, list[Any]] = {}
    """Rows of a model's training set before their transformation, on which newer versions of the
    same schema are compared."""
    plain: Plainness | None = None
    """The result of inspecting the loaded model. None: not inspected yet."""
    inline: str = ""
    """Who allowed it to run inline although it was not proven plain, and why."""
    written_with: dict[str, str] = {}
    """Version of each library that wrote the model, by its distribution name."""
    needs: tuple[str, ...] = ()
    """Modules that it needs where it is served, beyond those of its loader."""
    assumed: tuple[str, ...] = ()
    tolerant: tuple[str, ...] = ()
    """As in `Described`: inputs of unknown type, and inputs in which the model would answer
    null."""
