"""Whether requests are counted: both sides of the ten minutes, on real files and given times."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from contract.test_check import Gated, policy
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import Window
from kedge.core.readiness import EVIDENCE_S, Check
from kedge.core.release.commands import Promote
from kedge.core.stored.roster import Tally
from kedge.operations.readiness.check import check_of
from kedge.workspace import Workplace


class Counted(Gated):
    """r2 became production so many seconds ago, and r1 is compared with it."""

    def __init__(self, tmp_path: Path, changed_s: float) -> None:
        super().__init__(tmp_path, policy())
        self.now = self.place.clock.unix()
        self.world.do(Promote(release=2, override="a test"), at=self.iso(changed_s))
        assert self.world.row().compared == 1

    def iso(self, ago_s: float) -> str:
        return datetime.fromtimestamp(self.now - ago_s, UTC).isoformat().replace("+00:00", "Z")

    def window(self, ago_s: float) -> None:
        """What a worker counted in that second."""
        self.number += 1
        self.place.windows.write(
            [
                Window(
                    method=METHOD,
                    replica="w0",
                    number=self.number,
                    endpoint="flights",
                    production=2,
                    candidate=1,
                    salt="",
                    at=int(self.now - ago_s),
                    weight=0,
                    paired=True,
                    exposed={"": (9, 9)},
                    answered={"": (9, 9)},
                )
            ]
        )

    @contextmanager
    def callers(self) -> Iterator[None]:
        """A worker that answers, and tells what it counted several times a second."""
        ended = threading.Event()

        def work() -> None:
            store, requests = Workplace(self.world.state_dir).evidence, 0
            while not ended.wait(0.2):
                requests += 10
                store.publish(
                    [
                        Tally(
                            replica="w0",
                            endpoint="flights",
                            production=2,
                            candidate=None,
                            salt="",
                            counts={"requests.production": requests},
                        )
                    ]
                )

        worker = threading.Thread(target=work)
        worker.start()
        try:
            yield
        finally:
            ended.set()
            worker.join()

    def evidence(self) -> Check:
        found = check_of(self.place, "flights", by="test", again=False)
        return next(one for one in found.checks if one.name == "evidence")


@pytest.mark.parametrize(
    "changed_s, window_s, outcome",
    [
        (5_000, EVIDENCE_S - 30, "pass"),
        (5_000, EVIDENCE_S + 30, "fail"),
        (EVIDENCE_S - 30, 5_000, "pass"),
        (EVIDENCE_S - 30, None, "pass"),
        (EVIDENCE_S + 30, None, "fail"),
    ],
    ids=["counted lately", "not any more", "of before the change", "not yet", "never"],
)
def test_requests_of_callers_are_counted_within_ten_minutes(
    tmp_path: Path, changed_s: float, window_s: float | None, outcome: str
) -> None:
    """Of the newest window and the newest change the later one counts."""
    site = Counted(tmp_path, changed_s)
    if window_s is not None:
        site.window(2 * window_s)
        site.window(window_s)
    with site.callers():
        found = site.evidence()
    assert found.outcome == outcome
    if outcome == "fail":
        assert found.why in {
            f"requests arrive, but nothing was counted for {minutes} minutes"
            for minutes in (10, 11)
        }
        assert found.mend == "kedge doctor"


def test_without_callers_nothing_has_to_be_counted(tmp_path: Path) -> None:
    site = Counted(tmp_path, 5_000)
    site.window(4_000)
    with site.callers():
        assert site.evidence().outcome == "fail"
    assert site.evidence().outcome == "pass"


def test_the_change_is_found_behind_whatever_was_noted_since(tmp_path: Path) -> None:
    """A quiet endpoint has more notes than changes: readiness, drills, findings."""
    site = Counted(tmp_path, 1_200)
    for _ in range(60):
        site.file("finding", causes=[])
    with site.callers():
        assert site.evidence().why == "requests arrive, but nothing was counted for 20 minutes"
