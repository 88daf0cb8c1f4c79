"""A place with a past: releases that were promoted, and a prediction log filled as workers fill it.

Nothing serves here. Rows go through the spool and the store that a real place has, with the times
and the answers that a test says.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from e2e.place import Site
from kedge.adapters.records.spool import Spool
from kedge.config.load import load
from kedge.core.evidence.records import JoinRow, Known, Outcome
from kedge.core.release.commands import AnyCommand
from kedge.core.values import Release
from kedge.operations.features.apply import apply_file
from kedge.operations.registration import register_version
from kedge.operations.releases import release_of
from kedge.operations.setup import apply_policies, create_workplace
from kedge.workspace import Workplace

HOUR_S = 3600.0
Answer = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Past:
    """What happened at a site before now."""

    def __init__(self, site: Site, *, seed: int = 5, given: int = 0) -> None:
        """`given`: the requests that a copied site has already."""
        self.site = site
        self.place = Workplace(site.root / ".kedge")
        self.now = time.time()
        self.rng = np.random.default_rng(seed)
        self._number = given

    def set_up(self) -> None:
        """Make the ledger, and bring the policy into force."""
        create_workplace(self.site.root / ".kedge")
        apply_policies(self.place, load(self.site.root / "kedge.toml"))

    def register(self, name: str, *, schema: str | None = None, **behaviour: Any) -> None:
        """Register a model that behaves as told."""
        path = Path(self.site.model(name, **behaviour))
        register_version(
            self.place, "flights", path, golden=None, training=None, trusted=(), schema=schema
        )

    def apply(self, source: str) -> None:
        """Apply a features file."""
        path = self.site.root / "features.py"
        path.write_text(source)
        apply_file(self.place, path, golden=None, root=self.site.root)

    def release(self, version: str, *, transformation: int | None = None) -> Release:
        """The release of a version."""
        return release_of(self.place, "flights", version, transformation=transformation)

    def submit(self, command: AnyCommand) -> None:
        """As the CLI does; no replica is known."""
        self.place.control(lambda text: None, None).submit("flights", command, by="tester")

    def lose(self, version: str) -> None:
        """Damage a model's files."""
        digest = self.release(version).model_digest
        (self.place.artifacts.path(digest) / "behave.json").write_text("{}")

    def iso(self, hours_ago: float) -> str:
        """A time, as a verb takes it."""
        return datetime.fromtimestamp(self.now - hours_ago * HOUR_S, UTC).isoformat()

    def tear(self, first: float, last: float) -> float:
        """Overwrite the middle of the hour, of these hours ago, that holds most; its share of them."""
        hours = self.site.root / ".kedge" / "records" / "hours"
        begin, end = (int((self.now - ago * HOUR_S) // HOUR_S) for ago in (first, last))
        held: dict[Path, int] = {}
        for path in (hours / f"{hour}.db" for hour in range(begin, end + 1)):
            if path.exists():
                with closing(sqlite3.connect(path)) as db:
                    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                    (held[path],) = db.execute("SELECT count(*) FROM prediction").fetchone()
        torn = max(held, key=lambda path: held[path])
        size = torn.stat().st_size // 4096
        with torn.open("r+b") as file:
            for page in range(size // 3, 2 * size // 3):
                file.seek(page * 4096)
                file.write(b"\xff" * 4096)
        return held[torn] / sum(held.values())

    def given(
        self,
        n: int,
        hours_ago: float,
        *,
        production: int,
        truth: Answer | None,
        candidate: int | None = None,
        other: Answer | None = None,
        answer: Answer,
        over_h: float = 1.0,
        segment: str = "",
        column: str = "x",
        arm: str = "production",
        word: str = "a",
    ) -> list[str]:
        """Write n requests and their outcomes; the ids.

        Args:
            n: how many.
            hours_ago: when the first was asked; the others within `over_h`.
            production: who answered.
            truth: what is true of x; a spread of 0.5 is added. None: no outcome.
            candidate: who was compared.
            other: what that one silently said.
            answer: what the caller got.
            over_h: hours.
            segment: such as origin=JFK.
            column: what the input is called.
            arm: who answered the caller.
            word: the other input; one in five has it, the others say "a".
        """
        x = self.rng.uniform(1.0, 9.0, n)
        said = answer(x)
        shadow = other(x) if other is not None else None
        rows, outcomes = [], []
        y = None if truth is None else truth(x) + self.rng.normal(0, 0.5, n)
        for k in range(n):
            self._number += 1
            at = self.now - hours_ago * HOUR_S + over_h * HOUR_S * k / n
            given: dict[str, Any] = {column: float(x[k]), "word": word if k % 5 == 0 else "a"}
            rows.append(
                JoinRow(
                    id=f"q{self._number:08}/0",
                    at=at,
                    unit="",
                    endpoint="flights",
                    production=production,
                    candidate=candidate,
                    salt="",
                    weight=0,
                    arm=arm,
                    failed=False,
                    segments=(segment,) if segment else (),
                    score=float(said[k]),
                    decision=f"{said[k]:.6g}",
                    shadow_score=None if shadow is None else float(shadow[k]),
                    paired=shadow is not None,
                    inputs=msgspec.msgpack.encode(given),
                )
            )
            if y is not None:
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
