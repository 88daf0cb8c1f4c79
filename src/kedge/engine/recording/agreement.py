"""Agreement of two answers to the same rows, as the endpoint's output defines it."""

from __future__ import annotations

from collections.abc import Sequence
from math import floor, isclose, isfinite, isnan
from math import log as ln
from operator import eq, itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kedge.core.evidence.answers import BETWEEN, RANKED, Target, spelled, target, truth
from kedge.core.evidence.windows import Differing
from kedge.core.values import Dtype, Field, Output
from kedge.engine.recording.custom import Agree

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns


class RowAnswer(NamedTuple):
    """The content of one row of an answer, as the endpoint's output defines it."""

    score: float | None
    decision: str | None
    yes: bool

    def same(self, other: RowAnswer, output: Output) -> bool:
        """Return whether both agree: side of the threshold, within tolerance, or equal text."""
        if output.kind in DECIDED or self.score is None or other.score is None:
            return self.decision == other.decision
        if isnan(self.score) or isnan(other.score):
            return isnan(self.score) and isnan(other.score)
        return isclose(self.score, other.score, rel_tol=0.0, abs_tol=output.tolerance)

    def text(self) -> str:
        """Return the score, or else the decision, as text for people."""
        return f"{self.score:.4g}" if self.score is not None else (self.decision or "")[:80]


DECIDED = frozenset({"binary", "class", "ranking"})
"""Kinds of output whose answers are the same if their decisions are."""


def read_as(output: Output, columns: Columns) -> Target:
    """Return how an answer is read; without a release's outputs, by the columns."""
    if isinstance(output, Target):
        return output
    return target(
        output,
        [
            Field(name=name, dtype=_dtype(column), shape=column.shape[1:])
            for name, column in columns.items()
        ],
    )


def _dtype(column: Any) -> Dtype:
    """Return a dtype of the same kind as a column's: only the kind is used."""
    kinds: dict[str, Dtype] = {"f": "float64", "i": "int64", "u": "int64", "b": "bool"}
    return kinds.get(column.dtype.kind, "string")


def said(output: Output, columns: Columns, row: int) -> RowAnswer:
    """Read one row of an answer. Without a known output, the decision is the whole row as text."""
    of = read_as(output, columns)
    column = columns.get(of.name) if of.name is not None else None
    if column is None and len(columns) == 1 and of.reads in ("yes", "number"):
        (column,) = columns.values()
    if column is not None and of.reads != "row" and column[row : row + 1].size:
        return _cell(of, column, row)
    words = [_text(columns[name][row]) for name in sorted(columns)]
    return RowAnswer(None, "; ".join(words), yes=False)


def _cell(of: Target, column: Any, row: int) -> RowAnswer:
    """Read one row of the output that is compared."""
    numeric = column.dtype.kind in NUMBERS
    if of.reads == "place" and numeric and column.ndim > 1:
        place = int(np.argmax(column[row]))
        return _named(of, place)
    if of.reads == "ranking":
        items = column[row].reshape(-1)[:RANKED].tolist() if column.ndim > 1 else [column[row]]
        return RowAnswer(None, BETWEEN.join(map(_word, items)), yes=False)
    value = column[row] if column.ndim == 1 else column[row].flat[-1]
    plain = value.item() if hasattr(value, "item") else value
    if of.reads == "yes":
        return _yes(of, plain, numeric=numeric)
    if not numeric:
        return RowAnswer(None, _word(plain), yes=False)
    if of.reads == "number":
        return RowAnswer(float(plain), f"{float(plain):.6g}", yes=False)
    return RowAnswer(float(plain), spelled(plain), yes=False)


def _yes(of: Target, value: Any, *, numeric: bool) -> RowAnswer:
    """Read a score or a class as yes or no."""
    by_class = bool(of.classes) and not isinstance(value, float)
    if numeric and not by_class:
        yes = value >= of.threshold
        return RowAnswer(float(value), "1" if yes else "0", yes=bool(yes))
    known = truth(value if numeric else _word(value), of.classes)
    score = float(known) if numeric and known is not None else None
    decision = _word(value) if known is None else "1" if known else "0"
    return RowAnswer(score, decision, yes=bool(known))


