"""Records of predictions, their outcomes, and the counts of joining both.

A prediction waits for its *outcome*: hours or weeks later an operator says what was true. The id
of the prediction is all that the operator needs. Pure values; `core/evidence/quality` reads them,
and the adapter of records stores them on disk.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from math import log2

import msgspec

from kedge.core.values import Value

HOUR_S = 3600
HORIZON_S = 30 * 24 * HOUR_S
"""How long a prediction waits for its label."""
KEEP_GB = 50.0
"""Most gigabytes of predictions on a host: thirty days of fifty a second, at some 400 bytes each."""
HOUR_PART = 48
"""Limit of one hour: this part of them, fifteen times its even share. A burst fits, and one hour's
requests cannot displace more than that."""
PARKED_S = 24 * HOUR_S
"""How long a label waits for its prediction."""

DIGEST_BYTES = 8
"""Length of `JoinRow.digest`: enough for equality, and too short to reveal the inputs."""

Known = float | str | bool | None
"""True value. None: no label will ever come (a cancelled flight)."""


class JoinRow(Value, frozen=True, array_like=True):
    """One prediction: one row of one request.

    New fields must be appended, with a default: older files must stay readable.
    """

    id: str
    """REQUEST/ROW. The only row of a request can also be addressed as REQUEST."""
    at: float
    """Unix seconds of the answer."""
    unit: str
    """The entity, or "" without one: then the prediction is its own unit."""
    endpoint: str
    production: int
    candidate: int | None
    salt: str
    weight: int
    """The stratum: the canary's weight in buckets at the answer."""
    arm: str
    """The arm that answered the caller: production or candidate."""
    failed: bool
    """The candidate failed, and production answered instead."""
    segments: tuple[str, ...]
    """Such as origin=JFK."""
    score: float | None
    decision: str | None
    shadow_score: float | None = None
    shadow_decision: str | None = None
    paired: bool = False
    """The request was mirrored, and the copy answered: `shadow_*` is its answer."""
    inputs: bytes = b""
    """The raw inputs as a msgpack map, of sampled units only: a replay sends them to a model
    again."""
    digest: bytes = b""
    """Digest of the inputs, where the caller chose the id: it distinguishes a retry from a reused
    id."""

    @property
    def request(self) -> str:
        """The id of its request."""
        return self.id.rpartition("/")[0] or self.id

    @property
    def release(self) -> int | None:
        """The release that answered the caller."""
        return self.candidate if self.arm == "candidate" else self.production

    @property
    def comparison(self) -> tuple[int, int | None, str]:
        """Return which comparison it belongs to."""
        return self.production, self.candidate, self.salt


class Outcome(Value, frozen=True):
    """True value of one prediction, as an operator gave it under one label version."""

    id: str
    value: Known
    at: float | None = None
    """Unix seconds at which it was known; None: the time of joining."""
    label_version: str = ""


class Labelled(Value, frozen=True):
    """A prediction with its outcome."""

    row: JoinRow
    outcome: Outcome
    joined_at: float

    @property
    def delay_s(self) -> float:
        """Return the seconds from the answer to the outcome."""
        known = self.outcome.at
        return (self.joined_at if known is None else known) - self.row.at


class Conflict(Value, frozen=True):
    """Two values for one prediction under one label version. The first one is valid."""

    id: str
    endpoint: str
    label_version: str
    stands: Known
    refused: Known
    at: float | None
    joined_at: float


class Correction(Value, frozen=True):
    """A label whose wrong value was replaced."""

    id: str
    endpoint: str
    label_version: str
    was: Known
    was_at: float | None
    value: Known
    at: float | None
    by: str
    """The actor: KEDGE_ACTOR, else the user of the operating system; of a request, by its query."""
    corrected_at: float


