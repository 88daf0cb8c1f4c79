"""Predictions as they are kept: a row for each, for the outcome that may come in a month.

Of sampled units the inputs are kept too: that is the prediction log, which a replay asks again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import compress, repeat
from typing import TYPE_CHECKING, Any

import msgspec

from kedge.core.evidence.answers import get_target
from kedge.core.evidence.records import DIGEST_BYTES, JoinRow
from kedge.core.evidence.windows import PRODUCTION
from kedge.core.values import State
from kedge.engine.recording.observation import ObservationColumns

if TYPE_CHECKING:
    from kedge.engine.request import Request
    from kedge.typing import Columns

ARMS = ("production", "candidate")
"""What the columns of a count are called in a row."""
NO_COPIES: tuple[Iterable[Any], ...] = (repeat(None), repeat(None), repeat(False))  # noqa: FBT003
"""What rows say of a copy where there is none."""

UNKNOWN = b"-"
"""The digest of inputs that cannot be written: equal to no other one (`records.is_same`)."""

_pack = msgspec.msgpack.Encoder(order="sorted").encode
"""Sorted by name, so that a retry has the same digest in whatever order it names its inputs."""


class Log:
    """Which predictions are kept with their inputs, for a replay: those of sampled units."""

    def __init__(self, state: State) -> None:
        policy = state.policy.log
        below = int(policy.sample / 100 * 2**64)
        self._everything = below >= 2**64
        # Eight bytes of a hash, first byte first, compare as the number that they are.
        self._below = b"" if self._everything else below.to_bytes(8)
        self._hash = blake2b(digest_size=8, key=b"log")
        self._hidden = frozenset(policy.redact)
        self.samples = below > 0
        """Whether any unit is."""

    def keeps(self, unit: str) -> bool:
        """Whether a unit is sampled: always the same ones, so that all of a unit is there."""
        if self._everything or not self.samples:
            return self.samples
        digest = self._hash.copy()  # a third cheaper than another one made
        digest.update(unit.encode("utf-8", "surrogatepass"))
        return digest.digest() < self._below

    def inputs(self, asked: Sequence[Request]) -> Iterable[bytes]:
        """The inputs of each row; empty where the unit is not sampled, or they cannot be written."""
        if not self.samples:
            return repeat(b"")
        found: list[bytes] = []
        for one in asked:
            if self.keeps(one.entity or one.id):
                found += [self._row(one.columns, row) for row in range(one.rows)]
            else:
                found += repeat(b"", one.rows)
        return found

    def digests(self, asked: Sequence[Request], inputs: Iterable[bytes]) -> Iterable[bytes]:
        """By row a digest of its inputs, where the caller chose the id; else empty.

        Columns that are redacted are left out: nothing of them is kept.
        """
        if not any(one.chosen for one in asked):
            return repeat(b"")
        found: list[bytes] = []
        kept = iter(inputs)
        for one in asked:
            for row in range(one.rows):
                packed = next(kept)
                if one.chosen:
                    packed = packed or self._row(one.columns, row)
                    digest = blake2b(packed, digest_size=DIGEST_BYTES).digest()
                    found.append(digest if packed else UNKNOWN)
                else:
                    found.append(b"")
        return found

    def _row(self, columns: Columns, row: int) -> bytes:
        """One row of the inputs, without what is redacted; empty when it cannot be written."""
        try:
            return _pack(
                {
                    name: column.item(row) if column.ndim == 1 else column[row].tolist()
                    for name, column in columns.items()
                    if name not in self._hidden and row < len(column)
                }
            )
        except (TypeError, ValueError):
            return b""


class Predictions:
    """Makes the rows of one comparison on one replica."""

    def __init__(self, state: State) -> None:
        self._output = get_target(state)
        self.log = Log(state)
        about = (state.endpoint, state.production or 0, state.compared, state.salt)
        self._comparison = tuple(repeat(value) for value in about)
        """What every row says of the comparison."""

    def rows(self, part: ObservationColumns, weight: int) -> Iterable[JoinRow]:
        """One row a prediction. What production did not answer, or has no id, is none."""
        told = [one.ours is not None and bool(one.request.id) for one in part.seen]
        if not any(told):
            return ()
        ours, shadow = part.said(self._output), NO_COPIES
        if any(part.mirrored):
            theirs = part.said_by_copy(self._output)
            copied = [one is not None for one in part.theirs]
            shadow = theirs.scores, theirs.decisions, part.by_row(copied)
        arms = [
            ARMS[PRODUCTION] if lost else ARMS[arm]
            for arm, lost in zip(part.arms, part.failed, strict=True)
        ]
        by_request: tuple[Sequence[Any], ...] = (part.at, part.units, arms, part.failed)
        at, units, answered_by, failed = map(part.by_row, by_request)
        inputs = self.log.inputs(part.requests)
        # In the order of the fields: by keyword, a row takes six times as long.
        made = map(
            JoinRow,
            part.ids(),
            at,
            units,
            *self._comparison,
            repeat(weight),
            answered_by,
            failed,
            part.segments,
            ours.scores,
            ours.decisions,
            *shadow,
            inputs,
            self.log.digests(part.requests, inputs),
        )
        return made if all(told) else compress(made, part.by_row(told))
