"""Inputs of a model: what it states beyond their dtypes, and signature.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from kedge.core import codec
from kedge.core.errors import UnfitModel
from kedge.core.golden import Known
from kedge.core.values import Dtype, Field, Value

SIGNATURE_FILE = "signature.json"
"""The file that states names, dtypes and nulls of a model's inputs, in the order of fitting."""
LABELS = frozenset({"label", "labels", "target", "y", "class", "outcome"})
"""Names of columns that are usually the label, and not an input."""


class Described(Value, frozen=True):
    """The facts that a loaded model states beyond its signature."""

    assumed: tuple[str, ...] = ()
    """Inputs whose dtype the model does not state: they are taken for float64."""
    tolerant: tuple[str, ...] = ()
    """Inputs in which it answers NaN, although it does not state that it was fitted on missing
    values."""
    computed: tuple[str, ...] = ()
    """Inputs with which its steps compute; only a training set states which of them hold
    booleans."""
    known: dict[str, Known] = {}
    """Words and numbers that its encoders know, by input."""
    takes_signature: bool = False
    """Whether its loader reads the inputs from a signature.json beside the model."""
    unnamed: int = 0
    """Number of columns of its inputs, if none of them has a name."""
    written_with: dict[str, str] = {}
    """Version of each library that wrote it, by its distribution name."""
    needs: tuple[str, ...] = ()
    """Modules that it needs where it is served, beyond those of its loader."""


def signature_json(inputs: Sequence[Field], outputs: Sequence[DeclaredName] | None = None) -> str:
    """Return the signature.json of these inputs, in one line and without defaults."""
    stated: list[dict[str, object]] = []
    for field in inputs:
        one: dict[str, object] = {"name": field.name}
        if field.dtype != "float64":
            one["dtype"] = field.dtype
        if field.shape:
            one["shape"] = list(field.shape)
        if field.nullable:
            one["nullable"] = True
        stated.append(one)
    whole = {"inputs": stated} | ({"outputs": outputs} if outputs else {})
    return msgspec.json.format(msgspec.json.encode(whole), indent=0).decode()


def settled(
    inputs: Sequence[Field], described: Described, found: Mapping[str, Field]
) -> tuple[Field, ...]:
    """Return the inputs, completed from a training set where the model states too little."""
    stated = []
    for field in inputs:
        seen = found.get(field.name)
        if seen is None:
            stated.append(field)
        elif field.name in described.assumed or (
            seen.dtype == "bool" and field.name in described.computed
        ):
            stated.append(seen)
        elif seen.nullable and field.name in described.tolerant:
            stated.append(msgspec.structs.replace(field, nullable=True))
        else:
            stated.append(field)
    return tuple(stated)


def with_names(inputs: Sequence[Field], names: Sequence[str]) -> tuple[Field, ...]:
    """Return unnamed inputs under these names: one for each, or for each place of a tensor."""
    if len(inputs) == 1 and inputs[0].shape:
        return tuple(Field(name, inputs[0].dtype, nullable=inputs[0].nullable) for name in names)
    return tuple(
        msgspec.structs.replace(field, name=name) for field, name in zip(inputs, names, strict=True)
    )


def pick_names(names: Sequence[str], count: int) -> list[str]:
    """Return the likeliest `count` columns of a file for a model without names, in order.

    A column with a usual name of labels is left out if there is one too many.
    """
    inputs = [name for name in names if name.lower() not in LABELS]
    return (inputs if len(inputs) >= count else list(names))[:count]


class DeclaredField(msgspec.Struct, forbid_unknown_fields=True):
    """An input in a signature.json."""

    name: str
    dtype: Dtype = "float64"
    shape: tuple[int, ...] = ()
    nullable: bool = False
    # `engine/bounds.py` reads bounds from the same file when the version is registered.
    range: msgspec.Raw = msgspec.Raw()
    max_length: msgspec.Raw = msgspec.Raw()
    categories: msgspec.Raw = msgspec.Raw()


class DeclaredName(msgspec.Struct):
    """The name of an output."""

    name: str


class DeclaredSignature(msgspec.Struct, forbid_unknown_fields=True):
    """A signature.json."""

    inputs: list[DeclaredField] | None = None
    outputs: list[DeclaredName] | None = None


def read_declared(raw: bytes) -> DeclaredSignature:
    """Parse a signature.json.

    Raises:
        UnfitModel: `bad_signature`: the file is invalid.
    """
    try:
        return codec.read_written(raw, DeclaredSignature)
    except msgspec.DecodeError as error:
        raise UnfitModel(
            f"{SIGNATURE_FILE}: {error}",
            code="bad_signature",
            hint='{"inputs": [{"name": "age", "dtype": "float64"}], "outputs": [{"name": "p"}]}',
        ) from error


def with_output_names(
    outputs: tuple[Field, ...], names: Sequence[DeclaredName]
) -> tuple[Field, ...]:
    """Return the outputs under the names from a signature.json, in the model's order.

    Raises:
        UnfitModel: `bad_signature`: it names more or fewer outputs.
    """
    if len({each.name for each in names}) < len(names):
        raise UnfitModel(f"{SIGNATURE_FILE} gives two outputs one name", code="bad_signature")
    if len(names) != len(outputs):
        raise UnfitModel(
            f"{SIGNATURE_FILE} names {len(names)} outputs; the model gives {len(outputs)}: "
            + ", ".join(field.name for field in outputs),
            code="bad_signature",
        )
    return tuple(
        msgspec.structs.replace(field, name=wanted.name)
        for field, wanted in zip(outputs, names, strict=True)
    )