class Early(Value, frozen=True, array_like=True):
    """An outcome that was refused because its time is before its prediction."""

    place: int
    """Its place in the batch, from 0."""
    at: float
    """Its time, in Unix seconds."""
    given: float
    """Time of the prediction, in Unix seconds."""


class Joined(Value, frozen=True, kw_only=True):
    """Result of joining a batch of outcomes; every outcome is in exactly one count.

    `labelled` holds the new ones, in the order of joining.
    """

    joined: int = 0
    declined: int = 0
    """Joined with null: no label will come."""
    duplicates: int = 0
    """The same value again, for a label that is already joined."""
    conflicts: int = 0
    """Another value under the same label version: stored for display, never used."""
    parked: int = 0
    """No prediction has this id yet: the label waits up to 24 h. Repeats while it waits count
    too."""
    parked_since: float | None = None
    """When the first parked label was handed in, in Unix seconds."""
    unknown: int = 0
    """No prediction came in time, or it is beyond the horizon, or too many labels wait."""
    ambiguous: int = 0
    """The id names more than one prediction: `ambiguous_because` has the cause."""
    ambiguous_because: dict[str, int] = {}
    """By cause: `SEVERAL_ROWS` or `ID_REUSED`."""
    unrecorded: int = 0
    """The request was answered, by the time in its id, but its prediction is not recorded. These
    labels wait like parked ones, in case another part of the system made the id."""
    corrected: int = 0
    """The label replaced an earlier value, which is stored as a `Correction`."""
    early: int = 0
    """Refused, since they are dated before their prediction (`instants.early`)."""
    early_ones: tuple[Early, ...] = ()
    """The first `EXAMPLES` of them in a batch."""
    delays: dict[int, int] = {}
    """Joined labels by log-bin of the delay (`delay_bin`)."""
    labelled: tuple[Labelled, ...] = ()

    def plus(self, other: Joined) -> Joined:
        """Return the sum of two batches."""
        counts = {name: getattr(self, name) + getattr(other, name) for name in COUNTS}
        delays = dict(self.delays)
        for index, count in other.delays.items():
            delays[index] = delays.get(index, 0) + count
        because = dict(self.ambiguous_because)
        for cause, count in other.ambiguous_because.items():
            because[cause] = because.get(cause, 0) + count
        since = [one for one in (self.parked_since, other.parked_since) if one is not None]
        return Joined(
            **counts,
            parked_since=min(since, default=None),
            ambiguous_because=because,
            delays=delays,
            labelled=self.labelled + other.labelled,
        )


EXAMPLES = 100
"""Refused outcomes of a batch that are listed; further ones are only counted."""
SEVERAL_ROWS = "several_rows"
"""Cause of an ambiguous label: it names a request of several rows without a row."""
ID_REUSED = "id_reused"
"""Cause of an ambiguous label: more than one request used its id."""
COUNTS = (
    "joined",
    "declined",
    "duplicates",
    "conflicts",
    "parked",
    "unknown",
    "ambiguous",
    "unrecorded",
    "corrected",
    "early",
)
"""The counts of a `Joined`."""


class Ingested(Value, frozen=True, kw_only=True):
    """Result of storing the spooled predictions."""

    count: int = 0
    torn: int = 0
    """Frames that a crash left incomplete, or that cannot be read."""
    duplicates: int = 0
    """Rows that were stored already: kedge crashed between storing and removing the file, or the
    caller sent the same request again."""
    reused: int = 0
    """Rows of another request under a used id: they are not stored."""
    withdrawn: int = 0
    """Labels that were joined before another request used their id."""
    bare: int = 0
    """Rows that were stored without their inputs, because their hour has used its share of
    bytes."""
    over: int = 0
    """Rows that were not stored, because their hour has exceeded its share."""
    hours: int = 0
    """Hours that were dropped early, because all together had too many bytes."""
    forgotten: int = 0
    """Rows of units that were forgotten on request meanwhile."""
    damaged: int = 0
    """Unreadable partitions; each was set aside and replaced by an empty one."""
    adopted: Joined = Joined()
    """Outcomes that came before their predictions."""


