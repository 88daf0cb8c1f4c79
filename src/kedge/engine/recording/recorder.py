"""Recorder of events in bounded counts: which arm answered, what a shadow answered, what was lost.

Counts are cumulative since this process began to serve a comparison. They are written as a whole
(never as a delta), so a lost or repeated write changes nothing. One thread writes (the serving
loop); the recording's thread reads a copy once a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from kedge.core.evidence.unrecorded import RECORDER
from kedge.core.evidence.windows import Conduct
from kedge.core.stored.roster import Tally
from kedge.core.values import Arm, State
from kedge.engine.recording.conduct import Tracker
from kedge.engine.recording.counter import BOUND, BYTES, ROWS, SlowBounds
from kedge.engine.recording.observation import Observation

if TYPE_CHECKING:
    from kedge.typing import Columns

WORD = 64
"""Assumed bytes of one text in a column."""
SUB_BITS = 3
"""Bits of a latency bin within an octave: eight bins, each at most 12.5 % wide."""
MAX_US = 1 << 36
"""Latency from which all fall into the last bin: about 19 hours."""


def latency_bin(us: int) -> int:
    """Return the log-bin of a latency in microseconds."""
    us = min(us, MAX_US)
    shift = us.bit_length() - SUB_BITS - 1
    return us if shift <= 0 else (shift << SUB_BITS) + (us >> shift)


def bin_upper_us(index: int) -> int:
    """Return the largest latency in microseconds that falls into a bin."""
    if index < 2 << SUB_BITS:
        return index
    shift = (index >> SUB_BITS) - 1
    return (((index & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS) + 1) << shift) - 1


def quantile_us(bins: Mapping[int, int], q: float) -> int | None:
    """Return an upper bound of a quantile, at most 12.5 % too high; None without observations."""
    total = sum(bins.values())
    rank, seen = q * total, 0
    for index in sorted(bins):
        seen += bins[index]
        if seen >= rank and total:
            return bin_upper_us(index)
    return None


UNASKED = (
    "breaker_open",
    "model_down",
    "not_loaded",
    "model_expired",
    "model_unasked",
    "model_unread",
    "bad_column",
    "too_large",
)
"""Why a request never reached the release that was to answer it, or its answer did not arrive: no
failure of the release, and no unit. `model_unread` is a copy's answer that a worker had no bytes
left for. The last two are the limits of the frame to its process, which a caller can exceed and no
release."""
PRODUCTION_ARM = Arm.PRODUCTION.value


def size_of(rows: int) -> int:
    """Return the size of a request: each is twice the one before, 0 is a single row."""
    return max(rows - 1, 0).bit_length()


def size_of_columns(*given: Columns | None) -> int:
    """Return about how many bytes columns hold; a text counts as a pointer and a short text."""
    size = 0
    for columns in given:
        if columns is not None:
            for column in columns.values():
                size += column.nbytes if column.dtype.kind != "O" else WORD * column.size
    return size


class Taken(NamedTuple):
    """Observations of one second."""

    seen: list[Observation]
    lost: int
    broken: int
    streak: int
    conduct: Conduct


ANSWERED = ("requests.", "rows.", "keyless")
"""Counts of `Recorder.answered`: the first two by arm."""


class _Batch:
    """Observations that wait to be counted; taken whole, so that list and rows match."""

    __slots__ = ("rows", "seen", "size")

    def __init__(self) -> None:
        self.seen: list[Observation] = []
        self.rows = 0
        self.size = 0


class Recorder:
    """Counts of one endpoint's comparison on one replica."""

    def __init__(self, replica: str, state: State) -> None:
        self.key = (state.production, state.candidate, state.salt)
        self._replica = replica
        self._endpoint = state.endpoint
        self._counts: dict[str, int] = {}
        self._latency: dict[str, dict[int, int]] = {}
        self._latency_us: dict[str, int] = {}
        self._batch = _Batch()
        self._lost = 0
        self._broken = 0
        self.conduct = Tracker(state.salt)
        self._sized: dict[int, dict[int, int]] = {}
        """Latencies of production by the size of the request (`size_of`), without single rows."""

    def count(self, name: str, by: int = 1) -> None:
        """Add to a count. Names come from a closed set (docs/reference/counts.md)."""
        self._counts[name] = self._counts.get(name, 0) + by

    def lack(self, cause: str, rows: int) -> None:
        """Count predictions that leave no record, by a cause of `core/evidence/unrecorded`."""
        self.count(f"unrecorded.{cause}", rows)

    def answered(
        self, names: tuple[str, str, str], rows: int, micros: int, *, keyless: bool
    ) -> None:
        """Count one answered request: all that every request costs, in one call."""
        counts, (arm, requests, all_rows) = self._counts, names
        counts[requests] = counts.get(requests, 0) + 1
        counts[all_rows] = counts.get(all_rows, 0) + rows
        if keyless:
            counts[ANSWERED[2]] = counts.get(ANSWERED[2], 0) + 1
        self.latency(arm, micros)
        if rows > 1 and arm == PRODUCTION_ARM:
            bins = self._sized.setdefault(size_of(rows), {})
            index = latency_bin(micros)
            bins[index] = bins.get(index, 0) + 1

    def sized(self) -> dict[int, tuple[int, int, int]]:
        """Return production's p99 and slowest latency in us, and the count, by request size."""
        found: dict[int, tuple[int, int, int]] = {}
        for size, bins in list(self._sized.items()):
            copy = dict(bins)
            p99, slowest = quantile_us(copy, 0.99), quantile_us(copy, 1.0)
            if p99 is not None and slowest is not None:
                found[size] = p99, slowest, sum(copy.values())
        return found

    def offer(self, seen: Observation) -> None:
        """Offer an observation for counting by segment; it is dropped and counted if full."""
        batch = self._batch
        if len(batch.seen) >= BOUND or batch.rows >= ROWS:
            self._lose(seen)
            return
        size = size_of_columns(seen.request.columns, seen.ours, seen.theirs)
        # A single one is always taken: what is larger than the bound is counted too.
        if batch.size and batch.size + size > BYTES:
            self._lose(seen)
            self.count("lost.bytes")
            return
        batch.rows += seen.request.rows
        batch.size += size
        batch.seen.append(seen)

    def _lose(self, seen: Observation) -> None:
        self._lost += 1
        if seen.ours is not None and not seen.again:
            self.lack(RECORDER, seen.request.rows)

    def taken(self) -> Taken:
        """Take what was offered since the last call.

        The recording's thread calls this: each assignment is atomic, and what arrives in between is
        taken the next time.
        """
        batch, self._batch = self._batch, _Batch()
        lost, self._lost = self._lost, 0
        broken, self._broken = self._broken, 0
        return Taken(batch.seen, lost, broken, *self.conduct.taken())

    def nonsense(self) -> None:
        """Count an answer of the candidate that does not fit its signature."""
        self._broken += 1

    def bounds(self, ratio: float, floor_us: int, least: int) -> SlowBounds:
        """Return the latencies above which a request is slow: production's quantiles times `ratio`.

        Zero while fewer than `least` answers are known.
        """
        p50, n = self.quantile_us("production", 0.5)
        p99, _ = self.quantile_us("production", 0.99)
        if p50 is None or p99 is None or n < least:
            return SlowBounds()
        return SlowBounds(*(max(int(q * ratio), q + floor_us) for q in (p50, p99)))

    def requests(self) -> int:
        """Return how many requests were answered so far. Other threads call this."""
        counts = list(self._counts.items())
        return sum(number for name, number in counts if name.startswith(ANSWERED[0]))

    def latency(self, arm: str, us: int) -> None:
        """Count the latency of a model."""
        bins = self._latency.get(arm)
        if bins is None:
            bins = self._latency[arm] = {}
            self._latency_us[arm] = 0
        index = latency_bin(us)
        bins[index] = bins.get(index, 0) + 1
        self._latency_us[arm] += us

    def quantile_us(self, arm: str, q: float) -> tuple[int | None, int]:
        """Return a latency quantile of an arm in microseconds, and the number of observations."""
        bins = dict(self._latency.get(arm, {}))
        return quantile_us(bins, q), sum(bins.values())

    def tally(self) -> Tally:
        """Return a copy of all counts so far."""
        production, candidate, salt = self.key
        sums = self._latency_us
        return Tally(
            replica=self._replica,
            endpoint=self._endpoint,
            production=production or 0,
            candidate=candidate,
            salt=salt,
            counts=self._counts | {f"micros.{k}": us for k, us in list(sums.items())},
            latency={arm: dict(bins) for arm, bins in list(self._latency.items())},
        )
