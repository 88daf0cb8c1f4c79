"""Whether two answers to the same rows say the same, in the endpoint's own sense."""

from __future__ import annotations

from math import isclose, isnan
from typing import TYPE_CHECKING

import numpy as np

from kedge.core.values import Output

if TYPE_CHECKING:
    from kedge.ports import Columns

NUMBERS = "fiub"
"""NumPy's kinds of dtype that have an order and a distance."""


def agreeing_rows(output: Output, ours: Columns, theirs: Columns, rows: int) -> int:
    """How many rows of two answers say the same, in the endpoint's own sense.

    binary: the same side of the threshold. score: within the tolerance. exact: every output
    equal, floats within the tolerance; an output that one of them lacks is a disagreement.
    NaN says the same as NaN, and as nothing else. A score that is no number is compared exactly.
    """
    score = output.score
    if output.kind != "exact" and score is not None and score in ours and score in theirs:
        mine, other = ours[score], theirs[score]
        if mine.dtype.kind in NUMBERS and other.dtype.kind in NUMBERS and mine.size and other.size:
            return _agreeing_scores(output, mine, other, rows)
    same = np.ones(rows, dtype=bool)
    if ours.keys() != theirs.keys():
        return 0
    for name, mine in ours.items():
        other = theirs[name]
        if mine.shape != other.shape:
            return 0
        if (mine.dtype.kind in NUMBERS) != (other.dtype.kind in NUMBERS):
            return 0  # a word and a number: NumPy does not even compare them
        if mine.dtype.kind == "f":
            equal = np.isclose(mine, other, rtol=0.0, atol=output.tolerance, equal_nan=True)
        else:
            equal = mine == other
        same &= equal.reshape(rows, -1).all(axis=1)
    return int(same.sum())


def _agreeing_scores(output: Output, ours: object, theirs: object, rows: int) -> int:
    mine = np.asarray(ours, dtype=float).reshape(rows, -1)[:, -1]
    other = np.asarray(theirs, dtype=float).reshape(rows, -1)[:, -1]
    if rows == 1:
        a, b = mine.item(), other.item()
        if isnan(a) or isnan(b):
            return int(isnan(a) and isnan(b))
        if output.kind == "binary":
            return int((a >= output.threshold) == (b >= output.threshold))
        return int(isclose(a, b, rel_tol=0.0, abs_tol=output.tolerance))
    if output.kind == "binary":
        same = (mine >= output.threshold) == (other >= output.threshold)
        return int((same & (np.isnan(mine) == np.isnan(other))).sum())
    return int(np.isclose(mine, other, rtol=0.0, atol=output.tolerance, equal_nan=True).sum())
