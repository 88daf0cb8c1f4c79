"""Structs that every value uses: the parent of all values, stages, arms, actors and placements."""

from __future__ import annotations

from enum import StrEnum

import msgspec

BUCKETS = 10_000
"""Number of buckets. Inside kedge a weight is a number of buckets; users see per cent."""


class Value(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The parent of every value that is stored or sent: immutable, without unknown fields."""


class Stage(StrEnum):
    """The state of an endpoint's rollout."""

    EMPTY = "empty"
    SETTLED = "settled"
    SHADOW = "shadow"
    CANARY = "canary"
    DRILL = "drill"


class Arm(StrEnum):
    """The role of a release when it answered or shadowed a request."""

    PRODUCTION = "production"
    CANDIDATE = "candidate"
    PREVIOUS = "previous"


class ActorKind(StrEnum):
    """The kind of actor that wrote a ledger entry, stated by the component that wrote it.

    The name beside it is free text, because KEDGE_ACTOR can be anything.
    """

    PERSON = "person"
    """A command of the operator or of a script: everything that kedge did not start by itself."""
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


MOST_FILES = 10_000
"""Maximum files of one artifact or upload. Commands read its manifest with its version: about a
megabyte."""
MOST_DEPTH = 32
"""Maximum number of folders above a file: four times those of a Hugging Face cache, and short
enough for the kernel."""
MOST_NAME = 1_000
"""Maximum bytes of a file's name with its folders: below the store, it fits into a path of
4,096."""


class FileEntry(Value, frozen=True):
    """One file of an artifact: its path in the artifact, its size in bytes and its sha256."""

    path: str
    size: int
    sha256: str


class Refusal(Value, frozen=True):
    """A "no" of a rule, with its reason and a hint."""

    code: str
    message: str
    hint: str = ""


class Beginning(Value, frozen=True):
    """When a telemetry database was made, and why there is no earlier one."""

    at: float
    """Unix time."""
    why: str = ""
    """What was wrong with the earlier one; empty if there was none."""
    kept: str = ""
    """The name under which the earlier one is stored; empty if there is none."""
