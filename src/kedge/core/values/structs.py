"""Nouns that every value is made of: the parent of all values, stages, arms, actors and placements."""

from __future__ import annotations

from enum import StrEnum

import msgspec

BUCKETS = 10_000
"""A weight inside the house is a number of buckets; at every edge it is per cent."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parent of every value that is stored or sent: immutable and closed."""


class Stage(StrEnum):
    """Where an endpoint stands in a rollout."""

    EMPTY = "empty"
    SETTLED = "settled"
    SHADOW = "shadow"
    CANARY = "canary"
    DRILL = "drill"


class Arm(StrEnum):
    """Which role a release had when it answered or watched a request."""

    PRODUCTION = "production"
    CANDIDATE = "candidate"
    PREVIOUS = "previous"


class ActorKind(StrEnum):
    """What wrote a ledger entry, stated by the component that wrote it.

    The name beside it is free text: KEDGE_ACTOR may be anything.
    """

    PERSON = "person"
    """A command of the operator, or of a script: whatever kedge did not start by itself."""
    PATROL = "patrol"
    CONTROL = "control"
    """Another loop of the control process, or a command that it started."""
    SUPERVISOR = "supervisor"

    @property
    def is_automatic(self) -> bool:
        """Whether kedge acted by itself."""
        return self is not ActorKind.PERSON


class Placement(StrEnum):
    """Where a release runs on a replica's host."""

    INLINE = "inline"
    PROCESS = "process"


class FileEntry(Value, frozen=True):
    """One file of an artifact: its path inside it, its size in bytes and its sha256."""

    path: str
    size: int
    sha256: str


class Refusal(Value, frozen=True):
    """A "no": why, and what to do instead."""

    code: str
    message: str
    hint: str = ""


class Beginning(Value, frozen=True):
    """When a telemetry database was made, and why there is no earlier one."""

    at: float
    """Unix time."""
    why: str = ""
    """What was wrong with the one before it; empty when there was none."""
    kept: str = ""
    """The name under which that one is kept; empty when there is nothing to keep."""
