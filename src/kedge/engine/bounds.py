"""Bounds of a version's inputs: stated in a signature.json beside the model, or learned from its training set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from kedge.core import codec
from kedge.core.bounds import BOUNDS, TrainingColumn, bounded, learn, misdeclared
from kedge.core.errors import Refused
from kedge.core.values import ColumnStatistics, Field, Signature

FILE = "signature.json"
HINT = '{"inputs": [{"name": "age", "range": [0, 120]}]}'


class _Stated(msgspec.Struct):
    """Bounds of one input in a file; fields that a loader reads are skipped."""

    name: str
    range: tuple[float, float] | msgspec.UnsetType = msgspec.UNSET
    max_length: int | msgspec.UnsetType = msgspec.UNSET
    categories: tuple[str | int, ...] | msgspec.UnsetType = msgspec.UNSET


class _File(msgspec.Struct):
    inputs: list[_Stated] = []


def with_bounds(
    signature: Signature, source: Path, statistics: Mapping[str, ColumnStatistics] | None = None
) -> Signature:
    """Return a model's signature with the bounds of its inputs.

    Args:
        signature: the model's inputs and outputs, from its loader.
        source: the file or directory that is registered; signature.json is in it.
        statistics: of the training set, to learn bounds of inputs that have none. None: learn none.

    Raises:
        Refused: `bad_signature`: the stated bounds do not fit the inputs.
    """
    inputs = bounded(signature.inputs, _stated(source / FILE, signature))
    if statistics is not None:
        inputs = tuple(
            learn(field, seen(statistics[field.name])) if field.name in statistics else field
            for field in inputs
        )
    return msgspec.structs.replace(signature, inputs=inputs)


def _stated(file: Path, signature: Signature) -> dict[str, Field]:
    """Return the inputs with the bounds that a file states."""
    if not file.is_file():
        return {}
    try:
        read = codec.read_written(file.read_bytes(), _File)
    except (OSError, msgspec.DecodeError) as error:
        raise Refused(f"{FILE}: {error}", code="bad_signature", hint=HINT) from error
    inputs = {field.name: field for field in signature.inputs}
    found, faults = {}, list[str]()
    for one in read.inputs:
        bounds = {name: getattr(one, name) for name in BOUNDS}
        if all(bound is msgspec.UNSET for bound in bounds.values()):
            continue
        if one.name not in inputs:
            faults.append(f"{one.name} has bounds, and is no input of the model")
            continue
        field = msgspec.structs.replace(inputs[one.name], **bounds)
        faults += [f"{one.name}.{name} {fault}" for name, fault in misdeclared(field).items()]
        found[one.name] = field
    if faults:
        raise Refused(f"{FILE}: {'; '.join(faults)}", code="bad_signature", hint=HINT)
    return found


def seen(statistics: ColumnStatistics) -> TrainingColumn:
    """Return the bounds that a column of a training set shows."""
    told = len(statistics.values) == statistics.distinct
    return TrainingColumn(
        statistics.count - statistics.nulls,
        statistics.minimum,
        statistics.maximum,
        tuple(statistics.values) if told else (),
        statistics.longest or 0,
    )
