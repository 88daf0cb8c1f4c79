"""A policy's own comparison, in its child: a fault costs only its pairs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from contract.test_fence import needs_all, without_landlock
from kedge.core.errors import BadConfig
from kedge.core.evidence.windows import PRODUCTION
from kedge.core.values import Output, Policy, Stage, State
from kedge.engine.recording import custom
from kedge.engine.recording.counter import Counter, SlowBounds
from kedge.engine.recording.custom import Custom, check_function
from kedge.engine.recording.observation import Observation
from kedge.engine.request import Request
from kedge.system.interpreter import module_command

SOURCE = """
import os, re, sys

def plain(ours, theirs):
    return [abs(a - b) < 0.3 for a, b in zip(ours["p"], theirs["p"])]

def act(ours, theirs):
    word = ours["word"][0]
    print("said by other people's code", flush=True)
    if word == "grip":
        re.match(r"^(a+)+$", "a" * 64 + "!")
    if word == "sys.exit":
        sys.exit("no")
    if word == "exit":
        os._exit(1)
    if word == "eat":
        bytearray(8 << 30)
    if word == "read":
        open("/etc/shadow").close()
    if word == "state":
        open(os.path.join(os.path.dirname(__file__), "state", "secret")).close()
    if word == "connect":
        import socket
        socket.create_connection(("127.0.0.1", 9))
    if word == "many":
        return [True] * 1000
    return plain(ours, theirs)

number = 3
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "mine.py").write_text(SOURCE)
    (tmp_path / "gripping.py").write_text('import re\nre.match(r"^(a+)+$", "a" * 64 + "!")\n')
    (tmp_path / "leaving.py").write_text("raise SystemExit(0)\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return tmp_path


def compare(function: str = "mine:act") -> Custom:
    found = Custom(Output(kind="custom", function=function))
    assert found.wait(30.0) == ""
    return found


def pair(word: str = "", apart: float = 0.1) -> tuple[Any, Any, int]:
    ours = {"p": np.array([0.5]), "word": np.array([word], dtype=object)}
    return ours, {**ours, "p": np.array([0.5 + apart])}, 1


def seen(ours: Any, theirs: Any, rows: int) -> Observation:
    asked = Request(id="q", columns={}, rows=rows, entity="N1", draw=0)
    return Observation(
        1.0, asked, PRODUCTION, 100, failed=False, weight=0, ours=ours, mirrored=True, theirs=theirs
    )


@needs_all
@pytest.mark.parametrize("word", ["read", "state", "connect"])
def test_it_is_fenced(folder: Path, word: str) -> None:
    """It reads Python and its own folder, but the state directory in it, and has no sockets."""
    (folder / "state").mkdir()
    (folder / "state" / "secret").write_text("hunter2")
    custom.set_fence(folder / "state", "warn")
    try:
        function = compare()
    finally:
        custom._fence[:] = "", "warn"
    assert function.compare([pair(word)]) == [[None]]
    assert "PermissionError" in function._fault
    assert function.compare([pair()]) == [[True]]


def test_it_decides() -> None:
    assert compare().compare([pair(), pair(apart=0.5)]) == [[True], [False]]


@pytest.mark.parametrize("word", ["sys.exit", "eat", "many"])
def test_a_fault_at_one_pair_costs_that_pair(word: str) -> None:
    assert compare().compare([pair(), pair(word), pair(apart=0.5)]) == [[True], [None], [False]]


@pytest.mark.parametrize("word", ["exit", "grip"])
def test_an_end_or_hang_of_the_child_costs_a_batch_and_the_next_child_continues(
    word: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(custom, "ANSWER_S", 1.0)
    monkeypatch.setattr(custom, "BACKOFF_S", (0.3,))
    mine = compare()
    began = time.monotonic()
    assert mine.compare([pair(), pair(word)]) == [[None], [None]]
    assert mine.compare([pair()]) == [[None]], "no caller waits for the next child"
    assert time.monotonic() - began < 2.5
    time.sleep(0.3)
    assert mine.wait(30.0) == ""
    assert mine.compare([pair()]) == [[True]]


def test_apply_refuses_what_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom, "START_S", 10.0)
    for function in ("absent:f", "mine:absent", "mine:number", "leaving:f", "gripping:f"):
        with pytest.raises(BadConfig, match=function):
            check_function(Output(kind="custom", function=function))
    check_function(Output(kind="custom", function="mine:plain"))


def test_the_child_goes_with_what_asked_it() -> None:
    mine = compare()
    child = mine._child
    assert child is not None
    del mine
    assert child.poll() is not None


@pytest.mark.parametrize("function, pairs", [("mine:plain", 2), ("mine:act", 0), ("absent:f", 0)])
def test_what_is_not_compared_is_counted_and_neither_alike_nor_not(
    function: str, pairs: int
) -> None:
    output = Output(kind="custom", function=function)
    word = "sys.exit"
    ones = [seen(*pair(word, apart)) for apart in (0.1, 0.5)]
    state = State(
        endpoint="e",
        stage=Stage.SHADOW,
        production=1,
        candidate=2,
        salt="e/1",
        policy=Policy(output=output),
    )
    counter = Counter("w0", state)
    assert counter._custom is not None
    counter._custom.wait(30.0)
    window, _ = counter.window(
        ones,
        0,
        SlowBounds(),
        number=1,
        paired=True,
        weight=0,
        lost=0,
        streak=0,
        broken=0,
    )
    assert counter.uncompared == 2 - pairs
    assert (window.mirrored, window.copied) == (2, 2)
    if not pairs:
        assert window.agreement == {}
    else:
        assert (window.agreement[""].pairs, window.agreement[""].agreeing) == (2, 1)


def test_no_function_runs_where_the_fence_is_required_and_a_part_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def start(*words: str) -> list[str]:
        return without_landlock(module_command(*words))

    monkeypatch.setattr(custom, "module_command", start)
    monkeypatch.setattr(custom, "_fence", [str(tmp_path), "require"])
    with pytest.raises(BadConfig, match="lacks landlock"):
        check_function(Output(kind="custom", function="mine:plain"))
    monkeypatch.setattr(custom, "_fence", [str(tmp_path), "warn"])
    check_function(Output(kind="custom", function="mine:plain"))
