r"""Codec: one encoding for every value, so that its digest is the same everywhere and for ever.

Canonical form is JSON with sorted keys and no blanks. It is RFC 8785 for the subset that kedge
uses: no floats outside a policy, no non-string keys. A digest is `sha256:` + hex.
The ledger's chain is h(n) = sha256(h(n-1) + "\n" + canonical(entry n)).
"""

from __future__ import annotations

import hashlib
import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from kedge.core.phrases import tell_fault, tell_value

GENESIS = "0" * 64
"""The hash before the first entry of a ledger."""

T = TypeVar("T")
_encoder = msgspec.json.Encoder(order="sorted")


def canonical(value: object) -> bytes:
    """Encode a value in its canonical form."""
    return _encoder.encode(value)


def encode(value: object) -> bytes:
    """Encode a value for storage or the wire, if no digest is taken of it."""
    return msgspec.json.encode(value)


def decode(raw: bytes | str, kind: type[T]) -> T:
    """Decode a stored value; raises msgspec.ValidationError if it does not fit."""
    return msgspec.json.decode(raw, type=kind)


NOT_UTF8 = "is not UTF-8 text; write the file as UTF-8"
_UTF16 = (BOM_UTF16_LE, BOM_UTF16_BE)


def utf8(raw: bytes) -> bytes:
    """Return the bytes of text that a person or another tool wrote, without a byte order mark.

    Raises:
        ValueError: the bytes are marked as UTF-16, or begin like it.
    """
    if raw.startswith(_UTF16) or b"\0" in raw[:4]:
        raise ValueError(NOT_UTF8)
    return raw.removeprefix(BOM_UTF8)


def read_written(raw: bytes, kind: type[T]) -> T:
    """Decode JSON that a person or another tool wrote.

    Raises:
        msgspec.DecodeError: it is not JSON, does not fit, or is not UTF-8.
    """
    return read_line(raw, msgspec.json.Decoder(kind))


def read_line(raw: bytes, decoder: msgspec.json.Decoder[T]) -> T:
    """Decode JSON as `read_written` does, with a decoder that is built once for many lines.

    Raises:
        msgspec.DecodeError: it is not JSON, does not fit, or is not UTF-8.
    """
    try:
        text = utf8(raw)
        read = decoder.decode(text)
    except UnicodeDecodeError:
        raise msgspec.DecodeError(NOT_UTF8) from None
    except RecursionError:
        raise msgspec.DecodeError("is nested too deeply") from None
    except ValueError as error:
        told = tell_fault(error) if isinstance(error, msgspec.DecodeError) else str(error)
        raise msgspec.DecodeError(told) from None
    twice = find_repeated(text, read)
    if twice is not None:
        raise msgspec.DecodeError(tell_repeated(twice))
    return read


def find_repeated(raw: bytes, read: object) -> str | None:
    """Return a name that one object of a JSON text has twice; None without any.

    Decoders take the last of them. In a file that people or other tools wrote it can be the wrong
    one, as with a column of a CSV that its header names twice.

    Args:
        raw: valid JSON.
        read: what it was decoded to. A flat object is searched only if it has more ends of names
            than members, since each line of a large file is asked.
    """
    if isinstance(read, dict) and len(_NAME_ENDS.findall(raw)) == len(read):
        return None
    try:
        _named.decode(raw.decode())
    except _RepeatedName as error:
        return error.name
    except (ValueError, RecursionError):
        pass  # it is not in a form that has names, or deeper than such a file
    return None


def tell_repeated(name: str) -> str:
    """Return the fault of a name that one object has twice, in words."""
    return f"{tell_value(name)} is named twice in one object"


class _RepeatedName(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.name = name


def _members(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise _RepeatedName(next(name for name in names if names.count(name) > 1))
    return found


_NAME_ENDS = re.compile(rb'"[ \t\r\n]*:')
# No number is converted: Python limits its digits.
_named = json.JSONDecoder(object_pairs_hook=_members, parse_int=str, parse_float=str)


def fingerprint(value: object) -> str:
    """Return the digest of a value's canonical form."""
    return "sha256:" + hashlib.sha256(canonical(value)).hexdigest()


def chain(previous: str, entry: Mapping[str, object]) -> str:
    """Return the hash of a ledger entry, given the hash of the entry before it."""
    return hashlib.sha256(previous.encode() + b"\n" + canonical(entry)).hexdigest()
