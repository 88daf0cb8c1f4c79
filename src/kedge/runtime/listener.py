"""Listener: the socket that all gateway workers share, and the checks of its address."""

from __future__ import annotations

import errno
import os
import socket

from kedge.config.model import ServerSettings
from kedge.core.errors import BadConfig, Unavailable
from kedge.core.hosts import bare_host

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


def refuse_open_bind(server: ServerSettings) -> None:
    """Raise if other machines can reach the callers' port, and kedge.toml does not say so.

    Raises:
        BadConfig: `open_bind`; `trust_network`: the variable that once allowed it is still set.
    """
    refuse_trusted_network()
    if not server.loopback and not server.plain:
        raise BadConfig(
            [f"server.host: {server.host} is reachable from outside, without TLS"],
            code="open_bind",
            hint=(
                "bind 127.0.0.1 behind your proxy, or set [server] plain = true on a network that"
                " you trust; caller_token_file then lets callers in by a token"
            ),
        )


def refuse_trusted_network() -> None:
    """Raise if KEDGE_TRUST_NETWORK is set: a variable that is ignored would seem to protect.

    Raises:
        BadConfig: `trust_network`.
    """
    if os.environ.get("KEDGE_TRUST_NETWORK"):
        raise BadConfig(
            ["KEDGE_TRUST_NETWORK has no effect any more"],
            code="trust_network",
            hint=(
                "remove it; [server] plain = true lets callers on other machines reach the gateway,"
                " and [control] in kedge.toml says how they reach control"
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
