"""Known endpoints: their names, and the one that a command means."""

from __future__ import annotations

from collections.abc import Callable, Collection

from kedge.core.errors import KedgeError, Usage
from kedge.core.names import is_name, unknown_endpoint
from kedge.workspace import Workplace

Configured = Callable[[], Collection[str]]
"""Returns the endpoints of kedge.toml, which is read only if they are needed."""


def list_endpoints(place: Workplace) -> tuple[list[str], bool]:
    """Return the endpoints that have a row, sorted, and whether the ledger could be read.

    Without the ledger they are those that this host remembers: break-glass commands need no ledger.
    """
    try:
        return sorted(place.ledger.read().states), True
    except KedgeError:
        return sorted(place.disk.remembered()), False


def find_endpoint(
    place: Workplace, given: str, configured: Configured, *, needs_row: bool = True
) -> str:
    """Return the endpoint that a command names, after checking that it exists.

    An endpoint that was removed from kedge.toml still has its row, and can be rolled back.

    Args:
        place: the state directory.
        given: the name, as the operator typed it.
        configured: the endpoints of kedge.toml.
        needs_row: whether an endpoint that only kedge.toml names is refused.

    Raises:
        Refused: `unknown_endpoint`.
    """
    if is_name(given) and place.disk.has_served(given):
        return given  # a rollback reads the ledger once, in its own transaction
    rows, whole = list_endpoints(place)
    if given in rows:
        return given
    named = sorted(configured())
    if given in named and not (needs_row and whole):
        return given
    if not whole and not rows and not named:
        return given  # no endpoint is known: the command itself reports the ledger's fault
    raise unknown_endpoint(given, {*rows, *named} - {given}, configured=given in named)


def only_endpoint(
    place: Workplace, configured: Configured, command: str, *, needs_row: bool = True
) -> str:
    """Return the only endpoint, for a command that names none.

    Args:
        place: the state directory.
        configured: the endpoints of kedge.toml.
        command: the command as typed, such as "kedge rollback".
        needs_row: whether an endpoint that only kedge.toml names is left out.

    Raises:
        Usage: `endpoint_needed`: none or more than one exists; the message names them.
    """
    rows, whole = list_endpoints(place)
    found = rows if needs_row and whole else sorted({*rows, *configured()})
    if len(found) == 1:
        return found[0]
    if not found:
        waiting = sorted(configured())
        raise Usage(
            f"{command} needs an endpoint, and none is in force yet",
            code="endpoint_needed",
            hint=(
                f"kedge apply brings {', '.join(waiting)} into force"
                if waiting
                else "kedge init NAME adds one to kedge.toml"
            ),
            details={"endpoints": []},
        )
    raise Usage(
        f"{command} needs the name of an endpoint: there are {len(found)}: {', '.join(found)}",
        code="endpoint_needed",
        hint=f"{command} {found[0]}",
        details={"endpoints": found},
    )
