"""Features child: the process that runs the Python files of a features bundle.

It is asked over a socket, one question at a time, and answers with values only: its output is never
run as code. The code may hold the interpreter, exit, print or exhaust memory here; `features` is
the end that waits.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import pickle
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np

from kedge.adapters.process import fence
from kedge.adapters.process.confine import confine
from kedge.core.errors import BadConfig, KedgeError, ModelFailure
from kedge.system.files import set_umask
from kedge.transforms.authoring import MARK, Declared, spec_of
from kedge.transforms.bundle import Namespace, Transform

PR_SET_PDEATHSIG = 1
WHOLE_NUMBERS = range(-(1 << 63), 1 << 64)
"""Range of whole numbers that MessagePack can carry."""

Operation = Literal["declare", "read", "load", "transform", "view"]


class Question(NamedTuple):
    """Question for the child, with its arguments in order."""

    operation: Operation
    given: tuple[Any, ...]


class PackedColumn(msgspec.Struct, array_like=True):
    """Array: its bytes, or the values of an object array."""

    dtype: str
    shape: list[int]
    data: bytes | list[Any]


class Failed(msgspec.Struct):
    """Failure: a kedge error with its code, or any other exception of the code."""

    kind: str
    code: str
    message: str
    hint: str = ""
    faults: list[str] = []


class FeaturesAnswer(msgspec.Struct):
    """Answer; exactly one of its fields is set, none after `load`."""

    declared: Mapping[str, object] | None = None
    names: list[str] | None = None
    columns: dict[str, PackedColumn] | None = None
    failed: Failed | None = None


class TrackedColumns(dict[str, object]):
    """Columns that record which of them were read."""

    def __init__(self, columns: Any) -> None:
        super().__init__(columns)
        self.names: set[str] = set()

    def __getitem__(self, name: str) -> Any:
        self.names.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a column, as a dictionary does."""
        self.names.add(name)
        return super().get(name, default)


class Work:
    """The loaded bundle."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._names = Namespace(folder)
        self._transform: Transform | None = None

    def declare(self, module: str) -> FeaturesAnswer:
        """Run a file; return the declarations of its decorated functions, by MODULE:NAME."""
        found = {
            f"{value.__module__}:{value.__name__}": getattr(value, MARK)
            for value in vars(self._names.module(module)).values()
            if callable(value) and isinstance(getattr(value, MARK, None), Declared)
        }
        return FeaturesAnswer(declared=found)

    def read(self, entry: str, columns: Mapping[str, Any], looked: Sequence[Any]) -> FeaturesAnswer:
        """Call a function with made columns; return which of them it read."""
        reading = TrackedColumns(columns)
        self._function(entry)(reading, *looked)
        return FeaturesAnswer(names=sorted(reading.names))

    def load(self, entry: str | None) -> FeaturesAnswer:
        """Load the bundle's transformation, or only the function that `entry` names."""
        if entry is None:
            self._transform = Transform(self._folder)
        else:
            self._function(entry)
        return FeaturesAnswer()

    def transform(
        self, given: Mapping[str, Any], looked: Sequence[Mapping[str, Any]]
    ) -> FeaturesAnswer:
        """Compute features."""
        if self._transform is None:
            self._transform = Transform(self._folder)
        return _columns(self._transform.applied(given, looked))

    def view(self, entry: str, rows: Mapping[str, Any], end: float) -> FeaturesAnswer:
        """Compute the values of one slice."""
        for column in rows.values():
            column.flags.writeable = False
        found = self._function(entry)(rows, end)
        if not isinstance(found, Mapping):
            raise ModelFailure(
                f"it gave a {type(found).__name__}, not columns by name", code="transform_nonsense"
            )
        schema = spec_of(self._folder).schema
        wanted = (*schema.keys, *schema.fields)
        return _columns({name: found[name] for name in wanted if name in found})

    def _function(self, entry: str) -> Any:
        module, _, name = entry.partition(":")
        return getattr(self._names.module(module), name)


def _columns(found: Mapping[str, Any]) -> FeaturesAnswer:
    return FeaturesAnswer(
        columns={name: _column(np.asarray(column)) for name, column in found.items()}
    )


def _column(column: np.ndarray[Any, Any]) -> PackedColumn:
    shape = list(column.shape)
    if column.dtype.kind == "O":
        return PackedColumn("O", shape, [_value(value) for value in column.reshape(-1).tolist()])
    return PackedColumn(column.dtype.str, shape, np.ascontiguousarray(column).tobytes())


def _value(value: Any) -> Any:
    """Return a value that can be sent; types without a spelling, such as keys, become text."""
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value) in (str, bool, float):
        return value
    if type(value) is int and value in WHOLE_NUMBERS:
        return value
    return str(value)


def _answer(work: Work, question: Question) -> bytes:
    """Answer one question. Never raise, whatever the code does."""
    try:
        said = getattr(work, question.operation)(*question.given)
        return msgspec.msgpack.encode(said)
    except KedgeError as error:
        return _refuse(error)
    except BaseException as error:  # noqa: BLE001 - other people's code may even exit
        text = f"{type(error).__name__}: {error}"[:2000]
        failed = Failed("ModelFailure", "transform_raised", text)
    return msgspec.msgpack.encode(FeaturesAnswer(failed=failed))


def _refuse(error: KedgeError) -> bytes:
    faults = error.faults if isinstance(error, BadConfig) else []
    failed = Failed(type(error).__name__, error.code, str(error), error.hint, faults)
    return msgspec.msgpack.encode(FeaturesAnswer(failed=failed))


def _hear(line: socket.socket) -> Question | None:
    """Return the next question, None after the last. Its arrays come beside it, uncopied."""
    head = _exactly(line, 8)
    if head is None:
        return None
    sizes = _exactly(line, 8 * int.from_bytes(head))
    parts = (
        [
            _exactly(line, int.from_bytes(sizes[at : at + 8]))
            for at in range(0, len(sizes or b""), 8)
        ]
        if sizes is not None
        else []
    )
    if not parts or None in parts:
        return None
    # The question comes from this process's own parent.
    found: Question = pickle.loads(parts[0] or b"", buffers=parts[1:])  # noqa: S301
    return found


def _exactly(line: socket.socket, size: int) -> bytearray | None:
    """Return so many bytes; None when the other end closed the connection."""
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        count = line.recv_into(view[at:])
        if not count:
            return None
        at += count
    return found


def main() -> int:
    """Answer until the parent closes the connection."""
    parser = argparse.ArgumentParser(prog="python -m kedge.adapters.process.features_child")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--own", type=Path, required=True)
    parser.add_argument("--hidden", type=Path)
    parser.add_argument("--memory-mb", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--fence", choices=("require", "warn"), required=True)
    given = parser.parse_args()
    set_umask()
    confine(given.memory_mb)
    os.dup2(2, 1)  # its prints are no data
    os.environ.update(TMPDIR=str(given.own), HOME=str(given.own))
    refusal: KedgeError | None = None
    try:
        openings = fence.Openings(read=(given.folder,), own=given.own, hidden=given.hidden)
        fence.enter_or_refuse(openings, given.fence)
    except KedgeError as error:
        refusal = error
    with suppress(AttributeError):  # not on Linux; a new user id clears it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != given.parent:
        return 1
    work, line = Work(given.folder), socket.socket(fileno=given.socket)
    while (question := _hear(line)) is not None:
        raw = _refuse(refusal) if refusal is not None else _answer(work, question)
        line.sendall(len(raw).to_bytes(8) + raw)
    return 0


if __name__ == "__main__":
    sys.exit(main())
