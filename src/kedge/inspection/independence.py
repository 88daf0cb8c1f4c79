"""Independence of rows: whether a model's answer to a row depends on other rows in the batch.

Requests of different callers are merged into one batch only if it does not. A model that scales by
its whole batch, or fills a gap with the batch's mean, would answer a caller from other callers'
rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from kedge.columns import Grouped, check_answer, columns_of, compare, lists_of
from kedge.core.errors import BadRequest, CorruptArtifact, KedgeError, ModelFailure
from kedge.core.golden import Lists, count, distinct, joined, spread, taken
from kedge.core.values import Proof, Release, RowsMark
from kedge.ports import Artifacts, Model

MOST = 256
"""Number of rows that are asked in every grouping: more rows of the same kind show nothing new."""
BUDGET_S = 10.0
"""Time limit for all groupings together. A slow model is tested on fewer rows instead of being
refused."""

Clock = Callable[[], float]
Answer = dict[str, list[Any]]


def ask(model: Model, rows: Lists) -> Answer:
    """Return the model's answer to the rows.

    Raises:
        ModelFailure: the model raised, or its answer does not have the promised form.
        BadRequest: the rows do not fit its signature.
    """
    columns = columns_of(rows, model.signature)
    try:
        answer = model.predict(columns)
    except KedgeError as error:
        raise ModelFailure(str(error), code=error.code) from error
    except BaseException as error:  # a model may raise anything and may even exit: one failure
        raise ModelFailure(
            f"the model raised {type(error).__name__}: {error}", code="model_raised"
        ) from error
    fault = check_answer(answer, model.signature, count(rows), nan_allowed=True)
    if fault is not None:
        raise ModelFailure(fault, code="model_nonsense")
    return lists_of(answer)


def answerable(model: Model, rows: Lists) -> tuple[dict[str, list[Any]], KedgeError | None]:
    """Return the rows that the model answers alone, and the first failure."""
    kept: list[int] = []
    failure: KedgeError | None = None
    for row in range(count(rows)):
        try:
            ask(model, taken(rows, [row]))
        except (ModelFailure, BadRequest) as error:
            failure = failure or error
        else:
            kept.append(row)
    return taken(rows, kept), failure


def grouped(
    model: Model,
    golden: Lists,
    made: Lists,
    *,
    rtol: float,
    atol: float,
    clock: Clock,
    budget_s: float = BUDGET_S,
) -> Grouped:
    """Ask rows alone, in pairs and all together, and compare each row's answers.

    Args:
        model: the model.
        golden: rows that it answers.
        made: more rows; a row that the model answers in no grouping is omitted.
        rtol: relative tolerance: batches of other sizes may add in another order.
        atol: absolute tolerance.
        clock: a monotonic clock in seconds.
        budget_s: time after which no further row is asked.
    """
    golden = taken(golden, spread(count(golden), MOST))
    rows = joined([golden, made])
    try:
        columns_of(rows, model.signature)
    except BadRequest:  # an open length that differs: such rows are never in one batch
        rows = golden
    try:
        columns_of(rows, model.signature)
    except BadRequest as error:
        return Grouped(why=str(error))
    return _Test(model, rows, rtol, atol, clock, clock() + budget_s).done()


def merges(model: Model, proof: Proof, clock: Clock, budget_s: float = BUDGET_S) -> bool:
    """Return whether rows of several requests can be asked together.

    A proof of an older version of kedge has no batch mark. Then this asks its rows in groupings,
    but no made rows: a row that crashes a model would keep its release down.
    """
    mark = proof.rows
    if mark == "unknown":
        mark = grouped(
            model,
            proof.inputs,
            {},
            rtol=proof.rtol,
            atol=proof.atol,
            clock=clock,
            budget_s=budget_s,
        ).rows
    return mark == "independent"


def mark_of(artifacts: Artifacts, digest: str) -> RowsMark:
    """Return the batch mark of a model or transformation; `unknown` if its proof cannot be read."""
    try:
        return artifacts.proof(digest).rows
    except CorruptArtifact:
        return "unknown"


def release_mark(artifacts: Artifacts, release: Release) -> RowsMark:
    """Return the batch mark of a release: the worse of its model's and its transformation's."""
    digests = [release.model_digest, *([release.code] if release.code is not None else [])]
    marks = [mark_of(artifacts, digest) for digest in digests]
    worse: tuple[RowsMark, ...] = ("dependent", "unknown")
    return next((mark for mark in worse if mark in marks), "independent")


class _Differs(Exception):
    """Difference between a row's answers alone and beside other rows; its text describes it."""


