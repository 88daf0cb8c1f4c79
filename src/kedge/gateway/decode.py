"""Open Inference Protocol v2 tensors, checked against the endpoint's contract.

Every fault names the field. JSON is decoded by a typed decoder per dtype, so a string in a
float tensor, a null where none may be, or 300 in a uint8 is found while decoding and not by
the model. Tensors may also come in the protocol's binary extension, as Triton's client sends
them by default.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from functools import cached_property
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core import entities
from kedge.core.contract import OIP_DTYPES
from kedge.core.errors import BadRequest
from kedge.core.keys import EXACT
from kedge.core.values import Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Columns

    Array = NDArray[Any]


class TensorParameters(msgspec.Struct):
    """What a tensor's parameters say that is read here; other members are passed over unbuilt."""

    binary_data_size: msgspec.Raw = msgspec.Raw(b"null")

    def size(self) -> int | None:
        """Return the number of bytes; None without one, -1 for what is no such number."""
        text = bytes(self.binary_data_size)
        if text == b"null":
            return None
        return int(text) if text.isdigit() and len(text) <= DIGITS else -1


class WantedOutput(msgspec.Struct):
    """An output that a caller asks for."""

    name: str = ""


class Tensor(msgspec.Struct):
    """One input as it stands in the request."""

    name: str
    datatype: str
    shape: list[int]
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters | None = None


class InferRequest(msgspec.Struct):
    """The body of an infer call. Unknown members are passed over, as the protocol asks."""

    inputs: list[Tensor]
    id: str | None = None
    outputs: list[WantedOutput] | None = None


class _LargeTensor(msgspec.Struct):
    """An input of a large body: the shape too is bounded before it is built."""

    name: str
    datatype: str
    shape: msgspec.Raw
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters | None = None


class _LargeRequest(msgspec.Struct):
    inputs: list[_LargeTensor]
    id: str | None = None
    outputs: list[WantedOutput] | None = None


_body: msgspec.json.Decoder[InferRequest] = msgspec.json.Decoder(InferRequest)
_large_body: msgspec.json.Decoder[_LargeRequest] = msgspec.json.Decoder(_LargeRequest)
_shape_of: msgspec.json.Decoder[list[int]] = msgspec.json.Decoder(list[int])
_nested: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
SMALL = 64
"""Up to here a Python loop tests finiteness faster than a NumPy call."""


DIGITS = 18
"""Longest length that is read as a number."""
SCANNED = 16 * 1024
"""From so many bytes on, what a body would become is counted before it is built. Below it, a body
cannot hold enough to occupy a worker."""
OBJECTS = 10_000
"""Objects of a body: its tensors, its outputs and their parameters."""
SHAPE_BYTES = 1024
"""Text of a shape: more than the dimensions of any array."""
EXACT_FLOATS = {"float16": 2**11, "float32": 2**24, "float64": EXACT}
"""From here on a float no longer tells neighbouring whole numbers apart (IEEE 754)."""
_STRING_OR = {
    mark: re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"|' + re.escape(mark), re.DOTALL)
    for mark in (b"{", b"[", b",")
}


