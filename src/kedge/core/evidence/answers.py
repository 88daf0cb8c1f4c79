"""Answers and labels: the output that a label is about, and when the two are equal.

Theory of operation
-------------------
* A `Target` is the endpoint's `output` with what a signature adds: the name and the dtype of the
  output that labels are compared with. Where the policy names none, the signature decides if it
  leaves one choice. Otherwise every label is unfit, since a guess could make all answers wrong.
* An answer is stored as (score, decision): numbers have a score, words have none. So a stored row
  shows whether "42" is a number or a word.
* A class is compared by one spelling (`spelled`): 42, 42.0 and "42" are one whole number. For an
  output that gives words, "42.0" and "42" are two words.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from math import isfinite
from typing import Literal

from kedge.core.evidence.records import Known
from kedge.core.values import Dtype, Field, Output, State

YES = frozenset({"1", "true", "yes", "t", "y"})
NO = frozenset({"0", "false", "no", "f", "n"})
EXACT_BELOW = 2**53
"""Limit below which whole numbers are exact as floats; larger ones are compared digit by digit."""
LABEL_NAMES = frozenset(
    {
        "label",
        "labels",
        "output_label",
        "predicted_label",
        "class",
        "class_label",
        "predicted_class",
        "prediction",
        "target",
        "y_pred",
    }
)
"""Names that exporters give to the output with the class (skl2onnx, XGBoost, LightGBM, CatBoost):
they decide where several outputs could hold it."""
INTEGERS = {
    "int8": (-(2**7), 2**7 - 1),
    "int16": (-(2**15), 2**15 - 1),
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint8": (0, 2**8 - 1),
    "uint16": (0, 2**16 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
"""Least and largest value of each integer dtype."""

RANKED = 20
"""Items of a ranking that are stored and judged, from the best on."""
BETWEEN = "|"
"""Separator of the items of a ranking, and of a label that names several."""

Reads = Literal["yes", "class", "place", "number", "ranking", "row"]
"""yes: a side of the threshold. class: a word or a whole number. place: the largest place of a
vector. number: within the tolerance. ranking: items of a vector, the best first. row: no output is known, so the whole row as text."""
Unread = Literal["", "unknown", "ambiguous", "missing", "unreadable"]
"""Why no output is read: no release is known yet; several outputs are possible; the release does
not give the declared one. Also: its form is not one class or number a row."""
Unfit = Literal[
    "ambiguous",
    "missing",
    "unreadable",
    "text",
    "fraction",
    "range",
    "not_a_class",
    "not_yes_or_no",
    "no_number",
    "not_finite",
]
"""Why a label can equal no answer."""


class Target(Output, frozen=True):
    """An output as it is read with a release's signature."""

    name: str | None = None
    """The output that a label is compared with."""
    reads: Reads = "row"
    dtype: Dtype | None = None
    unread: Unread = ""
    chosen: bool = False
    """The signature decided, since the policy names no output."""
    among: tuple[str, ...] = ()
    """Outputs of the release, for the message when none of them is read."""


# ---------------------------------------------------------------- which output


def get_target(state: State, release: int | None = None) -> Target:
    """Return the output of an endpoint, as it is read with a release's signature.

    Args:
        state: the row.
        release: the release of the signature. Without it, production, or before that the candidate.
    """
    number = release if release is not None else state.production
    if number is None:
        number = state.candidate
    found = state.releases.get(number) if number is not None else None
    gives = found.signature.outputs if found is not None else None
    return target(state.policy.output, gives, spare=spare_outputs(state))


def spare_outputs(state: State) -> tuple[str, ...]:
    """Return the outputs that the policy declares as costs: no label is about them."""
    cost = state.policy.cost
    return tuple(name for name in (cost.tokens, cost.reported) if name) if cost else ()


def target(output: Output, gives: Sequence[Field] | None, spare: Collection[str] = ()) -> Target:
    """Return an output as it is read from a release with these outputs; None: not known yet."""
    fields = {each.name: each for each in gives or ()}
    name = declared_name(output)
    chosen = name is None
    unread: Unread = ""
    if name is None and gives is not None:
        name = undeclared_name([each for each in gives if each.name not in spare])
        unread = "" if name is not None else "ambiguous"
    known = fields.get(name) if name is not None else None
    if gives is None:
        unread = "unknown"
    elif name is not None and known is None:
        unread = "missing"
    reads = _reads(output, known)
    if known is not None and (reads == "row" or _too_many(known, reads)):
        unread = "unreadable"
    return Target(
        kind=output.kind,
        score=output.score,
        threshold=output.threshold,
        label=output.label,
        tolerance=output.tolerance,
        function=output.function,
        value=output.value,
        classes=output.classes,
        name=name,
        reads=reads,
        unread=unread,
        chosen=chosen,
        dtype=known.dtype if known is not None else None,
        among=tuple(fields),
    )


