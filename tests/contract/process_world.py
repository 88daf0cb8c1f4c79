"""Shared parts of the tests of a model process: a home, a connection to it, and its messages."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import uvloop

from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.adapters.process import ProcessModel, command
from kedge.adapters.process import environment as one_thread
from kedge.core.errors import ModelFailure
from kedge.core.values import Proof
from kedge.system.door import ModelDoor, own_directory
from models import LOADER, SIGNATURE, environment, misbehaving
from support.waiting import wait_on_loop_until

PROOF = Proof(
    {"x": [1.0, -2.5], "word": ["a", None]},
    {"score": [2.0, -5.0], "label": ["a", "none"]},
    rows="independent",
)


class Home:
    """A store and the processes of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "m.sock"
        self.store = DirectoryArtifacts(root / "store")
        self.processes: list[subprocess.Popen[bytes]] = []
        self.doors: dict[Path, ModelDoor] = {}

    def put(self, kind: str = "good", proof: Proof = PROOF, **more: Any) -> str:
        digest, _ = self.store.put(misbehaving(self.root / f"source-{kind}", kind, **more))
        self.store.write_proof(digest, proof)
        return digest

    def command(self, digest: str, memory_mb: int = 0, **more: Any) -> list[str]:
        return command(
            socket=self.socket,
            artifacts=self.root / "store",
            digest=digest,
            flavour="test",
            memory_mb=memory_mb,
            loader=LOADER,
            **more,
        )

    def start(self, kind: str = "good", memory_mb: int = 0, **more: Any) -> subprocess.Popen[bytes]:
        return self.run(self.command(self.put(kind, **more), memory_mb))

    def run(self, line: list[str], **more: Any) -> subprocess.Popen[bytes]:
        """Start a command and hand it what a model process is handed."""
        door = self.doors.setdefault(self.socket, ModelDoor(self.socket))
        with door.handed(b"\n") as given:
            process = subprocess.Popen(
                line, env={**one_thread(), **environment()}, stdin=given, **more
            )
        self.processes.append(process)
        return process

    def calls(self) -> list[int]:
        """The rows of each call of a model that keeps a log."""
        return [int(line) for line in (own_directory(self.socket) / "calls").read_text().split()]

    def says(self) -> dict[str, Any]:
        file = self.socket.with_name(f"{self.socket.name}.json")
        said: dict[str, Any] = msgspec.json.decode(file.read_bytes()) if file.exists() else {}
        return said

    def ended(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
        for door in self.doors.values():
            door.close()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("p"))  # short: a Unix socket's path has 107 bytes
    yield made
    made.ended()


def columns(*x: float, word: str | None = "w") -> dict[str, Any]:
    words = np.empty(len(x), dtype=object)
    words[:] = word
    return {"x": np.array(x), "word": words}


OPEN: list[ProcessModel] = []


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run a story, then hang up: a loop of uvloop's does not close over an open line."""

    async def whole() -> None:
        try:
            await story
        finally:
            while OPEN:
                OPEN.pop().hang_up()
            await asyncio.sleep(0.05)

    uvloop.run(whole())


def connect(home: Home, **more: Any) -> ProcessModel:
    OPEN.append(ProcessModel(home.socket, more.pop("signature", SIGNATURE), **more))
    return OPEN[-1]


async def reach(home: Home, **more: Any) -> ProcessModel:
    model = connect(home, **more)
    assert await model.wait_ready(15), home.says()
    return model


async def failure(
    model: ProcessModel, asked: dict[str, Any], deadline_s: float = 5, **more: Any
) -> str:
    with pytest.raises(ModelFailure) as caught:
        await model.predict(asked, deadline_s, **more)
    return caught.value.code


class Told:
    """What `submit` called back."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, int, str | None]] = []

    def __call__(self, answer: Any, micros: int, code: str | None, violated: bool) -> None:
        assert not violated
        self.answers.append((answer, micros, code))

    @property
    def codes(self) -> set[str | None]:
        return {code for _, _, code in self.answers}

    async def all(self, count: int, within_s: float = 5) -> None:
        await wait_on_loop_until(
            lambda: len(self.answers) >= count,
            lambda: f"{count} answers; there are {len(self.answers)}",
            within_s,
        )
