"""Hosts as a Host header, a URL and kedge.toml name them, in one spelling."""

from __future__ import annotations

import re
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple

PORTS = 65_536
LONGEST = 253
"""Longest name of the DNS."""
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)", re.ASCII)


class HostPort(NamedTuple):
    """A host in its one spelling, and a port; 0: the one of the scheme."""

    host: str
    port: int


def spell_host(text: str) -> str:
    """Return a host in its one spelling; brackets around an address are left out.

    Names are in lower case, without the dot at the end, in letters of ASCII (RFC 5891). An IPv6
    address has its short form (RFC 5952).

    Raises:
        ValueError: it is no host; the text says why.
    """
    bare = bare_host(text)
    try:
        name = _spell_address(bare) if ":" in bare or bare != text else _spell_name(bare)
    except ValueError:
        name = ""
    if not name:
        raise ValueError(
            "must be a name or an address, such as kedge.internal, without scheme, port and zone;"
            f" got {text[:80]!r}"
        )
    return name


def _spell_address(text: str) -> str:
    address = IPv6Address(text)
    return "" if address.scope_id is not None else str(address)


def _spell_name(text: str) -> str:
    name = (text if text.isascii() else text.encode("idna").decode()).lower().removesuffix(".")
    is_name = len(name) <= LONGEST and all(_LABEL.fullmatch(one) for one in name.split("."))
    return name if is_name else ""


def split_host(text: str) -> HostPort:
    """Return the host and the port of a Host header, or of an origin without its scheme.

    Raises:
        ValueError: it is neither a host nor a host with a port.
    """
    head, colon, port = text.rpartition(":")
    if not colon or (text.startswith("[") and text.endswith("]")):
        head, port = text, "0"
    elif ":" in head and not head.startswith("["):
        raise ValueError(f"an IPv6 address needs brackets; got {text[:80]!r}")
    if not (port.isascii() and port.isdigit() and len(port) <= len(str(PORTS))):
        raise ValueError(f"must be a number after the colon; got {text[:80]!r}")
    if int(port) >= PORTS:
        raise ValueError(f"must be a port below {PORTS}; got {text[:80]!r}")
    return HostPort(spell_host(head), int(port))


def bare_host(host: str) -> str:
    """Return a host without the brackets of an IPv6 address in a URL."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine's loopback: only this machine can reach it."""
    try:
        spelled = spell_host(host)
        if spelled == "localhost":
            return True
        address = ip_address(spelled)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped.is_loopback if mapped else address.is_loopback
