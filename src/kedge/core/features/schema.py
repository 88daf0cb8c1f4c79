"""Feature schemas and their transformations: an interface, its implementations, and differences.

A *schema* (`flight/1`) is an interface: ordered names with dtype, shape, null rule, unit, range
and categories. A change of any of these makes another schema. A *transformation version*
(`flight/1#4`) is code that implements one. A model version is made for exactly one schema, so an
operator can roll a transformation without touching the model, and the reverse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from math import isfinite, isnan
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from kedge.core import codec
from kedge.core.contract import unmet
from kedge.core.errors import BadConfig, Refused
from kedge.core.time.durations import seconds
from kedge.core.values import Dtype, Field, Signature, Value

_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}/[1-9][0-9]{0,5}")
_COLUMN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
RTOL, ATOL = 1e-6, 1e-9
"""Tolerances within which two answers differ by the order of a sum and not in meaning."""

Outcome = Literal["bit-equal", "within tolerance", "changed", "untested"]
"""`untested`: there were no real rows to compare on, or all were equal."""
EQUAL: frozenset[Outcome] = frozenset({"bit-equal", "within tolerance"})
"""Outcomes with which a transformation can reach production at once."""


class Feature(Value, frozen=True):
    """One column of a schema.

    Attributes:
        dtype: as NumPy names it, or "string".
        shape: of one row; () is a scalar.
        null: whether it can be missing (NaN in a float, "" in a string).
        unit: such as "h" or "USD"; compared as text.
        range: least and largest value, both allowed; for numbers.
        categories: the values that a string can have; () is any.
        default: of a materialised column, the value that replaces a missing one.
    """

    dtype: Dtype
    shape: tuple[int, ...] = ()
    null: bool = False
    unit: str | None = None
    range: tuple[float, float] | None = None
    categories: tuple[str, ...] = ()
    default: float | msgspec.UnsetType = msgspec.UNSET
    """Omitted from the digest if unset, as are `reads` and `view`."""


class Schema(Value, frozen=True):
    """An interface between transformations and models, such as `flight/1`."""

    name: str
    fields: dict[str, Feature]
    keys: tuple[str, ...] = ()
    """The columns that name the entity, for values that are looked up by key."""

    @property
    def digest(self) -> str:
        """The digest of everything that is promised, including the order of the columns."""
        return codec.fingerprint((self.name, tuple(self.fields.items()), self.keys))

    def columns(self) -> tuple[Field, ...]:
        """Return the features as the fields of a signature."""
        return tuple(
            Field(name, feature.dtype, feature.shape, feature.null)
            for name, feature in self.fields.items()
        )


class View(Value, frozen=True, kw_only=True):
    """How a schema is materialised: computed ahead of time, stored by key.

    Attributes:
        source: a Parquet or CSV file, or several by a pattern, beside kedge.toml.
        time: its column with the time at which a row became known.
        every: the length of a slice; values are computed at each slice's end.
        lookback: how far back from that end the input rows go. None: to the first row.
        ttl: the age limit of a value when it is read. None: no limit.
        time_format: the format of `time`, as for strptime. Unset: ISO 8601 if it is text. It is
            omitted from what is stored if unset, so that views without one keep their digests.
    """

    source: str
    time: str
    every: str = "1d"
    lookback: str | None = None
    ttl: str | None = None
    time_format: str | msgspec.UnsetType = msgspec.UNSET

    @property
    def form(self) -> str | None:
        """`time_format`, or None."""
        return None if self.time_format is msgspec.UNSET else self.time_format


class Spec(Value, frozen=True, kw_only=True):
    """The description of a bundle, in its `transform.json`."""

    schema: Schema
    entry: str
    """MODULE:FUNCTION within the bundle."""
    raw: tuple[Field, ...]
    """The function's inputs, taken from the request."""
    requires: dict[str, str] = {}
    """Packages that it imports beyond the standard library, NumPy and its own files, with
    versions."""
    reads: tuple[Schema, ...] | msgspec.UnsetType = msgspec.UNSET
    """The materialised schemas whose values it gets, by key."""
    view: View | msgspec.UnsetType = msgspec.UNSET
    """How it is materialised, if it is. No release has it; other transformations read its
    values."""

    @property
    def signature(self) -> Signature:
        """The signature: raw columns in, features out."""
        return Signature(inputs=self.raw, outputs=self.schema.columns())

    @property
    def read(self) -> tuple[Schema, ...]:
        """The schemas that it reads by key; () if none."""
        return self.reads or ()

    @property
    def bare(self) -> Signature:
        """The signature with the columns read by key as inputs, so that nothing is looked up."""
        looked = tuple(
            Field(f"{one.name}.{name}", feature.dtype, feature.shape, nullable=True)
            for one in self.read
            for name, feature in one.fields.items()
        )
        return Signature(inputs=(*self.raw, *looked), outputs=self.schema.columns())


