"""Trial of a model: rows with nulls, and the signature.json that would let it answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kedge.core.errors import KedgeError, ModelFailure, Refused
from kedge.core.golden import Lists, count, joined, made_rows, null_rows, taken, whole
from kedge.core.inputs import SIGNATURE_FILE, Described, signature_json
from kedge.core.values import Dtype
from kedge.inspection.independence import answerable, ask
from kedge.ports import Model

MOST_TRIED = 64
"""Maximum number of inputs whose two dtypes are both tried: each is a question to the model."""


def with_nulls(model: Model, rows: Lists) -> dict[str, list[Any]]:
    """Return the rows and more, so that each nullable input is null in one that is answered.

    Raises:
        Refused: `null_raised`: the model raises when an input is null that its signature calls
            nullable.
    """
    further, lacking = null_rows(model.signature.inputs, rows)
    plain = {name: list(values) for name, values in rows.items()}
    if not lacking or _fault(model, rows) is not None:
        return plain  # a fault of the rows themselves is reported where their answers are judged
    if _fault(model, _base(rows)) is None:  # else it takes no single row, and null is not the cause
        for row in range(count(further)):
            error = _fault(model, taken(further, [row]))
            if error is not None:
                name = _refused(model, rows, lacking) or lacking[row]
                raise _null_raised(model, name, str(error))
    both = joined([rows, further])
    error = _fault(model, both)
    if error is None:
        return both
    # Each of them was answered alone. Does it fail at so many rows, or at null beside other values?
    if _fault(model, taken(rows, [0] * count(both))) is not None:
        return plain
    name = next((n for n in lacking if _fault(model, _beside(model, rows, n)) is not None), "")
    raise _null_raised(model, name or lacking[0], f"in one of several rows, {error}")


def _fault(model: Model, rows: Lists) -> ModelFailure | None:
    """Return the model's failure at these rows, or None. Its answer's form is judged elsewhere."""
    try:
        ask(model, rows)
    except ModelFailure as error:
        return error if error.code == "model_raised" else None
    return None


def _base(rows: Lists) -> dict[str, list[Any]]:
    """Return the row that is repeated with nulls: the first one without nulls, if any."""
    full = whole(rows)
    return taken(full if count(full) else rows, [0])


def _alone(model: Model, rows: Lists, name: str) -> dict[str, list[Any]]:
    """Return one row in which only this input is null."""
    return null_rows([f for f in model.signature.inputs if f.name == name], rows)[0]


def _beside(model: Model, rows: Lists, name: str) -> dict[str, list[Any]]:
    return joined([rows, _alone(model, rows, name)])


def _null_raised(model: Model, name: str, said: str) -> Refused:
    stated = [
        f if f.name != name else msgspec.structs.replace(f, nullable=False)
        for f in model.signature.inputs
    ]
    return Refused(
        f"golden rows: {name} is nullable, and with null in it {said}",
        code="null_raised",
        hint=(
            "fit the model with a way to take a missing value, such as an imputer; or write "
            f"{SIGNATURE_FILE} beside the model, in which it is not: {signature_json(stated)}"
        ),
    )


def _refused(model: Model, rows: Lists, lacking: list[str]) -> str | None:
    """Return the first input that the model does not answer when only it is null."""
    for name in lacking:
        if _fault(model, _alone(model, rows, name)) is not None:
            return name
    return None


def way_in(model: Model) -> str:
    """Return the advice on a signature.json beside a model that answers no row; else "".

    Assumed dtypes are tried: the advice states those that let the model answer.
    """
    described: Described | None = getattr(model, "described", None)
    if described is None or not described.takes_signature:
        return ""
    dtypes = _answering(model, described)
    inputs = [
        msgspec.structs.replace(f, dtype=dtypes.get(f.name, f.dtype))
        for f in model.signature.inputs
    ]
    return (
        f"write {SIGNATURE_FILE} beside the model, with each input as it was fitted: "
        f"{signature_json(inputs)}"
    )


def _answering(model: Any, described: Described) -> dict[str, Dtype]:
    """Return dtypes of assumed inputs with which the model answers made rows; {} if none."""
    words: dict[str, Dtype] = dict.fromkeys(described.assumed, "string")
    if not words or not _answers(model, described, words):
        return {}
    for name in described.assumed[:MOST_TRIED]:
        fewer = {other: dtype for other, dtype in words.items() if other != name}
        if _answers(model, described, fewer):
            words = fewer
    return words


def _answers(model: Any, described: Described, dtypes: Mapping[str, Dtype]) -> bool:
    try:
        other: Model = model.with_dtypes(dtypes)
        kept, _ = answerable(other, whole(made_rows(other.signature.inputs, described.known)))
    except KedgeError:
        return False
    return count(kept) > 0
