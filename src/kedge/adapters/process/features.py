"""Features process: runs features files apart, each call with a limit of time and memory.

A features file is code: it may loop for ever, exit, hold the interpreter, print or exhaust memory.
So it never runs in a command, in control or in a worker, but in a child behind a model's fence,
which returns values. Where a release serves, its transformation runs in the model's process.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import prod
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Self, cast

import msgspec
import numpy as np

from kedge.adapters.process.features_child import (
    Failed,
    FeaturesAnswer,
    Operation,
    PackedColumn,
    Question,
)
from kedge.adapters.process.launch import fenced_environment
from kedge.core.errors import BadConfig, KedgeError, ModelFailure, Refused, UnfitModel
from kedge.core.features import schema as features
from kedge.core.features.schema import FeatureLimits, Schema
from kedge.system.interpreter import module_command
from kedge.transforms.authoring import Declared

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

PLAIN_KINDS = frozenset("biufcmMSU")
"""NumPy's kinds of arrays whose bytes are their values."""
KINDS: dict[str, type[KedgeError]] = {
    "UnfitModel": UnfitModel,
    "ModelFailure": ModelFailure,
}


class FeaturesProcess:
    """Child process that runs the files of one features bundle; used by one thread."""

    def __init__(
        self,
        folder: Path,
        limits: FeatureLimits,
        *,
        hidden: Path | None = None,
        fence: str = "warn",
    ) -> None:
        """Start the child.

        Args:
            folder: the bundle's files; the child reads only these.
            limits: the limits of each call.
            hidden: the state directory, which the child never reads.
            fence: `[server] fence`. With "require", every call raises `UnfitModel`
                (`not_fenced`) if this machine is missing a part of the fence.
        """
        self._limits = limits
        self._own = tempfile.TemporaryDirectory(prefix="kedge-")
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the child
        self._line, theirs = socket.socketpair()
        words = ["--socket", str(theirs.fileno()), "--folder", str(folder), "--own", self._own.name]
        words += ["--memory-mb", str(limits.memory_mb), "--parent", str(os.getpid())]
        words += ["--fence", fence]
        words += ["--hidden", str(hidden)] if hidden is not None else []
        self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            module_command("kedge.adapters.process.features_child", *words),
            stdin=subprocess.DEVNULL,
            stdout=self._errors,
            stderr=self._errors,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            env=fenced_environment(),
        )
        theirs.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child and its children."""
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._child.wait()
        self._line.close()
        self._errors.close()
        self._own.cleanup()

    # ------------------------------------------------------------ what it is asked

    def declared(self, module: str) -> dict[str, Declared]:
        """Run a file; return the declarations of its decorated functions, by MODULE:NAME.

        Raises:
            BadConfig: a declaration has faults.
            ModelFailure: `transform_raised`: running it raised.
            Refused: `features_hung`, `features_died`, `features_garbled`.
        """
        said = self._ask("declare", module)
        try:
            plain = said.declared or {}
            found = msgspec.convert(plain, dict[str, Declared])
            # Each is a list, else its conversion would have failed.
            return {
                entry: _checked(one, cast("Sequence[Any]", plain[entry]))
                for entry, one in found.items()
            }
        except msgspec.ValidationError as error:
            raise BadConfig([f"what it declares: {error}"], hint="nothing was applied") from None

    def read(self, entry: str, columns: Columns, looked: Sequence[Columns]) -> set[str]:
        """Return which of these columns a function reads. Raises as `declared`."""
        return set(
            self._ask("read", entry, dict(columns), [dict(one) for one in looked]).names or ()
        )

    def transformation(self) -> Callable[..., Columns]:
        """Return the bundle's function. Its load raises as `declared`, and `UnfitModel`."""
        self._ask("load", None)

        def apply(given: Columns, *looked: Columns) -> Columns:
            said = self._ask("transform", dict(given), [dict(one) for one in looked])
            return self._arrays(said)

        return apply

    def view(self, entry: str) -> Callable[[Columns, float], Columns]:
        """Return a materialised function. Loading and calling it raise as `declared`."""
        self._ask("load", entry)
        return lambda rows, end: self._arrays(self._ask("view", entry, dict(rows), end))

    # ------------------------------------------------------------ the line

    def _ask(self, operation: Operation, *given: Any) -> FeaturesAnswer:
        """Ask once.

        Raises:
            KedgeError: the child's failure; or `features_hung`, `features_died`,
                `features_garbled`.
        """
        until = perf_counter() + self._limits.timeout_s
        try:
            self._tell(Question(operation, given), until)
            raw = self._hear(until)
        except TimeoutError:
            self._kill()
            raise Refused(
                f"the features file did not come to an end within {self._limits.timeout_s:g} s",
                code="features_hung",
                hint="check it for an endless loop, or raise [features] timeout in kedge.toml",
            ) from None
        except (OSError, EOFError):
            raise self._death(until) from None
        try:
            said = msgspec.msgpack.decode(raw, type=FeaturesAnswer)
        except (msgspec.MsgspecError, RecursionError):
            raise self._garbled() from None
        if said.failed is not None:
            raise _failure(said.failed)
        return said

    def _tell(self, question: Question, until: float) -> None:
        """Send a question: its parts' number and sizes, the question, and its uncopied arrays."""
        arrays: list[pickle.PickleBuffer] = []
        body = pickle.dumps(question, protocol=5, buffer_callback=arrays.append)
        parts = [memoryview(body), *(one.raw() for one in arrays)]
        sizes = b"".join(part.nbytes.to_bytes(8) for part in parts)
        for part in (memoryview(len(parts).to_bytes(8) + sizes), *parts):
            self._line.settimeout(max(until - perf_counter(), 0.001))
            self._line.sendall(part)

    def _hear(self, until: float) -> bytes:
        size = int.from_bytes(self._exactly(8, until))
        if size > self._limits.memory_mb << 20:
            raise self._garbled()
        return bytes(self._exactly(size, until))

    def _exactly(self, size: int, until: float) -> bytearray:
        found = bytearray()
        while len(found) < size:
            self._line.settimeout(max(until - perf_counter(), 0.001))
            more = self._line.recv(min(size - len(found), 1 << 20))
            if not more:
                raise EOFError
            found += more
        return found

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)

    def _garbled(self) -> Refused:
        self._kill()
        return Refused(
            "the features file wrote where its process answers",
            code="features_garbled",
            hint="look for what writes to a descriptor by its number",
        )

    def _death(self, until: float) -> Refused:
        try:
            code = self._child.wait(max(until - perf_counter(), 1))
        except subprocess.TimeoutExpired:
            self._kill()
            return Refused(
                "the features file closed its line and went on",
                code="features_hung",
                hint="look for what closes a descriptor by its number",
            )
        self._errors.seek(max(self._errors.seek(0, os.SEEK_END) - 2000, 0))
        last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        return Refused(
            f"the features file ended its process ({how})" + (f": {last[0]}" if last else ""),
            code="features_died",
            hint="if it ran out of memory: [features] memory_mb in kedge.toml",
        )

    def _arrays(self, said: FeaturesAnswer) -> Columns:
        try:
            return {name: _array(column) for name, column in (said.columns or {}).items()}
        except (TypeError, ValueError):
            raise self._garbled() from None