class FeatureLimits(Value, frozen=True):
    """Limits of one call of a features file: its time, and the memory of its process."""

    timeout_s: float = 60.0
    memory_mb: int = 4096


class TransformVersion(Value, frozen=True):
    """An immutable implementation of a schema."""

    schema: str
    number: int
    digest: str
    """The digest of the bundle: its source, local imports, spec and requirements."""

    @property
    def label(self) -> str:
        """The displayed name: flight/1#4."""
        return f"{self.schema}#{self.number}"


class Difference(Value, frozen=True):
    """The difference of one column of two transformations on the same rows."""

    column: str
    outcome: Outcome
    rows: int
    """Rows that differ at all."""
    largest: float | None
    """The largest absolute difference of numbers."""
    example: tuple[Any, Any] | None
    """The first differing pair of values."""


# ---------------------------------------------------------------- declaring


def declared(name: str, fields: Mapping[str, Feature], keys: Sequence[str]) -> Schema:
    """Check the declaration of a schema and return the schema.

    Raises:
        BadConfig: the declaration is invalid; lists every fault.
    """
    faults = []
    if _NAME.fullmatch(name) is None:
        faults.append(f"{name!r}: a schema is named VIEW/VERSION, such as flight/1")
    if not fields:
        faults.append(f"{name}: has no columns")
    for column, feature in fields.items():
        at = f"{name}.{column}"
        if _COLUMN.fullmatch(column) is None:
            faults.append(f"{at}: a column has letters, digits and _")
        numeric = feature.dtype not in ("string", "bool")
        if feature.range is not None:
            low, high = feature.range
            if not numeric or not low <= high:
                faults.append(f"{at}: a range is of numbers, the least first; got {feature.range}")
        if feature.categories and feature.dtype != "string":
            faults.append(f"{at}: categories are of strings; it is {feature.dtype}")
        if feature.null and not (feature.dtype.startswith("float") or feature.dtype == "string"):
            faults.append(f"{at}: only a float or a string can be null; it is {feature.dtype}")
        if feature.default is not msgspec.UNSET and feature.dtype != "float32":
            faults.append(f"{at}: a default is of a materialised float32; it is {feature.dtype}")
        if any(size < 1 for size in feature.shape):
            faults.append(f"{at}: every length of a shape is 1 or more; got {list(feature.shape)}")
    if faults:
        raise BadConfig(faults, hint="nothing was applied")
    return Schema(name, dict(fields), tuple(keys))


def materialised(schema: Schema, view: View) -> None:
    """Check that a schema can be stored by key, and that its view is valid.

    Raises:
        BadConfig: the schema or view is invalid; lists every fault.
    """
    faults = []
    if not schema.keys:
        faults.append(f"{schema.name}: what is kept by key needs keys=[...]")
    faults += [
        f"{schema.name}.{key}: a key is no field: it is not among what is kept"
        for key in schema.keys
        if key in schema.fields
    ]
    for name, feature in schema.fields.items():
        if feature.dtype != "float32":
            faults.append(f"{schema.name}.{name}: is kept as float32; it is {feature.dtype}")
        elif not feature.null and feature.default is msgspec.UNSET:
            faults.append(
                f"{schema.name}.{name}: a key may have no value: null=True or default=..."
            )
    for part in ("every", "lookback", "ttl"):
        text = getattr(view, part)
        try:
            if text is not None and not seconds(text) >= 1:
                faults.append(f"{schema.name}: {part} is a second at least; got {text}")
        except ValueError as error:
            faults.append(f"{schema.name}: {part}: {error}")
    if faults:
        raise BadConfig(faults, hint="nothing was applied")


