"""Decoder child: the process that decodes one worker's large bodies.

Python decodes a body of megabytes in one call that holds the interpreter. In the worker, every
other request would wait for its end; here only other large bodies wait. The code is kedge's own,
but its input is not.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core.errors import BadRequest
from kedge.core.values import Field
from kedge.gateway.contract import Contract
from kedge.gateway.decode import parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

NICE = 5
"""Niceness of the child: the worker, and so the callers with small bodies, go first."""
PR_SET_PDEATHSIG = 1
PART = 2_000
"""Values of an object column that the worker reads at once: a fraction of a millisecond."""


INTERNAL = "internal"
"""The code of a fault that is not the caller's; its text is for the log."""


class DecodeRequest(msgspec.Struct, array_like=True):
    """The header that precedes a body."""

    contract: bytes
    json_length: int | None
    size: int


class DecodedColumn(msgspec.Struct, array_like=True):
    """A column: the bytes of its numbers, or its objects in parts."""

    name: str
    dtype: str
    shape: list[int]
    data: bytes | list[bytes]


class DecodeAnswer(msgspec.Struct, omit_defaults=True):
    """The answer: columns, or the fault of the body."""

    columns: list[DecodedColumn] = []
    rows: int = 0
    id: str | None = None
    outputs: list[str] | None = None
    fault: str | None = None
    code: str = ""
    hint: str = ""
    details: dict[str, object] = {}


@lru_cache(maxsize=64)
def _contract(raw: bytes) -> Contract:
    fields, rows, entity = msgspec.json.decode(raw, type=tuple[tuple[Field, ...], int, str | None])
    return Contract(fields, rows=rows, entity=entity)


def decode(asked: DecodeRequest, body: bytes) -> bytes:
    """Decode one body, and return the encoded answer."""
    try:
        request, binary = parse(body, asked.json_length)
        columns, rows = _contract(asked.contract).columns(request, binary)
    except BadRequest as error:
        said = DecodeAnswer(
            fault=str(error), code=error.code, hint=error.hint, details=error.details
        )
        return msgspec.msgpack.encode(said)
    # A failure affects only its body: the next one is from another caller.
    except Exception as error:  # noqa: BLE001
        return msgspec.msgpack.encode(DecodeAnswer(fault=repr(error), code=INTERNAL))
    outputs = None if request.outputs is None else [each.name for each in request.outputs]
    said = DecodeAnswer(
        columns=[_column(name, column) for name, column in columns.items()],
        rows=rows,
        id=request.id,
        outputs=outputs,
    )
    return msgspec.msgpack.encode(said)


def _column(name: str, column: NDArray[Any]) -> DecodedColumn:
    shape = list(column.shape)
    if column.dtype.kind == "O":
        values = column.reshape(-1).tolist()
        parts = [
            msgspec.msgpack.encode(values[at : at + PART]) for at in range(0, len(values), PART)
        ]
        return DecodedColumn(name, "O", shape, parts)
    return DecodedColumn(name, column.dtype.str, shape, np.ascontiguousarray(column).tobytes())


def main(words: Sequence[str]) -> int:
    """Answer bodies until the worker disconnects."""
    line = socket.socket(fileno=int(words[0]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with suppress(AttributeError):  # no Linux
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(words[1]):
        return 1
    with suppress(OSError):
        os.nice(NICE)
    with line.makefile("rb") as heard:
        while head := heard.read(4):
            asked = msgspec.msgpack.decode(heard.read(int.from_bytes(head)), type=DecodeRequest)
            raw = decode(asked, heard.read(asked.size))
            line.sendall(len(raw).to_bytes(8) + raw)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
