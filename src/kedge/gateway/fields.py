"""Fields: one input of a request, from JSON or bytes to the column that the contract declares.

A typed decoder per dtype decodes JSON. So it finds a string in a float tensor, a null that is not
allowed, or 300 in a uint8, before the model runs. Data that does not decode is checked again,
slowly, to name the wrong value.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from functools import cached_property
from itertools import chain
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core.contract import FROM_OIP, OIP_DTYPES
from kedge.core.errors import BadRequest
from kedge.core.keys import EXACT
from kedge.core.phrases import clip, tell_fault, tell_shape, tell_value
from kedge.core.values import Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[Any]

DIGITS = 18
"""Maximum digits of a length that is read as a number."""
SMALL = 64
"""Maximum number of values for which a Python loop tests finiteness faster than a NumPy call."""
SCANNED = 16 * 1024
"""From this many bytes on, a body's values are counted before they are built. A smaller body cannot
hold enough to occupy a worker."""
EXACT_FLOATS = {"float16": 2**11, "float32": 2**24, "float64": EXACT}
"""Magnitude from which a float cannot represent every whole number (IEEE 754)."""
LIST = {list}
_ELEMENTS: dict[str, type] = {"bool": bool, "string": str}
_WIDTHS = {"float16": 2, "float32": 4, "float64": 8}
_nested: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_STRING_OR = {
    mark: re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|' + re.escape(mark), re.DOTALL)
    for mark in (b"{", b"[", b",", b":")
}


def exceeds(raw: bytes, mark: bytes, most: int) -> bool:
    """Return whether JSON has a character more than `most` times, not counting those in strings.

    The plain count is nearly always enough. The walk ends at the first excess character, so that
    the limit bounds it and not the size of the request.
    """
    if raw.count(mark) <= most:
        return False
    found = 0
    for match in _STRING_OR[mark].finditer(raw):
        if match.end() - match.start() == 1:
            found += 1
            if found > most:
                return True
    return False


def too_many_rows(rows: int, most: int) -> BadRequest:
    """Return the error for a request with too many rows."""
    return BadRequest(
        f"{rows} rows; at most {most} are taken in one request",
        code="too_many_rows",
        hint="split the request",
    )


def bad(field: str, what: str, code: str, hint: str = "", row: int | None = None) -> BadRequest:
    """Return the error of a field; `row` is the row, counted from 0."""
    details: dict[str, object] = {"field": field}
    if row is not None:
        details["row"] = row
    return BadRequest(f"{field} {what}", code=code, hint=hint, details=details)


class FieldReader:
    """The reader of one field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.datatype = OIP_DTYPES[field.dtype]
        self._float = field.dtype.startswith("float")
        kind = _ELEMENTS.get(field.dtype, float if self._float else int)
        wanted: Any = list[kind | None] if field.nullable else list[kind]  # type: ignore[valid-type]
        self._kind = kind
        self._element: Any = kind | None if field.nullable else kind
        self._flat: Any = wanted
        self._decode: Callable[[msgspec.Raw], list[Any]] = msgspec.json.Decoder(wanted).decode
        self._plain: Any = object if field.dtype == "string" else np.dtype(field.dtype)
        self._dtype = self._plain
        self._most = float(np.finfo(field.dtype).max) if self._float and not field.nullable else 0.0
        """The largest number that fits; 0 if each value must be checked."""
        if field.nullable and not self._float:
            self._dtype = object
        self._others: dict[str, FieldReader] = {}
        """Readers of other datatypes that this field accepts if no value changes."""

    # ------------------------------------------------------------ tensors

    def read(self, tensor: Tensor, most_rows: int) -> Array:
        """Read JSON values, flat or nested like the shape."""
        if tensor.datatype != self.datatype:
            return self._converted(self._other(tensor.datatype).read(tensor, most_rows), tensor)
        shape = self._shape(tensor)
        if len(memoryview(tensor.data)) > SCANNED:
            self._scan(bytes(tensor.data), shape, most_rows)
        try:
            data = self._decode(tensor.data)
        except msgspec.ValidationError:
            data = self._unflat(tensor)
        except UnicodeDecodeError:
            raise bad(self.field.name, "is not UTF-8", "wrong_dtype") from None
        except msgspec.DecodeError:
            raise bad(self.field.name, "has no data", "malformed_body") from None
        return self._array(data, shape)

    def read_binary(self, tensor: Tensor, raw: memoryview) -> Array:
        """Read raw little-endian values, row by row (BYTES: each value follows its length)."""
        if tensor.datatype != self.datatype:
            return self._converted(self._other(tensor.datatype).read_binary(tensor, raw), tensor)
        shape = self._shape(tensor)
        if self.field.dtype == "string":
            return self._array(_strings(self.field.name, raw), shape)
        dtype = np.dtype(self.field.dtype)
        if len(raw) % dtype.itemsize:
            raise bad(self.field.name, "has a broken number of bytes", "wrong_shape")
        values = np.frombuffer(raw, dtype=dtype.newbyteorder("<")).astype(dtype)
        if self._float:
            wrong = np.isinf(values) if self.field.nullable else ~np.isfinite(values)
            if wrong.any():
                raise bad(self.field.name, "has a value that is not finite", "not_finite")
        elif self.field.dtype == "bool" and (values.view(np.uint8) > 1).any():
            raise bad(self.field.name, "has a byte that is neither 0 nor 1", "wrong_dtype")
        if values.size != prod(shape):
            raise self._miscounted(values.size, shape)
        return self._shaped(values, shape)

    def nulls(self, rows: int) -> Array:
        """Return a column with null in every row."""
        shape = (rows, *(max(size, 0) for size in self.field.shape))
        return np.full(shape, np.nan if self._float else None, dtype=self._dtype)

    def _scan(self, raw: bytes, shape: tuple[int, ...], most_rows: int) -> None:
        """Raise if there are more values or lists than the shape holds, before building any."""
        if shape[0] > most_rows:
            raise too_many_rows(shape[0], most_rows)
        size, lists = 1, 1
        for length in shape:
            size *= length
            lists += size
        if exceeds(raw, b",", max(size - 1, 0)):
            raise bad(
                self.field.name,
                f"has more than {size} values; its shape is {tell_shape(shape)}",
                "wrong_shape",
            )
        if exceeds(raw, b"[", lists):
            raise bad(
                self.field.name, f"has more lists than its shape {tell_shape(shape)}", "wrong_shape"
            )

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        """Return the array's shape: rows first, then the declared shape of one row."""
        field = self.field
        given = tensor.shape
        row = given[1:]
        if not given or given[0] < 0:
            raise bad(
                field.name,
                f"has shape {tell_shape(given)}; the first number is the rows",
                "wrong_shape",
            )
        if not field.shape:
            if row not in ([], [1]):
                raise bad(
                    field.name,
                    f"has shape {tell_shape(given)}; declared is one value a row",
                    "wrong_shape",
                )
            return (given[0],)
        fits = len(row) == len(field.shape) and all(
            size == wanted or (wanted == -1 and size >= 0)
            for size, wanted in zip(row, field.shape, strict=True)
        )
        if not fits:
            wanted = tell_shape(["rows", *field.shape])
            raise bad(
                field.name, f"has shape {tell_shape(given)}; declared is {wanted}", "wrong_shape"
            )
        return tuple(given)

    def _array(self, data: list[Any], shape: tuple[int, ...]) -> Array:
        size = 1
        for length in shape:
            size *= length
        if len(data) != size:
            raise self._miscounted(len(data), shape)
        if self._dtype is object:
            if self.field.dtype != "string":
                self._in_range(data, [value for value in data if value is not None])
            array = np.empty(size, dtype=object)
            array[:] = data
            return self._shaped(array, shape)
        if (
            self._most
            and 0 < len(data) <= SMALL
            and -self._most <= min(data)
            and max(data) <= self._most
        ):
            # JSON has no NaN, and all values are in range.
            array = np.array(data, dtype=self._plain)
        else:
            array = self._in_range(data, data)
            if self._float:
                self._finite(data, array)
        return array if len(shape) == 1 else self._shaped(array, shape)

    def _miscounted(self, count: int, shape: Sequence[int]) -> BadRequest:
        return bad(
            self.field.name,
            f"has {_tell_count(count)}; its shape {tell_shape(shape)} holds {prod(shape)}",
            "wrong_shape",
        )

    def _in_range(self, data: list[Any], values: list[Any]) -> Array:
        """Return values in the declared dtype; `data` has the nulls too, to locate a fault."""
        try:
            with np.errstate(over="ignore"):
                return np.array(values, dtype=self._plain)
        except OverflowError:
            least, most = self._limits
            at = next(i for i, v in enumerate(data) if v is not None and not least <= v <= most)
            raise bad(
                self.field.name,
                f"does not fit {self.field.dtype}: value {at} is {tell_value(data[at])}; "
                f"the least is {least}, the largest {most}",
                "wrong_dtype",
            ) from None

    @cached_property
    def _limits(self) -> tuple[int, int]:
        known = np.iinfo(self.field.dtype)
        return int(known.min), int(known.max)

    def _shaped(self, array: Array, shape: tuple[int, ...]) -> Array:
        """Reshape an array; raise if an empty one declares a length that no array can have."""
        try:
            return array.reshape(shape)
        except ValueError:
            raise bad(
                self.field.name, f"has shape {tell_shape(shape)}, which no array has", "wrong_shape"
            ) from None

    def _finite(self, data: list[Any], array: Array) -> None:
        if self.field.nullable:
            nulls = data.count(None)
            if int(np.isfinite(array).sum()) + nulls == len(data):
                return
        elif len(data) <= SMALL and array.dtype.itemsize == 8:
            if all(map(isfinite, data)):
                return
        elif np.isfinite(array).all():
            return
        raise bad(
            self.field.name, f"has a value that is not finite as {self.field.dtype}", "not_finite"
        )

    # ------------------------------------------------------------ nested or wrong data

    def _unflat(self, tensor: Tensor) -> list[Any]:
        """Read data that is nested like the shape, or raise with its fault."""
        try:
            if len(tensor.shape) > 1:
                try:
                    return self._flattened(self._deep(tensor.data), tensor.shape, typed=True)
                except msgspec.ValidationError:
                    pass  # other types or another nesting: found below
            data = _nested.decode(tensor.data)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise bad(
                self.field.name, f"cannot be read: {tell_fault(error)}", "wrong_dtype"
            ) from None
        if not isinstance(data, list):
            raise bad(
                self.field.name,
                f"has {tell_value(data)} as its data",
                "wrong_dtype",
                "data is a list of values",
            )
        shape = [len(data)]
        if list in set(map(type, data)):
            data, shape = self._flattened(data, tensor.shape), tensor.shape
        return self._typed(data, lambda at: (f"at data{_place(at, shape)}", None))

    @cached_property
    def _deep(self) -> Callable[[msgspec.Raw], list[Any]]:
        """A decoder of data that is nested like the shape."""
        wanted = self._flat
        for _ in self.field.shape or (1,):
            wanted = list[wanted]  # type: ignore[valid-type]
        decode: Callable[[msgspec.Raw], list[Any]] = msgspec.json.Decoder(wanted).decode
        return decode

    def _flattened(
        self, data: list[Any], shape: Sequence[int], row: int | None = None, *, typed: bool = False
    ) -> list[Any]:
        """Return the values of nested lists in order.

        Args:
            data: the lists.
            shape: the required length of the lists at each depth.
            row: the number of their row, if the caller sent rows.
            typed: whether their depth is known to be that of the shape.

        Raises:
            BadRequest: `wrong_shape`: the lists do not fit the shape; the error names the place.
        """
        lists = [data]
        for depth, size in enumerate(shape):
            if not (typed or set(map(type, lists)) <= LIST) or not set(map(len, lists)) <= {size}:
                raise self._misnested(lists, shape, depth, row)
            lists = list(chain.from_iterable(lists))
        if not typed and list in set(map(type, lists)):
            raise self._misnested(lists, shape, len(shape), row)
        return lists

    def _misnested(
        self, parts: list[Any], shape: Sequence[int], depth: int, row: int | None
    ) -> BadRequest:
        """Return the error of the first part at this depth that does not fit the shape."""
        wrong = [
            (
                type(one) is list
                if depth == len(shape)
                else type(one) is not list or len(one) != shape[depth]
            )
            for one in parts
        ]
        at = wrong.index(True)
        one = parts[at]
        found = (
            _tell_count(len(one)) if type(one) is list and depth < len(shape) else tell_value(one)
        )
        where = "data" if row is None else f"row {row}"
        hint = "data is flat, row by row, or nested as the shape is"
        return bad(
            self.field.name,
            f"has {found} at {where}{_place(at, shape[:depth])}; its shape is {tell_shape(shape)}",
            "wrong_shape",
            hint if row is None else "a row holds lists that are nested as the shape is",
            row,
        )

    def _typed(self, values: list[Any], place: Callable[[int], Place]) -> list[Any]:
        """Check JSON values that were decoded without a type; whole floats become integers.

        Raises:
            BadRequest: the error names the first value that does not fit, and its place.
        """
        if self._kind is int:
            values = [
                int(v) if type(v) is float and v.is_integer() and abs(v) < EXACT else v
                for v in values
            ]
        try:
            typed: list[Any] = msgspec.convert(values, self._flat)
        except msgspec.ValidationError:
            at = next(at for at, value in enumerate(values) if not self._takes(value))
            raise self._unfit(values[at], place(at)) from None
        return typed

    def _takes(self, value: Any) -> bool:
        try:
            msgspec.convert(value, self._element)
        except msgspec.ValidationError:
            return False
        return True

    def _unfit(self, value: Any, place: Place) -> BadRequest:
        field, (where, row) = self.field, place
        if value is None:
            return bad(
                field.name,
                f"is null {where}, and is not nullable",
                "null_value",
                "declare it nullable in kedge.toml if callers may leave it out",
                row,
            )
        return bad(
            field.name,
            f"is {tell_value(value)} {where}, not {WORDS[self._kind]} ({field.dtype})",
            "wrong_dtype",
            "",
            row,
        )

    # ------------------------------------------------------------ other datatypes

    def _other(self, datatype: str) -> FieldReader:
        """Return the reader of another datatype whose values this field may hold unchanged.

        Raises:
            BadRequest: `wrong_dtype`: the field holds none of its values, or would round them.
        """
        other = self._others.get(datatype)
        if other is None:
            dtype = FROM_OIP.get(datatype, "")
            if not _widens(dtype, self.field.dtype):
                rounds = _WIDTHS.get(dtype, 0) > _WIDTHS.get(self.field.dtype, 9)
                raise bad(
                    self.field.name,
                    f"is {clip(datatype)}; declared is {self.datatype}",
                    "wrong_dtype",
                    (
                        f"send {self.datatype}: {self.field.dtype} would round the values"
                        if rounds
                        else f"send {self.datatype}"
                    ),
                )
            other = FieldReader(msgspec.structs.replace(self.field, dtype=dtype))
            self._others[datatype] = other
        return other

    def _converted(self, given: Array, tensor: Tensor) -> Array:
        """Return values of another datatype in the declared one.

        Raises:
            BadRequest: `wrong_dtype`: a value would change; the error names it.
        """
        flat = given.reshape(-1)
        source = np.dtype(FROM_OIP[tensor.datatype])
        nulls = _is_null(flat)
        if nulls.any():
            numbers = np.where(nulls, 0, flat).astype(source)
        else:
            numbers = flat.astype(source, copy=False)
        wrong = self._changed(numbers)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise bad(
                self.field.name,
                f"has {numbers[at]} at value {at}, which {self.field.dtype} does not hold"
                " unchanged",
                "wrong_dtype",
            )
        found = numbers.astype(self._plain).astype(self._dtype)
        if nulls.any():
            found[nulls] = np.nan if self._float else None
        return found.reshape(given.shape)

    def _changed(self, numbers: Array) -> NDArray[np.bool_]:
        """Return a mask of the numbers that the declared dtype would change."""
        if numbers.dtype.kind == "f" and self._float:
            return np.zeros(numbers.shape, np.bool_)  # a wider float
        if self._float:
            most = EXACT_FLOATS[self.field.dtype]
            return np.asarray((numbers > most) | (numbers < -most))
        least, largest = self._limits
        if numbers.dtype.kind != "f":
            return np.asarray((numbers < least) | (numbers > largest))
        exact = EXACT_FLOATS[numbers.dtype.name]
        wide = numbers.astype(np.float64)  # a float16 cannot hold the limits of integers
        outside = (wide < least) | (wide > largest) | (np.abs(wide) >= exact)
        return np.asarray(outside | (wide != np.floor(wide)))

    # ------------------------------------------------------------ rows

    def read_rows(self, values: list[Any]) -> Array:
        """Read one value per row; None is null.

        Raises:
            BadRequest: the error names the first row whose value does not fit.
        """
        if None in values and not self.field.nullable:
            row = values.index(None)
            raise self._unfit(None, (f"in row {row}", row))
        if not self.field.shape:
            typed = self._typed(values, lambda at: (f"in row {at}", at))
            for row, (value, said) in enumerate(zip(typed, values, strict=True)):
                self._check_number(value, said, row)
            return self._array(typed, (len(typed),))
        first = next((value for value in values if value is not None), None)
        if first is None:
            return self.nulls(len(values))
        shape = self._row_shape(first)
        leaves: list[Any] = []
        for row, value in enumerate(values):
            leaves.extend(
                [None] * prod(shape) if value is None else self._leaves(value, shape, row)
            )
        return self._array(leaves, (len(values), *shape))

    def _row_shape(self, value: Any) -> tuple[int, ...]:
        """Return the shape of one row: the declared one, with this value's open lengths."""
        shape = []
        for size in self.field.shape:
            held = len(value) if isinstance(value, list) else 0
            shape.append(held if size == -1 else size)
            value = value[0] if isinstance(value, list) and value else None
        return tuple(shape)

    def _leaves(self, value: Any, shape: tuple[int, ...], row: int) -> list[Any]:
        """Return the values of one row that is a list."""
        held = self._flattened(value, shape, row)
        typed = self._typed(held, lambda at: (f"in row {row}", row))
        for one, said in zip(typed, held, strict=True):
            self._check_number(one, said, row)
        return typed

    def _check_number(self, value: Any, said: Any, row: int) -> None:
        """Raise if the declared dtype does not hold a number; `said` is the caller's spelling."""
        if value is None or self._kind not in (int, float):
            return
        if self._kind is int:
            least, most = self._limits
            if not least <= value <= most:
                raise bad(
                    self.field.name,
                    f"does not fit {self.field.dtype}: it is {tell_value(said)} in row {row}; "
                    f"the least is {least}, the largest {most}",
                    "wrong_dtype",
                    "",
                    row,
                )
            return
        exact = EXACT_FLOATS[self.field.dtype]
        if type(said) is int and not -exact <= said <= exact:
            raise bad(
                self.field.name,
                f"is {tell_value(said)} in row {row}, which {self.field.dtype} does not hold"
                " unchanged",
                "wrong_dtype",
                "write it with a decimal point if it may be rounded",
                row,
            )
        if abs(value) > self._largest:
            raise bad(
                self.field.name,
                f"has a value in row {row} that is not finite as {self.field.dtype}",
                "not_finite",
                "",
                row,
            )

    @cached_property
    def _largest(self) -> float:
        return float(np.finfo(self.field.dtype).max)


