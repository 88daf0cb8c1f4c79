"""Decoding of infer bodies: the Open Inference Protocol v2, its binary extension, or rows.

This module decodes a body down to its tensors. The contract reads their values when it needs them
(`contract`, `fields`).
"""

from __future__ import annotations

import re
from codecs import BOM_UTF8

import msgspec

from kedge.core import codec
from kedge.core.errors import BadRequest
from kedge.core.phrases import tell_fault, tell_name
from kedge.gateway.fields import SCANNED, Tensor, TensorParameters, bad, exceeds

NO_ROWS = msgspec.Raw()
"""Value of `rows` in a body without rows."""


class WantedOutput(msgspec.Struct):
    """An output that a caller requests."""

    name: str = ""


class InferRequest(msgspec.Struct):
    """The body of an infer call. Unknown members are ignored, as the protocol requires.

    It has the protocol's `inputs`, or `rows`: a list of objects with the fields as members.
    """

    inputs: list[Tensor] | None = None
    id: str | None = None
    outputs: list[WantedOutput] | None = None
    rows: msgspec.Raw = NO_ROWS


class _LargeTensor(msgspec.Struct):
    """An input of a large body: its shape is bounded before it is built, too."""

    name: str
    datatype: str
    shape: msgspec.Raw
    data: msgspec.Raw = msgspec.Raw()
    parameters: TensorParameters | None = None


class _Parts(msgspec.Struct):
    """The parts of a large body that are still to be built."""

    inputs: msgspec.Raw = NO_ROWS
    outputs: msgspec.Raw = NO_ROWS


class _LargeRequest(msgspec.Struct):
    inputs: list[_LargeTensor] | None = None
    id: str | None = None
    outputs: list[WantedOutput] | None = None
    rows: msgspec.Raw = NO_ROWS


_body: msgspec.json.Decoder[InferRequest] = msgspec.json.Decoder(InferRequest)
_large_body: msgspec.json.Decoder[_LargeRequest] = msgspec.json.Decoder(_LargeRequest)
_parts_of: msgspec.json.Decoder[_Parts] = msgspec.json.Decoder(_Parts)
_shape_of: msgspec.json.Decoder[list[int]] = msgspec.json.Decoder(list[int])
OBJECTS = 10_000
"""Maximum number of objects in a body: tensors, outputs and their parameters."""
SHAPE_BYTES = 1024
"""Maximum bytes of a shape's text: more than the dimensions of any array need."""


def parse(body: bytes, json_length: int | None) -> tuple[InferRequest, memoryview | None]:
    """Decode a body. `json_length` comes from the header of the binary extension.

    Raises:
        BadRequest: it is not JSON, or not an infer request; the error names the place.
    """
    binary = None
    if json_length is not None:
        if not 0 <= json_length <= len(body):
            raise BadRequest(
                "Inference-Header-Content-Length is larger than the body", code="malformed_body"
            )
        binary = memoryview(body)[json_length:]
        body = body[:json_length]
    try:
        if len(body) > SCANNED:
            return _parse_large(bytes(body)), binary
        return _body.decode(body), binary
    except msgspec.ValidationError as error:
        raise BadRequest(
            f"not an infer request: {tell_fault(error)}", code="malformed_body", hint=FORMS
        ) from None
    except UNREADABLE as error:
        if body.startswith(BOM_UTF8) and not body.startswith(BOM_UTF8, len(BOM_UTF8)):
            return parse(body[len(BOM_UTF8) :], None)[0], binary
        raise _unreadable(body, error) from None


def _unreadable(body: bytes, error: Exception) -> BadRequest:
    if not body.strip():
        return BadRequest("the body is empty", code="malformed_body", hint=FORMS)
    try:
        codec.utf8(body)
    except ValueError:  # marked as UTF-16
        return BadRequest(
            "not JSON: it is not UTF-8", code="malformed_body", hint="encode the body as UTF-8"
        )
    hint = NOT_FINITE if _NOT_FINITE.search(body) else FORMS
    return BadRequest(f"not JSON: {tell_fault(error)}", code="malformed_body", hint=hint)


UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""Exceptions that a decoder raises for a text that it cannot read."""
NOT_FINITE = "NaN and Infinity are not JSON; send null in a nullable field"
_NOT_FINITE = re.compile(rb"[:,\[]\s*-?(?:nan|inf)", re.IGNORECASE)
"""NaN or infinity, as many libraries write it in JSON."""
FORMS = 'send {"rows": [{"FIELD": VALUE}]}, or the inputs of the Open Inference Protocol'
"""The possible forms of a body, for hints."""


def _parse_large(body: bytes) -> InferRequest:
    if exceeds(body, b"{", OBJECTS):
        _check_objects(body)
    large = _large_body.decode(body)
    if large.inputs is None:
        return InferRequest(None, large.id, large.outputs, large.rows)
    inputs = []
    for each in large.inputs:
        if len(memoryview(each.shape)) > SHAPE_BYTES:
            raise bad(
                tell_name(each.name), f"has a shape of more than {SHAPE_BYTES} bytes", "wrong_shape"
            )
        shape = _shape_of.decode(each.shape)
        inputs.append(Tensor(each.name, each.datatype, shape, each.data, each.parameters))
    return InferRequest(inputs, large.id, large.outputs, large.rows)


def _check_objects(body: bytes) -> None:
    """Raise if there are too many objects, before they are built. The contract counts the rows."""
    parts = _parts_of.decode(body)
    for part in (parts.inputs, parts.outputs):
        if exceeds(bytes(part), b"{", OBJECTS):
            raise BadRequest(f"the body has more than {OBJECTS} objects", code="malformed_body")
