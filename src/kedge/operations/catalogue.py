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
    words: tuple[str, ...] = ()
    """Parameters that the command takes as words after the endpoint, in this order."""

    secret: bool = False
    """Whether its answer has a secret. It is not stored, so a repetition is carried out again."""

    files: tuple[str, ...] = ()
    """Parameters that name files: of an upload, which the parameter `upload` names."""
    result: str = ""
    """The parameter that names the file or folder which the command writes."""
    inline: bool = False
    """Whether the body of a request may have the data itself."""
    admin_with: tuple[str, ...] = ()
    """Parameters that need an admin, because they let code run."""

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


def _change(
    name: str,
    summary: str,
    parameters: type[NoParameters] = given.ReasonParameters,
    *,
    lane: Lane = Lane.COMMAND,
    words: tuple[str, ...] = (),
) -> Operation:
    path = f"{_E}/{name.replace(' ', '/')}"
    return Operation(
        name, "POST", path, "operate", lane, summary, parameters, expects=True, words=words
    )


def _task(
    name: str,
    path: str,
    summary: str,
    parameters: type[NoParameters] = NoParameters,
    *,
    needs: Needed = "operate",
    words: tuple[str, ...] = (),
) -> Operation:
    return Operation(name, "POST", path, needs, Lane.CHILD, summary, parameters, words=words)


