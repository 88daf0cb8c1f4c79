"""Labels and their vocabulary: which of them can be judged against the answers.

Theory of operation
-------------------
* A label that fits no answer by its type or domain is *unfit* (`answers.unfit`): counted by reason,
  with an example, and never counted as wrong.
* Labels of a fitting type may still share no value with the answers ("setosa" and "0", "A-12" and
  "a-12"). Both releases are then wrong in every row, which would look like proof of "not worse". So
  the distinct values of both are stored, each bounded (`KEPT`), until the first label equals an
  answer of either release to any row. From the first match on none are stored.
* Beyond the bound the values with the smallest hashes are kept, by the same hash on both sides, so
  a common value stays visible in either.
* Two values in all are a binary task: a model that is always wrong gives exactly that.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b
from typing import Literal

from kedge.core.evidence.answers import (
    Target,
    decided,
    equal,
    number,
    spelled,
    unfit,
)
from kedge.core.evidence.records import JoinRow, Known, Labelled
from kedge.core.values import Arm, Output, Value

ENOUGH = 100
"""Number of labels from which no match is broken input. With 100 classes that are guessed at
random, no row matches with a chance of 0.37, but the two sets of values surely share one."""
KEPT = 1_000
"""Most distinct values of each side that are stored until the first match: 100 KB at most."""
LONGEST = 64
"""Most characters of a stored word; a longer one is stored as its hash."""
SHOWN = 3
"""Values of each side that a message shows."""
MEASURED = frozenset({"absolute_error", "rmse", "mape", "log_loss", "brier"})
"""Losses that measure a distance: an answer need not equal a label, but must be a number."""


class Matching(Value, frozen=True, kw_only=True):
    """Common values of labels and answers of one comparison so far."""

    joined: int = 0
    """Labels of predictions, fit and unfit, without the declined ones."""
    unfit: dict[str, int] = {}
    """Labels that can equal no answer, by reason (`answers.Unfit`)."""
    examples: dict[str, str] = {}
    """An example label for each reason."""
    matched: tuple[int, int] = (0, 0)
    """Labels that equal production's own answer, and the candidate's."""
    met: bool = False
    """Whether a label equals some answer of either release, or no equality is needed."""
    labels: tuple[str | float, ...] = ()
    """Distinct values until the first match; empty afterwards."""
    answers: tuple[str | float, ...] = ()
    bounded: bool = False
    """Whether some distinct values are left out."""

    @property
    def unfits(self) -> int:
        """Return how many labels are unfit."""
        return sum(self.unfit.values())

    @property
    def state(self) -> Literal["none", "sound", "early", "broken"]:
        """Return the state: no labels yet; sound; no match so far; no match in `ENOUGH` labels."""
        if not self.joined:
            return "none"
        if self.met or self._binary():
            return "sound"
        return "broken" if self.joined >= ENOUGH else "early"

    def _binary(self) -> bool:
        """Return whether there are two values in all, which a model that is always wrong gives."""
        values = set(self.labels) | set(self.answers)
        return bool(self.labels) and bool(self.answers) and len(values) <= 2


class UnfitLabels(Value, frozen=True):
    """Labels that can equal no answer, for one reason; they are not judged."""

    code: str
    count: int
    reason: str
    """The reason in words, with an example and what to declare instead."""


def is_own(metric: str) -> bool:
    """Return whether a metric is the policy's function, MODULE:NAME, which reads labels itself."""
    return ":" in metric


ZERO = "zero"
"""Reason of a label of 0, to which no error is relative (`mape`)."""


def unfit_for(output: Output, value: Known, metric: str) -> str | None:
    """Return why a label cannot be judged by a metric: `answers.unfit`, or `ZERO`; None when it can."""
    if is_own(metric):
        return None if value is not None else "missing"
    why = unfit(output, value, measured=metric in MEASURED)
    if why is None and metric == "mape" and number(value) == 0:
        return ZERO
    return why


def matched(known: Matching, rows: Iterable[Labelled], output: Output, metric: str) -> Matching:
    """Return the matching with a further batch of labelled predictions.

    Args:
        known: the matching so far.
        rows: labelled predictions of one comparison, under one label version.
        output: the output that defines how answers are read; a `Target` where a release is known.
        metric: the declared loss.
    """
    measured = metric in MEASURED
    joined, met = known.joined, known.met
    reasons, examples = dict(known.unfit), dict(known.examples)
    equals = list(known.matched)
    labels, answers = set(known.labels), set(known.answers)
    for one in rows:
        value = one.outcome.value
        if value is None:
            continue
        joined += 1
        why = unfit_for(output, value, metric)
        if why is not None:
            reasons[why] = reasons.get(why, 0) + 1
            examples.setdefault(why, str(value)[:LONGEST])
            continue
        new: list[str | float] = []
        words = False
        for arm, score, decision in answers_of(one.row):
            equals[arm] += equal(output, score, decision, value)
            words = words or (score is None and decision is not None)
            spelling = _answer(output, score, decision)
            if spelling is not None:
                new.append(spelling)
        met = met or any(equals)
        if not met:
            labels.add(_label(value, words=words))
            answers.update(new)
    met = met or _met(output, labels, answers, measured=measured or is_own(metric))
    return Matching(
        joined=joined,
        unfit=reasons,
        examples=examples,
        matched=(equals[0], equals[1]),
        met=met,
        labels=() if met else _kept(labels),
        answers=() if met else _kept(answers),
        bounded=not met and (known.bounded or len(labels) > KEPT or len(answers) > KEPT),
    )