def _named(of: Target, place: int) -> RowAnswer:
    """Return the class at a place of a vector: its name in the policy if any, else its number."""
    if not of.classes:
        return RowAnswer(float(place), str(place), yes=False)
    if place >= len(of.classes):
        return RowAnswer(None, f"#{place}", yes=False)
    name = of.classes[place]
    return RowAnswer(None if isinstance(name, str) else float(name), spelled(name), yes=False)


class Sayings(NamedTuple):
    """The content of many rows: `RowAnswer`, column by column."""

    scores: list[float | None]
    decisions: list[str | None]
    yes: list[bool]

    def row(self, row: int) -> RowAnswer:
        """Return one of them."""
        return RowAnswer(self.scores[row], self.decisions[row], self.yes[row])


SILENCE = (None, None, False)
"""A row without an answer, among sayings."""


def sayings(output: Output, answers: Sequence[Columns | None], rows: Sequence[int]) -> Sayings:
    """Read every row of many answers, each as `said` does; `rows` is the number of rows of each."""
    there = [one for one in answers if one is not None]
    if len(there) == len(answers):
        return _read(output, there, rows)
    known = _read(
        output, there, [n for n, one in zip(rows, answers, strict=True) if one is not None]
    )
    cells = zip(*known, strict=True)
    spread = [
        SILENCE if one is None else next(cells)
        for one, count in zip(answers, rows, strict=True)
        for _ in range(count)
    ]
    return Sayings(*map(list, zip(*spread, strict=True)))


def _read(output: Output, answers: Sequence[Columns], rows: Sequence[int]) -> Sayings:
    """Read answers; numbers in C's loops, a column of them at once."""
    numbers = _single_numbers(output, answers) if sum(rows) == len(answers) else None
    if numbers is not None:
        return _of_numbers(output, numbers)
    found = Sayings([], [], [])
    for columns, count in zip(answers, rows, strict=True):
        of = read_as(output, columns)
        column = columns.get(of.name) if of.name is not None else None
        fast = column is not None and column.shape == (count,) and count
        if fast and column.dtype.kind in NUMBERS and _plain(of):  # type: ignore[union-attr]
            more = _of_numbers(of, column.tolist())  # type: ignore[union-attr]
        elif fast and of.reads == "class":
            more = _of_classes(column)
        else:
            each = [said(of, columns, row) for row in range(count)]
            more = Sayings(*map(list, zip(*each, strict=True)))
        found.scores.extend(more.scores)
        found.decisions.extend(more.decisions)
        found.yes.extend(more.yes)
    return found


def _plain(of: Output) -> bool:
    """Return whether the output is read as a number: a value, or a score with a threshold."""
    if not isinstance(of, Target):
        return of.score is not None and of.kind in ("binary", "score") and not of.classes
    return of.reads == "number" or (of.reads == "yes" and not of.classes)


def _single_numbers(output: Output, answers: Sequence[Columns]) -> list[Any] | None:
    """Return the score of each answer of one row, if all are numbers; else None."""
    name = output.name if isinstance(output, Target) else output.score
    if name is None or not _plain(output):
        return None
    try:
        columns = list(map(itemgetter(name), answers))
        if {column.dtype.kind for column in columns} <= _KINDS:
            return list(map(np.ndarray.item, columns))
    except (KeyError, ValueError):  # no such output, or one of several numbers
        pass
    return None


def same_rows(output: Output, ours: Sayings, theirs: Sayings) -> list[bool]:
    """Return for each row whether both sides agree."""
    if output.kind in DECIDED:
        return list(map(eq, ours.decisions, theirs.decisions))
    return [
        one.same(other, output)
        for one, other in zip(map(RowAnswer, *ours), map(RowAnswer, *theirs), strict=True)
    ]


