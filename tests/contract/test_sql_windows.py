"""Windows are written once and read in order; windows lost with the store are sent again."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from kedge.adapters.sql.rolls import SqlRolls
from kedge.adapters.sql.sqlite.create import open_evidence
from kedge.adapters.sql.windows import SqlWindows
from kedge.core.evidence.rollup import HOUR, MINUTE
from kedge.core.evidence.windows import Window


def window(number: int, *, replica: str = "w0", endpoint: str = "flights", at: int = 100) -> Window:
    return Window(
        replica=replica,
        number=number,
        endpoint=endpoint,
        production=1,
        candidate=2,
        salt="s",
        at=at,
        weight=0,
        paired=True,
        exposed={"": (1, 1)},
    )


def test_written_twice_is_there_once(tmp_path: Path) -> None:
    """A worker that does not know whether its write came through writes again."""
    store = SqlWindows(open_evidence(tmp_path))
    store.write([window(1), window(2)])
    store.write([window(2), window(3)])
    _, found = store.read("flights", 0, 10)
    assert [one.number for one in found] == [1, 2, 3]


def test_two_replicas_may_use_the_same_numbers(tmp_path: Path) -> None:
    store = SqlWindows(open_evidence(tmp_path))
    store.write([window(1), window(1, replica="w1"), window(1, replica="w2", endpoint="other")])
    assert len(store.read("flights", 0, 10)[1]) == 2


def test_reading_continues_where_it_stopped_and_late_windows_are_not_missed(tmp_path: Path) -> None:
    """The order is that of arrival: a late second comes after those that were punctual."""
    store = SqlWindows(open_evidence(tmp_path))
    store.write([window(2, at=200), window(3, at=300)])
    cursor, first = store.read("flights", 0, 1)
    cursor, second = store.read("flights", cursor, 10)
    store.write([window(1, at=100)])
    cursor, late = store.read("flights", cursor, 10)
    assert [one.at for one in (*first, *second, *late)] == [200, 300, 100]
    assert store.read("flights", cursor, 10) == (cursor, ())


def test_what_is_kept_is_kept_by_comparison(tmp_path: Path) -> None:
    store = SqlWindows(open_evidence(tmp_path))
    store.keep("flights", "1/2/s/canary", b"one")
    store.keep("flights", "1/2/s/canary", b"two")
    assert store.kept("flights", "1/2/s/canary") == b"two"
    assert store.kept("flights", "1/3/s/canary") is None


def opened(path: Path) -> tuple[SqlWindows, SqlRolls]:
    return SqlWindows(open_evidence(path)), SqlRolls(open_evidence(path))


def test_old_windows_become_minutes_and_old_minutes_hours_and_old_hours_go(tmp_path: Path) -> None:
    store, rolls = opened(tmp_path)
    store.write([window(n, at=10 * n) for n in range(1_500)])  # four hours and ten minutes
    now = 15_000
    assert rolls.age(now) == (now - HOUR) // 10
    assert [one.at for one in store.read("flights", 0, 9_999)[1]] == list(range(11_400, 15_000, 10))
    minutes = rolls.read("flights", 0)
    assert [(roll.at, roll.span) for roll in minutes] == [(60 * n, MINUTE) for n in range(190)]
    assert {roll.exposed[""] for roll in minutes} == {(6, 6)}
    assert rolls.age(now) == 0
    rolls.age(now + 24 * HOUR)
    hours = rolls.read("flights", 0)
    assert [(roll.at, roll.span) for roll in hours if roll.span == HOUR] == [
        (HOUR * n, HOUR) for n in range(4)
    ]
    assert sum(roll.exposed[""][0] for roll in hours) == 1_500
    assert min(roll.at for roll in rolls.read("flights", HOUR)) == HOUR
    assert rolls.read("other", 0) == []
    rolls.age(now + 365 * 24 * HOUR)
    assert rolls.read("flights", 0) == []


def test_a_late_window_joins_its_minute(tmp_path: Path) -> None:
    store, rolls = opened(tmp_path)
    store.write([window(1, at=100)])
    rolls.age(HOUR * 2)
    store.write([window(2, at=110)])
    rolls.age(HOUR * 2)
    (minute,) = rolls.read("flights", 0)
    assert minute.exposed[""] == (2, 2)


AGING = """
import sys
from pathlib import Path
from kedge.adapters.sql.sqlite.create import open_evidence
from kedge.adapters.sql.rolls import SqlRolls
rolls = SqlRolls(open_evidence(Path(sys.argv[1])))
print("on", flush=True)
rolls.age(30_000)
"""


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.2])
def test_killed_while_aging_nothing_is_lost_or_counted_twice(
    tmp_path: Path, after_s: float
) -> None:
    store, rolls = opened(tmp_path)
    store.write([window(n, at=n) for n in range(6_000)])
    command = [sys.executable, "-c", AGING, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as aging:
        assert aging.stdout is not None
        aging.stdout.readline()
        time.sleep(after_s)
        aging.kill()
    rolls.age(30_000)
    left = store.read("flights", 0, 9_999)[1]
    assert left == ()
    assert sum(roll.exposed[""][0] for roll in rolls.read("flights", 0)) == 6_000


def test_a_store_that_was_made_again_is_read_from_the_beginning(tmp_path: Path) -> None:
    """A cursor beyond its end belongs to the one that is gone."""
    old = SqlWindows(open_evidence(tmp_path / "old"))
    old.write([window(n) for n in range(5)])
    cursor, _ = old.read("flights", 0, 10)
    new = SqlWindows(open_evidence(tmp_path / "new"))
    new.write([window(1)])
    back, found = new.read("flights", cursor, 10)
    assert (back, found) == (0, ())
    assert len(new.read("flights", back, 10)[1]) == 1