class _Random(Exception):
    """Two different answers to the same question."""


class _Test:
    """One test of one model; see `grouped`."""

    def __init__(
        self, model: Model, rows: Lists, rtol: float, atol: float, clock: Clock, until: float
    ) -> None:
        self._model = model
        self._rows = rows
        self._tolerance = {"rtol": rtol, "atol": atol}
        self._clock = clock
        self._until = until
        self._alone: dict[int, Answer] = {}

    def done(self) -> Grouped:
        """Run the test and return its result."""
        try:
            self._run()
        except _Random as found:
            return Grouped(why=str(found), random=True, tested=len(self._alone))
        except _Differs as found:
            return Grouped("dependent", len(self._alone), str(found))
        tested = taken(self._rows, list(self._alone))
        if distinct(tested) < 2:
            return Grouped(
                tested=len(self._alone), why="fewer than two different rows could be asked"
            )
        return Grouped("independent", len(self._alone))

    def _run(self) -> None:
        failed: dict[int, ModelFailure] = {}
        last: int | None = None
        for row in range(count(self._rows)):
            if self._clock() >= self._until:
                break
            try:
                self._alone[row] = ask(self._model, taken(self._rows, [row]))
            except ModelFailure as error:
                failed[row] = error
                continue
            if last is not None:
                self._compare([last, row])
            last = row
        answered = list(self._alone)
        if len(answered) > 2:
            self._compare([answered[-1], answered[0]])
            self._compare(answered)
        if not answered and len(failed) > 1:
            self._fails_in_company([*failed], failed[min(failed)])
        for row, failure in failed.items():
            if answered and self._clock() < self._until:
                self._fails_in_company([answered[0], row], failure)

    def _compare(self, which: Sequence[int]) -> None:
        """Ask these rows together.

        Raises:
            _Differs: a row's answer differs from its answer alone.
            _Random: a row's answer differs from an earlier one in the same grouping.
        """
        company = f"with {len(which) - 1} other row{'s' if len(which) > 2 else ''}"
        try:
            together = ask(self._model, taken(self._rows, which))
        except ModelFailure as error:
            raise _Differs(
                f"{len(which)} rows that are answered alone fail together: {error}"
            ) from error
        for place, row in enumerate(which):
            mine = taken(together, [place])
            differs = compare(mine, self._alone[row], **self._tolerance)
            if differs is not None:
                self._refuse_random([row], self._alone[row])
                self._refuse_random(which, together)
                said = differs.removeprefix("golden row 0: ").replace("expected", "alone it is")
                raise _Differs(f"{company}, {said}")

    def _refuse_random(self, which: Sequence[int], before: Answer) -> None:
        """Ask once more: only a repeated answer is caused by the grouping."""
        try:
            again = ask(self._model, taken(self._rows, which))
        except ModelFailure as error:
            raise _Random(f"asked again, {error}") from error
        differs = compare(again, before, **self._tolerance)
        if differs is not None:
            raise _Random(differs)

    def _fails_in_company(self, which: Sequence[int], failure: ModelFailure) -> None:
        """Ask a row that fails alone together with other rows: it must fail there too.

        Raises:
            _Differs: it does not.
        """
        try:
            ask(self._model, taken(self._rows, which))
        except ModelFailure:
            return
        raise _Differs(f"a row that fails alone is answered with others: {failure}")
