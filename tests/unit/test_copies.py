"""Copies are given away after the answer, together, and bounded."""

from __future__ import annotations

import asyncio
import os
from time import perf_counter

from kedge.adapters.process import host
from kedge.engine.serving.copies import GATHER_BYTES, GATHER_S, Copies


def test_copies_are_collected_and_given_away_in_order() -> None:
    async def go() -> list[int]:
        given: list[int] = []
        copies = Copies()
        for number in range(3):
            copies.add(lambda n=number: given.append(n), 1, most=64)  # type: ignore[misc]
        await asyncio.sleep(0)
        assert given == []
        await asyncio.sleep(GATHER_S * 1.5)
        return given

    assert asyncio.run(go()) == [0, 1, 2]


def test_copies_that_are_full_by_number_or_bytes_go_in_the_next_turn() -> None:
    async def go(size: int, most: int) -> tuple[int, int]:
        given: list[int] = []
        copies = Copies()
        copies.add(lambda: given.append(1), size, most=most)
        before = len(given)
        await asyncio.sleep(0)
        return before, len(given)

    assert asyncio.run(go(1, 1)) == (0, 1)
    assert asyncio.run(go(GATHER_BYTES, 64)) == (0, 1)
    assert asyncio.run(go(1, 64)) == (0, 0)


def test_a_process_that_answers_copies_only_is_a_batch_job_until_a_caller_asks() -> None:
    """Any user may do both; what is niced could not come back after a rollback."""
    usual = os.sched_getscheduler(0)
    priority = host.Priority()
    priority.copies()
    assert os.sched_getscheduler(0) == usual, "a caller may have asked a moment ago"
    priority._asked_at = perf_counter() - host.CALM_S - 1
    priority.copies()
    assert os.sched_getscheduler(0) == os.SCHED_BATCH
    priority.asked()
    assert os.sched_getscheduler(0) == usual
