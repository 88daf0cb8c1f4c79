"""Access of control's callers: the gatekeeper, its loop, and the admin token of this machine."""

from __future__ import annotations

import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from kedge.config.model import ControlBind, ProxySettings
from kedge.core.hosts import is_loopback
from kedge.engine.loop import Duty, Loop
from kedge.engine.process_faults import ProcessFaults
from kedge.gateway.auth import read_tokens
from kedge.operations.tokens import keep_admin_token
from kedge.runtime.listener import refuse_trusted_network
from kedge.web.access_table import AccessTable, Stores
from kedge.web.auth import Gatekeeper
from kedge.web.proxy import NO_PROXY, ProxyHeaders, TrustedProxy
from kedge.web.server import Certificates, Tls, listen, listen_socket
from kedge.workspace import Workplace, host_name

CERTIFICATE_S = 5.0
"""Interval at which a replaced certificate is looked for."""
LOOK_S = 1.0
"""Interval at which tokens are compared with the ledger: a revoked one ends within it, and an open
stream, which asks every two seconds, within three."""


class ControlAccess(NamedTuple):
    """The gatekeeper of control, and the loop that keeps what it knows up to date."""

    gate: Gatekeeper
    loop: Loop
    look: Callable[[], None]
    """One step of the loop."""


def proxy_of(bind: ControlBind, folder: Path, faults: ProcessFaults) -> TrustedProxy:
    """Build the part that trusts the proxy of kedge.toml; paths are relative to `folder`.

    Raises:
        BadConfig: the file of the secret cannot be read, or other users can read it.
    """
    proxy = bind.proxy
    secrets = _read_secrets(folder, proxy)
    headers = ProxyHeaders(tuple(secrets), proxy.user_header, proxy.groups_header, proxy.groups)
    needed = not is_loopback(bind.host) and bind.certificate is None
    return TrustedProxy(headers, is_needed=needed, limit=faults.limit)


def _read_secrets(folder: Path, proxy: ProxySettings) -> list[bytes]:
    if proxy.secret_file is None:
        return []
    return read_tokens(folder / proxy.secret_file, "control.proxy.secret_file")


class Doors(NamedTuple):
    """Where control listens."""

    listeners: list[socket.socket]
    certificates: Certificates | None

    @property
    def port(self) -> int:
        """The port of the first one."""
        return int(self.listeners[0].getsockname()[1])


def open_doors(bind: ControlBind, port: int, folder: Path) -> Doors:
    """Listen at the port, and at the Unix socket of a proxy; paths are relative to `folder`.

    Raises:
        BadConfig: `bad_certificate`; `trust_network`.
        Unavailable: `port_taken`.
    """
    refuse_trusted_network()
    certificates = None
    if bind.certificate is not None and bind.key is not None:
        authority = folder / bind.client_ca if bind.client_ca is not None else None
        certificates = Certificates(Tls(folder / bind.certificate, folder / bind.key, authority))
    listeners = [listen(port, bind.host)]
    if bind.socket is not None:
        listeners.append(listen_socket(folder / bind.socket))
    return Doors(listeners, certificates)


def access_of(
    duty: Duty,
    open_place: Callable[[], Workplace],
    port: int,
    proxy: TrustedProxy = NO_PROXY,
) -> ControlAccess:
    """Build the gatekeeper of control's port.

    Args:
        duty: of the control process.
        open_place: opens the state directory; it is called in the thread that uses it.
        port: control's port, which is part of the cookie's name.
        proxy: reads the headers of a trusted proxy.
    """
    places: list[Workplace] = []

    def open_stores() -> Stores:
        place = open_place()
        places.append(place)
        return Stores(place.tokens, place.sessions)

    table = AccessTable(open_stores, duty.clock.unix)
    kept = False

    def look() -> None:
        nonlocal kept
        table.thread.submit(table.refresh).result()
        if not kept:
            keep = partial(keep_admin_token, places[0], by=f"control@{host_name()}")
            table.thread.submit(keep).result()
            kept = True

    def end() -> None:
        table.thread.submit(table.keep_uses).result()
        table.thread.shutdown()

    loop = Loop(duty, "control.access", look, every_s=LOOK_S, last=end)
    return ControlAccess(Gatekeeper(table, duty.clock.unix, port, proxy), loop, look)


def certificates_of(duty: Duty, certificates: Certificates | None) -> dict[str, Loop]:
    """Build the loop that reads replaced certificates, if there are any."""
    if certificates is None:
        return {}

    def look() -> None:
        certificates.look(duty.clock.unix())

    return {"certificates": Loop(duty, "control.certificates", look, every_s=CERTIFICATE_S)}
