"""Own losses: how bad each answer was, by a function that the policy names, asked in a child.

The function may hold the interpreter, exit or exhaust memory there. While its child is not ready or
has failed, labels wait: nothing else judges them meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from math import nan

from kedge.core.evidence.labels import answers_of
from kedge.core.evidence.quality import Loss
from kedge.core.evidence.records import Known, Labelled
from kedge.core.values import Output
from kedge.engine.recording.custom import Custom

AT_ONCE = 1_000
"""Answers in one question: a function of a millisecond each takes half of the child's time to
answer."""
Question = tuple[float | None, str | None, Known]
"""Score, decision and outcome: a stored answer, and the true result."""

_children: dict[str, OwnLoss] = {}
_making = threading.Lock()


class OwnLoss:
    """One function. Any thread may ask it, one at a time."""

    def __init__(self, function: str) -> None:
        self._child = Custom(Output(kind="custom", function=function))
        self._lock = threading.Lock()

    def measure(self, rows: Iterable[Labelled], patience_s: float) -> tuple[Loss | None, str]:
        """Return the loss of every answer of some rows, or why there is none.

        Args:
            rows: labelled predictions.
            patience_s: how long to wait for a child that is starting; 0: not at all.
        """
        asked: dict[Question, None] = {}
        for one in rows:
            for _, score, decision in answers_of(one.row):
                if one.outcome.value is not None and (score is not None or decision is not None):
                    asked[score, decision, one.outcome.value] = None
        with self._lock:
            found = self._ask(list(asked), patience_s)
            fault = self._child.fault or "its child is starting"
        if found is None:
            return None, fault

        def loss(_: Output, score: float | None, decision: str | None, value: Known) -> float:
            """Return 1 without an answer; NaN if the function gives no number from 0 to 1."""
            if score is None and decision is None:
                return 1.0
            return found.get((score, decision, value), nan)

        return loss, ""

    def _ask(self, asked: list[Question], patience_s: float) -> dict[Question, float] | None:
        if patience_s and self._child.wait(patience_s):
            return None
        found: dict[Question, float] = {}
        for begin in range(0, len(asked), AT_ONCE):
            part = asked[begin : begin + AT_ONCE]
            answers = [decision if score is None else score for score, decision, _ in part]
            said = self._child.measure(answers, [value for _, _, value in part])
            if said is None:
                return None
            found |= {key: nan if one is None else one for key, one in zip(part, said, strict=True)}
        return found


def own_loss(function: str) -> OwnLoss:
    """Return this process's only child for a function."""
    with _making:
        if function not in _children:
            _children[function] = OwnLoss(function)
        return _children[function]
