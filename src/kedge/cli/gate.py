"""Gate of a promotion: the readiness that a release needs before production."""

from __future__ import annotations

from collections.abc import Callable

from kedge.cli.context import Context
from kedge.core.errors import BadConfig
from kedge.engine.submission import Gate
from kedge.operations.readiness.check import gate_of
from kedge.workspace import Workplace


def gate_before(context: Context, place: Workplace, say: Callable[[str], None]) -> Gate:
    """Build the gate that a release must pass before production."""
    try:
        loopback = context.settings.server.loopback
    except BadConfig:
        loopback = True  # the gate sees where gateways listen, too
    return gate_of(place, loopback=loopback, say=say)
