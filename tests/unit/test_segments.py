"""Tracked values of a field: the most frequent, in any order of arrival."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from random import Random
from typing import Any

import numpy as np
import pytest

from kedge.engine.recording.segments import AT_ONCE, LEAST, LONG, SKETCH, VALUES, Segments, Sketch

PORTS = ("JFK", "EWR", "LGA")
REAL = [PORTS[n % 3] for n in range(2_502)]
MADE_UP = [f"junk{n}" for n in range(500)]


def labels(cut: Segments, values: Iterable[Any], rows: int = 1) -> Counter[str]:
    """By label, how many rows were counted under it."""
    found: Counter[str] = Counter()
    values = list(values)
    for begin in range(0, len(values), 50):
        asked = [
            {"word": np.array(values[at : at + rows], dtype=object)}
            for at in range(begin, min(begin + 50, len(values)), rows)
        ]
        segments, _ = cut.cut(asked, [len(one["word"]) for one in asked])
        found.update(name for names in segments for name in names)
    return found


def mixed(seed: int) -> list[str]:
    values = MADE_UP + REAL
    Random(seed).shuffle(values)
    return values


@pytest.mark.parametrize("rows", [1, 5])
def test_made_up_values_do_not_hide_the_real_ones(rows: int) -> None:
    """500 of them first, then 2,502 real requests: each real one is told apart after its tenth."""
    cut = Segments(("word",))
    found = labels(cut, MADE_UP + REAL, rows)
    for port in PORTS:
        assert found[f"word={port}"] == len(REAL) // 3 - (LEAST - 1)
    assert len(found) == AT_ONCE + len(PORTS) + 1
    assert found.total() == len(MADE_UP + REAL)
    assert cut.other == found["word=other"]


@pytest.mark.parametrize("seed", range(5))
def test_nor_do_they_among_them(seed: int) -> None:
    found = labels(Segments(("word",)), mixed(seed))
    for port in PORTS:
        assert found[f"word={port}"] >= len(REAL) // 3 - (LEAST - 1)


def test_values_that_are_asked_as_often_as_it_takes_lose_to_heavier_ones() -> None:
    """All places are taken by values that an attacker sent ten times each, and later twenty."""
    cut = Segments(("word",))
    junk = [f"junk{n}" for n in range(2 * VALUES) for _ in range(LEAST)]
    labels(cut, junk)
    found = labels(cut, REAL)
    for port in PORTS:
        assert found[f"word={port}"] >= len(REAL) // 3 - 3 * LEAST
    labels(cut, junk * 2)
    assert labels(cut, REAL) == {f"word={port}": len(REAL) // 3 for port in PORTS}


def test_names_do_not_grow_with_what_callers_invent() -> None:
    cut = Segments(("word",))
    found = labels(cut, (f"w{n % 30_000}" for n in range(60_000)))
    assert len(found) == AT_ONCE + 1
    heavier = (f"w{round_}-{n}" for round_ in range(40) for n in range(200) for _ in range(12))
    assert len(labels(cut, heavier)) <= VALUES + 2, "a place is taken by what is twice as heavy"


def test_every_worker_distinguishes_the_same_requests_alike() -> None:
    workers = [Segments(("word",)) for _ in range(2)]
    assert labels(workers[0], mixed(1)) == labels(workers[1], mixed(1))


def test_whether_a_request_counts_does_not_depend_on_those_after_it() -> None:
    """A segment's evidence may be judged: it begins at a request that the ones before it chose."""
    values = mixed(2)
    for end in (600, 1_500, len(values)):
        part, whole = Segments(("word",)), Segments(("word",))
        first = labels(part, values[:600])
        assert labels(whole, values[:end][:600]) == first


def test_long_values_are_kept_as_digests() -> None:
    cut = Segments(("word",))
    found = labels(cut, [f"{n}" + "x" * 1_000_000 for n in (1, 2, 1, 2)])
    assert sorted(found.values()) == [2, 2]
    assert all(len(name) <= len("word=") + LONG for name in found)
    assert sum(map(sys.getsizeof, cut._known["word"])) < 1_000


def test_a_sketch_never_counts_too_high_and_misses_little() -> None:
    random = Random(3)
    sketch, true = Sketch(50), Counter[int]()
    for _ in range(20_000):
        value = random.randrange(10) if random.random() < 0.4 else random.randrange(100_000)
        true[value] += 1
        assert sketch.add(value) <= true[value]
        assert len(sketch) <= 100
    for value in range(10):
        assert true[value] - 20_000 / 50 <= sketch.pop(value) <= true[value]
    assert SKETCH > VALUES
