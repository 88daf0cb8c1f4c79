"""Access of control's callers: the gatekeeper, its loop, and the admin token of this machine."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from kedge.engine.loop import Duty, Loop
from kedge.operations.tokens import keep_admin_token
from kedge.web.access_table import AccessTable, Stores
from kedge.web.auth import Gatekeeper, Identify
from kedge.workspace import Workplace, host_name

LOOK_S = 1.0
"""Interval at which tokens are compared with the ledger: a revoked one ends within it, and an open
stream, which asks every two seconds, within three."""


class ControlAccess(NamedTuple):
    """The gatekeeper of control, and the loop that keeps what it knows up to date."""

    gate: Gatekeeper
    loop: Loop
    look: Callable[[], None]
    """One step of the loop."""


def access_of(
    duty: Duty,
    open_place: Callable[[], Workplace],
    port: int,
    proxied: Identify = lambda _: None,
) -> ControlAccess:
    """Build the gatekeeper of control's port.

    Args:
        duty: of the control process.
        open_place: opens the state directory; it is called in the thread that uses it.
        port: control's port, which is part of the cookie's name.
        proxied: reads the headers of a trusted proxy.
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
    return ControlAccess(Gatekeeper(table, duty.clock.unix, port, proxied), loop, look)
