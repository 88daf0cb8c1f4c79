"""Signatures: the inputs and outputs of a model, and how an endpoint's answer is read."""

from __future__ import annotations

from typing import Literal

import msgspec

from kedge.core.values.structs import Value

Dtype = Literal[
    "bool",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "int8",
    "int16",
    "int32",
    "int64",
    "float16",
    "float32",
    "float64",
    "string",
]


class Field(Value, frozen=True):
    """One named input or output. `shape` is that of one row: () is a scalar, -1 any length.

    `range`, `max_length` and `categories` bound an input: a gateway refuses other values before it
    calls a model. Unset bounds are omitted from what is stored, so that digests stay equal.
    """

    name: str
    dtype: Dtype
    shape: tuple[int, ...] = ()
    nullable: bool = False
    range: tuple[float, float] | msgspec.UnsetType = msgspec.UNSET
    """Least and largest value, both allowed; for numbers."""
    max_length: int | msgspec.UnsetType = msgspec.UNSET
    """Limit of values along a length of -1; of a text without one, limit of characters."""
    categories: tuple[str | int, ...] | msgspec.UnsetType = msgspec.UNSET
    """The allowed values, for texts and whole numbers."""

    @property
    def is_bounded(self) -> bool:
        """Return whether its bounds refuse values that fit its type."""
        return (self.range, self.max_length, self.categories) != (msgspec.UNSET,) * 3


class Signature(Value, frozen=True):
    """The inputs and outputs of a model, in order."""

    inputs: tuple[Field, ...]
    outputs: tuple[Field, ...]


class Output(Value, frozen=True):
    """How an endpoint's answer is read for comparisons of releases and for labels.

    `binary` decides at `threshold` of the output `score`. `score` compares one number, the output
    `value` or `score`. `class` compares the class in the output `label`. `ranking` compares the
    order of the items in the output `label`, a vector with the best first. `exact` compares every
    output for equality. `custom` calls `function`, "module:name". In `exact` and `custom`, `label`
    or `value` names the output that labels are compared with.
    """

    kind: Literal["binary", "score", "class", "ranking", "exact", "custom"] = "exact"
    score: str | None = None
    threshold: float = 0.5
    tolerance: float = 0.0
    function: str | None = None
    label: str | None = None
    """The output with the class: words, whole numbers, or a vector whose largest place is the
    class."""
    value: str | None = None
    """The output with the number."""
    classes: tuple[str | int, ...] = ()
    """The classes in the order of a vector of probabilities. In `binary`: no, then yes."""