def _failure(failed: Failed) -> KedgeError:
    if failed.faults:
        return BadConfig(failed.faults, hint=failed.hint)
    kind = KINDS.get(failed.kind, Refused)
    return kind(failed.message, code=failed.code, hint=failed.hint)


def _array(column: PackedColumn) -> NDArray[Any]:
    """Return the array in a packed column.

    Raises:
        ValueError: it is not an array.
    """
    if isinstance(column.data, list):
        if column.dtype != "O" or len(column.data) != prod(column.shape):
            raise ValueError(column.dtype)
        found = np.empty(len(column.data), dtype=object)
        found[:] = column.data
        return found.reshape(column.shape)
    dtype = np.dtype(column.dtype)
    if dtype.kind not in PLAIN_KINDS:
        raise ValueError(column.dtype)
    return np.frombuffer(bytearray(column.data), dtype).reshape(column.shape)


def _checked(declared: Declared, plain: Sequence[Any]) -> Declared:
    """Return a declaration, checked again on this side, with numbers as the author wrote them.

    The digest covers their spelling: 24 and 24.0 differ.

    Raises:
        BadConfig: the declaration is invalid; the error lists every fault.
    """
    schema, _, reads, _ = plain
    found = Declared(
        _exact(declared.schema, schema),
        declared.raw,
        tuple(_exact(one, other) for one, other in zip(declared.reads, reads, strict=True)),
        declared.view,
    )
    for one in (found.schema, *found.reads):
        features.declared(one.name, one.fields, one.keys)
    if found.view is not None:
        features.materialised(found.schema, found.view)
    return found


def _exact(schema: Schema, plain: Mapping[str, Any]) -> Schema:
    fields = {}
    for name, feature in schema.fields.items():
        said = plain["fields"][name]
        numbers: dict[str, object] = {}
        if feature.range is not None:
            numbers["range"] = tuple(said["range"])
        if feature.default is not msgspec.UNSET:
            numbers["default"] = said["default"]
        fields[name] = msgspec.structs.replace(feature, **numbers)
    return msgspec.structs.replace(schema, fields=fields)