def exceeds(raw: bytes, mark: bytes, most: int) -> bool:
    """Whether a character stands in JSON more often than this, without those in strings.

    The plain count is enough nearly always. The walk ends at the first one too many, so that it is
    bounded by what is allowed and not by what was sent.
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


def parse(body: bytes, json_length: int | None) -> tuple[InferRequest, memoryview | None]:
    """Decode a body. `json_length` comes from the header of the binary extension.

    Raises:
        BadRequest: it is not JSON, or not an infer request; says where.
    """
    binary = None
    if json_length is not None:
        if not 0 <= json_length <= len(body):
            raise BadRequest("Inference-Header-Content-Length is larger than the body",
                             code="malformed_body")  # fmt: skip
        binary = memoryview(body)[json_length:]
        body = body[:json_length]
    try:
        if len(body) > SCANNED:
            return _parse_large(bytes(body)), binary
        return _body.decode(body), binary
    except msgspec.ValidationError as error:
        raise BadRequest(f"not an infer request: {error}", code="malformed_body") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise BadRequest(f"not JSON: {error}", code="malformed_body",
                         hint="NaN and Infinity are not JSON; send null in a nullable field") from None  # fmt: skip


def _parse_large(body: bytes) -> InferRequest:
    if exceeds(body, b"{", OBJECTS):
        raise BadRequest(f"the body has more than {OBJECTS} objects", code="malformed_body")
    large = _large_body.decode(body)
    inputs = []
    for each in large.inputs:
        if len(memoryview(each.shape)) > SHAPE_BYTES:
            raise _bad(each.name, f"has a shape of more than {SHAPE_BYTES} bytes", "wrong_shape")
        shape = _shape_of.decode(each.shape)
        inputs.append(Tensor(each.name, each.datatype, shape, each.data, each.parameters))
    return InferRequest(inputs, large.id, large.outputs)


class Contract:
    """An endpoint's fields, compiled."""

    def __init__(self, fields: tuple[Field, ...], *, rows: int, entity: str | None) -> None:
        self._readers = {field.name: _Reader(field) for field in fields}
        self._fields = fields
        self._rows = rows
        self._entity = entity
        dtype = next((field.dtype for field in fields if field.name == entity), "float64")
        self._exact = EXACT_FLOATS.get(dtype, EXACT)

    @cached_property
    def encoded(self) -> bytes:
        """What it is made of, for another process."""
        return msgspec.json.encode((self._fields, self._rows, self._entity))

    def columns(self, request: InferRequest, binary: memoryview | None) -> tuple[Columns, int]:
        """Check a request and turn it into columns.

        Raises:
            BadRequest: with the name of the field in `details["field"]`.
        """
        found: dict[str, Array] = {}
        rows = -1
        at = 0
        for tensor in request.inputs:
            reader = self._readers.get(tensor.name)
            if reader is None:
                raise _bad(tensor.name, "is not a field of this endpoint", "unknown_field",
                           f"fields are {', '.join(self._readers)}")  # fmt: skip
            if tensor.name in found:
                raise _bad(tensor.name, "is given twice", "duplicate_field")
            size = tensor.parameters.size() if tensor.parameters else None
            if size is None:
                array = reader.read(tensor, self._rows)
            else:
                if binary is None or not 0 <= size <= len(binary) - at:
                    raise _bad(
                        tensor.name, "names more binary data than the body has", "wrong_shape"
                    )
                array = reader.read_binary(tensor, binary[at : at + size])
                at += size
            if rows < 0:
                rows = len(array)
            elif len(array) != rows:
                raise _bad(
                    tensor.name, f"has {len(array)} rows where others have {rows}", "wrong_shape"
                )
            found[tensor.name] = array
        if binary is not None and at != len(binary):
            raise BadRequest(f"{len(binary) - at} bytes of binary data belong to no field",
                             code="malformed_body")  # fmt: skip
        if rows < 1:
            raise BadRequest("the request has no rows", code="wrong_shape")
        if rows > self._rows:
            raise _too_many_rows(rows, self._rows)
        if len(found) < len(self._fields):
            self._absent(found, rows)
        return found, rows

    def _absent(self, found: dict[str, Array], rows: int) -> None:
        """A nullable field that was left out is null; any other is a fault."""
        for field in self._fields:
            if field.name not in found:
                if not field.nullable:
                    raise _bad(field.name, "is missing", "missing_field")
                found[field.name] = self._readers[field.name].nulls(rows)

    def entity(self, columns: Columns, rows: int) -> str | None:
        """Return the entity of a request that names none in its header: that of its only row.

        Raises:
            BadRequest: `bad_entity`, `entity_too_long`: with the name of the field.
        """
        if self._entity is None or rows != 1 or self._entity not in columns:
            return None
        column = columns[self._entity]
        if not column.size:
            return None
        try:
            return entities.spell(column.item(0), exact=self._exact)
        except BadRequest as error:
            error.details["field"] = self._entity
            raise


def _too_many_rows(rows: int, most: int) -> BadRequest:
    return BadRequest(
        f"{rows} rows; at most {most} are taken in one request",
        code="too_many_rows",
        hint="split the request",
    )


def _bad(field: str, what: str, code: str, hint: str = "") -> BadRequest:
    return BadRequest(f"{field} {what}", code=code, hint=hint, details={"field": field})


