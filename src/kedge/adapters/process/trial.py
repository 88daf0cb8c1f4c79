"""Trial of a model: rows with nulls for its nullable inputs, and the signature.json that would let it answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from kedge.core.errors import KedgeError, ModelFailure, Refused
from kedge.core.golden import Lists, count, joined, made_rows, null_rows, taken, whole
from kedge.core.inputs import SIGNATURE_FILE, Described, signature_json
from kedge.core.values import Dtype
from kedge.independence import answerable, ask
from kedge.ports import Model

MOST_TRIED = 64
"""Inputs of which both dtypes are tried, one by one: each is a question to the model."""


def with_nulls(model: Model, rows: Lists) -> dict[str, list[Any]]:
    """Return the rows and further ones, so that each nullable input is null in one and the model answers it.

    Raises:
        Refused: `null_raised`: it raises where an input is null that its signature calls nullable.
    """
    inputs = model.signature.inputs
    further, lacking = null_rows(inputs, rows)
    if not lacking:
        return {name: list(values) for name, values in rows.items()}
    for row in range(count(further)):
        try:
            ask(model, taken(further, [row]))
        except ModelFailure as error:
            if error.code != "model_raised":  # its form is judged where all answers are
                continue
            name = _refused(model, rows, lacking) or lacking[row]
            stated = [
                f if f.name != name else msgspec.structs.replace(f, nullable=False) for f in inputs
            ]
            raise Refused(
                f"golden rows: {name} is nullable, and with null in it {error}", code="null_raised",
                hint="fit the model with a way to take a missing value, such as an imputer; or write "
                f"{SIGNATURE_FILE} beside the model, in which it is not: {signature_json(stated)}",
            ) from error  # fmt: skip
    both = joined([rows, further])
    try:
        ask(model, both)
    except ModelFailure as error:
        if error.code == "model_raised":  # it takes one row at a time: each was answered by itself
            return {name: list(values) for name, values in rows.items()}
    return both


def _refused(model: Model, rows: Lists, lacking: list[str]) -> str | None:
    """The first input that the model does not answer when it alone is null."""
    for name in lacking:
        one, _ = null_rows([f for f in model.signature.inputs if f.name == name], rows)
        try:
            ask(model, one)
        except ModelFailure:
            return name
    return None


def way_in(model: Model) -> str:
    """Return what to write beside a model that answers no row, where its loader reads a signature.json; else "".

    Dtypes that are only assumed are tried out: those that let it answer are stated.
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
    """Dtypes of assumed inputs with which the model answers made rows; {} where none were found."""
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
