"""Encodings: the content types and codings of a body that kedge reads, and bounded gzip.

The gateway and control's API use it to read bodies.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from kedge.core.errors import BadRequest


class Types(NamedTuple):
    """The accepted content types of one kind of body, and the text of a refusal."""

    names: frozenset[bytes]
    what: str
    """The accepted body, in words."""
    hint: str
    suffix: bytes = b""
    """An accepted ending of other types of `application/`; b"" for none."""


JSON = Types(
    frozenset(
        {
            b"application/json",
            b"text/json",
            b"application/octet-stream",  # the binary extension, as Triton's clients declare it
            b"application/x-www-form-urlencoded",  # `curl -d` declares it for any body
            b"text/plain",  # browsers declare it for a text
            b"",
        }
    ),
    "only JSON and the binary extension are read",
    'content-type: application/json, and a body such as {"rows": [{"FIELD": VALUE}]}',
    b"+json",
)
"""Content types of infer calls. A body of any of them is JSON, or JSON before binary data."""
JSON_LINES = Types(
    frozenset(
        {
            b"application/x-ndjson",
            b"application/ndjson",
            b"application/jsonl",
            b"application/x-jsonlines",
            b"application/json",
        }
    ),
    "only JSON lines are read",
    "curl -H 'content-type: application/x-ndjson'",
)
"""Content types of batches. A page can send none of them without a CORS preflight, so that none is
accepted undeclared."""
CHARSETS = frozenset({b"utf-8", b"utf8", b"us-ascii", b""})
WRAPPING = b' \t"'
"""Characters that can surround a parameter."""
GZIP = frozenset({b"gzip", b"x-gzip"})
MEMBERS = 1000
"""Limit of members of a gzip body: each costs a decompressor, and clients write one."""
MAGIC = b"\x1f\x8b"
"""The first bytes of every member."""
PIECE = 16 * 1024
"""Bytes that a decompressor gets at once: the rest after a member's end is copied."""
_WINDOW = 16 + zlib.MAX_WBITS
"""Window bits that accept the gzip header only."""


def check_type(told: bytes, types: Types) -> None:
    """Raise if the content type of a body is not accepted.

    Args:
        told: the header's value; b"" without one.
        types: the accepted ones.

    Raises:
        BadRequest: `unsupported_type`: the type is another one, or not in UTF-8.
    """
    kind, _, parameters = told.lower().partition(b";")
    kind = kind.strip(b" \t")
    if kind not in types.names and not (
        types.suffix and kind.startswith(b"application/") and kind.endswith(types.suffix)
    ):
        raise BadRequest(
            f"the body's content-type is {_text(kind) or 'missing'}; {types.what}",
            code="unsupported_type",
            hint=types.hint,
        )
    for parameter in parameters.split(b";"):
        name, _, value = parameter.partition(b"=")
        if name.strip(b" \t") == b"charset" and value.strip(WRAPPING) not in CHARSETS:
            raise BadRequest(
                f"the body's charset is {_text(value.strip(WRAPPING))}; only UTF-8 is read",
                code="unsupported_type",
                hint="encode the body as UTF-8",
            )


def is_gzip(told: bytes) -> bool:
    """Return whether a content encoding is gzip; False for none.

    BadRequest: `unsupported_encoding`: the coding is not gzip.
        BadRequest: `unsupported_encoding`: any other.
    """
    codings = [each.strip(b" \t") for each in told.lower().split(b",")]
    codings = [each for each in codings if each not in (b"", b"identity")]
    if not codings:
        return False
    if len(codings) == 1 and codings[0] in GZIP:
        return True
    raise BadRequest(
        f"the body's content-encoding is {_text(b', '.join(codings))}; only gzip is read",
        code="unsupported_encoding",
        hint="send the body as it is, or compressed by gzip once",
    )


def inflate(body: bytes | bytearray, most: int) -> bytes | None:
    """Return the decompressed body, or None if it is more than `most` bytes.

    It never holds more than `most` bytes and one, whatever the body's full size.

    Raises:
        BadRequest: `malformed_body`: it is not gzip, is cut off, or continues after its end.
    """
    view, at = memoryview(body), 0
    found, size = list[bytes](), 0
    for _ in range(MEMBERS):
        member = zlib.decompressobj(_WINDOW)
        while not member.eof:
            if at >= len(view) and not member.unconsumed_tail:
                raise _malformed("is cut off within its gzip data")
            given: bytes | memoryview = member.unconsumed_tail
            if not given:
                given = view[at : at + PIECE]
                at += len(given)
            try:
                part = member.decompress(given, most - size + 1)
            except zlib.error:
                raise _malformed("is not gzip, as its content-encoding says") from None
            found.append(part)
            size += len(part)
            if size > most:
                return None
        at -= len(member.unused_data)
        if at >= len(view):
            return b"".join(found)
        if bytes(view[at : at + 2]) != MAGIC:
            raise _malformed(f"has {len(view) - at} bytes after the end of its gzip data")
    raise _malformed(f"has more than {MEMBERS} gzip members")


def _malformed(what: str) -> BadRequest:
    return BadRequest(f"the body {what}", code="malformed_body")


def _text(told: bytes) -> str:
    return told[:60].decode("ascii", "replace")
