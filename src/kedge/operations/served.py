"""Operations as control serves them: the function and the type of the result of each.

`operations.catalogue` has their addresses. A test compares the types with those that the commands
declare, and the two tables with each other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from kedge.core.alerts.alerts import Alert
from kedge.core.metrics.alert_rules import AlertRules
from kedge.core.names import get_known
from kedge.core.runbook import Runbook
from kedge.core.speed import Speed
from kedge.core.stored.ledger import Entry
from kedge.operations import commands
from kedge.operations import parameters as given
from kedge.operations.alerts import AlertTest, ListedAlert, acknowledge, alerts_of, runbook_of
from kedge.operations.ask import Ask
from kedge.operations.commands import Order
from kedge.operations.diagnosis.document import AcceptedReference, DiagnosisReport
from kedge.operations.doctor import DoctorReport
from kedge.operations.drills import DrillReport, speed_of
from kedge.operations.evidence.read import (
    RolloutEvidence,
    RolloutPlan,
    course_of,
    evidence_of,
    state_of,
)
from kedge.operations.evidence.view import CoursePoint
from kedge.operations.export import ExportedLog
from kedge.operations.feature_rollouts import follow
from kedge.operations.features.apply import (
    AppliedFeatures,
    ListedTransformation,
    SchemaUser,
    list_transformations,
    on_schema,
    version_of,
)
from kedge.operations.features.compare import TransformationDiff
from kedge.operations.features.head import HeadMove
from kedge.operations.features.materialise import FedRun, RunStatus
from kedge.operations.features.materialise import status_of as runs_of
from kedge.operations.features.training_set import WrittenTrainingSet
from kedge.operations.forget import ForgottenEntity
from kedge.operations.history import HistoryPage, history_of
from kedge.operations.metrics import alert_rules_of
from kedge.operations.outcomes import JoinedOutcomes
from kedge.operations.readiness.check import CheckedEndpoint
from kedge.operations.receipts import CommandReceipt, RollbackReceipt
from kedge.operations.registration import ListedVersion, RegisteredVersion, list_versions
from kedge.operations.replay.run import ReplayedComparison
from kedge.operations.setup import AppliedPolicies
from kedge.operations.status.read import status_of
from kedge.operations.status.view import EndpointStatus
from kedge.operations.tokens import CreatedToken, ListedToken, list_tokens
from kedge.transforms.store import open_store


class Served(NamedTuple):
    """The function of an operation, and the type of its result."""

    result: Any
    run: Callable[[Ask], object] | None
    """None: it runs in a process of its own."""


def _order(ask: Ask, reason: str) -> Order:
    """Return the order of a remote caller, who gets no messages before the receipt."""
    return Order(ask.place, ask.named, ask.by, reason, ask.expect)


def _given_reason(ask: Ask) -> Order:
    return _order(ask, ask.given(given.ReasonParameters).reason)


def _roll_back(ask: Ask) -> RollbackReceipt:
    asked = ask.given(given.RollbackParameters)
    return commands.roll_back(
        _order(ask, asked.reason),
        production=asked.production,
        to=asked.to,
        axis=asked.axis,
        accept_stale=asked.accept_stale,
    )


def _pause(ask: Ask) -> CommandReceipt:
    return commands.pause(_given_reason(ask))


def _resume(ask: Ask) -> CommandReceipt:
    asked = ask.given(given.ResumeParameters)
    return commands.resume(_order(ask, asked.reason), asked.override)


def _abort(ask: Ask) -> CommandReceipt:
    return commands.abort(_given_reason(ask))


def _set_weight(ask: Ask) -> CommandReceipt:
    asked = ask.given(given.WeightParameters)
    return commands.set_weight(_order(ask, ""), asked.weight, asked.override)


def _freeze(ask: Ask) -> CommandReceipt:
    return commands.freeze(_given_reason(ask))


def _thaw(ask: Ask) -> CommandReceipt:
    return commands.thaw(_given_reason(ask))


def _follow(ask: Ask) -> CommandReceipt:
    return follow(_given_reason(ask))


def _hold(ask: Ask) -> CommandReceipt:
    return commands.hold(_given_reason(ask))


def _ack(ask: Ask) -> Alert:
    assert ask.number is not None
    return acknowledge(ask.place, ask.number, ask.given(given.AckParameters).by or ask.by)


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


def _tokens(ask: Ask) -> object:
    return list_tokens(ask.place, every=ask.given(given.ListTokensParameters).all)


def _features(ask: Ask) -> object:
    return list_transformations(ask.place, ask.given(given.ListFeaturesParameters).schema)


def _runs(ask: Ask) -> object:
    return runs_of(ask.place, open_store(ask.place.online), ask.given(given.ViewParameters).view)


def _impact(ask: Ask) -> object:
    version = version_of(ask.place, ask.given(given.ImpactParameters).version)
    return on_schema(ask.place, version.schema)


def _alert_rules(ask: Ask) -> object:
    return alert_rules_of(ask.place)


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
    "prometheus-rules": Served(AlertRules, _alert_rules),
    "rollback": Served(RollbackReceipt, _roll_back),
    "pause": Served(CommandReceipt, _pause),
    "resume": Served(CommandReceipt, _resume),
    "abort": Served(CommandReceipt, _abort),
    "set-weight": Served(CommandReceipt, _set_weight),
    "freeze": Served(CommandReceipt, _freeze),
    "thaw": Served(CommandReceipt, _thaw),
    "features follow": Served(CommandReceipt, _follow),
    "features hold": Served(CommandReceipt, _hold),
    "ack": Served(Alert, _ack),
    "plan": Served(RolloutPlan, None),
    "promote": Served(CommandReceipt, None),
    "shadow": Served(CommandReceipt, None),
    "canary": Served(CommandReceipt, None),
    "features shadow": Served(CommandReceipt, None),
    "features canary": Served(CommandReceipt, None),
    "features roll": Served(CommandReceipt, None),
    "features head": Served(HeadMove, None),
    "features diff": Served(TransformationDiff, None),
    "features materialise": Served(list[FedRun], None),
    "features backfill": Served(FedRun, None),
    "doctor": Served(DoctorReport, None),
    "check": Served(CheckedEndpoint, None),
    "diagnose": Served(DiagnosisReport, None),
    "accept": Served(AcceptedReference, None),
    "drill": Served(DrillReport, None),
    "replay": Served(ReplayedComparison, None),
    "alerts test": Served(AlertTest, None),
    "log forget": Served(ForgottenEntity, None),
    "apply": Served(AppliedPolicies, None),
    "features apply": Served(AppliedFeatures, None),
    "features training-set": Served(WrittenTrainingSet, None),
    "log export": Served(ExportedLog, None),
    "outcomes": Served(JoinedOutcomes, None),
    "register": Served(RegisteredVersion, None),
    "token list": Served(list[ListedToken], _tokens),
    "token create": Served(CreatedToken, None),
    "token revoke": Served(ListedToken, None),
}