def _of_numbers(output: Output, values: Sequence[Any]) -> Sayings:
    scores: list[float | None] = list(map(float, values))
    decisions: list[str | None]
    if output.kind == "binary":
        least = output.threshold
        yes = [value >= least for value in values]
        decisions = ["1" if one else "0" for one in yes]
    else:
        yes = [False] * len(values)
        decisions = [f"{value:.6g}" for value in scores]
    return Sayings(scores, decisions, yes)


def _of_classes(column: Any) -> Sayings:
    values = column.tolist()
    none = [False] * len(values)
    if column.dtype.kind in NUMBERS:
        return Sayings(list(map(float, values)), list(map(spelled, values)), none)
    return Sayings([None] * len(values), list(map(_word, values)), none)


def _word(value: Any) -> str:
    """Return a class as text: NumPy's text and bytes are text."""
    return spelled(value) if isinstance(value, str | bytes | int | float) else _text(value)


LONGEST_VALUE = 80
"""Limit of characters of one output in an example."""
LONGEST = 8
"""Limit of elements of a vector in its text; the comparison reads all of them."""


def _text(value: Any) -> str:
    """Return a value as text. NumPy's own function would take longer than all other counting."""
    if isinstance(value, np.ndarray) and value.ndim:
        value = _begin(value)  # converting a million elements would block all other threads
    plain = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(plain, list):
        more = ", ..." if len(plain) > LONGEST else ""
        return f"[{', '.join(map(_text, plain[:LONGEST]))}{more}]"
    if isinstance(plain, bytes):
        return spelled(plain)
    return f"{plain:.6g}" if isinstance(plain, float) else str(plain)


def _begin(array: NDArray[Any]) -> NDArray[Any]:
    """Return the elements that the text of an array shows, and one more on each axis."""
    return array[tuple(slice(LONGEST + 1) for _ in array.shape)]


def same_row(output: Output, ours: Columns, theirs: Columns, row: int) -> bool:
    """Return whether all outputs of a row are equal, within the tolerance; NaN equals NaN."""
    return ours.keys() == theirs.keys() and all(
        _alike(ours[name][row], theirs[name][row], output.tolerance) for name in ours
    )


def _alike(one: Any, other: Any, tolerance: float) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and one.size > SMALL:
        return _alike_arrays(one, other, tolerance)
    a = one.tolist() if hasattr(one, "tolist") else one
    b = other.tolist() if hasattr(other, "tolist") else other
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_alike(x, y, tolerance) for x, y in zip(a, b, strict=True))
    if isinstance(a, float) and isinstance(b, float):
        return a == b or (isnan(a) and isnan(b)) or abs(a - b) <= tolerance
    return type(a) is type(b) and bool(a == b)


def _alike_arrays(one: NDArray[Any], other: NDArray[Any], tolerance: float) -> bool:
    """Return the same for many values, in NumPy's loops: they release the interpreter."""
    kinds = one.dtype.kind, other.dtype.kind
    if one.shape != other.shape:
        return False
    if kinds == ("f", "f"):
        a, b = one.astype(np.float64, copy=False), other.astype(np.float64, copy=False)
        with np.errstate(invalid="ignore"):
            near = (a == b) | (np.abs(a - b) <= tolerance) | (np.isnan(a) & np.isnan(b))
        return bool(near.all())
    if "O" in kinds:
        pairs = zip(one.reshape(-1).tolist(), other.reshape(-1).tolist(), strict=True)
        return all(_alike(x, y, tolerance) for x, y in pairs)
    alike = kinds[0] == kinds[1] or set(kinds) == {"i", "u"}
    return alike and bool(np.array_equal(one, other))


MOST_DIFFERING = 3
"""Limit of outputs of one example that are shown as different."""
NOT_GIVEN = "not given"
"""Text for an output that one of two releases does not give."""