def declared_name(output: Output) -> str | None:
    """Return the output that labels are about by the policy; None: it declares none."""
    return output.label or output.value or output.score


def undeclared_name(gives: Sequence[Field]) -> str | None:
    """Return the one output that labels can be about, or None where several could be meant.

    A word, a whole number or a truth value a row is a class. Without a class, a single number a row
    is the value. A vector could be probabilities, several targets or an embedding: it is never
    chosen.
    """
    scalars = [each for each in gives if each.shape in ((), (1,))]
    for floats in (False, True):
        names = [each.name for each in scalars if each.dtype.startswith("float") is floats]
        if len(names) > 1:
            names = [name for name in names if name.lower() in LABEL_NAMES] or names
        if names:
            return names[0] if len(names) == 1 else None
    return None


def _reads(output: Output, known: Field | None) -> Reads:
    """Return how the output is read; "row" where its form is not one class or number a row."""
    if output.kind == "binary":
        return "yes"
    if output.kind == "score":
        return "number"
    if output.kind == "ranking":
        return "ranking" if known is None or len(known.shape) == 1 else "row"
    if known is None:
        return "class" if output.label else "number" if output.value else "row"
    scalar = known.shape in ((), (1,))
    floats = known.dtype.startswith("float")
    if output.label or output.kind == "class":
        return "class" if scalar else "place" if floats and len(known.shape) == 1 else "row"
    if scalar:
        return "number" if floats or output.value else "class"
    return "number" if output.score and known.dtype != "string" else "row"


def _too_many(known: Field, reads: Reads) -> bool:
    """Return whether a row holds more numbers than a score: two are the chances of no and yes."""
    if reads not in ("yes", "number"):
        return False
    return len(known.shape) > 1 or any(size > 2 for size in known.shape)


# ---------------------------------------------------------------- what a label says


def spelled(value: str | float | bytes | bool) -> str:
    """Return a class in its one spelling: whole numbers without a point, truth values as 1 and 0."""
    if isinstance(value, str):
        return value
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int):
        return str(int(value))
    return str(int(value)) if isfinite(value) and value == int(value) else repr(float(value))


def truth(value: Known, classes: Sequence[str | int] = ()) -> bool | None:
    """Return an outcome as yes or no; None when it is neither. `classes` are no, then yes."""
    if value is None or isinstance(value, bool):
        return value
    if len(classes) == 2:
        no, yes = map(spelled, classes)
        numbered = any(isinstance(each, int) for each in classes)
        text = _whole(value) if numbered else spelled(value)
        if text in (no, yes):
            return text == yes
        if numbered:  # where the classes are 1 and 2, 0 is neither
            return None
    if isinstance(value, str):
        word = value.strip().lower()
        return True if word in YES else False if word in NO else None
    return bool(value) if value in {0, 1} else None


def number(value: Known) -> float | None:
    """Return an outcome as a number; None when it is none."""
    if value is None or (isinstance(value, str) and "_" in value):
        return None  # Python would read 1_000 as a number
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if isfinite(found) else None


def _whole(value: str | float | bool) -> str:
    """Return the one spelling of a whole number; other text as it is."""
    if isinstance(value, str):
        text = value.strip()
        sign, digits = ("-", text[1:]) if text[:1] == "-" else ("", text.removeprefix("+"))
        if digits.isascii() and digits.isdecimal():
            return str(int(sign + digits)) if len(digits) <= 20 else text
        known = number(value)
        return text if known is None else spelled(known)
    return spelled(value)


def normal(target: Target | None, value: Known) -> Known:
    """Return a label as it is stored: text for an output of words, a number for one of numbers.

    So a label has one value, whatever file it came in. A label that does not fit is unchanged.
    """
    if target is None or target.unread or value is None or isinstance(value, bool):
        return value
    words = target.dtype == "string" or any(isinstance(each, str) for each in target.classes)
    if words:
        return spelled(value) if target.reads in ("class", "place") else value
    known = number(value)
    if target.dtype == "bool" and known is None:
        said = truth(value)
        return value if said is None else float(said)
    if known is None:
        return value
    if target.reads == "number" or abs(known) < EXACT_BELOW or not isinstance(value, str):
        return known
    return _whole(value)


def relevant(value: Known) -> tuple[str, ...]:
    """Return the items that a label of a ranking names: one, or several with | between them."""
    if value is None:
        return ()
    return tuple(item for part in spelled(value).split(BETWEEN) if (item := part.strip()))


