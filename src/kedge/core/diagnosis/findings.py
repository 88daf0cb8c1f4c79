"""Findings of a diagnosis, as frozen values that can be stored and sent.

Codes are part of the interface: they never change their meaning. Sentences may.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal

from kedge.core.values import Value


class Cause(StrEnum):
    """Cause of an endpoint's worse answers."""

    MODEL = "model"
    FEATURES = "features"
    RELEASE = "release"
    """The newer release is worse; the data cannot show whether by its model or its features."""
    DATA = "data"
    WORLD = "world"
    LABEL_MIX = "label_mix"
    NOISE = "noise"
    """Proven: neither the release nor the world made it worse; or it is a spell, as before."""
    CANNOT_TELL = "cannot_tell"


class Kind(StrEnum):
    """Kind of a cause, where the cause has several forms."""

    TRAIN_SERVE = "train_serve"
    """Of a model: production sends nulls where the training set had none."""
    CONCEPT = "concept"
    """Of the world: the same inputs have other outcomes now."""
    HARDER_INPUTS = "harder_inputs"
    """Of the world: more inputs that were always hard, or new ones."""
    UNDIVIDED = "undivided"
    """Of the world: too few labels to distinguish concept and inputs."""
    NO_OVERLAP = "no_overlap"
    """Of the world: hardly any input is like one of the reference."""
    INSTRUMENTATION = "instrumentation"
    """Cannot tell: the figures cannot be trusted."""
    STALE = "stale"
    """Of the data: values that were right for an earlier request."""
    RECODED = "recoded"
    """Of the data: codes that have changed places."""
    WORLD_OR_DATA = "world_or_data"
    """Cannot tell: a changed world and a stale or recoded column look the same."""


RELEASE = frozenset({Cause.MODEL, Cause.FEATURES, Cause.RELEASE})
"""Causes that a rollback undoes."""
ELSEWHERE = frozenset({Cause.DATA, Cause.WORLD, Cause.LABEL_MIX})
"""Causes that a rollback does not undo: both releases meet them alike."""


class Act(StrEnum):
    """Action that a diagnosis recommends."""

    ROLL_BACK_MODEL = "roll_back_model"
    ROLL_BACK_FEATURES = "roll_back_features"
    ROLL_BACK = "roll_back"
    """Roll back the whole release, model and features."""
    HOLD_FIX_DATA = "hold_fix_data"
    HOLD_FIX_LOGGING = "hold_fix_logging"
    GO_FORWARD = "go_forward"
    """Retrain, move the threshold, or accept a new reference: the previous release is no better."""
    HOLD = "hold"
    """Change nothing before more is known."""
    NOTHING = "nothing"


class Estimate(Value, frozen=True):
    """A change of the mean loss, in the metric's own unit, with its 95 % interval.

    Negative is better.
    """

    value: float
    low: float
    """Lower end of the interval."""
    high: float
    """Upper end of the interval."""
    n: int
    """Labelled requests."""

    def turned(self) -> Estimate:
        """Return the change with the opposite sign."""
        return Estimate(0 - self.value, 0 - self.high, 0 - self.low, self.n)  # and no -0

    def text(self) -> str:
        """Return the estimate as text: -0.012 [-0.015, -0.0090]."""
        return f"{self.value:+.3g} [{self.low:+.3g}, {self.high:+.3g}]"


class Suspect(Value, frozen=True):
    """A column that may be false although its values are plausible, and why."""

    column: str
    kind: Literal["stale", "recoded"]
    text: str
    """Why, in words."""


class Finding(Value, frozen=True, kw_only=True):
    """One cause of the loss of quality."""

    cause: Cause
    kind: Kind | None = None
    """Kind of a cause, where the cause has several forms."""
    statement: str
    """The finding in words."""
    effect: Estimate | None = None
    """Its addition to the loss; null where that is not known."""
    share: float | None = None
    """Its part of the whole rise since the reference; null where either is not known."""
    columns: tuple[str, ...] = ()
    """Its columns, the worst first."""
    is_shared: bool = False
    """The way back has the same fault, so that a rollback does not undo it."""
    suspects: tuple[Suspect, ...] = ()
    """With `stale` and `recoded`, the false columns; with `world_or_data`, those to check."""


class Evidence(Value, frozen=True, kw_only=True):
    """One row of the table of evidence: a question, its answer and its verdict."""

    question: str
    """A code: split, log, labels, defects, hidden, freshness, train_serve, release, model, features, interaction,
    swap, back_model, back_features, moved, world, spells, label_mix, concept,
    inputs."""
    answer: str
    """The answer in words."""
    figure: float | None = None
    """The figure that answers it: a change of the mean loss, a share of requests, or an age in seconds."""
    low: float | None = None
    """Lower end of its 95 % interval; null without one."""
    high: float | None = None
    """Upper end of its 95 % interval."""
    verdict: str
    """yes, no, unclear or not tested."""


class Action(Value, frozen=True):
    """A recommended action, with its reason in a sentence."""

    code: Act
    """The first step."""
    sentence: str
    """The first step and the next ones, in words."""


class Missing(Value, frozen=True):
    """A missing item: its code, and what to log for it."""

    code: str
    """outcomes, more_outcomes, more_units, old_answers, new_answers, reference, replay, previous,
    split, log, scores, overlap."""
    log: str
    """What to log, in words."""


class Diagnosis(Value, frozen=True, kw_only=True):
    """Diagnosis of one endpoint: causes, the effect of a rollback, and the evidence."""

    new: str
    """The release that answers now, such as r3."""
    old: str | None
    """The way back."""
    metric: str
    """The judged loss, such as log_loss."""
    headline: str
    """The effect of a rollback, in a sentence."""
    effect: Estimate | None
    """Effect of a rollback on the metric: the previous release's loss on today's traffic less the
    present one's. None: it is not known."""
    findings: tuple[Finding, ...]
    """At least one. Two causes are two findings, the larger effect first."""
    evidence: tuple[Evidence, ...]
    """Every asked question, in order."""
    action: Action
    would_change: tuple[str, ...]
    """Observations that would change the verdict, in words."""
    missing: tuple[Missing, ...] = ()
    """Items to log for a better diagnosis."""

    @property
    def causes(self) -> tuple[str, ...]:
        """Return the causes' codes."""
        return tuple(finding.cause.value for finding in self.findings)
