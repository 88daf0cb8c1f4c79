"""Catalogue: the one table of commands and views that control's API offers.

The routes, the OpenAPI document, the access checks and the remote command line derive from it.
`operations.served` binds each operation to its function and to the type of its result.

It imports no operation, so that the remote command line starts fast.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, NamedTuple

from kedge.operations import parameters as given
from kedge.operations.parameters import NoParameters

API = "/api/v1"
"""The prefix of every path of the table."""

Needed = Literal["read", "operate", "admin", "register", "outcomes"]
"""What a caller needs: a role, or the scope of a token."""


class Lane(StrEnum):
    """Where an operation runs, by how long it takes."""

    LOOK = "look"
    """In the pool of readers; simultaneous equal requests share one answer."""
    COMMAND = "command"
    """In the pool of commands."""
    CHILD = "child"
    """In a process of its own: model code, replays, loads, and long reads."""
    LOCAL = "local"
    """Only on the host of the state directory; a remote caller is refused."""


class Operation(NamedTuple):
    """One operation: its address, what it needs, and where it runs."""

    name: str
    """The words of the command."""
    method: Literal["GET", "POST"]
    path: str
    """Below `API`; empty for a local operation."""
    needs: Needed
    lane: Lane
    summary: str
    """The first line of the command's help."""
    parameters: type[NoParameters] = NoParameters
    every: bool = False
    """Whether there is a path without the endpoint, which means all of them."""
    expects: bool = False
    """Whether it changes the row of one endpoint, so that If-Match applies."""

    @property
    def has_endpoint(self) -> bool:
        """Return whether the path names an endpoint."""
        return "{endpoint}" in self.path


_E = "/endpoints/{endpoint}"


def _view(
    name: str,
    path: str,
    summary: str,
    parameters: type[NoParameters] = NoParameters,
    *,
    every: bool = False,
    lane: Lane = Lane.LOOK,
) -> Operation:
    return Operation(name, "GET", path, "read", lane, summary, parameters, every)


CATALOGUE: tuple[Operation, ...] = (
    _view("list", "/endpoints", "List the endpoints, one line each."),
    _view(
        "status",
        f"{_E}/status",
        "Show what is live, what can take over, and what is wrong.",
        every=True,
    ),
    _view(
        "history",
        f"{_E}/history",
        "Show what changed, by whom, why, and how long it took.",
        given.HistoryParameters,
    ),
    _view(
        "evidence",
        f"{_E}/evidence",
        "Compare candidate and production, with a verdict each.",
        given.EvidenceParameters,
    ),
    _view("versions", f"{_E}/versions", "List the registered versions of ENDPOINT."),
    _view(
        "alerts",
        f"{_E}/alerts",
        "Show open alerts, newest first, and who was notified.",
        given.AlertsParameters,
        every=True,
    ),
    _view(
        "speed",
        f"{_E}/speed",
        "Show how long past rollbacks took, from harm to old answer.",
        every=True,
    ),
    _view("runbook", f"{_E}/runbook", "Print what to do when ENDPOINT misbehaves."),
    _view(
        "features list",
        "/features",
        "List schemas, transformations, and endpoints on them.",
        given.ListFeaturesParameters,
    ),
    _view(
        "features status",
        "/features/status",
        "Show how far each run is, its lag, and who reads it.",
        given.ViewParameters,
    ),
    _view(
        "features impact",
        "/features/impact",
        "Name every endpoint that VERSION could reach.",
        given.ImpactParameters,
    ),
)
"""Every operation of the API."""

BY_NAME = {operation.name: operation for operation in CATALOGUE}
