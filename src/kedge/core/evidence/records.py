"""One prediction as it is kept for its label, the label, and what came of bringing them together.

A prediction waits for its *outcome*: hours or weeks later an operator says what was true. The id
of the prediction is all that they need to know. Pure values; `core/quality` reads them, and
`adapters/records` keeps them on disk.
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
"""One hour may take this part of them, fifteen times its even share: a burst passes, and what callers
send within an hour can push out no more than that."""
PARKED_S = 24 * HOUR_S
"""How long a label waits for its prediction."""

DIGEST_BYTES = 8
"""Length of `JoinRow.digest`: enough for equality, and too short to hold anything of the inputs."""

Known = float | str | bool | None
"""What was true. None: no label will ever come (a cancelled flight)."""


class JoinRow(Value, frozen=True, array_like=True):
    """One prediction: one row of one request.

    Fields may only ever be appended, with a default: older files must stay readable.
    """

    id: str
    """REQUEST/ROW. The only row of a request may also be asked for as REQUEST."""
    at: float
    """Unix seconds of the answer."""
    unit: str
    """The entity, or "" when there is none: then the prediction is its own unit."""
    endpoint: str
    production: int
    candidate: int | None
    salt: str
    weight: int
    """The stratum: the canary's weight in buckets when it was answered."""
    arm: str
    """Who answered the caller: production or candidate."""
    failed: bool
    """The candidate was asked, and production answered instead."""
    segments: tuple[str, ...]
    """Such as origin=JFK."""
    score: float | None
    decision: str | None
    shadow_score: float | None = None
    shadow_decision: str | None = None
    paired: bool = False
    """The request was mirrored, and the copy answered: `shadow_*` is what it said."""
    inputs: bytes = b""
    """The raw inputs as a msgpack map, of sampled units only: what a replay asks a model again."""
    digest: bytes = b""
    """Of the inputs, where the caller chose the id: tells a retry from another request under one id."""

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
    """What was true of one prediction, as an operator said it under one version of the labels."""

    id: str
    value: Known
    at: float | None = None
    """When it was known, in Unix seconds; None: when it was joined."""
    label_version: str = ""


class Labelled(Value, frozen=True):
    """A prediction with its outcome."""

    row: JoinRow
    outcome: Outcome
    joined_at: float

    @property
    def delay_s(self) -> float:
        """Return how long after the answer it was known."""
        known = self.outcome.at
        return (self.joined_at if known is None else known) - self.row.at


class Conflict(Value, frozen=True):
    """Two values for one prediction under one label version. The first one stands."""

    id: str
    endpoint: str
    label_version: str
    stands: Known
    refused: Known
    at: float | None
    joined_at: float


class Correction(Value, frozen=True):
    """A label whose value was replaced, because it had been handed in wrong."""

    id: str
    endpoint: str
    label_version: str
    was: Known
    was_at: float | None
    value: Known
    at: float | None
    by: str
    """Who corrected it: KEDGE_ACTOR, else the user of the operating system; of a request, what its query says."""
    corrected_at: float


class Early(Value, frozen=True, array_like=True):
    """An outcome that was refused because its time lies before its prediction."""

    place: int
    """Which of the batch it is, from 0."""
    at: float
    """Its time, in Unix seconds."""
    given: float
    """When the prediction was given."""


