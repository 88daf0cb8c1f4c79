"""Outcomes posted to control: they are joined without slowing the patrol.

Threads of one process share its interpreter. A small batch costs some milliseconds of it. A large
one would slow the patrol for seconds. So a separate process joins it, as `kedge outcomes` does,
with a low priority and a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import IO, Protocol

import msgspec

from kedge.core.errors import Refused, Unavailable

SMALL = 64 << 10
"""Maximum bytes joined in a thread: some hundred outcomes, faster than a process starts."""
SMALL_LINES = 1_000
WITHIN_S = 120.0
"""Maximum seconds of a process. 250,000 outcomes take about ten."""
NICENESS = 10


class HandIn(Protocol):
    """A function that joins a small batch."""

    def __call__(self, endpoint: str, lines: list[bytes], *, by: str, form: str | None) -> object:
        """Join lines; `by` names the person who corrects recorded labels, or is empty."""


OwnCommand = Callable[[str], Sequence[str]]
"""A function that builds the command that joins its standard input, for an endpoint."""


class OutcomesJoiner:
    """The joiner of batches, one at a time, for one event loop."""

    def __init__(self, hand_in: HandIn, command: OwnCommand) -> None:
        """Store the function for small batches and the command for large ones."""
        self._hand_in = hand_in
        self._command = command
        # One thread: the connections of the store belong to a single thread.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outcomes")

    async def join(
        self, endpoint: str, body: bytes | bytearray, by: str = "", form: str | None = None
    ) -> object:
        """Join a batch.

        Args:
            endpoint: the endpoint's name.
            body: JSON lines.
            by: the person who corrects recorded labels; empty: recorded labels stay.
            form: the format of textual times, as for strptime; None: ISO 8601.

        Raises:
            Refused: as `kedge outcomes`.
            Unavailable: the records cannot be written; `outcomes_late`, `outcomes_failed`.
        """
        if len(body) > SMALL or body.count(b"\n") > SMALL_LINES:
            return await self._in_process(endpoint, body, by, form)
        loop = asyncio.get_running_loop()
        given = bytes(body).split(b"\n")
        return await loop.run_in_executor(
            self._thread, partial(self._hand_in, endpoint, given, by=by, form=form)
        )

    async def _in_process(
        self, endpoint: str, body: bytes | bytearray, by: str, form: str | None
    ) -> object:
        # A file without a name: the system removes it however the processes end.
        with tempfile.TemporaryFile() as batch:
            await asyncio.to_thread(_fill, batch, body)
            child = await asyncio.create_subprocess_exec(
                *self._command(endpoint),
                *(("--correct",) if by else ()),
                *(() if form is None else (f"--time-format={form}",)),
                env=os.environ | ({"KEDGE_ACTOR": by} if by else {}),
                stdin=batch,
                stdout=asyncio.subprocess.PIPE,
            )
        try:
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, child.pid, NICENESS)
            async with asyncio.timeout(WITHIN_S):
                raw, _ = await child.communicate()
        except TimeoutError:
            raise Unavailable(
                f"the batch was not joined within {WITHIN_S:g} s",
                code="outcomes_late",
                hint="send less at once; what was joined already counts as duplicate",
            ) from None
        finally:
            if child.returncode is None:
                child.kill()
        return read_report(raw, child.returncode)


def _fill(file: IO[bytes], body: bytes | bytearray) -> None:
    file.write(body)
    file.flush()
    file.seek(0)


class _Failure(msgspec.Struct):
    """The fault that a command prints."""

    code: str
    message: str
    hint: str


class _Printed(msgspec.Struct):
    """The members of a command's output that are read here."""

    error: _Failure | None = None


def read_report(raw: bytes, exit_code: int | None) -> msgspec.Raw:
    """Return the process's output unchanged.

    Raises:
        Refused, Unavailable: the fault that it reports; `outcomes_failed` if it reports none.
    """
    try:
        error = msgspec.json.decode(raw, type=_Printed).error
    except msgspec.DecodeError:
        raise Unavailable(
            f"the process that joins outcomes ended with exit code {exit_code}",
            code="outcomes_failed",
            hint="its error is in control's log",
        ) from None
    if error is None:
        return msgspec.Raw(raw)
    kind = Refused if exit_code == 1 else Unavailable
    raise kind(error.message, code=error.code, hint=error.hint)
