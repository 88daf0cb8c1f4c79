"""Operations as control serves them: the function and the type of the result of each.

`operations.catalogue` has their addresses. A test compares the types with those that the commands
declare, and the two tables with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from kedge.core.names import get_known
from kedge.core.runbook import Runbook
from kedge.core.speed import Speed
from kedge.core.stored.ledger import Entry
from kedge.operations import parameters as given
from kedge.operations.alerts import ListedAlert, alerts_of, runbook_of
from kedge.operations.drills import speed_of
from kedge.operations.evidence.read import RolloutEvidence, course_of, evidence_of, state_of
from kedge.operations.evidence.view import CoursePoint
from kedge.operations.features.apply import (
    ListedTransformation,
    SchemaUser,
    list_transformations,
    on_schema,
    version_of,
)
from kedge.operations.features.materialise import RunStatus
from kedge.operations.features.materialise import status_of as runs_of
from kedge.operations.history import HistoryPage, history_of
from kedge.operations.parameters import NoParameters
from kedge.operations.registration import ListedVersion, list_versions
from kedge.operations.status.read import status_of
from kedge.operations.status.view import EndpointStatus
from kedge.transforms.store import open_store
from kedge.workspace import Workplace

Given = TypeVar("Given", bound=NoParameters)


class Ask(NamedTuple):
    """One request for an operation."""

    place: Workplace
    endpoint: str | None
    """None: the operation is about no single endpoint."""
    parameters: NoParameters
    by: str
    """The actor, for the ledger."""
    expect: int | None = None
    """The epoch that the caller saw; None: any."""

    @property
    def named(self) -> str:
        """The endpoint of an operation that always has one."""
        assert self.endpoint is not None
        return self.endpoint

    def given(self, kind: type[Given]) -> Given:
        """Return the parameters as the struct of the catalogue."""
        assert isinstance(self.parameters, kind)
        return self.parameters


class Served(NamedTuple):
    """The function of an operation, and the type of its result."""

    result: Any
    run: Callable[[Ask], object]


def _status(ask: Ask) -> object:
    found = status_of(ask.place, ask.endpoint)
    return found if ask.endpoint is None else found[0]


def _history(ask: Ask) -> HistoryPage:
    asked = ask.given(given.HistoryParameters)
    get_known(ask.place.ledger.read().states, ask.named)
    return history_of(ask.place, ask.named, asked.limit, whole=asked.all, cursor=asked.cursor)


def _evidence(ask: Ask) -> object:
    asked = ask.given(given.EvidenceParameters)
    if asked.since is not None:
        return course_of(ask.place, ask.named, asked.since)
    return evidence_of(ask.place, ask.named, asked.segment)


def _versions(ask: Ask) -> object:
    state_of(ask.place, ask.named)
    return list_versions(ask.place, ask.named)


def _alerts(ask: Ask) -> object:
    return alerts_of(ask.place, ask.endpoint, over=ask.given(given.AlertsParameters).all)


def _speed(ask: Ask) -> object:
    found = speed_of(ask.place, ask.endpoint)
    return found if ask.endpoint is None else found[0]


def _runbook(ask: Ask) -> object:
    return runbook_of(ask.place, ask.named, by=ask.by)


def _features(ask: Ask) -> object:
    return list_transformations(ask.place, ask.given(given.ListFeaturesParameters).schema)


def _runs(ask: Ask) -> object:
    return runs_of(ask.place, open_store(ask.place.online), ask.given(given.ViewParameters).view)


def _impact(ask: Ask) -> object:
    version = version_of(ask.place, ask.given(given.ImpactParameters).version)
    return on_schema(ask.place, version.schema)


SERVED: dict[str, Served] = {
    "list": Served(list[EndpointStatus], _status),
    "status": Served(EndpointStatus | list[EndpointStatus], _status),
    "history": Served(list[Entry], _history),
    "evidence": Served(RolloutEvidence | list[CoursePoint], _evidence),
    "versions": Served(list[ListedVersion], _versions),
    "alerts": Served(list[ListedAlert], _alerts),
    "speed": Served(Speed | list[Speed], _speed),
    "runbook": Served(Runbook, _runbook),
    "features list": Served(list[ListedTransformation], _features),
    "features status": Served(list[RunStatus], _runs),
    "features impact": Served(list[SchemaUser], _impact),
}
