"""Authoring of a features file: `schema`, `Field`, `transform` and `materialise`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec

from kedge.core.errors import CorruptArtifact
from kedge.core.features import schema as features
from kedge.core.features.schema import Feature as Field
from kedge.core.features.schema import Schema, Spec, View

Columns = Mapping[str, Any]
"""Columns by name: NumPy arrays of equal length. They are read-only."""
Function = TypeVar("Function", bound=Callable[..., Any])
MARK = "__kedge_transform__"
SPEC = "transform.json"
"""The file in which a bundle says what it is."""


class Declared(NamedTuple):
    """What the decorator leaves on a function."""

    schema: Schema
    raw: dict[str, Field] | None = None
    reads: tuple[Schema, ...] = ()
    view: View | None = None


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
    schema: Schema,
    *,
    raw: Mapping[str, Field] | None = None,
    reads: Schema | Sequence[Schema] = (),
) -> Callable[[Function], Function]:
    """Mark a function as a transformation: raw columns in, the schema's columns out.

    The function stays what it is, so that training and tests call the very same code.

    Args:
        schema: what it implements.
        raw: what it takes out of the request. None: what it reads of the contract (`fields`) of
            the endpoints that are on this schema, and the keys of what it `reads`.
        reads: materialised schemas; the function is given the columns of each, a row of it for
            each row of the request, as further arguments in this order.
    """

    def mark(function: Function) -> Function:
        looked = (reads,) if isinstance(reads, Schema) else tuple(reads)
        taken = None if raw is None else dict(raw)
        setattr(function, MARK, Declared(schema, taken, reads=looked))
        return function

    return mark


def materialise(
    schema: Schema,
    *,
    source: str,
    time: str,
    every: str = "1d",
    lookback: str | None = None,
    ttl: str | None = None,
    time_format: str | None = None,
) -> Callable[[Function], Function]:
    """Mark a function that computes a schema's values ahead of time, to be kept by key.

    It is called as `function(rows, at)`, once a slice: `rows` are the source's rows that became
    known in (at - lookback, at], `at` the slice's end in Unix seconds. It gives columns: the
    keys, and the schema's fields, a row for each key whose value changes.

    Args:
        schema: what it gives, with keys; its fields are float32, each with null or a default.
        source: a Parquet or CSV file, or several by a pattern, beside kedge.toml.
        time: the source's column that says when a row became known: a timestamp, a date, Unix
            seconds, or text.
        every: the length of a slice, such as "1h".
        lookback: how far back `rows` go. None: to the beginning.
        ttl: how old a value may be when it is read. None: as old as it likes.
        time_format: how `time` is written where it is text, as for strptime: "%d.%m.%Y". None: ISO
            8601. A time that can be read in two ways (01/02/2026) is refused without it.

    Raises:
        BadConfig: with every fault at once.
    """
    view = View(
        source=source,
        time=time,
        every=every,
        lookback=lookback,
        ttl=ttl,
        time_format=time_format or msgspec.UNSET,
    )
    features.materialised(schema, view)

    def mark(function: Function) -> Function:
        setattr(function, MARK, Declared(schema, view=view))
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


__all__ = ["Columns", "Field", "materialise", "schema", "transform"]