_ELEMENTS: dict[str, type] = {"bool": bool, "string": str}


class _Reader:
    """Reads one field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._datatype = OIP_DTYPES[field.dtype]
        self._float = field.dtype.startswith("float")
        kind = _ELEMENTS.get(field.dtype, float if self._float else int)
        wanted: Any = list[kind | None] if field.nullable else list[kind]  # type: ignore[valid-type]
        self._decode: Callable[[msgspec.Raw], list[Any]] = msgspec.json.Decoder(wanted).decode
        self._flat: Any = wanted
        self._plain: Any = object if field.dtype == "string" else np.dtype(field.dtype)
        self._dtype = self._plain
        self._most = float(np.finfo(field.dtype).max) if self._float and not field.nullable else 0.0
        """The largest number that fits; 0 where each value has to be looked at."""
        if field.nullable and not self._float:
            self._dtype = object

    def read(self, tensor: Tensor, most_rows: int) -> Array:
        """Read JSON values, flat or nested."""
        shape = self._shape(tensor)
        if len(memoryview(tensor.data)) > SCANNED:
            self._scan(bytes(tensor.data), shape, most_rows)
        try:
            data = self._decode(tensor.data)
        except msgspec.ValidationError as error:
            data = self._nested_data(tensor, error)
        except UnicodeDecodeError:
            raise _bad(self.field.name, "is not UTF-8", "wrong_dtype") from None
        except msgspec.DecodeError:
            raise _bad(self.field.name, "has no data", "malformed_body") from None
        return self._array(data, shape)

    def _scan(self, raw: bytes, shape: tuple[int, ...], most_rows: int) -> None:
        """Refuse more values or lists than the shape holds, before any of them is built."""
        if shape[0] > most_rows:
            raise _too_many_rows(shape[0], most_rows)
        size, lists = 1, 1
        for length in shape:
            size *= length
            lists += size
        if exceeds(raw, b",", max(size - 1, 0)):
            raise _bad(
                self.field.name,
                f"has more than {size} values; its shape is {list(shape)}",
                "wrong_shape",
            )
        if exceeds(raw, b"[", lists):
            raise _bad(
                self.field.name, f"has more lists than its shape {list(shape)}", "wrong_shape"
            )

    def _shape(self, tensor: Tensor) -> tuple[int, ...]:
        """The array's shape: rows first, then the declared shape of one row."""
        field = self.field
        if tensor.datatype != self._datatype:
            raise _bad(
                field.name, f"is {tensor.datatype}; declared is {self._datatype}", "wrong_dtype"
            )
        given = tensor.shape
        row = given[1:]
        if not given or given[0] < 0:
            raise _bad(
                field.name, f"has shape {given}; the first number is the rows", "wrong_shape"
            )
        if not field.shape:
            if row not in ([], [1]):
                raise _bad(
                    field.name, f"has shape {given}; declared is one value a row", "wrong_shape"
                )
            return (given[0],)
        fits = len(row) == len(field.shape) and all(
            size == wanted or (wanted == -1 and size >= 0)
            for size, wanted in zip(row, field.shape, strict=True)
        )
        if not fits:
            wanted = ["rows", *field.shape]
            raise _bad(field.name, f"has shape {given}; declared is {wanted}", "wrong_shape")
        return tuple(given)

    def _nested_data(self, tensor: Tensor, error: msgspec.ValidationError) -> list[Any]:
        """The protocol also allows data nested as the shape is; anything else is a fault."""
        data: Any = None
        try:
            data = _nested.decode(tensor.data)
            for _ in range(len(tensor.shape) + 1):
                if not (isinstance(data, list) and data and isinstance(data[0], list)):
                    break
                if not all(isinstance(part, list) for part in data):
                    raise TypeError("lists beside what is none")
                data = [value for part in data for value in part]
            flat: list[Any] = msgspec.convert(data, self._flat)
        except UnicodeDecodeError:
            raise _bad(self.field.name, "is not UTF-8", "wrong_dtype") from None
        except (msgspec.DecodeError, TypeError, RecursionError) as inner:
            error = inner if isinstance(inner, msgspec.ValidationError) else error
            null = self._null_is_first(data)
            raise _bad(
                self.field.name,
                "is null in a row, and is not nullable" if null else f"does not fit: {error}",
                "null_value" if null else "wrong_dtype",
                "declare it nullable in kedge.toml if callers may leave it out" if null else "",
            ) from None
        return flat

    def _null_is_first(self, data: object) -> bool:
        """Whether the first value of a flat list that does not fit is a null."""
        if self.field.nullable or not isinstance(data, list) or None not in data:
            return False
        try:
            msgspec.convert(data[: data.index(None)], self._flat)
        except msgspec.ValidationError:
            return False
        return True

    def _array(self, data: list[Any], shape: tuple[int, ...]) -> Array:
        size = 1
        for length in shape:
            size *= length
        if len(data) != size:
            raise _bad(self.field.name, f"has {len(data)} values; its shape {list(shape)} holds {size}",
                       "wrong_shape")  # fmt: skip
        if self._dtype is object:
            if self.field.dtype != "string":
                self._in_range([value for value in data if value is not None])
            array = np.empty(size, dtype=object)
            array[:] = data
            return self._shaped(array, shape)
        if (
            self._most
            and 0 < len(data) <= SMALL
            and -self._most <= min(data)
            and max(data) <= self._most
        ):
            # JSON has no NaN, and all are in range.
            array = np.array(data, dtype=self._plain)
        else:
            array = self._in_range(data)
            if self._float:
                self._finite(data, array)
        return array if len(shape) == 1 else self._shaped(array, shape)

    def _in_range(self, data: list[Any]) -> Array:
        """The values in the declared dtype."""
        try:
            with np.errstate(over="ignore"):
                return np.array(data, dtype=self._plain)
        except OverflowError as error:
            raise _bad(
                self.field.name, f"does not fit {self.field.dtype}: {error}", "wrong_dtype"
            ) from None

    def _shaped(self, array: Array, shape: tuple[int, ...]) -> Array:
        """An empty array may claim any length beside its zero, also one that no array can have."""
        try:
            return array.reshape(shape)
        except ValueError:
            raise _bad(
                self.field.name, f"has shape {list(shape)}, which no array has", "wrong_shape"
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
        raise _bad(
            self.field.name, f"has a value that is not finite as {self.field.dtype}", "not_finite"
        )

    def read_binary(self, tensor: Tensor, raw: memoryview) -> Array:
        """Read raw little-endian values (BYTES: each after its length), row by row."""
        shape = self._shape(tensor)
        if self.field.dtype == "string":
            return self._array(_strings(self.field.name, raw), shape)
        dtype = np.dtype(self.field.dtype)
        if len(raw) % dtype.itemsize:
            raise _bad(self.field.name, "has a broken number of bytes", "wrong_shape")
        values = np.frombuffer(raw, dtype=dtype.newbyteorder("<")).astype(dtype)
        if self._float:
            wrong = np.isinf(values) if self.field.nullable else ~np.isfinite(values)
            if wrong.any():
                raise _bad(self.field.name, "has a value that is not finite", "not_finite")
        elif self.field.dtype == "bool" and (values.view(np.uint8) > 1).any():
            raise _bad(self.field.name, "has a byte that is neither 0 nor 1", "wrong_dtype")
        if values.size != prod(shape):
            raise _bad(self.field.name, f"has {values.size} values; its shape is {list(shape)}",
                       "wrong_shape")  # fmt: skip
        return self._shaped(values, shape)

    def nulls(self, rows: int) -> Array:
        """Null in every row."""
        shape = (rows, *(max(size, 0) for size in self.field.shape))
        return np.full(shape, np.nan if self._float else None, dtype=self._dtype)


def _strings(field: str, raw: memoryview) -> list[str]:
    found, at = [], 0
    while at < len(raw):
        if at + 4 > len(raw):
            raise _bad(field, "ends within a length", "wrong_shape")
        (size,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + size > len(raw):
            raise _bad(field, "ends within a string", "wrong_shape")
        try:
            found.append(str(raw[at : at + size], "utf-8"))
        except UnicodeDecodeError:
            raise _bad(field, "is not UTF-8", "wrong_dtype") from None
        at += size
    return found
