"""Decoder of large bodies: a child process beside a worker's loop."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from time import perf_counter
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import structlog

from kedge.core.errors import BadRequest, KedgeError, Overloaded
from kedge.gateway.decode import InferRequest, WantedOutput, parse
from kedge.gateway.http.decoder_child import INTERNAL, DecodeAnswer, DecodedColumn, DecodeRequest
from kedge.ports import CallerContract
from kedge.system.interpreter import bare_environment, module_command

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

    Decoded = tuple[InferRequest, Columns, int]

WITHIN_S = 20.0
"""Seconds for one body of the largest size on a busy processor, with the start of the child."""
PART = 256 * 1024
"""Bytes received in one call."""

log = structlog.get_logger("kedge.decoding")


def decode_here(contract: CallerContract, body: bytes, json_length: int | None) -> Decoded:
    """Turn a body into columns that fit the contract, in this thread.

    Raises:
        BadRequest: the body does not fit.
    """
    parsed, binary = parse(body, json_length)
    return parsed, *contract.columns(parsed, binary)


class Decoder:
    """A child that decodes one body after the other; one thread uses it and waits for it."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None

    def __del__(self) -> None:
        self.close()

    def decode(self, contract: CallerContract, body: bytes, json_length: int | None) -> Decoded:
        """Turn a body into columns that fit the contract.

        If no child can be started, this thread decodes it: other bodies wait, but it is answered.

        Raises:
            BadRequest: the body does not fit.
            Overloaded: `decoder_lost`: the child ended, or took too long.
            KedgeError: `internal`: decoding failed otherwise.
        """
        try:
            line = self._started()
        except OSError as error:
            log.warning("decoding.no_child", fault=str(error))
            return decode_here(contract, body, json_length)
        asked = msgspec.msgpack.encode(DecodeRequest(contract.encoded, json_length, len(body)))
        until = perf_counter() + WITHIN_S
        try:
            for part in (len(asked).to_bytes(4) + asked, body):
                line.settimeout(max(until - perf_counter(), 0.001))
                line.sendall(part)
            size = int.from_bytes(_receive(line, 8, until))
            said = msgspec.msgpack.decode(_receive(line, size, until), type=DecodeAnswer)
        except (OSError, EOFError, msgspec.MsgspecError) as error:
            log.warning("decoding.lost", fault=f"{type(error).__name__}: {error}", size=len(body))
            self.close()
            raise Overloaded(
                "the process that decodes large bodies was lost",
                code="decoder_lost",
                hint="try again; split the request if it happens again",
            ) from None
        if said.code == INTERNAL:
            log.error("decoding.failed", fault=said.fault, size=len(body))
            raise KedgeError("a fault of the gateway itself; its log has it", code=INTERNAL)
        if said.fault is not None:
            raise BadRequest(said.fault, code=said.code, hint=said.hint, details=said.details)
        outputs = None if said.outputs is None else [WantedOutput(name) for name in said.outputs]
        columns = {column.name: _array(column) for column in said.columns}
        return InferRequest([], said.id, outputs), columns, said.rows

    def close(self) -> None:
        """End the child."""
        if self._line is not None:
            self._line.close()
        if self._child is not None:
            with suppress(ProcessLookupError):
                self._child.kill()
            self._child.wait()
        self._child = self._line = None

    def _started(self) -> socket.socket:
        """Return the socket to the child; start the child again if it has ended.

        Raises:
            OSError: no processes or descriptors are left.
        """
        if self._line is not None and self._child is not None and self._child.poll() is None:
            return self._line
        self.close()
        mine, theirs = socket.socketpair()
        words = str(theirs.fileno()), str(os.getpid())
        try:
            self._child = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                module_command("kedge.gateway.http.decoder_child", *words),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                env=bare_environment(),
            )
        except OSError:
            mine.close()
            raise
        finally:
            theirs.close()
        self._line = mine
        return mine


def _receive(line: socket.socket, size: int, until: float) -> bytearray:
    """Receive `size` bytes.

    Raises:
        TimeoutError: they have not arrived at the time `until`.
        EOFError: the child ended.
    """
    found = bytearray(size)
    view, at = memoryview(found), 0
    while at < size:
        line.settimeout(max(until - perf_counter(), 0.001))
        count = line.recv_into(view[at : at + PART])
        if not count:
            raise EOFError("it ended")
        at += count
    return found


def _array(column: DecodedColumn) -> NDArray[Any]:
    """Build a column; build one of objects in parts, so that other threads run in between."""
    if isinstance(column.data, bytes):
        numbers = np.frombuffer(bytearray(column.data), np.dtype(column.dtype))
        return numbers.reshape(column.shape)
    objects = np.empty(int(np.prod(column.shape)), dtype=object)
    at = 0
    for part in column.data:
        values = msgspec.msgpack.decode(part)
        objects[at : at + len(values)] = values
        at += len(values)
    return objects.reshape(column.shape)
