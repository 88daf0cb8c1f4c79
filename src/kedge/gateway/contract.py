"""Contract: the compiled promise of callers; it turns a request into columns or refuses it.

Every fault names the field, and for rows the row. Tensors are read as the protocol defines them;
rows are objects with the fields as members.
"""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core import entities
from kedge.core.errors import BadRequest
from kedge.core.keys import EXACT
from kedge.core.phrases import tell_fault, tell_name, tell_value
from kedge.core.values import Field
from kedge.gateway.bounds import FieldBounds
from kedge.gateway.decode import FORMS, NO_ROWS, UNREADABLE, InferRequest
from kedge.gateway.fields import (
    EXACT_FLOATS,
    SCANNED,
    FieldReader,
    Tensor,
    bad,
    exceeds,
    too_many_rows,
)

if TYPE_CHECKING:
    from kedge.gateway.fields import Array
    from kedge.typing import Columns

Row = dict[str, Any]
"""One row as a caller sends it. Not `object`: msgspec would check every value for it."""
_rows_of: msgspec.json.Decoder[list[Row]] = msgspec.json.Decoder(list[Row])
_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_members_of: msgspec.json.Decoder[list[dict[str, msgspec.Raw]]] = msgspec.json.Decoder(
    list[dict[str, msgspec.Raw]]
)
SHOWN = 4
"""Maximum number of fields in an example."""