Place = tuple[str, int | None]
"""Place of a value in words, and its row if the caller sent rows."""
WORDS: dict[Any, str] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
}
"""Description of the values that a field accepts, for messages."""


def _widens(given: str, declared: str) -> bool:
    """Return whether a dtype may hold another's values: whole numbers, or floats not wider."""
    numbers = ("int", "uint", "float")
    if not given.startswith(numbers) or not declared.startswith(numbers):
        return False
    if given.startswith("float") and declared.startswith("float"):
        return _WIDTHS[given] <= _WIDTHS[declared]
    return True


def _is_null(values: Array) -> NDArray[np.bool_]:
    if values.dtype == object:
        return np.array([value is None for value in values.tolist()], np.bool_)
    return np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, np.bool_)


def _place(at: int, shape: Sequence[int]) -> str:
    """Return the place of the at-th value of a shape, such as [1][0]."""
    places = []
    for size in reversed(shape):
        at, place = divmod(at, max(size, 1))
        places.append(f"[{place}]")
    return "".join(reversed(places))


def _tell_count(values: int) -> str:
    return f"{values} value{'s' if values != 1 else ''}"


def _strings(field: str, raw: memoryview) -> list[str]:
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise bad(field, "ends within a length", "wrong_shape")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise bad(field, "ends within a string", "wrong_shape")
        try:
            found.append(str(raw[at : at + size], "utf-8"))
        except UnicodeDecodeError:
            raise bad(field, "is not UTF-8", "wrong_dtype") from None
        at += size
    return found


class TensorParameters(msgspec.Struct):
    """The parameters of a tensor that are read here; other members are skipped unbuilt."""

    binary_data_size: msgspec.Raw = msgspec.Raw(b"null")

    def size(self) -> int | None:
        """Return the number of bytes; None if it is missing, -1 if it is not valid."""
        text = bytes(self.binary_data_size)
        if text == b"null":
            return None
        return int(text) if text.isdigit() and len(text) <= DIGITS else -1


class Tensor(msgspec.Struct):
    """One input as the request has it."""

    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters | None = None
