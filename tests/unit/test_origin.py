"""Accepted callers of control: hosts, origins and content types, in every spelling."""

from __future__ import annotations

from contextlib import nullcontext

import pytest

from kedge.core.errors import BadRequest
from kedge.web.origin import check_content, check_origin, is_own_host

OWN = (b"host", b"127.0.0.1:8081")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8081",
        "localhost",
        "localhost:9",
        "localhost.:9",
        "[::1]",
        "[::1]:8081",
        "127.9.9.9:1",
        "[::ffff:127.0.0.1]:80",
        "[0:0:0:0:0:0:0:1]",
    ],
)
def test_loopback_is_ours(host: str) -> None:
    assert is_own_host(host, ())


@pytest.mark.parametrize(
    "host",
    [
        "",
        "evil.example",
        "evil.example:8081",
        "localhost.evil.example",
        "x.localhost",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil.example",
        "evil.example#127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::1",
        "::1",
        "[127.0.0.1]",
        "[::1]x",
        "[::1]:x",
        "[fe80::1]",
        "[::ffff:8.8.8.8]",
        "localhost:",
        "localhost:99999",
        "localhost:-1",
        "localhost:8081:1",
        "localhost..",
        "%6cocalhost",
        "127.0.0.1, evil.example",
        "127.0.0.1 ",
        "192.168.0.1",
        "localhost:\u0661",
        "[::1%25lo]",
    ],
)
def test_anything_else_is_not(host: str) -> None:
    assert not is_own_host(host, ())


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "malformed_head"),
        ([OWN, OWN], "malformed_head"),
        ([OWN, (b"host", b"evil.example")], "malformed_head"),
        ([(b"host", b"evil.example:8081")], "foreign_host"),
        ([OWN, (b"origin", b"https://evil.example")], "foreign_origin"),
        ([OWN, (b"origin", b"null")], "foreign_origin"),
        ([OWN, (b"origin", b"")], "foreign_origin"),
        ([OWN, (b"origin", b"http://127.0.0.1:3000")], "foreign_origin"),
        ([OWN, (b"origin", b"http://localhost:8081")], "foreign_origin"),
        ([OWN, (b"origin", b"http://127.0.0.1:8081.evil.example")], "foreign_origin"),
        ([OWN, (b"origin", b"http://127.0.0.1:8081"), (b"origin", b"null")], "foreign_origin"),
        ([OWN, (b"sec-fetch-site", b"cross-site")], "foreign_origin"),
        ([OWN, (b"sec-fetch-site", b"same-site")], "foreign_origin"),
        ([OWN, (b"sec-fetch-site", b"none"), (b"sec-fetch-site", b"cross-site")], "foreign_origin"),
    ],
)
def test_a_page_of_another_site_is_refused(headers: list[tuple[bytes, bytes]], code: str) -> None:
    with pytest.raises(BadRequest) as refused:
        check_origin(headers)
    assert refused.value.code == code


@pytest.mark.parametrize(
    "headers",
    [
        [OWN],
        [(b"host", b"LOCALHOST:8081")],
        [OWN, (b"origin", b"http://127.0.0.1:8081"), (b"sec-fetch-site", b"same-origin")],
        [OWN, (b"sec-fetch-site", b"none")],
    ],
)
def test_tools_and_pages_of_its_own_are_taken(headers: list[tuple[bytes, bytes]]) -> None:
    check_origin(headers)


LINK = [
    OWN,
    (b"sec-fetch-site", b"cross-site"),
    (b"sec-fetch-mode", b"navigate"),
    (b"sec-fetch-dest", b"document"),
]
"""What a browser sends when its user opens a link in a mail."""