class Joined(Value, frozen=True, kw_only=True):
    """What became of a batch of outcomes; every one of them is in exactly one count.

    `labelled` holds those that were new, in the order in which they were joined.
    """

    joined: int = 0
    declined: int = 0
    """Joined with null: no label will come."""
    duplicates: int = 0
    """The same value again, of a label that was joined."""
    conflicts: int = 0
    """Another value under the same label version: kept for display, never used."""
    parked: int = 0
    """No prediction has this id yet; it waits up to 24 h for one. Also handed in again while it waits."""
    parked_since: float | None = None
    """When the first of those that are parked was handed in, in Unix seconds."""
    unknown: int = 0
    """Waited in vain, or the prediction is beyond the horizon, or too many are waiting."""
    ambiguous: int = 0
    """Names more than one prediction: `ambiguous_because` says why."""
    ambiguous_because: dict[str, int] = {}
    """By cause: `SEVERAL_ROWS` or `ID_REUSED`."""
    unrecorded: int = 0
    """Name a request that was answered, by the time in its id, and whose prediction is not among the
    records. They wait like those that are parked, in case another part of the system made the id."""
    corrected: int = 0
    """Replaced the value that stood, which is kept as a `Correction`."""
    early: int = 0
    """Refused: dated before their prediction (`instants.early`)."""
    early_ones: tuple[Early, ...] = ()
    """Of one batch, the first `EXAMPLES` of them."""
    delays: dict[int, int] = {}
    """Of those joined, by log-bin of the delay (`delay_bin`)."""
    labelled: tuple[Labelled, ...] = ()

    def plus(self, other: Joined) -> Joined:
        """Two batches as one."""
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
"""Refused outcomes of a batch that are named one by one; beyond it they are only counted."""
SEVERAL_ROWS = "several_rows"
"""Why a label is ambiguous: it names a request of several rows without saying which."""
ID_REUSED = "id_reused"
"""Why a label is ambiguous: more than one request used its id."""
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
    """What became of the spooled predictions."""

    count: int = 0
    torn: int = 0
    """Frames that a crash left half written, or that cannot be read."""
    duplicates: int = 0
    """Rows that were there already: a crash came between storing and removing the file, or the caller
    sent the same request again."""
    reused: int = 0
    """Rows of another request under an id that was used before: they are not stored."""
    withdrawn: int = 0
    """Labels that were joined before another request used their id."""
    bare: int = 0
    """Rows that were stored without their inputs, because their hour has its share of bytes."""
    over: int = 0
    """Rows that were not stored, because their hour has more than its share."""
    hours: int = 0
    """Hours that were dropped before their time, because all together had too many bytes."""
    forgotten: int = 0
    """Rows of units that asked to be forgotten meanwhile."""
    damaged: int = 0
    """Partitions that could not be read; each was set aside and begun anew."""
    adopted: Joined = Joined()
    """Outcomes that had come before their predictions."""


class Reused(Value, frozen=True, kw_only=True):
    """Ids of one endpoint that more than one request used, within the horizon."""

    ids: int = 0
    refused: int = 0
    """Labels that were not joined for it."""
    withdrawn: int = 0
    """Labels that had been joined before the id was used again. A verdict may have used them."""


class Coverage(Value, frozen=True, kw_only=True):
    """How many predictions of one arm of a comparison have their label."""

    production: int
    candidate: int | None
    salt: str
    arm: str
    predictions: int = 0
    labelled: dict[str, int] = {}
    """By label version; without the declined."""
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
    """Return the hour a prediction is kept under, and whether its id alone tells it.

    That is the hour in its id, unless the answer was given more than an hour away from it: then
    another caller made the id, or used it again.
    """
    given, named = int(row.at // HOUR_S), id_hour(row.id)
    return (named, True) if named is not None and abs(named - given) <= 1 else (given, False)


def is_same(one: JoinRow, other: JoinRow) -> bool:
    """Whether two rows under one id are one prediction: read twice, or asked again by a retry.

    A retry has the same entity, the same inputs and the same release. An id that the gateway made
    belongs to one request, so rows without a digest are no retries of each other.
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
    """Return the row without its inputs, which are kept apart."""
    return msgspec.structs.replace(row, inputs=b"") if row.inputs else row


def requests_of(name: str) -> tuple[str, ...]:
    """Return the ids of requests that a label may mean: the name, or what is before its row."""
    request = name.rpartition("/")[0]
    return (name, request) if request else (name,)


def spellings(name: str) -> tuple[str, str]:
    """Return how the record that is asked for may be spelled, the likelier first."""
    return (name, f"{name}/0") if "/" in name else (f"{name}/0", name)


# ---------------------------------------------------------------- delays and versions


def delay_bin(seconds: float) -> int:
    """The log-bin of a delay, two an octave; 0 is below a second, and what came too early."""
    return 0 if seconds < 1 else 1 + int(2 * log2(seconds))


def delay_upper_s(index: int) -> float:
    """Return where a bin ends, in seconds."""
    return float(2 ** (index / 2))


def live_version(labels: Mapping[str, int]) -> str:
    """The label version that a verdict may use: the one with most labels, the newest of equals.

    So a new version takes over when it has caught up, and never mixes with the old one.
    """
    return max(labels, key=lambda name: (labels[name], _age(name)), default="")


def _age(version: str) -> tuple[tuple[int, int | str], ...]:
    """Return orders v9 before v10."""
    parts = re.findall(r"\d+|\D+", version)
    return tuple((0, int(part)) if part.isdecimal() else (1, part) for part in parts)