class Contract:
    """An endpoint's fields, compiled."""

    def __init__(self, fields: tuple[Field, ...], *, rows: int, entity: str | None) -> None:
        self._readers = {field.name: FieldReader(field) for field in fields}
        self._fields = fields
        self._rows = rows
        self._entity = entity
        dtype = next((field.dtype for field in fields if field.name == entity), "float64")
        self._exact = EXACT_FLOATS.get(dtype, EXACT)
        self._bounds = [FieldBounds(field) for field in fields if field.is_bounded]

    @cached_property
    def encoded(self) -> bytes:
        """The contract's definition, encoded for another process."""
        return msgspec.json.encode((self._fields, self._rows, self._entity))

    def columns(self, request: InferRequest, binary: memoryview | None) -> tuple[Columns, int]:
        """Check a request and turn it into columns.

        Raises:
            BadRequest: `details["field"]` has the name of the field, and for a request with rows
                `details["row"]` has the number of the row.
        """
        if request.rows is not NO_ROWS or request.inputs is None:
            found, rows = self._of_rows(request, binary)
        else:
            found, rows = self._of_tensors(request.inputs, binary)
        for bounds in self._bounds:
            bounds.check(found[bounds.name], is_row=request.rows is not NO_ROWS)
        return found, rows

    def _of_tensors(
        self, inputs: list[Tensor], binary: memoryview | None
    ) -> tuple[dict[str, Array], int]:
        found: dict[str, Array] = {}
        rows = -1
        at = 0
        for tensor in inputs:
            reader = self._readers.get(tensor.name)
            if reader is None:
                raise self._unknown(tensor.name)
            if tensor.name in found:
                raise bad(tensor.name, "is given twice", "duplicate_field")
            size = tensor.parameters.size() if tensor.parameters else None
            if size is None:
                array = reader.read(tensor, self._rows)
            else:
                if binary is None or not 0 <= size <= len(binary) - at:
                    raise bad(
                        tensor.name, "names more binary data than the body has", "wrong_shape"
                    )
                array = reader.read_binary(tensor, binary[at : at + size])
                at += size
            if rows < 0:
                rows = len(array)
            elif len(array) != rows:
                raise bad(
                    tensor.name, f"has {len(array)} rows where others have {rows}", "wrong_shape"
                )
            found[tensor.name] = array
        self._check_rest(binary, at)
        if rows < 1:
            raise BadRequest("the request has no rows", code="wrong_shape")
        if rows > self._rows:
            raise too_many_rows(rows, self._rows)
        if len(found) < len(self._fields):
            self._absent(found, rows)
        return found, rows

    def _unknown(self, name: str, row: int | None = None) -> BadRequest:
        where = "" if row is None else f" (row {row})"
        return bad(
            tell_name(name),
            f"is not a field of this endpoint{where}",
            "unknown_field",
            f"fields are {', '.join(self._readers)}",
            row,
        )

    @staticmethod
    def _check_rest(binary: memoryview | None, at: int) -> None:
        if binary is not None and at != len(binary):
            raise BadRequest(
                f"{len(binary) - at} bytes of binary data belong to no field", code="malformed_body"
            )

    def _absent(self, found: dict[str, Array], rows: int) -> None:
        """Fill a missing nullable field with nulls; raise if any other field is missing."""
        for field in self._fields:
            if field.name not in found:
                if not field.nullable:
                    raise bad(field.name, "is missing", "missing_field")
                found[field.name] = self._readers[field.name].nulls(rows)

    # ------------------------------------------------------------ rows

    def _of_rows(
        self, request: InferRequest, binary: memoryview | None
    ) -> tuple[dict[str, Array], int]:
        if request.rows is NO_ROWS:
            raise BadRequest(
                "the body has neither rows nor inputs",
                code="malformed_body",
                hint=f"send {self._example()}, or the inputs of the Open Inference Protocol",
            )
        if request.inputs is not None:
            raise BadRequest(
                "the body has both rows and inputs; send one of them", code="malformed_body"
            )
        self._check_rest(binary, 0)
        raw = bytes(request.rows)
        if len(raw) > SCANNED:
            self._scan(raw)
        rows = self._objects(raw)
        if not rows:
            raise BadRequest("the request has no rows", code="wrong_shape")
        if len(rows) > self._rows:
            raise too_many_rows(len(rows), self._rows)
        self._check_members(rows, raw)
        return {
            name: reader.read_rows([row.get(name) for row in rows])
            for name, reader in self._readers.items()
        }, len(rows)

    def _scan(self, raw: bytes) -> None:
        """Raise if there are more rows or values than the contract allows, before building any."""
        if exceeds(raw, b"{", self._rows):
            raise BadRequest(
                f"more than {self._rows} rows, which are the most that one request may have",
                code="too_many_rows",
                hint="split the request",
            )
        lists = sum(_lists(field) for field in self._fields)
        if all(-1 not in field.shape for field in self._fields):
            if exceeds(raw, b"[", 1 + self._rows * lists):
                raise BadRequest("the rows have more lists than their fields", code="wrong_shape")
            values = sum(_size(field) for field in self._fields)
            if exceeds(raw, b",", self._rows * (values + 1)):
                raise BadRequest("the rows have more values than their fields", code="wrong_shape")

    def _objects(self, raw: bytes) -> list[Row]:
        try:
            return _rows_of.decode(raw)
        except msgspec.ValidationError:
            return self._no_objects(raw)
        except UNREADABLE as error:
            raise _unreadable(error) from None

    def _no_objects(self, raw: bytes) -> list[Row]:
        """Raise with the fault of a value that should be a list of objects.

        Raises:
            BadRequest: always.
        """
        try:
            given = _anything.decode(raw)
        except msgspec.ValidationError as error:
            raise _out_of_range(raw) or _unreadable(error) from None
        except UNREADABLE as error:
            raise _unreadable(error) from None
        hint = f"send {self._example()}"
        if not isinstance(given, list):
            raise BadRequest(
                f"rows is {tell_value(given)}, not a list of objects",
                code="malformed_body",
                hint=hint,
            )
        row = next((n for n, each in enumerate(given) if not isinstance(each, dict)), 0)
        raise BadRequest(
            f"row {row} is {tell_value(given[row])}, not an object with the fields as members",
            code="malformed_body",
            hint=hint,
            details={"row": row},
        )

    def _check_members(self, rows: list[Row], raw: bytes) -> None:
        """Raise if a member is no field, a field is missing, or a field is given twice."""
        known = self._readers.keys()
        for number, row in enumerate(rows):
            if not row.keys() <= known:
                raise self._unknown(next(name for name in row if name not in known), number)
            if len(row) < len(known):
                for field in self._fields:
                    if field.name not in row and not field.nullable:
                        raise bad(
                            field.name, f"is missing in row {number}", "missing_field", "", number
                        )
        members = sum(map(len, rows))
        nested = any(type(value) is dict for row in rows for value in row.values())
        if not nested and exceeds(raw, b":", members):
            raise BadRequest(
                "a row gives a field twice", code="duplicate_field", hint="send each field once"
            )

    def _example(self) -> str:
        """Return an example body of this contract, with its first fields only."""
        some = self._fields[:SHOWN]
        more = ", ..." if len(self._fields) > SHOWN else ""
        members = ", ".join(f"{_quoted(field.name)}: {_sample(field)}" for field in some)
        return f'{{"rows": [{{{members}{more}}}]}}' if some else FORMS

    # ------------------------------------------------------------ the entity

    def entity(self, columns: Columns, rows: int) -> str | None:
        """Return the entity of a request without the header: that of its only row.

        Raises:
            BadRequest: `bad_entity`, `entity_too_long`: the error has the name of the field.
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


def _out_of_range(raw: bytes) -> BadRequest | None:
    """Return the error of a number that no type holds, with row and field; None outside a field."""
    with suppress(*UNREADABLE):
        for number, row in enumerate(_members_of.decode(raw)):
            for name, value in row.items():
                try:
                    _anything.decode(value)
                except msgspec.ValidationError:
                    what = f"cannot be read in row {number}: the number is out of range"
                    return bad(tell_name(name), what, "wrong_dtype", "", number)
    return None


def _unreadable(error: Exception) -> BadRequest:
    return BadRequest(f"the rows cannot be read: {tell_fault(error)}", code="malformed_body")


def _size(field: Field) -> int:
    return int(np.prod(field.shape)) if field.shape else 1


def _lists(field: Field) -> int:
    """Return the number of lists in one row of a field."""
    lists, size = 0, 1
    for length in field.shape:
        lists += size
        size *= length
    return lists


def _quoted(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _sample(field: Field) -> str:
    """Return an example value of a field, as JSON."""
    value = _SAMPLES.get(field.dtype, "0.0" if field.dtype.startswith("float") else "0")
    for _ in field.shape:
        value = f"[{value}]" if field.shape == (1,) else f"[{value}, ...]"
    return value


_SAMPLES = {"bool": "true", "string": '"text"'}
