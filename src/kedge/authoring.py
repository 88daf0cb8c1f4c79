"""What a features file is written with: `kedge.schema`, `kedge.Field`, `kedge.transform`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from kedge.core import features
from kedge.core.errors import CorruptArtifact
from kedge.core.features import Feature as Field
from kedge.core.features import Schema, Spec

Columns = Mapping[str, Any]
"""Columns by name: NumPy arrays of equal length. They are read-only."""
Function = TypeVar("Function", bound=Callable[..., Any])
MARK = "__kedge_transform__"
SPEC = "transform.json"
"""The file in which a bundle says what it is."""


class Declared(NamedTuple):
    """What the decorator leaves on a function."""

    schema: Schema
    raw: dict[str, Field] | None


def schema(name: str, *, fields: Mapping[str, Field], keys: Sequence[str] = ()) -> Schema:
    """Declare a feature schema: the interface between transformations and models.

    Args:
        name: VIEW/VERSION, such as "flight/1".
        fields: the columns, in their order.
        keys: the columns that name the entity.

    Raises:
        BadConfig: with every fault at once.
    """
    return features.declared(name, fields, keys)


def transform(
    schema: Schema, *, raw: Mapping[str, Field] | None = None
) -> Callable[[Function], Function]:
    """Mark a function as a transformation: raw columns in, the schema's columns out.

    The function stays what it is, so that training and tests call the very same code.

    Args:
        schema: what it implements.
        raw: what it takes out of the request. None: what it reads of the contract (`fields`) of
            the endpoints that are on this schema.
    """

    def mark(function: Function) -> Function:
        setattr(function, MARK, Declared(schema, None if raw is None else dict(raw)))
        return function

    return mark


def spec_of(root: Path) -> Spec:
    """What a bundle says of itself.

    Raises:
        CorruptArtifact: it says nothing that makes sense.
    """
    try:
        return msgspec.json.decode((root / SPEC).read_bytes(), type=Spec)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptArtifact(f"{root / SPEC}: {error}") from error


__all__ = ["Columns", "Field", "schema", "transform"]