class Reused(Value, frozen=True, kw_only=True):
    """Ids of one endpoint that more than one request used, within the horizon."""

    ids: int = 0
    refused: int = 0
    """Labels that were not joined for this reason."""
    withdrawn: int = 0
    """Labels that were joined before the id was used again. A verdict may have used them."""


class Coverage(Value, frozen=True, kw_only=True):
    """Predictions of one arm of a comparison, and those with a label."""

    production: int
    candidate: int | None
    salt: str
    arm: str
    predictions: int = 0
    labelled: dict[str, int] = {}
    """Labels by version, without the declined."""
    declined: dict[str, int] = {}


# ---------------------------------------------------------------- ids


def id_hour(name: str) -> int | None:
    """Return the hour since 1970 that a UUIDv7 names; None for any other id."""
    if len(name) < 36 or name[14] != "7" or name[8] != "-" or name[13] != "-" or name[18] != "-":
        return None
    if len(name) > 36 and name[36] != "/":
        return None
    try:
        ms = int(name[:8] + name[9:13], 16)
        int(name[15:18] + name[19:23] + name[24:36], 16)
    except ValueError:
        return None
    return ms // (HOUR_S * 1000)


def id_time(name: str) -> float | None:
    """Return the Unix seconds that a UUIDv7 names; None for any other id."""
    return int(name[:8] + name[9:13], 16) / 1000 if id_hour(name) is not None else None


def row_hour(row: JoinRow) -> tuple[int, bool]:
    """Return the hour that a prediction is stored under, and whether it follows from the id alone.

    That is the hour in its id, unless the answer was given more than an hour away from it. Then
    another program made the id, or used it again.
    """
    given, named = int(row.at // HOUR_S), id_hour(row.id)
    return (named, True) if named is not None and abs(named - given) <= 1 else (given, False)


def is_same(one: JoinRow, other: JoinRow) -> bool:
    """Return whether two rows under one id are one prediction: a second read, or a retry.

    A retry has the same entity, the same inputs and the same release. An id that the gateway made
    belongs to one request, so rows without a digest are not retries of each other.
    """
    if one.at == other.at and bare(one) == bare(other):
        return True
    return (
        len(one.digest) == DIGEST_BYTES
        and one.digest == other.digest
        and one.unit == other.unit
        and one.release == other.release
    )


def bare(row: JoinRow) -> JoinRow:
    """Return the row without its inputs, which are stored apart."""
    return msgspec.structs.replace(row, inputs=b"") if row.inputs else row


def requests_of(name: str) -> tuple[str, ...]:
    """Return the ids of requests that a label can mean: the name, or its part before the row."""
    request = name.rpartition("/")[0]
    return (name, request) if request else (name,)


def spellings(name: str) -> tuple[str, str]:
    """Return the possible ids of the record that a name asks for, the likelier first."""
    return (name, f"{name}/0") if "/" in name else (f"{name}/0", name)


# ---------------------------------------------------------------- delays and versions


def delay_bin(seconds: float) -> int:
    """Return the log-bin of a delay, two an octave; 0 is below a second, or too early."""
    return 0 if seconds < 1 else 1 + int(2 * log2(seconds))


def delay_upper_s(index: int) -> float:
    """Return the upper end of a bin, in seconds."""
    return float(2 ** (index / 2))


def live_version(labels: Mapping[str, int]) -> str:
    """Return the label version for verdicts: with most labels, the newest of equals.

    So a new version takes over when it has caught up, and never mixes with the old one.
    """
    return max(labels, key=lambda name: (labels[name], _age(name)), default="")


def _age(version: str) -> tuple[tuple[int, int | str], ...]:
    """Return a sort key that orders v9 before v10."""
    parts = re.findall(r"\d+|\D+", version)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)
