"""The walks of ARCHITECTURE.md: a tracer follows each, and compares the files with those on the page."""

from __future__ import annotations

import gc
import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest

import kedge
from contract.http_world import World, request
from contract.test_command_line import run, site
from contract.test_worker_loops import Worker
from e2e.test_features_ahead import DELAYS, write_source
from kedge.core.release.commands import Promote, Shadow
from support.waiting import wait_until

SOURCE = f"{Path(kedge.__file__).parent}/"
WHEN_DUE = {
    "adapters/sql/creation.py",
    "adapters/sql/sqlite/faults.py",
    "core/automation.py",
    "system/durable.py",
    "system/locks.py",
}
"""What a worker passes when it is due: it writes its counts, makes evidence.db, and keeps its rows."""
SAMPLED = {
    ("core/values/state.py", "State.stratum"),
    ("engine/recording/conduct.py", "Tracker.routed"),
}
"""What a request passes only if the log keeps it, and only if it is copied: both by a hash."""
PAGE = (Path(__file__).parents[2] / "ARCHITECTURE.md").read_text("utf-8")


class Walk:
    """The functions of kedge that were called, in order of their first call.

    What runs while a module is imported is left out: it depends on what was imported before.
    """

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], None] = {}
        self._importing = threading.local()

    @property
    def files(self) -> set[str]:
        """Return the files that were passed, below `src/kedge`."""
        return {file for file, _ in self.calls}

    def trace(self, frame: FrameType, event: str, _: object) -> None:
        """Follow one event of `sys.setprofile`."""
        code = frame.f_code
        outermost = getattr(self._importing, "frame", None)
        if event == "return" and frame is outermost:
            self._importing.frame = None
        if event != "call" or outermost is not None or not code.co_filename.startswith(SOURCE):
            return
        if code.co_name == "<module>":
            self._importing.frame = frame
        else:
            self.calls.setdefault((code.co_filename.removeprefix(SOURCE), code.co_qualname))


class Tracer:
    """A profiler of this thread and of those that start later; it follows when it is told to."""

    def __init__(self) -> None:
        self._walk: Walk | None = None

    def __call__(self, frame: FrameType, event: str, arg: object) -> None:
        if self._walk is not None:
            self._walk.trace(frame, event, arg)

    @contextmanager
    def follow(self) -> Iterator[Walk]:
        """Follow what runs within. No collection runs there: it would finalize what other tests left."""
        gc.collect()
        gc.disable()
        walk = self._walk = Walk()
        before = sys.getprofile()
        sys.setprofile(self)
        try:
            yield walk
        finally:
            sys.setprofile(before)
            self._walk = None
            gc.enable()


@pytest.fixture
def tracer() -> Iterator[Tracer]:
    made = Tracer()
    before = threading.getprofile()
    threading.setprofile(made)
    yield made
    threading.setprofile(cast("Any", before))


def section(heading: str) -> str:
    """The text below a heading, up to the next one."""
    return PAGE.split(f"## {heading}\n", 1)[1].split("\n## ")[0]


def steps(heading: str) -> list[tuple[str, str]]:
    """The file and the function with which each numbered step begins."""
    return re.findall(r"(?m)^\d\. `([\w/]+\.py)` · `([\w.]+)`", section(heading))


def entries(heading: str) -> tuple[str, ...]:
    """The files of a section, and directories, which stand for every file in them."""
    named = re.findall(r"`([\w/]+(?:\.py|/))`", section(heading))
    return tuple(one for one in named if not one.startswith("tests/"))


def compare(walk: Walk, *headings: str) -> tuple[list[str], list[str]]:
    """Return what was passed and is not listed, and what is listed and was not passed."""
    listed = tuple(one for heading in headings for one in entries(heading))
    assert listed
    missing = [one for one in listed if not any(file.startswith(one) for file in walk.files)]
    return sorted(file for file in walk.files if not file.startswith(listed)), missing


def in_order(walk: Walk, heading: str) -> list[tuple[str, str]]:
    """The steps of a section in the order in which they were really taken."""
    wanted = set(steps(heading))
    return [call for call in walk.calls if call in wanted]


def test_a_request_passes_the_files_that_the_architecture_lists(tracer: Tracer) -> None:
    with World() as world:
        assert world.ask(request()).status == 200  # what is made once is made here
        with tracer.follow() as walk:
            for _ in range(1000):
                assert world.ask(request()).status == 200
                if walk.calls.keys() >= SAMPLED:
                    break
            else:
                pytest.fail(f"never called: {SAMPLED - walk.calls.keys()}")
            assert world.ask(request()).status == 200  # so the one before is counted
    heading = "The walk of a request"
    assert compare(walk, heading) == ([], [])
    assert in_order(walk, heading) == steps(heading)
    assert len(steps(heading)) >= 6


@pytest.fixture
def worker(tmp_path: Path, tracer: Tracer) -> Iterator[Worker]:
    """A worker that follows flights, where r1 is production and r2 a release."""
    made = Worker(tmp_path)
    try:
        (tmp_path / "kedge.toml").write_text(
            '[server]\nstate_dir = "state"\n[endpoints.flights]\n[endpoints.taxis]\n'
        )
        yield made
    finally:
        made.end()


def follows(worker: Worker) -> None:
    row = worker.world.row().epoch
    wait_until(lambda: worker.epochs().get("flights") == row, "the row to be followed", 10)


def test_a_rollback_passes_the_files_that_the_architecture_lists(
    worker: Worker, tracer: Tracer, tmp_path: Path
) -> None:
    worker.world.do(Promote(release=2, override="a test"))
    follows(worker)
    with tracer.follow() as walk:
        told = run(tmp_path, "rollback", "flights")
    assert told.exit_code == 0, told.output
    assert "ack here/w0" in told.output
    heading = "The walk of a rollback"
    unlisted, missing = compare(walk, heading, "What every command passes")
    assert set(unlisted) <= WHEN_DUE
    assert not missing
    assert in_order(walk, heading) == steps(heading)
    assert len(steps(heading)) >= 9


def listed_for(command: str) -> list[str]:
    """The files of one of the four commands, in order."""
    (line,) = re.findall(rf"(?m)^- `kedge {command}`: (.+)$", section("The walks of four commands"))
    return re.findall(r"`([\w/]+\.py)`", line)


@pytest.mark.parametrize("command", ["evidence", "check", "diagnose"])
def test_a_command_passes_the_files_that_the_architecture_lists(
    command: str,
    worker: Worker,
    tracer: Tracer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "nice", lambda by: by)  # this process runs other tests
    if command == "evidence":
        worker.world.do(Shadow(release=2))
    else:
        worker.world.do(Promote(release=2, override="a test"))
    follows(worker)
    with tracer.follow() as walk:
        told = run(tmp_path, command, "flights")
    assert told.exception is None or isinstance(told.exception, SystemExit), told.output
    listed = listed_for(command)
    assert set(listed) <= walk.files
    assert len(listed) >= 8


def test_materialising_passes_the_files_that_the_architecture_lists(
    tracer: Tracer, tmp_path: Path
) -> None:
    folder = site(tmp_path, "[endpoints.flights]\n")
    (folder / "delays.py").write_text(DELAYS.format(ttl="3h", shift="0.0"))
    write_source(SimpleNamespace(root=folder))  # type: ignore[arg-type]
    assert run(folder, "features", "apply", "delays.py").exit_code == 0
    with tracer.follow() as walk:
        told = run(folder, "features", "materialise", "delays")
    assert told.exit_code == 0, told.output
    listed = listed_for("features materialise")
    assert set(listed) <= walk.files
    assert len(listed) >= 8
