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
"""File in which a bundle describes itself."""


class Declared(NamedTuple):
    """Declaration that the decorator leaves on a function."""

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
        BadConfig: the declaration is invalid; the error lists every fault.
    """
    return features.declared(name, fields, keys)


def transform(
    schema: Schema,
    *,
    raw: Mapping[str, Field] | None = None,
    reads: Schema | Sequence[Schema] = (),
) -> Callable[[Function], Function]:
    """Mark a function as a transformation: raw columns in, the schema's columns out.

    It returns the function unchanged, and training and tests can call it directly.

    Args:
        schema: the schema that the function implements.
        raw: the fields that it takes from the request. None: the fields that it reads of the
            contract (`fields`) of the endpoints on this schema, and the keys of the schemas in
            `reads`.
        reads: materialised schemas. The function gets the columns of each as further arguments,
            in this order, with one row for each row of the request.
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
    """Mark a function that computes a schema's values ahead of time; they are stored by key.

    kedge calls `function(rows, at)` once for each slice. `rows` are the source's rows that became
    known in (at - lookback, at], and `at` is the slice's end in Unix seconds. The function returns
    columns: the keys and the schema's fields, with one row for each key whose value changes.

    Args:
        schema: the schema that it computes, with keys; its fields are float32, each with null
            or a default.
        source: a Parquet or CSV file beside kedge.toml, or a pattern for several files.
        time: the source's column with the time when a row became known: a timestamp, a date,
            Unix seconds, or text.
        every: the length of a slice, such as "1h".
        lookback: the age of the oldest row in `rows`. None: unlimited.
        ttl: the maximum age of a value when it is read. None: unlimited.
        time_format: the format of `time` where it is text, as for strptime: "%d.%m.%Y". None:
            ISO 8601. An ambiguous time (01/02/2026) is refused without it.

    Raises:
        BadConfig: the declaration is invalid; the error lists every fault.
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
    """Return a bundle's description of itself.

    Raises:
        CorruptArtifact: the description is missing or invalid.
    """
    try:
        return msgspec.json.decode((root / SPEC).read_bytes(), type=Spec)
    except (OSError, msgspec.DecodeError) as error:
        raise CorruptArtifact(f"{root / SPEC}: {error}") from error


__all__ = ["Columns", "Field", "materialise", "schema", "transform"]
