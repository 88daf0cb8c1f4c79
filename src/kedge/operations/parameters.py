"""Parameters of the operations of control's API, as structs.

A field has the name of the command's option or argument, with underscores. A test compares them.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from kedge.core.access import Role, Scope
from kedge.core.values import MOST_NAME

Percent = Annotated[float, Meta(ge=0, le=100)]
Text = Annotated[str, Meta(max_length=4096)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]
UploadName = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
UploadPath = Annotated[str, Meta(min_length=1, max_length=MOST_NAME)]
"""A file or folder of an upload."""
MOST_ENTRIES = 10_000
"""Maximum entries of a history in one answer: they are read into memory at once."""
ResultName = Annotated[str, Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]


class NoParameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Parameters of an operation that has none; the parent of all others."""


class HistoryParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `history`."""

    limit: Annotated[int, Meta(ge=1, le=MOST_ENTRIES)] = 20
    """Maximum number of entries."""
    all: bool = False
    """Whether entries about the runbook are included."""
    cursor: Text = ""
    """Where the page begins: the value of `next` in the Link header of the page before."""


class EvidenceParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `evidence`."""

    segment: Text | None = None
    """FIELD=VALUE: this segment only, beside the whole."""
    since: Text | None = None
    """A duration back, or a time: the course of minutes and hours instead."""


class PlanParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `plan`."""

    rate: Annotated[float, Meta(gt=0, le=10_000_000)] | None = None
    """Requests a second; default: measured."""
    errors: Percent | None = None
    """Per cent of requests that production fails; default: measured."""
    times: Annotated[float, Meta(gt=1, le=1_000_000)] = 2.0
    """The factor by which the worse candidate fails more often."""
    callers: Count | None = None
    """Number of different callers; default: counted in the prediction log."""


class AlertsParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `alerts`."""

    all: bool = False
    """Whether resolved alerts are included."""


class ReasonParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of a command that takes a reason only."""

    reason: Text = ""
    """Why, for the ledger."""


class RollbackParameters(ReasonParameters, frozen=True, kw_only=True):
    """Parameters of `rollback`."""

    production: bool = False
    """Whether production is rolled back, also within a canary."""
    to: Text | None = None
    """A release that was production before, as r3."""
    axis: Literal["model", "features"] | None = None
    """The half that is rolled back; default: both."""
    accept_stale: Text | None = None
    """The accepted age of the values that the release reads by key, such as 3h."""


class ShadowParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `shadow`."""

    version: Text
    """A version or a release, as v2 or r3."""
    sample: Percent | None = None
    """Per cent of the units; default: the policy's."""
    override: Text | None = None
    """The reason to override the rules."""


class CanaryParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `canary`."""

    version: Text
    """A version or a release, as v2 or r3."""
    weight: Percent | None = None
    """Per cent of the callers; default: the policy's first step."""
    auto: bool = False
    """Whether the patrol walks the steps, each by proof."""
    override: Text | None = None
    """The reason to override the rules."""


class PromoteParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `promote`."""

    version: Text | None = None
    """A version or a release; default: the candidate."""
    full: bool = False
    """Whether the remaining canary steps are skipped."""
    override: Text | None = None
    """The reason to override the rules."""


class WeightParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `set-weight`."""

    weight: Percent
    """Per cent of the callers."""
    override: Text | None = None
    """The reason to override the rules."""


class ResumeParameters(ReasonParameters, frozen=True, kw_only=True):
    """Parameters of `resume`."""

    override: Text | None = None
    """The reason to override the rules."""


class AckParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `ack`."""

    by: Text | None = None
    """Who acknowledges it; default: the caller."""


class AcceptParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `accept`."""

    reason: Text
    """Why the present state is accepted."""
    since: Text = "24h"
    """Where the new reference begins: a duration back, or a time."""
    until: Text | None = None
    """Where it ends; default: now."""


class CheckParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `check`."""

    no_proof: bool = False
    """Whether the proof of the last day is used instead of a new one."""


class DrillParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `drill`."""

    for_: Text | None = msgspec.field(default=None, name="for")
    """How long all of it may take, 60s at most."""
    dry: bool = False
    """Whether everything but the flip is done."""


class DiagnoseParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `diagnose`."""

    since: Text = "24h"
    """Where today's window begins: a duration back, or a time."""
    until: Text | None = None
    """Where it ends; default: now."""
    reference_since: Text | None = None
    """Where the window begins that today is compared with."""
    reference_until: Text | None = None
    """Where that one ends; default: where today's begins."""
    segment: Text | None = None
    """FIELD=VALUE: only the requests of this segment."""
    production: bool = False
    """Whether it is about production, also while a candidate is under way."""


class ReplayParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `replay`."""

    release: Text
    """A version or a release, as v2 or r3."""
    since: Text = "7d"
    """From when: a date, a time, or a duration back."""


class ForgetParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `log forget`."""

    unit: Text
    """The entity whose predictions and labels are removed."""
    endpoint: Text | None = None
    """Of this endpoint only."""


class ListTokensParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `token list`."""

    all: bool = False
    """Whether revoked tokens are included."""


class CreateTokenParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `token create`."""

    name: Text
    """A name for lists and for the ledger."""
    role: Role | None = None
    """What it may do."""
    scope: tuple[Scope, ...] = ()
    """Single permissions, in place of a role."""
    endpoint: tuple[Text, ...] = ()
    """The endpoints that it may see and change; empty: all."""
    expires: Text = "90d"
    """How long it is valid, such as 90d; or never."""


class RevokeTokenParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `token revoke`."""

    name: Text
    """The name of the token."""
    reason: Text = ""
    """Why; the ledger records it."""


class FeatureCanaryParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features canary`."""

    number: Count
    """The number of the transformation."""
    weight: Percent | None = None
    """Per cent of the callers; default: the policy's first step."""
    auto: bool = False
    """Whether the patrol walks the steps, each by proof."""
    generation: Text | None = None
    """The runs of values computed ahead that it reads."""
    override: Text | None = None
    """The reason to override the rules."""


class FeatureShadowParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features shadow`."""

    number: Count
    """The number of the transformation."""
    sample: Percent | None = None
    """Per cent of the units; default: the policy's."""
    generation: Text | None = None
    """The runs of values computed ahead that it reads."""
    override: Text | None = None
    """The reason to override the rules."""


class FeatureRollParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features roll`."""

    number: Count
    """The number of the transformation."""
    generation: Text | None = None
    """The runs of values computed ahead that it reads."""
    override: Text | None = None
    """The reason to override the rules."""


class HeadParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features head`."""

    version: Text
    """The transformation, as flight/1@2."""
    dry_run: bool = False
    """Whether the endpoints that would move are shown, and nothing is changed."""
    override: Text | None = None
    """The reason to override the rules."""


class ListFeaturesParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features list`."""

    schema: Text | None = None
    """This schema only."""


class DiffParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features diff`."""

    old: Text
    """A transformation, as flight/1@2."""
    new: Text
    """The transformation that is compared with it."""


class MaterialiseParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features materialise`."""

    view: Text
    """The view, as delays or delays/1."""
    at: Text | None = None
    """Up to when: a date, a time, or a duration back; default: now."""


class BackfillParameters(MaterialiseParameters, frozen=True, kw_only=True):
    """Parameters of `features backfill`."""

    since: Text | None = None
    """From when: a date, a time, or a duration back; default: the source's first row."""


class DoctorParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `doctor`."""

    head: tuple[Text, ...] = ()
    """Heads of the ledger's chain, as NUMBER:HASH: are they still in the history?"""
    forget: Text | None = None
    """A replica that is permanently gone; it is removed from the roster."""
    accept_ledger: Text | None = None
    """Why a ledger whose history is missing heads is followed from now on."""


class ViewParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features status`."""

    view: Text | None = None
    """This view only."""


class ImpactParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `features impact`."""

    version: Text
    """The transformation, as flight/1@2."""


class LabelParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of `outcomes` whose labels are the body of the request."""

    correct: bool = False
    """Whether labels that were handed in with another value are replaced."""
    time_format: Text | None = None
    """How `at` is written where it is text, as for strptime; null: ISO 8601."""


class OutcomesParameters(LabelParameters, frozen=True, kw_only=True):
    """Parameters of `outcomes`: a file of an upload, or a few rows."""

    upload: UploadName | None = None
    """The upload with the file."""
    file: UploadPath | None = None
    """JSON lines, CSV or Parquet: a file of the upload; a dash: its file `stdin`, as JSON lines."""
    rows: (
        Annotated[
            tuple[Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})], ...],
            Meta(min_length=1, max_length=10_000),
        ]
        | None
    ) = None
    """Outcomes in place of a file: objects with id, value, at and label_version."""

    def __post_init__(self) -> None:
        """Raise unless there is one source of outcomes."""
        if (self.upload is None) is not (self.file is None):
            raise ValueError("`upload` and `file` belong together")
        if (self.rows is None) is (self.file is None):
            raise ValueError("either `rows` or `file` is needed")


class UploadParameters(NoParameters, frozen=True, kw_only=True):
    """Parameters of an operation that reads files of an upload."""

    upload: UploadName
    """The upload with the files."""


class TrainingSetParameters(UploadParameters, frozen=True, kw_only=True):
    """Parameters of `features training-set`."""

    spine: UploadPath
    """Parquet or CSV: raw columns, a time, and other columns to keep."""
    time: Text
    """The column with the time at which each row was asked."""
    out: ResultName
    """The name of the Parquet file among the results of the upload."""
    time_format: Text | None = None
    """How that column is written, as for strptime; null: ISO 8601 where it is text."""
    schema: Text | None = None
    """Which features; null: production's."""
    transformation: Count | None = None
    """Which code; null: production's, else the newest."""
    generation: Text | None = None
    """Which values, such as delays/1#2@1; null: production's, else the newest."""


class ExportParameters(UploadParameters, frozen=True, kw_only=True):
    """Parameters of `log export`."""

    to: ResultName
    """The name of the folder among the results of the upload; an hour is one file."""
    since: Text = "7d"
    """From when: a date, a time, or a duration back such as 7d."""


class ApplyFeaturesParameters(UploadParameters, frozen=True, kw_only=True):
    """Parameters of `features apply`."""

    path: UploadPath
    """The features file; the modules that it imports are beside it."""
    golden: UploadPath | None = None
    """Raw rows to test it on, as JSON; null: from the prediction log."""
    training: UploadPath | None = None
    """A training set with raw columns; some of its rows are tested."""


class RegisterParameters(UploadParameters, frozen=True, kw_only=True):
    """Parameters of `register`."""

    path: UploadPath
    """The model: a file or a folder of the upload."""
    golden: UploadPath | None = None
    """Rows it must answer, as JSON."""
    training: UploadPath | None = None
    """The training set (CSV, JSON lines or Parquet), for its column statistics."""
    training_set: UploadPath | None = None
    """A training set that kedge made."""
    learn_bounds: bool = False
    """Whether ranges, lengths and categories of the training set are proposed as bounds."""
    trust: tuple[Text, ...] = ()
    """Python types that this version may load."""
    trust_inline: Text = ""
    """The reason to run it inside the gateway's workers although it is not proven plain."""
    allow_code: Text = ""
    """The reason to let it run code when it is loaded, in its own process."""
    schema: Text | None = None
    """The feature schema that it was trained on."""
