"""Limits on the bytes of copies: a host's answers to them, and data that waits to be counted."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np

from contract.process_world import Home, Told, columns, home, reach, run
from kedge.adapters.process import Allowance
from kedge.adapters.process.host import UNREAD
from kedge.adapters.process.wire import Frames, WireAnswer, frame
from kedge.core.evidence.windows import PRODUCTION
from kedge.core.values import Policy, Stage, State
from kedge.engine.recording.counter import BYTES
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.recorder import Recorder
from kedge.engine.request import Request

__all__ = ["home"]  # a fixture

MB = 2**20
LONG = "long"
"""What is asked with this word is answered with a megabyte."""


def test_a_worker_reads_answers_to_copies_only_so_fast_and_callers_at_once(home: Home) -> None:
    """A megabyte a second, of a host that answers with many; what callers wait for is read at once."""
    home.start("any")

    async def story() -> None:
        allowance = Allowance(MB)
        model = await reach(home, allowance=allowance)
        told, began, asked = Told(), time.monotonic(), 0
        slowest, turn, held = 0.0, 0, False
        while time.monotonic() < began + 4:
            asked += model.submit(columns(1.0, word=LONG), told, 20)
            turn += 1
            held |= model.throttled
            if turn % 10 == 0:
                start = time.monotonic()
                answer, _, _ = await model.predict(columns(2.0), 5)
                slowest = max(slowest, time.monotonic() - start)
                assert answer["score"].tolist() == [4.0]
            await asyncio.sleep(0.01)
        read = sum(answer is not None for answer, _, _ in told.answers)
        assert 1 <= read <= 16, "a second's worth at once, four seconds, and what was under way"
        assert held
        assert slowest < 3
        assert model.ready, "a host whose answers are not read does not count as dead"
        await asyncio.sleep(1)
        assert told.codes <= {None, UNREAD}

    run(story())


def test_copies_whose_answers_are_not_read_are_left_out_and_the_host_lives(home: Home) -> None:
    """More than the host may keep unread: it says so, instead of hanging up."""
    home.start("any")

    async def story() -> None:
        model = await reach(home, allowance=Allowance(MB / 4), in_flight=200)
        told, asked, until = Told(), 0, time.monotonic() + 6
        while asked < 90 and time.monotonic() < until:
            asked += model.submit(columns(1.0, word=LONG), told, 30)
        await model.predict(columns(1.0), 10)  # lets everything before it through
        await told.all(asked, 20)
        assert UNREAD in told.codes
        assert told.codes <= {None, UNREAD}
        assert model.ready

    run(story())
    assert home.processes[0].poll() is None


def test_an_allowance_is_a_seconds_worth_and_then_a_rate() -> None:
    allowance = Allowance(1000)
    allowance.take(900)
    assert allowance.debt_s() == 0
    allowance.take(1000)
    assert 0.85 < allowance.debt_s() <= 0.9
    allowance.take(1000)
    assert 1.8 < allowance.debt_s() <= 1.9


def test_long_frames_in_any_pieces_are_whole() -> None:
    answers = [
        WireAnswer(n, n, None, ("code", "t" * size)) for n, size in enumerate((5, 300_000, 7))
    ]
    raw = b"".join(frame(one) for one in answers)
    for step in (1_000, 65_536, len(raw)):
        frames, found = Frames(), []
        for at in range(0, len(raw), step):
            found += [bytes(body) for body in frames.feed(raw[at : at + step])]
        assert found == [frame(one)[4:] for one in answers]


def test_observations_that_wait_are_bounded_in_bytes() -> None:
    state = State(endpoint="e", stage=Stage.CANARY, production=1, candidate=2, policy=Policy())
    recorder = Recorder("w0", state)
    answer: dict[str, Any] = {"y": np.zeros(MB // 8)}
    for number in range(100):
        asked = Request(
            id=f"q{number}", columns={"x": np.array([1.0])}, rows=1, entity=None, draw=0
        )
        recorder.offer(Observation(1.0, asked, PRODUCTION, 9, failed=False, weight=0, ours=answer))
    taken = recorder.taken()
    assert len(taken.seen) == BYTES // MB - 1
    assert taken.lost == 100 - len(taken.seen) == recorder.tally().counts["lost.bytes"]
    huge = {"y": np.zeros(BYTES)}
    asked = Request(id="q", columns={"x": np.array([1.0])}, rows=1, entity=None, draw=0)
    recorder.offer(Observation(1.0, asked, PRODUCTION, 9, failed=False, weight=0, ours=huge))
    assert len(recorder.taken().seen) == 1, "one alone is counted, whatever its size"
