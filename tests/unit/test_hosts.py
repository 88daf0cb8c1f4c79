"""Hosts in one spelling, however a header, a URL or kedge.toml writes them."""

from __future__ import annotations

import pytest

from kedge.core.hosts import is_loopback, spell_host, split_host


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("kedge.internal", "kedge.internal"),
        ("Kedge.INTERNAL.", "kedge.internal"),
        ("10.0.0.7", "10.0.0.7"),
        ("FD00:0:0::7", "fd00::7"),
        ("[fd00::7]", "fd00::7"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("my_host", "my_host"),
    ],
)
def test_a_host_has_one_spelling(text: str, spelled: str) -> None:
    assert spell_host(text) == spelled
    assert spell_host(spelled) == spelled


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "a..b",
        "https://kedge.internal",
        "kedge.internal:8081",
        "kedge.internal/x",
        "*.internal",
        "[10.0.0.7]",
        "[kedge]",
        "[fe80::1%eth0]",
        "fe80::1%eth0",
        "-a.example",
        "a" * 64,
        "a." * 127 + "a",
        "ü" * 64,
        "a b",
    ],
)
def test_anything_else_is_no_host(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each text has its own words
        spell_host(text)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("kedge.internal", "kedge.internal", 0),
        ("KEDGE.internal:8081", "kedge.internal", 8081),
        ("[FD00::7]", "fd00::7", 0),
        ("[fd00:0::7]:8081", "fd00::7", 8081),
    ],
)
def test_a_host_is_split_from_its_port(text: str, host: str, port: int) -> None:
    assert split_host(text) == (host, port)


@pytest.mark.parametrize(
    "text", ["kedge:", "kedge:x", "kedge:65536", "kedge:-1", "kedge:80:80", "fd00::7", "[fd00::7"]
)
def test_no_other_text_is_a_host_with_a_port(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - each text has its own words
        split_host(text)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST.", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_loopback_is_found_in_every_spelling(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "kedge", "", "127.1", "x.localhost"])
def test_nothing_else_is_loopback(host: str) -> None:
    assert not is_loopback(host)