def unfit(output: Output, value: Known, *, measured: bool = False) -> Unfit | None:
    """Return why a label can equal no answer of this output; None when it can.

    Args:
        output: how answers are read; a `Target` knows the dtype.
        value: the outcome, not None.
        measured: the loss needs a number and not a class (`absolute_error`, `log_loss`, `brier`).
    """
    if isinstance(value, float) and not isfinite(value):
        return "not_finite"
    if isinstance(output, Target) and output.unread in ("ambiguous", "missing", "unreadable"):
        return output.unread
    if output.kind == "binary" and truth(value, output.classes) is None:
        return "not_yes_or_no"
    if output.kind == "ranking":
        return None if relevant(value) else "text"
    if output.kind == "score" and number(value) is None:
        return "text"
    if not isinstance(output, Target):
        return "text" if measured and number(value) is None and output.kind != "binary" else None
    if measured and output.dtype in ("string", "bool"):
        return "no_number"
    if output.kind == "binary" or value is None:
        return None
    if output.reads == "number":
        return (
            "no_number"
            if output.dtype == "string"
            else None
            if number(value) is not None
            else "text"
        )
    return _unfit_class(output, value)


def _unfit_class(target: Target, value: str | float | bool) -> Unfit | None:
    """Return why a label is none of the classes that an output can give."""
    if target.classes and target.reads in ("class", "place"):
        words = any(isinstance(each, str) for each in target.classes)
        text = spelled(value) if words else _whole(value)
        return None if text in set(map(spelled, target.classes)) else "not_a_class"
    if target.reads == "place":
        known = number(value)
        return (
            "text"
            if known is None
            else "fraction"
            if known != int(known)
            else "range"
            if known < 0
            else None
        )
    if target.dtype in (None, "string"):
        return None
    if target.dtype == "bool":
        return None if truth(value) is not None else "text" if number(value) is None else "range"
    known = number(value)
    if known is None:
        return "text"
    if target.dtype not in INTEGERS:
        return None
    least, most = INTEGERS[target.dtype]
    return "fraction" if known != int(known) else None if least <= known <= most else "range"


def equal(output: Output, score: float | None, decision: str | None, value: Known) -> bool:
    """Return whether an answer equals the outcome; false without an answer, or for a NaN.

    The label must fit (`unfit`).
    """
    if output.kind == "binary":
        said = decided(output, score, decision)
        return said is not None and said is truth(value, output.classes)
    if output.kind == "ranking":
        return not set(relevant(value)).isdisjoint((decision or "").split(BETWEEN))
    if value is None:
        return False
    if score is not None:
        known = number(value)
        if known is None:
            known_truth = (
                truth(value) if isinstance(output, Target) and output.dtype == "bool" else None
            )
            return known_truth is not None and score == known_truth
        if abs(known) >= EXACT_BELOW and decision is not None and decision.lstrip("-").isdecimal():
            return decision == _whole(value)
        tolerance = 0.0 if output.kind == "class" else output.tolerance
        return abs(score - known) <= tolerance  # a NaN is wrong
    if output.kind == "score" or decision is None:
        return False
    if isinstance(value, bool):
        return truth(decision) is value
    return decision == spelled(value)


def decided(output: Output, score: float | None, decision: str | None) -> bool | None:
    """Return an answer as yes or no; the score decides where no decision was stored."""
    said = truth(decision)
    if said is None and score is not None and isfinite(score):
        return score >= output.threshold
    return said


# ---------------------------------------------------------------- what to declare


def proposed(gives: Sequence[Field], spare: Collection[str] = ()) -> tuple[Output, ...]:
    """Return the outputs that a policy could declare for a signature, the likeliest first.

    There is one where the signature leaves one choice. A number alone may be a value or a
    probability, and a vector may hold the chances of classes. A person has to choose then.
    """
    fields = [each for each in gives if each.name not in spare]
    name = undeclared_name(fields)
    known = next((each for each in fields if each.name == name), None)
    if known is not None and not known.dtype.startswith("float"):
        return (Output(kind="class", label=known.name),)
    found: list[Output] = []
    for each in [known] if known is not None else fields:
        if not each.dtype.startswith("float"):
            found.append(Output(kind="class", label=each.name))
        elif each.shape in ((), (1,)):
            found.append(Output(kind="score", value=each.name, tolerance=0.5))
            found.append(Output(kind="binary", score=each.name))
        elif each.shape == (2,):
            found.append(Output(kind="binary", score=each.name))
        elif len(each.shape) == 1:
            found.append(Output(kind="class", label=each.name))
    return tuple(found)


def line(output: Output) -> str:
    """Return an output as it is written in kedge.toml: the differences from the defaults."""
    parts = [f'kind = "{output.kind}"']
    for key in ("score", "label", "value"):
        name = getattr(output, key)
        if name is not None:
            quoted = name.replace("\\", "\\\\").replace('"', '\\"')
            parts.append(f'{key} = "{quoted}"')
    if output.kind == "binary":
        parts.append(f"threshold = {output.threshold:g}")
    if output.kind == "score":
        parts.append(f"tolerance = {output.tolerance:g}")
    return f"output = {{{', '.join(parts)}}}"
