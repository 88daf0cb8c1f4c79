"""Wire format of the socket: a u32 little-endian length, then msgpack.

The host greets each client with the fingerprint of its signature. Both sides then know the inputs,
so a request carries their bytes in the signature's order, without names or dtypes. An answer
carries both, because a faulty model may return anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.columns import DTYPES
from kedge.core import codec
from kedge.core.bounds import unbounded
from kedge.core.values import Field, Signature

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

MAX_FRAME = 64 << 20
"""Maximum length of a frame. An endpoint's row limit is far below it."""

Data = bytes | list[Any]


class WireRequest(msgspec.Struct, array_like=True, gc=False):
    """Rows to answer.

    No caller waits for it after `expires`: seconds of `perf_counter`, which is one clock for all
    processes of a host.
    """

    id: int
    rows: int
    expires: float
    columns: list[Data]
    shapes: list[list[int]] | None = None
    """Shape of one row of each column; only if the signature leaves a length open."""
    alone: bool = False
    """Whether no other process can answer it: see `lookups`."""
    copy: bool = False
    """Whether no caller waits for it: callers' questions go first."""
    apart: bool = False
    """Whether it is asked alone, so that its duration is its own."""


class WireColumn(msgspec.Struct, array_like=True, gc=False):
    """One output column."""

    name: str
    dtype: str
    shape: list[int]
    data: Data


class WireAnswer(msgspec.Struct, array_like=True, gc=False):
    """Answer to one request: outputs, or an error's code and text."""

    id: int
    micros: int
    outputs: list[WireColumn] | None = None
    error: tuple[str, str] | None = None
    violations: dict[str, int] | None = None
    """Values of its transformation out of range or unseen since the last report."""
    violated: bool = False
    """Whether a feature of this request broke its schema's promise."""


class Greeting(msgspec.Struct, array_like=True):
    """First frame of a host."""

    signature: str


_encoder = msgspec.msgpack.Encoder()
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items() if name != "string"}


def greeting(signature: Signature) -> Greeting:
    """Return the greeting of a host with this signature. Bounds are the gateway's: it has none."""
    return Greeting(codec.fingerprint(unbounded(signature)))


def frame(message: WireRequest | WireAnswer | Greeting) -> bytes:
    """Encode one message."""
    body = _encoder.encode(message)
    return len(body).to_bytes(4, "little") + body


class Frames:
    """Splitter of a stream into frames."""

    __slots__ = ("_buffer", "_need")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._need = 4

    def feed(self, data: bytes) -> list[bytes | memoryview]:
        """Add received bytes; return the bodies that are now complete.

        Raises:
            ValueError: a frame is longer than `MAX_FRAME`.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._need:
                return []
            # The body is cut out of a view: a long frame is not copied again.
            data = memoryview(self._buffer)  # type: ignore[assignment]
            self._buffer = bytearray()
        bodies: list[bytes | memoryview] = []
        at, end = 0, len(data)
        while end - at >= 4:
            length = int.from_bytes(data[at : at + 4], "little")
            if length > MAX_FRAME:
                raise ValueError(f"a frame of {length} bytes; at most {MAX_FRAME} are taken")
            if end - at - 4 < length:
                self._need = length + 4
                break
            bodies.append(data[at + 4 : at + 4 + length])
            at += 4 + length
        else:
            self._need = 4
        if at < end:
            self._buffer += data[at:]
        return bodies


class InputCodec:
    """Codec of a signature's inputs, compiled for both ends."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._fields = [
            (field.name, DTYPES[field.dtype], field.dtype == "string") for field in fields
        ]
        self._shapes = [field.shape for field in fields]
        self.open = any(-1 in field.shape for field in fields)

    def pack(self, columns: Columns) -> list[Data]:
        """Return the columns' bytes, in order. A column of another dtype is converted.

        Raises:
            KeyError: a column is missing.
        """
        packed: list[Data] = []
        for name, dtype, string in self._fields:
            column: NDArray[Any] = columns[name]
            if string or column.dtype.kind == "O":  # text, or numbers with nulls
                packed.append(column.reshape(-1).tolist())
            elif column.dtype is dtype:
                packed.append(column.tobytes())
            else:
                packed.append(column.astype(dtype).tobytes())
        return packed

    def shapes(self, columns: Columns) -> list[list[int]] | None:
        """Return the shapes of one row, if the signature leaves one open."""
        if not self.open:
            return None
        return [list(columns[name].shape[1:]) for name, _, _ in self._fields]

    def unpack(self, requests: list[WireRequest]) -> Columns:
        """Return the rows of several requests as one set of writable columns.

        Raises:
            ValueError: the bytes do not fit the signature.
        """
        rows = sum(request.rows for request in requests)
        columns = {}
        for i, (name, dtype, string) in enumerate(self._fields):
            opened = requests[0].shapes
            shape = self._shapes[i] if opened is None else tuple(opened[i])
            parts = [request.columns[i] for request in requests]
            column: NDArray[Any]
            if string or any(isinstance(part, list) for part in parts):
                values = [value for part in parts for value in _values(part, dtype)]
                column = np.empty(len(values), dtype=object)
                column[:] = values
            else:
                # This copies on purpose: a model may write into its inputs.
                column = np.frombuffer(bytearray().join(parts), dtype)  # type: ignore[arg-type]
            columns[name] = column.reshape(rows, *shape) if shape or column.size != rows else column
        return columns


def _values(part: Data, dtype: np.dtype[Any] | type) -> list[Any]:
    """Return one request's part of a column as Python values."""
    if isinstance(part, list):
        return part
    values: list[Any] = np.frombuffer(part, dtype).tolist()
    return values


def pack_outputs(columns: Columns, start: int, stop: int) -> list[WireColumn]:
    """Return rows of an answer, ready to send.

    Raises:
        ValueError, TypeError, AttributeError: the answer cannot be sent.
    """
    outputs = []
    for name, column in columns.items():
        part: NDArray[Any] = column[start:stop]
        if part.dtype.kind in "OU":
            values = part.reshape(-1).tolist()
            if not all(value is None or isinstance(value, str) for value in values):
                raise ValueError(f"{name} holds something else than strings")
            outputs.append(WireColumn(name, "string", list(part.shape), values))
            continue
        dtype = _DTYPE_NAMES.get(part.dtype)
        if dtype is None:
            raise ValueError(f"{name} is {part.dtype}")
        outputs.append(WireColumn(name, dtype, list(part.shape), part.tobytes()))
    return outputs


def unpack_outputs(outputs: list[WireColumn]) -> Columns:
    """Return an answer's columns unchanged.

    Raises:
        ValueError, KeyError, TypeError: the bytes do not match their description.
    """
    columns: dict[str, NDArray[Any]] = {}
    for output in outputs:
        column: NDArray[Any]
        if isinstance(output.data, list):
            column = np.empty(len(output.data), dtype=object)
            column[:] = output.data
        else:
            column = np.frombuffer(output.data, DTYPES[output.dtype])
        shape = output.shape
        columns[output.name] = column if column.shape == (*shape,) else column.reshape(shape)
    return columns
