"""Children: operations that run as a `kedge` command in a process of their own.

A process runs model code, replays and long reads: it cannot slow the patrol, and a fault of it ends
only itself.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from kedge.core.errors import (
    BadRequest,
    KedgeError,
    NotAcknowledged,
    Overloaded,
    Refused,
    Stale,
    Unavailable,
    Usage,
)
from kedge.operations.catalogue import Operation
from kedge.operations.parameters import NoParameters

AT_ONCE = 4
"""Maximum children at once."""
WAITING = 16
"""Maximum operations that run or wait."""
WITHIN_S = 900.0
"""Maximum seconds of one: a replay of a week takes minutes."""
MOST = 32 << 20
"""Maximum bytes of a child's document."""
KINDS: Mapping[int, type[KedgeError]] = {
    1: Refused,
    2: Usage,
    3: NotAcknowledged,
    4: Unavailable,
}
"""Kind of error by exit code."""


class Unfinished(Unavailable):
    """A process that ended without its document: whether it changed something is not known."""

    retryable = False


class RemoteCaller(NamedTuple):
    """The caller of a write, for the ledger."""

    name: str
    holder: str
    """What allowed it, such as `token ci`; empty for a local command."""


class ChildFiles(NamedTuple):
    """The files that an operation reads."""

    folder: Path | None = None
    """The working directory: paths of the parameters begin there."""
    stdin: Path | None = None
    """The standard input."""


NO_FILES = ChildFiles()


class OwnError(msgspec.Struct, frozen=True):
    """The error that a command prints with --json."""

    code: str = "error"
    message: str = ""
    hint: str = ""


class OwnOutput(msgspec.Struct, frozen=True):
    """The part of a command's document that is read here."""

    error: OwnError | None = None


class Children:
    """The processes of one control; for one event loop."""

    def __init__(
        self,
        command: Callable[[RemoteCaller, int | None], Sequence[str]],
        environment: Callable[[RemoteCaller], Mapping[str, str]],
    ) -> None:
        """Start without processes.

        Args:
            command: builds the start of a command line: for a caller, and the epoch it saw.
            environment: builds the environment for a caller.
        """
        self._command = command
        self._environment = environment
        self._turn = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0

    async def run(
        self,
        operation: Operation,
        endpoint: str | None,
        given: NoParameters,
        caller: RemoteCaller,
        expect: int | None,
        files: ChildFiles = NO_FILES,
    ) -> msgspec.Raw:
        """Run an operation; return its document unchanged.

        Raises:
            KedgeError: the error that it printed; `child_late`, `child_failed`.
            Overloaded: `queue_full`.
        """
        if self._waiting >= WAITING:
            raise Overloaded(f"{WAITING} long operations are under way", code="queue_full")
        self._waiting += 1
        try:
            async with self._turn:
                line = (*self._command(caller, expect), *write_line(operation, endpoint, given))
                return await self._run(line, self._environment(caller), files)
        finally:
            self._waiting -= 1

    @staticmethod
    async def _run(
        line: Sequence[str], environment: Mapping[str, str], files: ChildFiles
    ) -> msgspec.Raw:
        with (files.stdin or Path(os.devnull)).open("rb") as stdin:
            child = await asyncio.create_subprocess_exec(
                *line,
                env=dict(environment),
                cwd=files.folder,
                stdin=stdin,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        assert child.stdout is not None
        raw = bytearray()
        try:
            async with asyncio.timeout(WITHIN_S):
                while part := await child.stdout.read(1 << 16):
                    raw += part
                    if len(raw) > MOST:
                        raise Unfinished(
                            f"the document has more than {MOST:,} bytes", code="child_failed"
                        )
                await child.wait()
        except TimeoutError:
            raise Unfinished(
                f"it took longer than {WITHIN_S:g} s", code="child_late", hint="ask for less"
            ) from None
        finally:
            if child.returncode is None:
                with suppress(ProcessLookupError):  # with what it started: its session is its own
                    os.killpg(child.pid, signal.SIGKILL)
                await child.wait()
        return read_output(bytes(raw), child.returncode)


def write_line(operation: Operation, endpoint: str | None, given: NoParameters) -> list[str]:
    """Return the command line of an operation: what stands after `kedge` and its options.

    Raises:
        BadRequest: `bad_parameters`: a text has a null character, which no command line can have.
    """
    values = msgspec.to_builtins(given)
    values.pop("upload", None)  # its folder is the working directory
    words = [] if endpoint is None else [endpoint]
    words += [str(values.pop(name)) for name in operation.words if values.get(name) is not None]
    options = []
    for name, value in values.items():
        if value is None or value is False or value == "":
            continue
        spelled = "--" + name.replace("_", "-")
        if isinstance(value, list | tuple):
            options += [f"{spelled}={one}" for one in value]
        else:
            options.append(spelled if value is True else f"{spelled}={value}")
    line = [*operation.name.split(" "), *options, "--json", "--", *words]
    if any("\0" in word for word in line):
        raise BadRequest("a text must have no null character", code="bad_parameters")
    return line


def read_output(raw: bytes, exit_code: int | None) -> msgspec.Raw:
    """Return a child's document unchanged.

    Raises:
        KedgeError: the error that it printed; `child_failed` if there is no document.
    """
    try:
        error = msgspec.json.decode(raw, type=OwnOutput).error if raw.lstrip()[:1] == b"{" else None
        if error is None:
            msgspec.json.decode(raw)
            return msgspec.Raw(raw)
    except msgspec.DecodeError:
        raise Unfinished(
            f"the process ended with exit code {exit_code} and without a document",
            code="child_failed",
            hint="its error is in control's log",
        ) from None
    kind = KINDS.get(exit_code or 0, Unavailable)
    details = msgspec.json.decode(raw)["error"]
    for name in ("code", "message", "hint"):
        details.pop(name, None)
    kind = Stale if error.code == Stale.code else kind
    raise kind(error.message, code=error.code, hint=error.hint, details=details)
