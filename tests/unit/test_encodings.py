"""Encodings: gzip within a limit, content types, and refusals."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kedge.core.encodings import JSON, MEMBERS, check_type, inflate, is_gzip
from kedge.core.errors import BadRequest
from kedge.gateway.http.app import status_of

MOST = 1 << 20


def packed(raw: bytes) -> bytes:
    """gzip without the time in it."""
    return gzip.compress(raw, mtime=0)


def refused(body: bytes) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        inflate(body, MOST)
    assert caught.value.code == "malformed_body"
    return caught.value


@given(st.lists(st.binary(max_size=100_000), min_size=1, max_size=4))
def test_compressed_data_is_restored(parts: list[bytes]) -> None:
    """Of one member or several, one after the other (RFC 1952)."""
    assert inflate(b"".join(map(packed, parts)), MOST) == b"".join(parts)


@pytest.mark.parametrize("size", [0, 1, 16_383, 16_384, MOST])
def test_a_body_of_just_the_bound_is_read_and_one_byte_more_is_not(size: int) -> None:
    assert inflate(packed(bytes(size)), size) == bytes(size)
    if size:
        assert inflate(packed(bytes(size)), size - 1) is None


def test_a_bomb_is_not_built() -> None:
    """A gigabyte of zeros is a megabyte of gzip."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(200)), packer.flush()])
    tracemalloc.start()
    try:
        assert inflate(bomb, MOST) is None
        assert inflate(bomb[: len(bomb) // 2] * 2, MOST) is None
        assert tracemalloc.get_traced_memory()[1] < 4 * MOST
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\x1f",
        b"\x1f\x8b",
        packed(b"x" * 1000)[:-1],
        packed(b"x" * 1000)[:20],
        packed(b"x") + b"garbage",
        packed(b"x") + b"\0",
        packed(b"x") + packed(b"y")[:-3],
        zlib.compress(b"x"),
        packed(b"x")[:-8] + b"\0" * 8,
    ],
)
def test_a_body_that_is_no_gzip_is_malformed(body: bytes) -> None:
    """Cut off, of another kind, with a wrong checksum, or with something after its end."""
    assert "gzip" in str(refused(body))


def test_the_members_of_a_body_are_bounded() -> None:
    """Each costs a decompressor."""
    one = packed(b"")
    assert inflate(one * MEMBERS, MOST) == b""
    assert "members" in str(refused(one * (MEMBERS + 1)))


@pytest.mark.parametrize("told", [b"gzip", b"GZIP", b" x-gzip ", b"identity, gzip"])
def test_gzip_is_known_by_its_names(told: bytes) -> None:
    assert is_gzip(told)


@pytest.mark.parametrize("told", [b"", b"identity", b" Identity "])
def test_no_encoding_is_none(told: bytes) -> None:
    assert not is_gzip(told)


@pytest.mark.parametrize("told", [b"deflate", b"br", b"zstd", b"gzip, gzip", b"gzip, br", b"\xff"])
def test_any_other_encoding_is_unsupported(told: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        is_gzip(told)
    assert (caught.value.code, status_of(caught.value)) == ("unsupported_encoding", 415)
    assert "gzip" in str(caught.value)


@pytest.mark.parametrize(
    "told",
    [
        b"application/json",
        b"Application/JSON; charset=UTF-8",
        b'application/json;charset="utf-8"',
        b"application/vnd.kserve+json",
        b"application/octet-stream",
        b"text/plain;charset=utf-8",
        b"application/x-www-form-urlencoded",
        b"",
        b"application/json; boundary=x",
        b"application/json; charset=",
    ],
)
def test_json_and_what_clients_call_it_is_read(told: bytes) -> None:
    check_type(told, JSON)


@pytest.mark.parametrize(
    "told",
    [
        b"application/xml",
        b"text/csv",
        b"application/msgpack",
        b"application/x-protobuf",
        b"multipart/form-data; boundary=a",
        b"application/x-ndjson",
        b"application/jsonp",
        b"application/json; charset=latin-1",
        b"text/json;charset=utf-16",
        b"image/png",
        b"\xff/\xff",
    ],
)
def test_any_other_content_type_is_unsupported(told: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        check_type(told, JSON)
    assert (caught.value.code, status_of(caught.value)) == ("unsupported_type", 415)
    assert json.dumps(str(caught.value))