def test_a_link_of_another_site_opens_a_page_and_writes_nothing() -> None:
    check_origin(LINK, reads=True)
    for headers, reads in (
        (LINK, False),
        ([*LINK[:3], (b"sec-fetch-dest", b"iframe")], True),
        ([*LINK[:2], (b"sec-fetch-mode", b"no-cors"), LINK[3]], True),
        ([*LINK, (b"origin", b"https://evil.example")], True),
    ):
        with pytest.raises(BadRequest) as refused:
            check_origin(headers, reads=reads)
        assert refused.value.code == "foreign_origin"


def test_control_has_other_names_only_where_they_are_listed() -> None:
    named = [(b"host", b"kedge.internal:8081")]
    check_origin(named, ("kedge.internal",))
    with pytest.raises(BadRequest) as refused:
        check_origin(named)
    assert refused.value.code == "foreign_host"


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (b"Kedge.Internal:8081", "kedge.internal"),
        (b"kedge.internal.", "kedge.internal"),
        (b"[FD00:0:0:0:0:0:0:7]:8081", "fd00::7"),
        (b"10.0.0.7", "10.0.0.7"),
    ],
)
def test_a_listed_name_is_ours_in_every_spelling(host: bytes, name: str) -> None:
    check_origin([(b"host", host)], (name,))
    check_origin([(b"host", host), (b"origin", b"https://" + host)], (name,), is_secure=True)


@pytest.mark.parametrize(
    ("origin", "is_secure", "is_ours"),
    [
        (b"https://kedge.internal", True, True),
        (b"https://kedge.internal:443", True, True),
        (b"HTTPS://Kedge.Internal", True, True),
        (b"http://kedge.internal", True, False),
        (b"http://kedge.internal:443", True, False),
        (b"https://kedge.internal:8443", True, False),
        (b"http://kedge.internal", False, True),
        (b"http://kedge.internal:80", False, True),
        # A proxy that ends TLS and does not say so.
        (b"https://kedge.internal", False, True),
        (b"ftp://kedge.internal", False, False),
        (b"kedge.internal", False, False),
    ],
)
def test_an_origin_is_ours_by_its_scheme_host_and_port(
    origin: bytes, is_secure: bool, is_ours: bool
) -> None:
    headers = [(b"host", b"kedge.internal"), (b"origin", origin)]
    refused = nullcontext() if is_ours else pytest.raises(BadRequest, match="Origin must be")
    with refused:
        check_origin(headers, ("kedge.internal",), is_secure=is_secure)


@pytest.mark.parametrize(
    "value",
    [
        b"application/x-ndjson",
        b"Application/X-NDJSON; charset=UTF-8",
        b"application/jsonl",
        b"application/json",
    ],
)
def test_json_lines_are_taken(value: bytes) -> None:
    assert not check_content([(b"content-type", value)])
    assert check_content([(b"content-type", value), (b"content-encoding", b"gzip")])


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"multipart/form-data; boundary=application/x-ndjson")],
        [(b"content-type", b"text/plain; application/x-ndjson")],
        [(b"content-type", b"text/plain, application/x-ndjson")],
        [(b"content-type", b"application/x-ndjson"), (b"content-type", b"text/plain")],
        [(b"content-type", b"application/x-ndjson; charset=utf-7")],
        [(b"content-type", b"application/vnd.api+json")],
    ],
)
def test_a_request_that_a_web_page_can_send_is_refused(headers: list[tuple[bytes, bytes]]) -> None:
    with pytest.raises(BadRequest) as refused:
        check_content(headers)
    assert refused.value.code == "unsupported_type"


@pytest.mark.parametrize("codings", [[b"br"], [b"deflate"], [b"gzip", b"gzip"], [b"gzip, gzip"]])
def test_only_gzip_is_read(codings: list[bytes]) -> None:
    """Once: what is compressed twice, or in two headers, is refused as the gateway refuses it."""
    declared = (b"content-type", b"application/x-ndjson")
    with pytest.raises(BadRequest) as refused:
        check_content([declared, *((b"content-encoding", each) for each in codings)])
    assert refused.value.code == "unsupported_encoding"
