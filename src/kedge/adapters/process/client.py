"""Client of a model process: the gateway's end.

Everything here runs on one event loop and never blocks it. Nothing grows without a bound: pending
questions are limited, and so are bytes that the kernel has not taken, because a stopped process
reads nothing. A broken connection fails the pending questions at once and is restored in the
background.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from kedge.adapters.process import wire
from kedge.columns import check_answer
from kedge.core.errors import BadRequest, ModelFailure
from kedge.core.values import Signature
from kedge.ports import Predicted
from kedge.system.files import connect_to

if TYPE_CHECKING:
    from kedge.ports import OnDone
    from kedge.typing import Columns

    OnTold = Callable[[Columns | None, int, str | None, str, bool], None]

IN_FLIGHT = 64
"""Maximum number of pending questions without a waiter; see Limits.shadow_in_flight."""
SWEEP_S = 0.02
"""Interval of checks for overdue questions: one timer for all, since a timer for each question
would cost more than the question."""
BACKOFF_S = (0.05, 0.25)
"""First and longest pause between dials. A missing socket fails at once, and until one is found a
second process of production does not replace the first."""
UNREAD_SHADOW = 256 << 10
"""Unsent bytes above which no question without a waiter is accepted: the host is too slow."""
UNREAD_LIMIT = 16 << 20
"""Unsent bytes above which nothing is sent: the host has stopped reading."""

COPY_BYTES_S = 8 << 20
"""Bytes a second of answers to copies that a worker reads from all its model processes together. A
callback with four megabytes takes some milliseconds of the loop that callers wait for."""

UNASKED = "model_unasked"
"""Code of a question that never reached the model, or whose result stays unknown. A question that
the host dropped after its deadline is `model_expired`, a sign of life."""
LATE = "the model did not answer in time"
STALL_S = 1.0
"""Silence after which a process that is asked counts as stalled, so that another is asked first.
Most models answer a thousand rows in less time, and an endless computation then delays nothing
else."""


class _Call(NamedTuple):
    expires: float
    rows: int
    shadow: OnDone | None
    told: OnTold | None
    alone: bool = False


class Allowance:
    """Number of bytes of answers to copies that may be read; shared by all processes of a worker.

    It belongs to one event loop. The bytes of one second may be read at once.
    """

    def __init__(self, bytes_s: float = COPY_BYTES_S) -> None:
        """Allow so many bytes each second."""
        self._rate = self._left = float(bytes_s)
        self._at = perf_counter()

    def take(self, size: int) -> None:
        """Record so many bytes that were read."""
        self._left = self._now() - size

    def debt_s(self) -> float:
        """Return for how many seconds nothing more may be read; 0 if reading may go on."""
        return max(-self._now() / self._rate, 0.0)

    def _now(self) -> float:
        now = perf_counter()
        self._left = min(self._left + (now - self._at) * self._rate, self._rate)
        self._at = now
        return self._left


class ProcessModel:
    """Connection to one model process, restored while it is open."""

    def __init__(
        self,
        socket_path: Path,
        signature: Signature,
        *,
        loop: asyncio.AbstractEventLoop | None = None,
        in_flight: int = IN_FLIGHT,
        allowance: Allowance | None = None,
    ) -> None:
        """Start connecting. From another thread than the loop's, pass the loop.

        `allowance` limits the reading of answers to copies; None: the connection has its own.
        """
        self._allowance = allowance or Allowance()
        self._path = socket_path
        self._signature = signature
        self._greeting = wire.greeting(signature)
        self._inputs = wire.InputCodec(signature.inputs)
        self._first = signature.inputs[0].name
        self._loop = loop or asyncio.get_running_loop()
        self._limit = in_flight
        self.violations: dict[str, int] = {}
        """Cumulative counts of its transformation's values that were out of range or unseen."""
        self._calls: dict[int, _Call] = {}
        self._shadows = 0
        self._next = 0
        self._sweeping = False
        self._waiting_since: float | None = None
        """Time since which it is asked and silent."""
        self._closed = False
        self._line: _Link | None = None
        self._link: _Link | None = None
        self._wait_s = BACKOFF_S[0]
        self._dialling: asyncio.Task[None] | None = None
        self._loop.call_soon_threadsafe(self._dial)

    @property
    def ready(self) -> bool:
        """Whether a host with this signature has greeted this client and the connection is open."""
        return self._link is not None

    @property
    def throttled(self) -> bool:
        """Whether no copy is asked now, because answers to copies exhausted their allowance."""
        return self._allowance.debt_s() > 0

    @property
    def stalled(self) -> bool:
        """Whether the process is asked, and has been silent for a while."""
        since = self._waiting_since
        return since is not None and perf_counter() - since > STALL_S

    async def wait_ready(self, timeout_s: float) -> bool:
        """Wait until a process answers at the other end; return False if none does in time.

        This polls: an event would have to stay correct through every loss and redial.
        """
        until = perf_counter() + timeout_s
        while not self.ready and perf_counter() < until and not self._closed:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        return self.ready

    async def predict(
        self,
        columns: Columns,
        deadline_s: float,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        on_late: OnDone | None = None,
    ) -> Predicted:
        """Answer the rows; return also the microseconds spent inside the model.

        `alone`: whether no other process can answer them. `on_late`: see `ports.RemoteModel`.

        Raises:
            ModelFailure: model_down, model_died, model_late, model_expired, model_unasked,
                model_raised or model_nonsense.
            BadRequest: the request is longer than a frame may be.
        """
        future: asyncio.Future[tuple[Columns | None, int, str | None, str, bool]]
        future = self._loop.create_future()

        def told(
            answer: Columns | None, micros: int, code: str | None, text: str, violated: bool
        ) -> None:
            if not future.done():
                future.set_result((answer, micros, code, text, violated))

        expires = perf_counter() + deadline_s
        number = self._send(columns, expires, None, told, alone=alone)
        if number is None:
            raise ModelFailure("the model process does not read its requests", code=UNASKED)
        timer = self._loop.call_later(
            deadline_s, self._overdue, number, max(patience_s - deadline_s, 0.0), on_late
        )
        try:
            answer, micros, code, text, violated = await future
        finally:
            timer.cancel()
            call = self._calls.get(number)
            if call is not None and call.told is told:
                del self._calls[number]
        if answer is None:
            raise ModelFailure(text, code=code)
        return Predicted(answer, micros, violated)

    def submit(
        self,
        columns: Columns,
        on_done: OnDone,
        deadline_s: float,
        *,
        patience_s: float = 0.0,
        apart: bool = False,
    ) -> bool:
        """Ask without waiting: `on_done(answer, microseconds, error code)` is called once.

        Callers' questions go first. With `apart` it is merged with no other question. The host
        drops the question if it has not started it by the deadline. A started question is awaited
        for `patience_s`, if that is longer.

        Return False, and never call back, if the limit of pending questions is reached or the
        answers to copies exhausted their allowance. The same holds if the host reads too slowly or
        is missing.
        """
        link = self._link
        if link is None or self._shadows >= self._limit or link.lags:
            return False
        if self.throttled:
            return False
        try:
            number = self._send(
                columns,
                perf_counter() + deadline_s,
                on_done,
                None,
                patience_s=patience_s - deadline_s,
                copy=True,
                apart=apart,
            )
        except (BadRequest, ModelFailure):
            return False
        if number is None:
            return False
        self._under_way()
        return True

    def _under_way(self) -> None:
        """Count a question without a waiter, and start looking for overdue ones."""
        self._shadows += 1
        if not self._sweeping:
            self._sweeping = True
            self._loop.call_later(SWEEP_S, self._sweep)

    def hang_up(self) -> None:
        """Close the connection; any thread may call this, and more than once."""
        with suppress(RuntimeError):  # the loop is closed, and the connection with it
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._closed = True
        if self._dialling is not None:
            self._dialling.cancel()
        if self._line is not None:
            self._line.abort()

    def _send(
        self,
        columns: Columns,
        expires: float,
        shadow: OnDone | None,
        told: OnTold | None,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        copy: bool = False,
        apart: bool = False,
    ) -> int | None:
        """Send one request; return its number, or None if the host does not read."""
        link = self._link
        if link is None:
            raise ModelFailure("no model process answers", code="model_down")
        number = self._next = self._next + 1
        rows = len(columns[self._first])
        try:
            shapes = self._inputs.shapes(columns) if self._inputs.open else None
            packed = self._inputs.pack(columns)
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(
                "the request's values do not fit what the model takes",
                code="bad_column",
            ) from error
        raw = wire.frame(
            wire.WireRequest(number, rows, expires, packed, shapes, alone, copy, apart)
        )
        if len(raw) > wire.MAX_FRAME:
            raise BadRequest(
                f"{len(raw)} bytes are more than a model process takes at once", code="too_large"
            )
        if not link.send(raw):
            return None
        self._calls[number] = _Call(expires + max(patience_s, 0.0), rows, shadow, told, alone)
        if told is not None:
            link.read_on()  # answers for callers are read at any cost
        if self._waiting_since is None:
            self._waiting_since = perf_counter()
        return number

    def _pause_s(self) -> float:
        """Return for how long to pause reading; 0 unless only copies are pending."""
        if not self._shadows or self._shadows < len(self._calls):
            return 0.0  # none is a copy, or a caller waits
        return self._allowance.debt_s()

    # ------------------------------------------------------------ answers

    def _answered(self, answer: wire.WireAnswer, size: int) -> None:
        for name, count in (answer.violations or {}).items():
            self.violations[name] = self.violations.get(name, 0) + count
        call = self._calls.pop(answer.id, None)
        self._waiting_since = perf_counter() if self._calls else None
        if call is None:
            return  # it was late, and its caller already knows
        if call.shadow is not None:
            self._allowance.take(size)
        if answer.outputs is None:
            code, text = answer.error or ("model_nonsense", "an answer without outputs")
            self._settle(call, None, answer.micros, code, text)
            return
        try:
            columns = wire.unpack_outputs(answer.outputs)
            # In production NaN is an answer, as it is inline: callers get null.
            fault = check_answer(columns, self._signature, call.rows, nan_allowed=call.alone)
        except (ValueError, KeyError, TypeError) as error:
            columns, fault = {}, f"an answer that cannot be read: {error}"
        if fault is not None:
            self._settle(call, None, answer.micros, "model_nonsense", fault)
        else:
            self._settle(call, columns, answer.micros, None, "", answer.violated)

    def _settle(
        self,
        call: _Call,
        columns: Columns | None,
        micros: int,
        code: str | None,
        text: str,
        violated: bool = False,
    ) -> None:
        if call.told is not None:
            call.told(columns, micros, code, text, violated)
        elif call.shadow is not None:
            self._shadows -= 1
            try:
                call.shadow(columns, micros, code, violated)
            except BaseException as error:  # noqa: BLE001 - the asker's fault must not cost others
                self._loop.call_exception_handler(
                    {"message": "on_done of a submitted question raised", "exception": error}
                )

    def _overdue(self, number: int, longer_s: float, on_late: OnDone | None) -> None:
        """Report the missed deadline to the caller, and wait for the late answer.

        Late answers share the limit of questions without a waiter.
        """
        call = self._calls.get(number)
        if call is None or call.told is None:
            return
        if on_late is None:
            self._late(number)
            return
        if self._shadows < self._limit:
            self._calls[number] = _Call(call.expires + longer_s, call.rows, on_late, None)
            self._under_way()
        else:
            # The guard of every callback runs it: the caller is answered below in any case.
            self._shadows += 1
            self._settle(
                self._calls.pop(number)._replace(told=None, shadow=on_late), None, 0, UNASKED, ""
            )
        call.told(None, 0, "model_late", LATE, False)  # noqa: FBT003

    def _late(self, number: int) -> None:
        call = self._calls.pop(number, None)
        if call is not None:
            self._settle(call, None, 0, "model_late", LATE)

    def _sweep(self) -> None:
        now = perf_counter()
        try:
            for number, call in list(self._calls.items()):
                if call.shadow is not None and call.expires <= now:
                    self._late(number)
        finally:
            self._sweeping = self._shadows > 0
            if self._sweeping:
                self._loop.call_later(SWEEP_S, self._sweep)

    # ------------------------------------------------------------ connection

    def _dial(self) -> None:
        if not self._closed:
            self._dialling = self._loop.create_task(self._connect())

    async def _connect(self) -> None:
        try:
            line = connect_to(self._path)
            try:
                await self._loop.create_unix_connection(lambda: _Link(self), sock=line)
            except BaseException:
                line.close()
                raise
        except (FileNotFoundError, ConnectionError, BlockingIOError, NotADirectoryError):
            self._dial_later()  # the host does not exist yet, or is busy
        # Whatever the fault is, the client dials again.
        except Exception as error:  # noqa: BLE001
            self._loop.call_exception_handler({"message": "dialling raised", "exception": error})
            self._dial_later()

    def _dial_later(self) -> None:
        if not self._closed:
            self._loop.call_later(self._wait_s, self._dial)
            self._wait_s = min(self._wait_s * 2, BACKOFF_S[1])

    def _connected(self, link: _Link) -> None:
        self._line = link
        if self._closed:
            link.abort()

    def _greeted(self, link: _Link, greeting: wire.Greeting) -> bool:
        """Return whether the host's signature matches: else its answers would be misread."""
        if self._closed or greeting != self._greeting:
            return False
        self._link = link
        self._wait_s = BACKOFF_S[0]
        return True

    def _lost(self, link: _Link) -> None:
        self._line = None
        if self._link is link:
            self._link = self._waiting_since = None
            calls, self._calls = list(self._calls.values()), {}
            # A connection that this side closed is no death: the release is no longer needed.
            code = UNASKED if self._closed else "model_died"
            for call in calls:
                self._settle(call, None, 0, code, "the model process died")
        self._dial_later()


