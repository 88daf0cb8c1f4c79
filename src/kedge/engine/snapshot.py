"""Snapshot of a watch: what is stored of a comparison, packed and checked."""

from __future__ import annotations

from zlib import crc32

import msgspec

from kedge.core.evidence.faults import Faults
from kedge.core.evidence.labels import Matching
from kedge.core.evidence.scores import Scored
from kedge.core.evidence.series import EvidenceSeries
from kedge.core.evidence.windows import (
    Agreement,
    DisagreeingPair,
    Spent,
    Window,
)
from kedge.core.values import Value

UNREADABLE = "what was kept of it cannot be read"
"""Reason for a snapshot that is damaged, or written by a kedge that counts differently. It never
stops judging."""


class Labels(Value, frozen=True, kw_only=True):
    """What late labels showed of one comparison so far."""

    cursor: int = 0
    corrected: int = 0
    """The newest correction that is taken into account."""
    version: str | None = None
    """The label version that is judged: that of the first batch. Other versions are only
    counted."""
    versions: dict[str, int] = {}
    units: tuple[int, int] = (0, 0)
    """Labelled predictions by arm; in pairs, each pair counts for both."""
    loss: tuple[float, float] = (0.0, 0.0)
    """Sums of the declared loss over them."""
    declined: int = 0
    unfit: int = 0
    delays: dict[int, int] = {}
    matching: Matching = Matching()
    """What labels and answers have in common: without it nothing is proven about quality."""
    scores: tuple[Scored, Scored] = (Scored(), Scored())
    """Scores and their outcomes, of the measure and of the judged release: for figures without a
    verdict."""
    series: EvidenceSeries = EvidenceSeries()
    """Units and loss of both arms, as `units` and `loss` have them, by the time of folding."""


class Snapshot(Value, frozen=True, kw_only=True):
    """The stored form of a watch."""

    cursor: int
    judge: bytes
    policy: str
    method: int = 1
    spent: tuple[int, tuple[int, ...]] = (0, ())
    """What other policies, or another method, used up of the promise: further steps, and
    weights."""
    restarted: str = ""
    """Why the evidence was restarted; empty if it was not."""
    held: str = ""
    """Why the rollout must be paused, because evidence was lost; empty otherwise."""
    waiting: tuple[Window, ...] = ()
    """Windows of seconds that are not judged yet."""
    requests: dict[str, list[int]] = {}
    began: int = 0
    step: tuple[int, int] = (0, 0)
    healthy_s: float = 0.0
    last: int = 0
    failed: int = 0
    facts: dict[str, int] = {}
    totals: dict[str, list[int]] = {}
    agreement: dict[str, Agreement] = {}
    scores: dict[int, tuple[int, int, float, float]] = {}
    examples: tuple[DisagreeingPair, ...] = ()
    arms: dict[str, dict[int, tuple[int, int]]] = {}
    labels: Labels = Labels()
    costs: dict[str, Spent] = {}
    cost_judge: bytes = b""
    noise: tuple[int, int] = (0, 0)
    faults: Faults = Faults()
    series: EvidenceSeries = EvidenceSeries()
    """The alarm's evidence, `Overall.log_e`, over the whole comparison."""
    check: bytes = b""
    """CRC-32 of all bytes before it. It is the last field, and of a fixed length: a damaged figure
    may still be a valid figure, and must prove nothing."""


CHECK = 4
"""Bytes of `Snapshot.check`."""


pack = msgspec.msgpack.Encoder().encode


unpack = msgspec.msgpack.Decoder(Snapshot).decode


def read_snapshot(kept: bytes) -> Snapshot:
    """Read a snapshot; an old one has no check.

    Raises:
        ValueError, msgspec.MsgspecError: it is damaged, or of a newer kedge.
    """
    found = unpack(kept)
    if found.check and found.check != crc32(kept[:-CHECK]).to_bytes(CHECK):
        raise ValueError("the checksum differs")
    return found
