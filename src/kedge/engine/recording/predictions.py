"""Predictions as they are stored: a row for each, for the outcome that may arrive in a month.

For sampled units the inputs are stored too: that is the prediction log, which a replay asks again.
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
"""Names in a row of the columns of a count."""
NO_COPIES: tuple[Iterable[Any], ...] = (repeat(None), repeat(None), repeat(False))  # noqa: FBT003
"""The columns of a copy in rows without a copy."""

UNKNOWN = b"-"
"""Digest of inputs that cannot be written: it equals no other digest (`records.is_same`)."""

_pack = msgspec.msgpack.Encoder(order="sorted").encode
"""Encodes inputs sorted by name, so that a retry has the same digest in whatever order it names
them."""


class Log:
    """Selects predictions to store with their inputs, for a replay: those of sampled units."""

    def __init__(self, state: State) -> None:
        policy = state.policy.log
        below = int(policy.sample / 100 * 2**64)
        self._everything = below >= 2**64
        # Eight bytes of a hash, first byte first, compare as the number that they are.
        self._below = b"" if self._everything else below.to_bytes(8)
        self._hash = blake2b(digest_size=8, key=b"log")
        self._hidden = frozenset(policy.redact)
        self.samples = below > 0
        """Whether any unit is sampled."""

    def keeps(self, unit: str) -> bool:
        """Return whether a unit is sampled: always the same units, so that each is complete."""
        if self._everything or not self.samples:
            return self.samples
        digest = self._hash.copy()  # a third cheaper than a new hash
        digest.update(unit.encode("utf-8", "surrogatepass"))
        return digest.digest() < self._below

    def inputs(self, asked: Sequence[Request]) -> Iterable[bytes]:
        """Return the inputs of each row; empty if not sampled, or if they cannot be written."""
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
        """Return for each row a digest of its inputs if the caller chose the id; else empty.

        Redacted columns are left out: nothing of them is stored.
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
        """Return one row of the inputs without redacted columns; empty if it cannot be written."""
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
        """The columns of the comparison, the same in every row."""

    def rows(self, part: ObservationColumns, weight: int) -> Iterable[JoinRow]:
        """Return one row for each prediction that production answered and that has an id."""
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