def differences(old: Schema, new: Schema) -> tuple[str, ...]:
    """Return what a new declaration of a schema changes, one line per change; () if nothing."""
    found = []
    if old.keys != new.keys:
        found.append(f"keys: {list(old.keys)} -> {list(new.keys)}")
    for name in [*old.fields, *(name for name in new.fields if name not in old.fields)]:
        before, after = old.fields.get(name), new.fields.get(name)
        if before is None or after is None:
            found.append(f"{name}: {'removed' if after is None else 'added'}")
            continue
        was, now = msgspec.structs.asdict(before), msgspec.structs.asdict(after)
        found += [
            f"{name}.{part}: {was[part]} -> {now[part]}" for part in was if was[part] != now[part]
        ]
    if not found and list(old.fields) != list(new.fields):
        found.append(f"order: {list(old.fields)} -> {list(new.fields)}")
    return tuple(found)


def refuse_change(old: Schema, new: Schema) -> None:
    """Raise if the declaration of a schema that models use has changed.

    Raises:
        Refused: `schema_changed`: names the differences.
    """
    changed = differences(old, new)
    if changed:
        view, _, number = old.name.partition("/")
        raise Refused(
            f"{old.name} is declared otherwise: {'; '.join(changed)}",
            code="schema_changed",
            hint=f"a change of the interface is a new schema: {view}/{int(number) + 1}",
        )


def misfit(signature: Signature, schema: Schema) -> tuple[str, ...]:
    """Return what a model needs and the schema does not give; () if it fits."""
    return unmet(signature, schema.columns())


# ---------------------------------------------------------------- comparing


def compared(
    old: Mapping[str, Sequence[Any]],
    new: Mapping[str, Sequence[Any]],
    columns: Sequence[str],
    *,
    tested: bool = True,
) -> tuple[Difference, ...]:
    """Return how two answers to the same rows differ, column by column.

    If not `tested`, the rows prove nothing. Differences are still named, without an outcome.
    """
    found = tuple(_difference(name, old[name], new[name]) for name in columns)
    return found if tested else tuple(replace(one, outcome="untested") for one in found)


def worst(one: Sequence[Difference], other: Sequence[Difference]) -> tuple[Difference, ...]:
    """Return the worse of two comparisons of the same columns, column by column."""
    rank = (*_WORST, "bit-equal")
    return tuple(
        min(pair, key=lambda each: (rank.index(each.outcome), -each.rows))
        for pair in zip(one, other, strict=True)
    )


def outcome_of(found: Sequence[Difference]) -> Outcome:
    """Return the worst outcome of the columns."""
    kinds = {one.outcome for one in found}
    return next((kind for kind in _WORST if kind in kinds), "bit-equal")


_WORST: tuple[Outcome, ...] = ("changed", "untested", "within tolerance")


def _difference(name: str, old: Sequence[Any], new: Sequence[Any]) -> Difference:
    apart = [(a, b) for a, b in zip(_flat(old), _flat(new), strict=True) if not _identical(a, b)]
    if not apart:
        return Difference(name, "bit-equal", 0, None, None)
    distances = [abs(a - b) for a, b in apart if _number(a) and _number(b)]
    close = len(distances) == len(apart) and all(
        abs(a - b) <= ATOL + RTOL * abs(a) for a, b in apart
    )
    kind: Outcome = "within tolerance" if close else "changed"
    return Difference(name, kind, len(apart), max(distances, default=None), apart[0])


def _flat(values: Sequence[Any]) -> list[Any]:
    found: list[Any] = []
    for value in values:
        found.extend(_flat(value) if isinstance(value, list | tuple) else (value,))
    return found


def _identical(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float) and isnan(a) and isnan(b):
        return True
    return type(a) is type(b) and bool(a == b)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
