"""Peers: network addresses that share one caller's bounds, and those that may name an entity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Headers = Iterable[tuple[bytes, bytes]]

FORWARDED_HOPS = 16
"""Maximum addresses that are read from a forwarding header; real chains have one to four."""
V6_PREFIX = 64
"""IPv6 prefix of one caller: one customer commonly gets a /64 network."""


def networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Parse addresses and CIDR ranges.

    Raises:
        ValueError: one of the texts is neither.
    """
    return tuple(ip_network(text, strict=False) for text in texts)


class Peers:
    """The proxies of this host's callers, and the addresses that may send `kedge-entity`."""

    def __init__(
        self, trusted: Iterable[str] = (), entity_from: Sequence[str] | None = None
    ) -> None:
        """Read the settings `trusted_peers` and `entity_from`; None allows every peer."""
        self._trusted = networks(trusted)
        self._entity_from = None if entity_from is None else networks(entity_from)

    def may_name_entity(self, client: tuple[str, int] | None) -> bool:
        """Return whether a connection from this address may send `kedge-entity`."""
        if self._entity_from is None:
            return True
        address = _address(client[0]) if client else None
        return address is not None and _within(address, self._entity_from)

    def caller(self, client: tuple[str, int] | None, headers: Headers = ()) -> str | None:
        """Return the key under which the bounds of one caller count; None if they do not apply.

        The address behind a trusted proxy is the last one in the forwarding headers that is not a
        trusted proxy itself. An unlisted address of this host may stand for many callers behind an
        unlisted proxy, and so may a proxy that names no caller. Neither has a caller's bounds.
        """
        address = _address(client[0]) if client else None
        if address is None:
            return None
        if _within(address, self._trusted):
            address = self._forwarded(headers)
        elif address.is_loopback:
            return None
        return None if address is None else _key(address)

    def _forwarded(self, headers: Headers) -> Address | None:
        """Return the last address of the forwarding headers that is not a trusted proxy."""
        hops: list[str] = []
        for name, value in headers:
            text = value.decode("latin-1")
            if name == b"x-forwarded-for":
                hops += text.split(",")
            elif name == b"forwarded":
                hops += [_for(element) for element in text.split(",")]
        for hop in reversed(hops[-FORWARDED_HOPS:]):
            address = _address(hop.strip())
            if address is None:
                return None  # our proxy did not write the addresses before an unreadable hop
            if not _within(address, self._trusted):
                return address
        return None


def _for(element: str) -> str:
    """Return the `for` of one element of a Forwarded header (RFC 7239)."""
    for pair in element.split(";"):
        name, _, value = pair.partition("=")
        if name.strip().lower() == "for":
            return value.strip().strip('"')
    return ""


def _address(text: str) -> Address | None:
    """Parse an address of a socket or a header, with or without a port."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif "." in text and not text.startswith(":"):
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _within(address: Address, ranges: tuple[Network, ...]) -> bool:
    return any(address in each for each in ranges)


def _key(address: Address) -> str:
    if isinstance(address, IPv6Address):
        return str(ip_network((address, V6_PREFIX), strict=False))
    return str(address)