def differing(output: Output, ours: Columns, theirs: Columns, row: int) -> tuple[Differing, ...]:
    """Return the outputs in which two answers to one row differ, the compared one first.

    If only decisions are compared and those agree, or a function judges, all values that differ are
    shown: the reader decides.
    """
    first = read_as(output, ours).name
    named = sorted({*ours, *theirs}, key=lambda name: (name != first, name))
    found = []
    for name in named:
        if (
            name in ours
            and name in theirs
            and _alike(ours[name][row], theirs[name][row], output.tolerance)
        ):
            continue
        old, new = (
            _text(answer[name][row])[:LONGEST_VALUE] if name in answer else NOT_GIVEN
            for answer in (ours, theirs)
        )
        if old == new:  # they differ only in digits that the text rounds
            old, new = (_exact(answer[name][row]) for answer in (ours, theirs))
        found.append(Differing(name, old, new))
    return tuple(found[:MOST_DIFFERING])


def _exact(value: Any) -> str:
    """Return a value in all its digits; of a long vector only its beginning."""
    if np.size(value) > SMALL:
        return f"{_text(value)} and others"
    return repr(value.tolist() if hasattr(value, "tolist") else value)[:LONGEST_VALUE]


def judge_of(output: Output) -> Agree:
    """Return the comparison of two answers' rows for an output; not for kind "custom"."""
    if output.kind == "exact" and output.score is None:
        return lambda ours, theirs, rows: [
            same_row(output, ours, theirs, row) for row in range(rows)
        ]

    def compare(ours: Columns, theirs: Columns, rows: int) -> list[bool]:
        return [
            said(output, ours, row).same(said(output, theirs, row), output) for row in range(rows)
        ]

    return compare


BIN_RATIO = 1.1
"""Ratio of the bins of scores: those that differ by less than a tenth share one. It is fixed, so
that bins can be added."""


def bin_of(score: float) -> int:
    """Return the signed log-bin of a score; 0 for zero, NaN and infinity."""
    if not isfinite(score) or score == 0:
        return 0
    size = floor(ln(abs(score)) / ln(BIN_RATIO)) + 1000
    size = min(max(size, 1), 2000)
    return size if score > 0 else -size


NUMBERS = "fiub"
"""NumPy's kinds of dtype that have an order and a distance."""
_KINDS = frozenset(NUMBERS)
SMALL = 64
"""Limit of values of an output for which a single row is compared value by value."""


def agreeing_rows(output: Output, ours: Columns, theirs: Columns, rows: int) -> int:
    """Return how many rows of two answers agree, as the endpoint's output defines it.

    binary: the same side of the threshold. score: within the tolerance. class: the same class.
    exact: every output equal, floats within the tolerance; an output that is missing in one is a
    disagreement. NaN equals NaN only. A score that is text is compared exactly.
    """
    score = output.score or (output.value if output.kind == "score" else None)
    if output.kind in ("class", "ranking"):
        said_both = (sayings(output, [each], [rows]) for each in (ours, theirs))
        return sum(same_rows(output, *said_both))
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
            return 0  # text and a number: NumPy does not even compare them
        if rows == 1 and mine.size <= SMALL:
            if not _same_values(mine, other, output.tolerance):
                return 0
            continue
        if mine.dtype.kind == "f":
            equal = np.isclose(mine, other, rtol=0.0, atol=output.tolerance, equal_nan=True)
        else:
            equal = mine == other
        same &= equal.reshape(rows, -1).all(axis=1)
    return int(same.sum())


def _same_values(ours: Any, theirs: Any, tolerance: float) -> bool:
    """Return whether the few values of a row are the same; NumPy's calls would cost more."""
    mine, other = ours.reshape(-1).tolist(), theirs.reshape(-1).tolist()
    if ours.dtype.kind != "f":
        return all(map(eq, mine, other))
    return all(
        isclose(a, b, rel_tol=0.0, abs_tol=tolerance) or (isnan(a) and isnan(b))
        for a, b in zip(mine, other, strict=True)
    )


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
