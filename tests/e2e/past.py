"""A place with a past: releases that were promoted, and a prediction log filled as workers fill it.

Nothing serves here. Rows go through the spool and the store that a real place has, with the times
and the answers that a test says.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from e2e.place import Site
from kedge.adapters.records.spool import Spool
from kedge.core.records import JoinRow, Known, Outcome
from kedge.wiring import Workplace

HOUR_S = 3600.0
Answer = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Past:
    """What happened at a site before now."""

    def __init__(self, site: Site, *, seed: int = 5) -> None:
        self.site = site
        self.place = Workplace(site.root / ".kedge")
        self.now = time.time()
        self.rng = np.random.default_rng(seed)
        self._number = 0

    def given(
        self, n: int, hours_ago: float, *, production: int, truth: Answer | None,
        candidate: int | None = None, other: Answer | None = None, answer: Answer,
        nulls: float = 0.0, inputs: bool = True, over_h: float = 1.0, segment: str = "",
        column: str = "x", labelled: float = 1.0, arm: str = "production",
    ) -> list[str]:  # fmt: skip
        """Write n requests and their outcomes; the ids.

        Args:
            n: how many.
            hours_ago: when the first was asked; the others within `over_h`.
            production: who answered.
            truth: what is true of x; a spread of 0.5 is added. None: no outcome.
            candidate: who was compared.
            other: what that one silently said.
            answer: what the caller got.
            nulls: share of the requests whose x is null.
            inputs: whether they were kept.
            over_h: hours.
            segment: such as origin=JFK.
            column: what the input is called.
            labelled: share with an outcome.
            arm: who answered the caller.
        """
        x = self.rng.uniform(1.0, 9.0, n)
        said = answer(x)
        shadow = other(x) if other is not None else None
        lost = self.rng.random(n) < nulls
        rows, outcomes = [], []
        y = None if truth is None else truth(x) + self.rng.normal(0, 0.5, n)
        for k in range(n):
            self._number += 1
            at = self.now - hours_ago * HOUR_S + over_h * HOUR_S * k / n
            given: dict[str, Any] = {column: None if lost[k] else float(x[k]), "word": "a"}
            rows.append(JoinRow(
                id=f"q{self._number:08}/0", at=at, unit="", endpoint="flights", production=production,
                candidate=candidate, salt="", weight=0, arm=arm, failed=False,
                segments=(segment,) if segment else (), score=float(said[k]), decision=f"{said[k]:.6g}",
                shadow_score=None if shadow is None else float(shadow[k]), paired=shadow is not None,
                inputs=msgspec.msgpack.encode(given) if inputs else b"",
            ))  # fmt: skip
            if y is not None and self.rng.random() < labelled:
                outcomes.append((rows[-1].id, float(y[k])))
        self.write(rows, outcomes)
        return [row.id for row in rows]

    def write(self, rows: Sequence[JoinRow], outcomes: Sequence[tuple[str, Known]]) -> None:
        """Through the spool into the store, and the outcomes after them."""
        spool = Spool(self.place.records.spool, "w0")
        lost = spool.append(rows)
        spool.close()
        assert lost == 0
        while self.place.records.waiting():
            self.place.records.ingest(self.now)
        joined = self.place.records.join(
            "flights", [Outcome(name, value) for name, value in outcomes], self.now
        )
        assert joined.joined == len(outcomes)
