"""A small world for the tests of the SQL adapter: a ledger with releases, and other processes.

Other processes are forked from a clean server that has imported what they need: that costs
milliseconds where an import costs half a second. What they do stands at the end.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from kedge.adapters.sql.ledger import SqlLedger
from kedge.adapters.sql.registry import SqlRegistry
from kedge.adapters.sql.roster import SqlRoster
from kedge.adapters.sql.sqlite.create import create, open_ledger, open_roster
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.core import codec
from kedge.core.errors import Refused, Stale
from kedge.core.release.commands import AnyCommand, Configure, Promote, Promoted, WeightSet
from kedge.core.release.machine import decide
from kedge.core.stored.ledger import Entry
from kedge.core.stored.roster import Member
from kedge.core.values import (
    Bundle,
    Field,
    ModelVersion,
    Placement,
    Policy,
    Refusal,
    Release,
    Signature,
)
from kedge.core.values import State as Row

FORK = multiprocessing.get_context("forkserver")
FORK.set_forkserver_preload(
    [
        "pytest",
        "kedge.adapters.sql.ledger",
        "kedge.adapters.sql.registry",
        "kedge.operations.backup.restore",
    ]
)
SIGNATURE = Signature(inputs=(Field("x", "float32"),), outputs=(Field("y", "float32"),))
POLICY = Policy(audience="internal", fields=SIGNATURE.inputs)


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

    def do(self, command: AnyCommand, endpoint: str = "flights", **said: Any) -> tuple[Entry, ...]:
        """Decide a command on the present row, and append what it does."""
        row = self.row(endpoint)
        words = {"by": "ada", "reason": "a test", "at": at(row.epoch), **said}
        events = decide(row, command, words["at"])
        assert not isinstance(events, Refusal), events.message
        return self.ledger.append(endpoint, events, expect=row.epoch, **words)

    def configure(self, policy: Policy = POLICY, endpoint: str = "flights") -> None:
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
    """A ledger with releases r1.. of flights, copied from one that was made once."""
    made = Path(_template(releases, configured).name) / "state"
    shutil.copytree(made, tmp_path / "state")
    return World(tmp_path / "state")


@functools.cache
def _template(releases: int, configured: bool) -> TemporaryDirectory[str]:
    """Kept, and so removed at the end of the process."""
    directory = TemporaryDirectory(prefix="kedge-world-", ignore_cleanup_errors=True)
    state_dir = Path(directory.name) / "state"
    create(state_dir)
    made = World(state_dir)
    for number in range(1, releases + 1):
        made.release(number)
    if configured:
        made.configure()
    made.close()
    return directory


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


# ---------------------------------------------------------------- what they do


def creates(tell: Any, state_dir: Path) -> None:
    """Make a ledger, when told to go."""
    tell.send("ready")
    tell.recv()
    try:
        create(state_dir)
        tell.send("made")
    except Refused as error:
        tell.send(error.code)


def locks(tell: Any, path: Path) -> None:
    """Hold the write lock until told to go."""
    raw = dbapi.connect(str(path), isolation_level=None)
    raw.execute("BEGIN IMMEDIATE")
    tell.send("locked")
    tell.recv()
    raw.execute("COMMIT")
    raw.close()


def promotes(tell: Any, state_dir: Path, release: int, by: str) -> None:
    """Promote from the epoch that is now, when told to go."""
    own = World(state_dir)
    expect = own.row().epoch
    tell.send("ready")
    tell.recv()
    event = Promoted(release=release, replaced=None, at=at())
    try:
        own.ledger.append("flights", [event], expect=expect, by=by, reason=f"r{release}", at=at())
        tell.send(("won", by))
    except Stale as error:
        tell.send(("stale", error.details["by"]))


def alternates(tell: Any, state_dir: Path) -> None:
    """Promote r1, r2, r1... one for each word, until told to stop."""
    own = World(state_dir)
    own.row()
    tell.send("ready")
    for _ in iter(tell.recv, "stop"):
        other = 2 if own.row().production == 1 else 1
        own.do(Promote(release=other, override="a test"))


def appends_for_ever(tell: Any, state_dir: Path) -> None:
    """Append two events at a time, and tell of each append that returned."""
    own = World(state_dir)
    weight = 0
    while True:
        weight = weight % 9999 + 1
        row = own.row()
        event = WeightSet(weight=weight, previously=row.weight)
        entries = own.ledger.append(
            "flights", [event, event], expect=row.epoch, by="loop", reason="", at=at()
        )
        tell.send([(entry.seq, entry.hash) for entry in entries])


def registers(tell: Any, state_dir: Path, first: int) -> None:
    """Register ten versions of taxis, when told to go."""
    own = World(state_dir)
    own.row()
    tell.send("ready")
    tell.recv()
    for number in range(first, first + 10):
        tell.send(own.registry.add(version(number, model="taxis")).number)


def publishes(tell: Any, state_dir: Path, said: list[Member]) -> None:
    """Publish one word after another, when told to go; tells the slowest, in seconds."""
    roster = SqlRoster(open_roster(state_dir))
    roster.members()
    tell.send("ready")
    tell.recv()
    slowest = 0.0
    for member in said:
        started = time.perf_counter()
        roster.publish(member)
        slowest = max(slowest, time.perf_counter() - started)
    tell.send(slowest)
