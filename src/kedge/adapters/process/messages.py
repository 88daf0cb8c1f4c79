"""Messages of a trial, from the process that tries a file out or proves a release."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from kedge.columns import Grouped
from kedge.core.inputs import Described
from kedge.core.values import Plainness, Signature


class LoadedModel(msgspec.Struct, frozen=True):
    """Loaded model with its description of itself."""

    signature: Signature
    load_s: float
    described: Described = Described()


class AnsweredRows(msgspec.Struct, frozen=True):
    """Rows that were asked, with their answers."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    again: dict[str, list[Any]]
    """The answer to the same rows, asked a second time."""
    fault: str | None = None
    """The fault in the form of the answer."""
    used: Literal["golden", "sample", "made"] = "golden"
    """The offered rows that were asked."""
    grouped: Grouped = Grouped()
    plain: Plainness | None = None


class TrialFailure(msgspec.Struct, frozen=True):
    """kedge error that ended the trial."""

    kind: str
    """The name of its class."""
    code: str
    message: str
    hint: str = ""
    details: dict[str, object] = {}


class ProofStep(msgspec.Struct, frozen=True):
    """Completed step of a proof."""

    step: str
    seconds: float
    rows: int = 0


class TrialMessage(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of a trial: exactly one of its fields is set."""

    loaded: LoadedModel | None = None
    done: ProofStep | None = None
    answered: AnsweredRows | None = None
    failed: TrialFailure | None = None
