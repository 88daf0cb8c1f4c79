"""Windows are written once and read in order; what is lost with the store is asked again."""

from __future__ import annotations

from pathlib import Path

from kedge.adapters.sql.engine import open_evidence
from kedge.adapters.sql.windows import SqlWindows
from kedge.core.windows import Window


def window(number: int, *, replica: str = "w0", endpoint: str = "flights", at: int = 100) -> Window:
    return Window(
        replica=replica, number=number, endpoint=endpoint, production=1, candidate=2, salt="s",
        at=at, weight=0, paired=True, exposed={"": (1, 1)},
    )  # fmt: skip


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


def test_reading_goes_on_where_it_stopped_and_late_windows_are_not_missed(tmp_path: Path) -> None:
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


def test_old_windows_go(tmp_path: Path) -> None:
    store = SqlWindows(open_evidence(tmp_path))
    store.write([window(1, at=100), window(2, at=200)])
    assert store.prune(150) == 1
    assert [one.at for one in store.read("flights", 0, 10)[1]] == [200]


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