def _met(
    output: Output, labels: set[str | float], answers: set[str | float], *, measured: bool
) -> bool:
    """Return whether some label is among the answers."""
    if measured or output.kind == "binary":  # any readable answer is near some label
        return bool(labels) and bool(answers)
    if isinstance(output, Target) and output.reads == "number":
        near = sorted(one for one in answers if isinstance(one, float))
        for label in labels:
            if isinstance(label, float):
                at = bisect_left(near, label - output.tolerance)
                if at < len(near) and near[at] <= label + output.tolerance:
                    return True
        return False
    if output.classes:  # a fitting label is one of them
        spellings = {number(one) if isinstance(one, int) else one for one in output.classes}
        return bool(labels) and not spellings.isdisjoint(answers)
    return not labels.isdisjoint(answers)


def answers_of(row: JoinRow) -> list[tuple[int, float | None, str | None]]:
    """Return the answers of a row: the arm (0 production), score and decision."""
    arm = 1 if row.arm == Arm.CANDIDATE and not row.failed else 0
    found = [(arm, row.score, row.decision)]
    if row.paired:
        found.append((1 - arm, row.shadow_score, row.shadow_decision))
    return found


def _label(value: str | float | bool, *, words: bool) -> str | float:
    """Return a label as it is stored: a number where the answers are, otherwise a word."""
    known = number(value)
    if known is not None and not words:
        return known
    return _short(spelled(value))


def _answer(output: Output, score: float | None, decision: str | None) -> str | float | None:
    """Return an answer as it is stored; None where no label could equal it."""
    if output.kind == "binary":
        said = decided(output, score, decision)
        return None if said is None else float(said)
    if score is not None:
        return number(score)
    if decision is None or output.kind == "score":
        return None
    return _short(decision)


def _short(text: str) -> str:
    if len(text) <= LONGEST:
        return text
    return "#" + blake2b(text.encode(errors="surrogatepass"), digest_size=16).hexdigest()


def _kept(values: set[str | float]) -> tuple[str | float, ...]:
    """Return the values with the smallest hashes, at most `KEPT`."""
    if len(values) <= KEPT:
        return tuple(sorted(values, key=repr))
    return tuple(sorted(values, key=_hash)[:KEPT])


def _hash(value: str | float) -> bytes:
    return blake2b(repr(value).encode(errors="surrogatepass"), digest_size=8).digest()


# ---------------------------------------------------------------- in words


def told(found: Matching, output: Output) -> str:
    """Return why labels cannot be judged, in words; empty when they can."""
    if found.state not in ("early", "broken"):
        return ""
    head = f"{found.joined:,} labels, none equals any answer of either release"
    if found.unfit:
        why = max(found.unfit, key=lambda each: found.unfit[each])
        head += f" ({found.unfits:,} unfit: {reason(why, found.examples.get(why, ''), output)})"
    elif not found.answers:
        head += f" (no answer can be read{_of(output)})"
    else:
        head += f" (labels such as {_shown(found.labels)}; answers such as {_shown(found.answers)})"
    return f"{head}; {advice(output)}"


def advice(output: Output) -> str:
    """Return the output that labels are compared with, and what to declare instead."""
    name = output.name if isinstance(output, Target) else None
    key = (
        "label"
        if output.label or not (output.score or output.value)
        else ("value" if output.value else "score")
    )
    if name is None:
        return "no output is declared for labels: set output.label or output.value"
    if isinstance(output, Target) and output.reads == "number" and output.unread == "":
        return (
            f"they are compared with output {name} within {output.tolerance:g}: widen "
            'output.tolerance, judge by absolute_error, or set output.kind = "binary"'
        )
    if isinstance(output, Target) and output.chosen:
        return f"they are compared with output {name}, since none is declared: set output.label"
    return f"the output declared for labels is probably wrong: output.{key} is {name}"


def reason(why: str, example: str, output: Output) -> str:
    """Return why a label is unfit, in words."""
    gives = output.dtype if isinstance(output, Target) and output.dtype else "numbers"
    of = _of(output) or " of the release"
    among = ", ".join(output.among) if isinstance(output, Target) else ""
    name = output.name if isinstance(output, Target) else None
    return {
        "ambiguous": f"no output is declared for labels, and the release gives {among}",
        "missing": f"the release gives no output {name}, but {among}",
        "unreadable": f"output {name} holds more than one class or number a row",
        "text": f"label {example!r} is text, output{of} gives {gives}",
        "fraction": f"label {example} is not a whole number, output{of} gives {gives}",
        "range": f"label {example} is outside the range of {gives}, which output{of} gives",
        "not_a_class": f"label {example!r} is none of output.classes",
        "not_yes_or_no": f"label {example!r} is neither yes nor no: set output.classes = [NO, YES]",
        "no_number": f"output{of} gives {gives}, and the metric needs a number",
        "not_finite": f"label {example} is not finite",
        ZERO: "label 0 has no relative error: judge by rmse or absolute_error",
    }.get(why, why)


def _of(output: Output) -> str:
    name = output.name if isinstance(output, Target) else output.score
    return f" {name}" if name else ""


def _shown(values: tuple[str | float, ...]) -> str:
    some = [spelled(value) if isinstance(value, float) else repr(value) for value in values[:SHOWN]]
    return ", ".join(some) + (", ..." if len(values) > SHOWN else "")