class _Link(asyncio.Protocol):
    """One connection that sends and receives frames."""

    def __init__(self, owner: ProcessModel) -> None:
        self._owner = owner
        self._frames = wire.Frames()
        self._greeted = False
        self._greetings = msgspec.msgpack.Decoder(wire.Greeting)
        self._answers = msgspec.msgpack.Decoder(wire.WireAnswer)
        self._transport: asyncio.Transport
        self._resume: asyncio.TimerHandle | None = None
        """Timer that ends a pause of reading."""
        self.lags = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=UNREAD_SHADOW)
        self._owner._connected(self)  # noqa: SLF001 - one unit

    def pause_writing(self) -> None:
        self.lags = True

    def resume_writing(self) -> None:
        self.lags = False

    def send(self, raw: bytes) -> bool:
        if self.lags and self._transport.get_write_buffer_size() > UNREAD_LIMIT:
            return False
        self._transport.write(raw)
        return True

    def abort(self) -> None:
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                if self._greeted:
                    # Both classes are one unit.
                    self._owner._answered(self._answers.decode(body), len(body))  # noqa: SLF001
                else:
                    hello = self._greetings.decode(body)
                    self._greeted = self._owner._greeted(self, hello)  # noqa: SLF001 - one unit
                    if not self._greeted:
                        self.abort()
                        return
        except (ValueError, msgspec.MsgspecError):
            self.abort()  # another protocol: nothing after this byte can be trusted
            return
        pause_s = self._owner._pause_s()  # noqa: SLF001 - one unit
        if pause_s > 0 and self._resume is None and not self._transport.is_closing():
            self._transport.pause_reading()
            # Both classes are one unit.
            self._resume = self._owner._loop.call_later(pause_s, self.read_on)  # noqa: SLF001

    def read_on(self) -> None:
        """End a pause of reading, if there is one."""
        if self._resume is None:
            return
        self._resume.cancel()
        self._resume = None
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._resume is not None:
            self._resume.cancel()
        self._owner._lost(self)  # noqa: SLF001 - one unit
