"""Parameters of a request: from its query, or from a JSON body, into the struct of the catalogue."""

from __future__ import annotations

import asyncio
from typing import TypeVar
from urllib.parse import parse_qs

import msgspec
from starlette.requests import ClientDisconnect, Request

from kedge.core.encodings import Types, check_type
from kedge.core.errors import BadRequest, Overloaded
from kedge.operations.parameters import NoParameters
from kedge.web.bodies import HungUp
from kedge.web.origin import raw_values_of

Given = TypeVar("Given", bound=NoParameters)
Decoded = TypeVar("Decoded", bound=msgspec.Struct)

BODY_BYTES = 64 << 10
"""Maximum bytes of a command's parameters: reasons and names, no data."""
BODY_S = 10.0
"""Maximum seconds until they have arrived."""
FORM_FIELDS = 50
"""Maximum fields of a form; those of a page have fewer than ten."""
JSON = Types(
    frozenset({b"application/json"}), "only JSON is read", "content-type: application/json"
)
"""Content type of parameters. A page can send it only after a CORS preflight, which is refused."""


def read_query(request: Request, kind: type[Given]) -> Given:
    """Return the parameters of a query.

    Raises:
        BadRequest: `bad_parameters`: unknown, given twice, or of another type.
    """
    pairs = request.query_params.multi_items()
    found = dict(pairs)
    if len(found) < len(pairs):
        raise refuse_parameters("each parameter may be given once")
    return _convert(found, kind, strict=False)


async def read_body(
    request: Request, kind: type[Given], most: int = BODY_BYTES
) -> tuple[Given, bytes]:
    """Return the parameters of a JSON body, and its bytes; an empty body has the defaults.

    Raises:
        BadRequest: `bad_parameters`, `unsupported_type`, `body_too_slow`.
        Overloaded: `too_large`.
        HungUp: the connection ended before the body did.
    """
    raw = await receive_body(request, most)
    if not raw.strip():
        return _convert({}, kind, strict=True), raw
    return decode_body(request, raw, kind), raw


def decode_body(request: Request, raw: bytes, kind: type[Decoded]) -> Decoded:
    """Return the value of a JSON body.

    Raises:
        BadRequest: `bad_parameters`, `unsupported_type`.
    """
    check_type(b", ".join(raw_values_of(request.headers.raw, b"content-type")), JSON)
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        raise refuse_parameters(str(error)) from None


async def receive_body(request: Request, most: int, within_s: float = BODY_S) -> bytes:
    """Receive a whole body within its bounds.

    Raises:
        BadRequest: `body_too_slow`.
        Overloaded: `too_large`.
        HungUp: the connection ended before the body did.
    """
    body = bytearray()
    try:
        async with asyncio.timeout(within_s):
            async for part in request.stream():
                body += part
                if len(body) > most:
                    raise Overloaded(f"the body has more than {most:,} bytes", code="too_large")
    except TimeoutError:
        raise BadRequest(
            f"the body took longer than {within_s:g} s", code="body_too_slow"
        ) from None
    except ClientDisconnect:
        raise HungUp from None
    return bytes(body)


async def read_form(request: Request, most: int) -> dict[str, str]:
    """Return the fields of a form of at most this many bytes; of a repeated one, the first.

    Raises:
        BadRequest: `malformed_body`, `body_too_slow`.
        Overloaded: `too_large`.
        HungUp: the connection ended before the body did.
    """
    body = await receive_body(request, most)
    try:
        fields = parse_qs(body.decode("utf-8", "replace"), max_num_fields=FORM_FIELDS)
    except ValueError:
        raise BadRequest("the form has too many fields", code="malformed_body") from None
    return {name: values[0] for name, values in fields.items()}


def _convert(found: dict[str, str], kind: type[Given], *, strict: bool) -> Given:
    try:
        return msgspec.convert(found, kind, strict=strict)
    except msgspec.ValidationError as error:
        raise refuse_parameters(str(error)) from None


def refuse_parameters(why: str) -> BadRequest:
    """Return the refusal of parameters."""
    return BadRequest(
        why, code="bad_parameters", hint="GET /api/v1/openapi.json describes every parameter"
    )
