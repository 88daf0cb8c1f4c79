"""Outputs of a booster: probabilities with the label that they decide, a label, or a number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from kedge.core.errors import UnfitModel
from kedge.core.values import Dtype, Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]


class BoosterAnswer(StrEnum):
    """What a booster's `predict` returns for a row."""

    PROBABILITY = "probability"
    """The probability of the second of two classes."""
    PROBABILITIES = "probabilities"
    """The probability of each class."""
    LABEL = "label"
    """The number of a class."""
    NUMBER = "number"
    """A number, or several."""


class BoosterHead(NamedTuple):
    """The outputs of a booster, and the function from what it predicts to them."""

    fields: tuple[Field, ...]
    split: Callable[[Array], tuple[Array, ...]]


def head_of(answer: BoosterAnswer, width: int, classes: Sequence[Any] | None = None) -> BoosterHead:
    """Return the outputs.

    Args:
        answer: what the booster predicts.
        width: the number of classes, or of numbers of a row.
        classes: the labels by number, as the file has them; None: the numbers themselves.

    Raises:
        UnfitModel: labels of this kind are not supported.
    """
    dtype, labels = _labels(classes)
    label = Field("label", dtype)
    if answer is BoosterAnswer.PROBABILITY:

        def binary(predicted: Array) -> tuple[Array, ...]:
            p = predicted.reshape(-1).astype(np.float64)
            return p, _named(p > 0.5, labels)

        return BoosterHead((Field("score", "float64"), label), binary)
    if answer is BoosterAnswer.PROBABILITIES:

        def several(predicted: Array) -> tuple[Array, ...]:
            p = predicted.reshape(-1, width).astype(np.float64)
            return p, _named(p.argmax(axis=1), labels)

        return BoosterHead((Field("probabilities", "float64", (width,)), label), several)
    if answer is BoosterAnswer.LABEL:
        return BoosterHead(
            (label,), lambda predicted: (_named(predicted.reshape(-1).astype(np.int64), labels),)
        )
    shape = () if width == 1 else (width,)

    def number(predicted: Array) -> tuple[Array, ...]:
        return (predicted.reshape(-1, *shape).astype(np.float64),)

    return BoosterHead((Field("prediction", "float64", shape),), number)


def _labels(classes: Sequence[Any] | None) -> tuple[Dtype, Array | None]:
    if classes is None:
        return "int64", None
    if all(isinstance(one, str) for one in classes):
        return "string", np.array([*classes], dtype=object)
    numbers = np.array([*classes])
    if numbers.dtype.kind in "iu":
        return "int64", numbers.astype(np.int64)
    if numbers.dtype.kind == "b":
        return "bool", numbers
    if numbers.dtype.kind == "f":
        return "float64", numbers.astype(np.float64)
    raise UnfitModel(f"labels such as {classes[0]!r} are not supported")


def _named(number: Array, labels: Array | None) -> Array:
    codes = number.astype(np.int64)
    return codes if labels is None else labels.take(codes)
