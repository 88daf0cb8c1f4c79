"""Listener: the socket that all gateway workers share, and the checks of its address."""

from __future__ import annotations

import errno
import os
import socket

from kedge.config.model import bare_host, is_loopback
from kedge.core.errors import BadConfig, Unavailable

BACKLOG = 2048


def listen(host: str, port: int) -> socket.socket:
    """Listen at an address; resolve a host name, IPv4 first.

    Raises:
        Unavailable: `port_taken`, or `cannot_listen`: the address does not belong to this machine.
    """
    try:
        family, address = _resolve(host, port)
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _refusal(host, port, error) from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _refusal(host, port, error) from error
    return listener


def refuse_open_bind(host: str, what: str) -> None:
    """Raise if another machine can reach an address: there is no authentication yet.

    Raises:
        BadConfig: the address is not loopback, and KEDGE_TRUST_NETWORK is not set.
    """
    if not is_loopback(host) and not os.environ.get("KEDGE_TRUST_NETWORK"):
        raise BadConfig(
            [f"{what}: {host} is reachable from outside, and this version has no authentication"],
            hint=(
                "bind 127.0.0.1 behind your proxy, or set KEDGE_TRUST_NETWORK=1 on a network you"
                " trust"
            ),
        )


def means(host: str, address: str) -> bool:
    """Return whether a host of kedge.toml means the given listening address."""
    try:
        found = socket.getaddrinfo(bare_host(host), None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return address in {entry[4][0] for entry in found}


def _resolve(host: str, port: int) -> tuple[socket.AddressFamily, tuple[object, ...]]:
    found = socket.getaddrinfo(
        bare_host(host), port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )
    # Many machines resolve "localhost" to ::1 first, but most callers write 127.0.0.1.
    found.sort(key=lambda entry: entry[0] != socket.AF_INET)
    return found[0][0], found[0][4]


def _refusal(host: str, port: int, error: OSError) -> Unavailable:
    message = f"cannot listen on {host}:{port}: {error.strerror or error}"
    if error.errno == errno.EADDRINUSE:
        hint = "kedge up --port N, or [server] port in kedge.toml"
        return Unavailable(message, code="port_taken", hint=hint)
    if error.errno in (errno.EACCES, errno.EPERM):
        hint = "ports below 1024 are for root: choose another one, and put a proxy before it"
    else:
        hint = "[server] host must be an address of this machine; 127.0.0.1 is behind a proxy"
    return Unavailable(message, code="cannot_listen", hint=hint)
