"""The threads of a worker: a fault of one endpoint costs no other its swap or its counts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from contract.sql_world import World, world
from contract.test_control_loops import Faulty, standing
from kedge.core.evidence.windows import PRODUCTION
from kedge.core.release.commands import Promote, Rollback
from kedge.core.stored.roster import Member
from kedge.core.values import ActorKind, State
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.recorder import Recorder
from kedge.engine.replica.follower import Replica
from kedge.engine.replica.writer import Recording
from kedge.engine.request import Request
from kedge.engine.serving.pool import Pool
from kedge.engine.serving.serving import Serving
from kedge.engine.station import Station
from kedge.ports import RemoteModel
from kedge.workspace import Workplace
from support.waiting import wait_until
from unit.test_models import Loads, Shelf


def never(*_: object) -> RemoteModel:
    raise AssertionError("nothing runs in a process here")


class Worker:
    """The follower of two endpoints, flights and taxis, each with r1 in production."""

    def __init__(self, tmp_path: Path, broken: set[str] | None = None) -> None:
        self.world: World = world(tmp_path, releases=2, configured=False)
        for number in (1, 2):
            self.world.release(number, "taxis")
        for endpoint in ("flights", "taxis"):
            self.world.configure(endpoint=endpoint)
            self.world.do(Promote(release=1), endpoint)
        place = Workplace(self.world.state_dir, patience_s=0.2, actor=ActorKind.PERSON)
        self.place, self.faults = place, ProcessFaults(place.clock)
        self.broken = broken or set()
        """Endpoints whose contract cannot be compiled."""
        self.disk = Faulty(place.disk, lambda name, given: False)
        signal = place.ledger_signal()
        self.serving = Serving(place.clock.monotonic)
        duty = Duty(place.clock, self.faults)
        self.pool = Pool(
            duty,
            loaders={"onnx": Loads()},
            artifacts=Shelf(),
            connect=never,
            run_dir=tmp_path,
            changed=signal.wake,
        )
        self.recording = Recording(
            duty,
            "here/w0",
            windows=place.windows,
            evidence=place.evidence,
            spool=lambda rows: 0,
            lives=self.serving.lives,
        )
        member = Member(
            name="here/w0",
            host="here",
            pid=1,
            kind="gateway",
            address="",
            started_at=place.clock.now(),
            beat_at=0.0,
            ledger_at=0.0,
        )
        station = Station(
            duty,
            member,
            place.ledger,
            place.ledger.stamp,
            place.roster,
            cast("Any", self.disk),
            signal,
        )
        self.replica = Replica(
            station,
            slot="w0",
            recording=self.recording,
            pool=self.pool,
            serving=self.serving,
            contract=self.contract,
        )
        self.thread = threading.Thread(target=self.replica.run)
        self.thread.start()

    def contract(self, state: State) -> Any:
        if state.endpoint in self.broken:
            raise SystemExit(f"no contract of {state.endpoint}")
        return object()

    def epochs(self) -> dict[str, int]:
        members = Workplace(self.world.state_dir).roster.members()
        return {name: epoch for member in members for name, epoch in member.epochs.items()}

    def end(self) -> None:
        self.replica.stop()
        self.thread.join(10)
        self.pool.close()
        assert not self.thread.is_alive()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    made = Worker(tmp_path)
    yield made
    made.end()


def test_an_endpoint_that_cannot_be_swapped_keeps_no_other_from_it(tmp_path: Path) -> None:
    worker = Worker(tmp_path, broken={"flights"})
    try:
        row = worker.world.row("taxis").epoch
        wait_until(lambda: worker.epochs() == {"taxis": row}, "taxis to be followed", 10)
        wait_until(lambda: "replica.serve.flights" in standing(worker.faults), "the fault", 10)
        worker.world.do(Promote(release=2, override="a test"), "taxis")
        wait_until(lambda: worker.epochs().get("taxis") == row + 1, "taxis to be followed", 10)
        worker.broken = set()
        wait_until(lambda: len(worker.epochs()) == 2, "flights to be followed", 20)
        wait_until(lambda: not standing(worker.faults), "the fault to be over", 10)
    finally:
        worker.end()


def test_pins_that_cannot_be_listed_stay_as_they_were(worker: Worker) -> None:
    wait_until(lambda: len(worker.serving.lives()) == 2, "both to be served", 10)
    worker.world.do(Promote(release=2, override="a test"))
    row = worker.world.row().epoch
    wait_until(lambda: worker.epochs().get("flights") == row, "flights to follow", 10)
    disk, at = worker.place.disk, worker.place.clock.now()
    wait_until(
        lambda: (disk.remembered().get("flights") or worker.world.row("none")).epoch == row,
        "it to be kept",
        10,
    )
    disk.pin("flights", Rollback(), by="ada", reason="an incident", at=at)
    wait_until(lambda: pinned(worker) == 1, "the pin", 10)
    worker.disk.raises = lambda name, given: name == "pins"
    wait_until(lambda: "replica.pins" in standing(worker.faults), "the fault", 10)
    assert pinned(worker) == 1
    worker.disk.raises = lambda name, given: False
    wait_until(lambda: not standing(worker.faults), "the fault to be over", 10)
    assert pinned(worker) == 1


def pinned(worker: Worker) -> int | None:
    live = worker.serving.live("flights")
    return live.state.production if live is not None and live.pinned else None


def test_a_comparison_that_cannot_be_counted_costs_no_other_its_count(tmp_path: Path) -> None:
    made = world(tmp_path, releases=2)
    made.do(Promote(release=1))
    for number in (1, 2):
        made.release(number, "taxis")
    made.configure(endpoint="taxis")
    made.do(Promote(release=1), "taxis")
    place = Workplace(made.state_dir)
    faults, spooled = ProcessFaults(place.clock), []

    def spool(rows: Any) -> int:
        spooled.append(rows)
        if len(spooled) == 1:
            raise SystemExit("the first")
        return 0

    recording = Recording(
        Duty(place.clock, faults),
        "w0",
        windows=place.windows,
        evidence=place.evidence,
        spool=spool,
        lives=list,
    )
    pairs = []
    for endpoint in ("flights", "taxis"):
        state = made.row(endpoint)
        recorder = Recorder("w0", state)
        asked = Request(id="a", columns={"x": np.zeros(1)}, rows=1, entity="N1", draw=0)
        recorder.offer(Observation(place.clock.unix(), asked, PRODUCTION, 10, False, state.stratum))  # noqa: FBT003
        pairs.append((state, recorder))
    recording.flush(pairs)
    assert len(spooled) == 2
    assert standing(faults) == {"recording.count.flights"}
    assert "the first" in recording.unwritten
    assert recording._lost == 1
