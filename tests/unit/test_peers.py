"""The address that limits apply to, and the senders that may name an entity."""

from __future__ import annotations

import pytest

from kedge.gateway.http.peers import Peers


@pytest.mark.parametrize(
    "client, headers, caller",
    [
        ("192.0.2.1", {}, "192.0.2.1"),
        ("192.0.2.1", {"x-forwarded-for": "198.51.100.1"}, "192.0.2.1"),
        ("127.0.0.1", {}, None),
        ("127.0.0.1", {"x-forwarded-for": "198.51.100.1"}, None),
        ("::1", {}, None),
        ("::ffff:192.0.2.1", {}, "192.0.2.1"),
        ("2001:db8:1:2:3::4", {}, "2001:db8:1:2::/64"),
        ("10.0.0.1", {}, None),
        ("10.0.0.1", {"x-forwarded-for": "198.51.100.1"}, "198.51.100.1"),
        ("10.0.0.1", {"x-forwarded-for": "9.9.9.9, 198.51.100.1, 10.0.0.2"}, "198.51.100.1"),
        ("10.0.0.1", {"x-forwarded-for": "9.9.9.9, unknown"}, None),
        ("10.0.0.1", {"x-forwarded-for": "10.0.0.3"}, None),
        ("10.0.0.1", {"x-forwarded-for": "198.51.100.1:4711"}, "198.51.100.1"),
        (
            "10.0.0.1",
            {"forwarded": 'for=9.9.9.9, proto=http;For="[2001:db8::1]:80"'},
            "2001:db8::/64",
        ),
        ("10.0.0.1", {"x-forwarded-for": "\xff"}, None),
        (None, {}, None),
    ],
)
def test_a_caller_is_the_last_hop_that_is_not_ours(
    client: str | None, headers: dict[str, str], caller: str | None
) -> None:
    peers = Peers(["10.0.0.0/24"])
    told = [(name.encode(), value.encode("latin-1")) for name, value in headers.items()]
    assert peers.caller(None if client is None else (client, 1), told) == caller


def test_a_trusted_proxy_on_this_host_names_its_callers() -> None:
    told = [(b"x-forwarded-for", b"198.51.100.1")]
    assert Peers(["127.0.0.1"]).caller(("127.0.0.1", 1), told) == "198.51.100.1"


def test_entities_come_from_listed_addresses() -> None:
    assert Peers().may_name_entity(("192.0.2.1", 1))
    listed = Peers((), ["192.0.2.0/24"])
    assert listed.may_name_entity(("192.0.2.1", 1))
    assert not listed.may_name_entity(("198.51.100.1", 1))
    assert not listed.may_name_entity(None)