def _local(name: str, summary: str) -> Operation:
    return Operation(name, "POST", "", "admin", Lane.LOCAL, summary)


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
    _view(
        "prometheus-rules",
        "/prometheus-rules",
        "Print alert rules for Prometheus, by the policies in force.",
    ),
    _view(
        "plan",
        f"{_E}/plan",
        "Estimate how soon each step would find a worse candidate.",
        given.PlanParameters,
        lane=Lane.CHILD,
    ),
    _change("rollback", "Go back to the previous good release.", given.RollbackParameters),
    _change("pause", "Hold the rollout where it is."),
    _change("resume", "Continue a held rollout.", given.ResumeParameters),
    _change("abort", "End a rollout; the candidate stays eligible."),
    _change(
        "set-weight",
        "Change the candidate's share to WEIGHT per cent.",
        given.WeightParameters,
        words=("weight",),
    ),
    _change("freeze", "Stop automation on ENDPOINT; commands still work."),
    _change("thaw", "Let automation act on ENDPOINT again."),
    _change("features follow", "Let ENDPOINT follow the head of its feature schema."),
    _change("features hold", "Keep ENDPOINT on its features, whatever the head is."),
    Operation(
        "ack",
        "POST",
        "/alerts/{number}/ack",
        "operate",
        Lane.COMMAND,
        "Acknowledge alert NUMBER: it escalates no further.",
        given.AckParameters,
    ),
    _change(
        "promote",
        "Move a rollout to its next step, or into production.",
        given.PromoteParameters,
        lane=Lane.CHILD,
        words=("version",),
    ),
    _change(
        "shadow",
        "Send VERSION a silent copy of production's requests.",
        given.ShadowParameters,
        lane=Lane.CHILD,
        words=("version",),
    ),
    _change(
        "canary",
        "Send a percentage of traffic to VERSION.",
        given.CanaryParameters,
        lane=Lane.CHILD,
        words=("version",),
    ),
    _change(
        "features shadow",
        "Shadow production's model with transformation NUMBER.",
        given.FeatureShadowParameters,
        lane=Lane.CHILD,
        words=("number",),
    ),
    _change(
        "features canary",
        "Send a percentage of traffic to transformation NUMBER.",
        given.FeatureCanaryParameters,
        lane=Lane.CHILD,
        words=("number",),
    ),
    _change(
        "features roll",
        "Put transformation NUMBER into production.",
        given.FeatureRollParameters,
        lane=Lane.CHILD,
        words=("number",),
    ),
    _task(
        "features head",
        "/features/head",
        "Make VERSION the head of its schema; followers move.",
        given.HeadParameters,
        words=("version",),
    ),
    _task(
        "features diff",
        "/features/diff",
        "Compare two transformations on golden and logged rows.",
        given.DiffParameters,
        words=("old", "new"),
    ),
    _task(
        "features materialise",
        "/features/materialise",
        "Compute the values of VIEW that are due.",
        given.MaterialiseParameters,
        words=("view",),
    ),
    _task(
        "features backfill",
        "/features/backfill",
        "Recompute the newest version of VIEW in a new run.",
        given.BackfillParameters,
        words=("view",),
    ),
    _task(
        "doctor",
        "/doctor",
        "Check the ledger, artifacts, replicas and this machine.",
        given.DoctorParameters,
        needs="admin",
    ),
    _task(
        "check",
        f"{_E}/check",
        "Check whether a rollback would work now.",
        given.CheckParameters,
    ),
    _task(
        "diagnose",
        f"{_E}/diagnose",
        "Report why ENDPOINT became worse, and what would help.",
        given.DiagnoseParameters,
    ),
    _task(
        "accept",
        f"{_E}/accept",
        "Make a window the reference of every later diagnosis.",
        given.AcceptParameters,
    ),
    _task(
        "drill",
        f"{_E}/drill",
        "Practise a rollback in production, then restore.",
        given.DrillParameters,
    ),
    _task(
        "replay",
        f"{_E}/replay",
        "Replay logged requests to RELEASE, and judge its answers.",
        given.ReplayParameters,
        words=("release",),
    ),
    _task(
        "alerts test",
        f"{_E}/alerts/test",
        "Send a test through every channel of every level.",
    ),
    _task(
        "log forget",
        "/log/forget",
        "Remove every prediction and label of UNIT.",
        given.ForgetParameters,
        needs="admin",
        words=("unit",),
    ),
    _task("apply", "/apply", "Check kedge.toml and bring its policies into force.", needs="admin"),
    Operation(
        "token list",
        "GET",
        "/tokens",
        "admin",
        Lane.LOOK,
        "List tokens: their permissions, end and last use.",
        given.ListTokensParameters,
    ),
    _task(
        "token create",
        "/tokens",
        "Create a token, and show it once.",
        given.CreateTokenParameters,
        needs="admin",
    )._replace(secret=True),
    _task(
        "token revoke",
        "/tokens/revoke",
        "Revoke a token; its browser sessions end with it.",
        given.RevokeTokenParameters,
        needs="admin",
        words=("name",),
    ),
    _task(
        "register",
        f"{_E}/register",
        "Register the model in PATH as a version of ENDPOINT.",
        given.RegisterParameters,
        needs="register",
        words=("path",),
    )._replace(
        files=("path", "golden", "training", "training_set"),
        admin_with=("trust", "trust_inline", "allow_code"),
    ),
    _task(
        "outcomes",
        f"{_E}/outcomes",
        "Read late labels, and join them to predictions by id.",
        given.OutcomesParameters,
        needs="outcomes",
    )._replace(files=("file",), inline=True),
    _task(
        "features apply",
        "/features/apply",
        "Make versions of the transformations in PATH.",
        given.ApplyFeaturesParameters,
        needs="admin",
        words=("path",),
    )._replace(files=("path", "golden", "training")),
    _task(
        "features training-set",
        f"{_E}/features/training-set",
        "Compute ENDPOINT's features of past rows, as of their time.",
        given.TrainingSetParameters,
    )._replace(files=("spine",), result="out"),
    _task(
        "log export",
        f"{_E}/log/export",
        "Write predictions and their labels as Parquet files.",
        given.ExportParameters,
    )._replace(result="to"),
    _local("login", "Print a link that logs a browser into the dashboard once."),
    _local("init", "Write kedge.toml for ENDPOINT, or add it to the one here."),
    _local("up", "Run everything on this machine; Ctrl-C stops it."),
    _local("gateway", "Run only the gateway workers and their model processes."),
    _local("control", "Run only control: the patrol, and the API on loopback."),
    _local("restart", "Load new code and settings into kedge up, without outage."),
    _local("backup", "Copy the state directory into DIR, while kedge runs."),
    _local("restore", "Restore the backup in DIR; nothing acts before kedge thaw."),
    _local("unpin", "End a pin on this host; it follows the ledger again."),
)
"""Every operation of the API."""

BY_NAME = {operation.name: operation for operation in CATALOGUE}
