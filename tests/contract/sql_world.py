"""A small world for the tests of the SQL adapter: a ledger with releases, and other processes.

Other processes are forked, which costs milliseconds where an import costs half a second. So a
test lets go of its own connections before it forks (`close`): SQLite's must not be carried over.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from kedge.adapters.sql.dialect import dbapi
from kedge.adapters.sql.engine import create, open_ledger
from kedge.adapters.sql.ledger import SqlLedger
from kedge.adapters.sql.registry import SqlRegistry
from kedge.core import codec
from kedge.core.release import Command, Configure, Rollback, decide
from kedge.core.values import Field, ModelVersion, Placement, Policy, Refusal, Release, Signature
from kedge.core.values import State as Row
from kedge.ports import Bundle, Entry

FORK = multiprocessing.get_context("fork")
SIGNATURE = Signature(inputs=(Field("x", "float32"),), outputs=(Field("y", "float32"),))
NEWS = Policy(audience="internal", owner=None)


def at(second: int = 0) -> str:
    """An instant of the test's own day."""
    return f"2026-11-23T12:00:{second:02d}.000000Z"


def version(number: int, model: str = "flights", **more: Any) -> ModelVersion:
    """A version to register, with a digest of its own."""
    known = {
        "model": model,
        "number": 0,
        "digest": f"sha256:{model}-{number}",
        "flavour": "onnx",
        "signature": SIGNATURE,
        "size": 10,
        "files": (),
        "source": "test",
    }
    return ModelVersion(**{**known, **more})


def bundle(of: ModelVersion, endpoint: str = "flights", **more: Any) -> Bundle:
    """What a release of a version is made of."""
    return Bundle(
        endpoint=endpoint,
        model=of.model,
        version=of.number,
        model_digest=of.digest,
        placement=Placement.INLINE,
        **{"schema": of.schema, **more},
    )


class World:
    """A ledger, its registry, and commands that are decided as kedge decides them."""

    def __init__(self, state_dir: Path, patience_s: float = 5.0) -> None:
        self.state_dir = state_dir
        self.path = state_dir / "ledger" / "ledger.db"
        self.database = open_ledger(state_dir, patience_s=patience_s)
        self.ledger = SqlLedger(self.database)
        self.registry = SqlRegistry(self.database)

    def release(self, number: int, endpoint: str = "flights") -> Release:
        """Register a version and make a release of it."""
        added = self.registry.add(version(number, model=endpoint))
        return self.registry.release(bundle(added, endpoint))

    def row(self, endpoint: str = "flights") -> Row:
        """The endpoint's row."""
        return self.ledger.read().states.get(endpoint, Row(endpoint=endpoint))

    def do(self, command: Command, endpoint: str = "flights", **said: Any) -> tuple[Entry, ...]:
        """Decide a command on the present row, and append what it does."""
        row = self.row(endpoint)
        words = {"by": "ada", "reason": "a test", "at": at(row.epoch), **said}
        events = decide(row, command, words["at"])  # type: ignore[arg-type]
        assert not isinstance(events, Refusal), events.message
        return self.ledger.append(endpoint, events, expect=row.epoch, **words)

    def configure(self, policy: Policy = NEWS, endpoint: str = "flights") -> None:
        """Bring a policy into force."""
        self.do(Configure(policy=policy, digest=codec.fingerprint(policy)), endpoint)

    def close(self) -> None:
        """Let go of the file."""
        self.ledger.close()

    @contextmanager
    def raw(self) -> Iterator[Any]:
        """A connection that knows nothing of kedge, with autocommit."""
        self.close()
        connection = dbapi.connect(str(self.path), isolation_level=None)
        connection.execute("PRAGMA foreign_keys=ON")
        try:
            yield connection
        finally:
            connection.close()


def world(tmp_path: Path, *, releases: int = 3, configured: bool = True) -> World:
    """A new ledger with releases r1.. of flights."""
    create(tmp_path / "state")
    made = World(tmp_path / "state")
    for number in range(1, releases + 1):
        made.release(number)
    if configured:
        made.configure()
    return made


def rollback() -> Rollback:
    """The command without an argument."""
    return Rollback()


# ---------------------------------------------------------------- other processes


class Other:
    """A forked process that tells what it did through a pipe."""

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        self.told, tell = FORK.Pipe(duplex=True)
        self.process: BaseProcess = FORK.Process(target=_run, args=(work, tell, *args), daemon=True)
        self.process.start()
        tell.close()

    def heard(self, timeout_s: float = 10.0) -> Any:
        """The next thing it says."""
        assert self.told.poll(timeout_s), "the other process said nothing"
        return self.told.recv()

    def rest(self) -> list[Any]:
        """Everything that it still said, up to its end."""
        said = []
        try:
            while True:
                said.append(self.told.recv())
        except (EOFError, OSError):
            return said

    def end(self) -> None:
        """Wait for its end, and say it if it went wrong."""
        self.process.join(10)
        assert self.process.exitcode == 0


def _run(work: Callable[..., None], tell: Any, *args: Any) -> None:
    work(tell, *args)
    tell.close()
    os._exit(0)


# ---------------------------------------------------------------- disks


def on_own_disk(test: Callable[..., None]) -> Callable[..., None]:
    """Run a test that mounts: as root at once, else again inside a namespace of its own."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        if os.geteuid() == 0:
            return test(*args, **kwargs)
        inside = ["unshare", "-rm"]
        if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
            pytest.skip("mounting a small disk needs root, or user namespaces")
        name = f"{test.__code__.co_filename}::{test.__name__}"
        again = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name]
        done = subprocess.run([*inside, *again], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        return None

    return run


@contextmanager
def small_disk(path: Path, megabytes: int) -> Iterator[Path]:
    """A file system of its own with room for so much."""
    path.mkdir(parents=True)
    size = f"size={megabytes}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(path)], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk: {mounted.stderr.decode().strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(path: Path) -> Path:
    """Take every byte that is left on the disk of a directory."""
    filler = path / "filler"
    with open(filler, "ab", buffering=0) as file:
        for block in (1 << 20, 1 << 12):
            try:
                while file.write(b"x" * block) == block:
                    pass
            except OSError:
                continue
    return filler
