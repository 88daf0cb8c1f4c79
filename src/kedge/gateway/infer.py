"""One infer call: read, check, answer, send. The first of the four files a request goes through."""

from __future__ import annotations

import asyncio
from random import getrandbits
from time import time
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.core.contract import OIP_DTYPES
from kedge.core.errors import BadRequest, Overloaded
from kedge.core.values import BUCKETS
from kedge.engine.serving import Answer, Live, Request, Serving
from kedge.gateway.decode import Contract, parse

if TYPE_CHECKING:
    from numpy.typing import NDArray

Receive = Any
Send = Any
Headers = list[tuple[bytes, bytes]]


class OutputTensor(msgspec.Struct):
    """One output as it stands in the answer."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferAnswer(msgspec.Struct, omit_defaults=True):
    """The body of an answer. `model_version` is the release that gave it."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


DISCARDED = 8
"""How many times the bound of a body is read and thrown away before the caller is cut off."""
DIGITS = 18
"""Longest length that is read as a number."""
UNREAD = "unread"
"""In an error's details: the body was not read to its end, so the connection cannot be kept."""

_SLOW = "the body is slow"
"""Why the wait for a body was cancelled."""

_encode = msgspec.json.Encoder().encode
_DATATYPES = {np.dtype(ours): theirs for ours, theirs in OIP_DTYPES.items() if ours != "string"}


class Bounds:
    """What one worker takes at once, and how long it waits for a body."""

    __slots__ = ("_sweeping", "_waiting", "body", "body_s", "in_flight", "requests")

    def __init__(self, *, body: int, requests: int, body_s: float) -> None:
        self.body = body
        self.requests = requests
        self.body_s = body_s
        self.in_flight = 0
        self._waiting: dict[asyncio.Task[Any], float] = {}
        self._sweeping = False

    async def first(self, receive: Receive) -> Any:
        """Receive the first part of a body, nearly always the whole: bounded in time.

        One sweep a second serves all who wait: a timer for each would cost every request ten
        times as much.
        """
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None
        self._waiting[task] = loop.time()
        if not self._sweeping:
            self._sweeping = True
            loop.call_later(min(1.0, self.body_s), self._sweep, loop)
        try:
            return await receive()
        except asyncio.CancelledError as error:
            if error.args != (_SLOW,):
                raise  # by somebody else
            task.uncancel()
            raise _too_slow(self) from None
        finally:
            self._waiting.pop(task, None)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel who has waited too long; the first in the dict has waited longest."""
        began = loop.time() - self.body_s
        for task, at in list(self._waiting.items()):
            if at > began:
                break
            task.cancel(_SLOW)
        self._sweeping = bool(self._waiting)
        if self._sweeping:
            loop.call_later(min(1.0, self.body_s), self._sweep, loop)


async def infer(
    serving: Serving, bounds: Bounds, live: Live, headers: Headers, receive: Receive, send: Send,
    version: int | None, drain: bool,
) -> None:  # fmt: skip
    """Answer one infer call; mirroring and counting come after the answer was sent.

    Raises:
        BadRequest, Overloaded, ModelFailure: the app's error table turns them into an answer.
    """
    entity, asked, probe, json_length = _told(headers, version, bounds.body)
    message = await bounds.first(receive)
    # Counted from here: a caller who has sent no body yet must not take another's place.
    if bounds.in_flight >= bounds.requests:
        raise Overloaded(
            f"{bounds.requests} requests are under way in this worker", code="queue_full"
        )
    bounds.in_flight += 1
    try:
        body = message.get("body", b"")
        if message.get("more_body"):
            body = await _rest(body, bounds, receive)
        elif message["type"] == "http.disconnect":
            return
        if len(body) > bounds.body:
            raise _too_large(bounds.body)
        parsed, binary = parse(body, json_length)
        contract: Contract = live.contract  # type: ignore[assignment]
        columns, rows = contract.columns(parsed, binary)
        if parsed.outputs:
            _check_outputs(live, asked, parsed.outputs)
        request = Request(
            id=parsed.id or fresh_id(), columns=columns, rows=rows,
            entity=entity or contract.entity(columns, rows),
            draw=getrandbits(48) % BUCKETS, asked=asked, probe=probe,
        )  # fmt: skip
        answer = await serving.answer(live, request)
        payload = render(live, request, answer, parsed.outputs)
        head = _head(live, answer)
        await send({"type": "http.response.start", "status": 200, "headers": [
            *head, (b"content-length", b"%d" % len(payload)),
            *(((b"connection", b"close"),) if drain else ()),
        ]})  # fmt: skip
        await send({"type": "http.response.body", "body": payload})
        serving.finish(live, request, answer)
    finally:
        bounds.in_flight -= 1


def fresh_id() -> str:
    """An id for a request that has none: a UUIDv7 (RFC 9562), so that it names its hour."""
    number = int(time() * 1000) << 80 | 7 << 76 | getrandbits(12) << 64 | 2 << 62 | getrandbits(62)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _told(
    headers: Headers, version: int | None, limit: int
) -> tuple[str | None, int | None, bool, int | None]:
    """What the headers say: the entity, the release a tester asks for, a probe, the JSON's length."""
    entity, asked, probe, json_length = None, version, False, None
    for name, value in headers:
        if name == b"kedge-entity":
            entity = value.decode("latin-1")
        elif name == b"kedge-release":
            asked = release_number(value.decode("latin-1"))
        elif name == b"kedge-probe":
            probe = True
        elif name == b"content-length":
            if len(value) > DIGITS or (value.isdigit() and int(value) > limit * DISCARDED):
                raise _too_large(limit, unread=True)
        elif name == b"inference-header-content-length":
            if not value.isdigit() or len(value) > DIGITS:
                raise BadRequest(
                    "Inference-Header-Content-Length is not a number", code="malformed_body"
                )
            json_length = int(value)
    return entity, asked, probe, json_length


def release_number(text: str) -> int:
    """`r7` or `7`, as a number.

    Raises:
        BadRequest: it is neither.
    """
    digits = text.removeprefix("r")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise BadRequest(f"{text!r} is not a release; write r7", code="release_not_live")
    return int(digits)


def _too_large(limit: int, *, unread: bool = False) -> BadRequest:
    return BadRequest(f"the body is larger than {limit} bytes", code="body_too_large",
                      hint="[server] max_body_mb in kedge.toml", details={UNREAD: unread})  # fmt: skip


def _too_slow(bounds: Bounds) -> BadRequest:
    return BadRequest(f"the body took longer than {bounds.body_s:g} s", code="body_too_slow",
                      details={UNREAD: True})  # fmt: skip


async def _rest(body: bytes, bounds: Bounds, receive: Receive) -> bytes:
    """The rest of a body that came in parts: bounded in size and in time.

    What is too large is read on and thrown away: a caller who is still sending when the
    connection is closed would see a broken pipe and never the answer.
    """
    parts, size = [body], len(body)
    try:
        async with asyncio.timeout(bounds.body_s):
            while size <= bounds.body * DISCARDED:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("the caller hung up within its body", code="malformed_body")
                part = message.get("body", b"")
                size += len(part)
                if size > bounds.body:
                    parts.clear()
                else:
                    parts.append(part)
                if not message.get("more_body"):
                    if size > bounds.body:
                        raise _too_large(bounds.body)
                    return b"".join(parts)
    except TimeoutError:
        raise _too_slow(bounds) from None
    raise _too_large(bounds.body, unread=True)


def _check_outputs(live: Live, asked: int | None, wanted: list[dict[str, Any]]) -> None:
    """What a caller asks for must be an output of production (or of the release that is asked)."""
    release = live.state.releases.get(asked or live.state.production or 0)
    known = [field.name for field in release.signature.outputs] if release is not None else []
    for output in wanted:
        name = output.get("name")
        if name not in known and release is not None:
            raise BadRequest(f"{name} is not an output", code="unknown_output",
                             hint=f"outputs are {', '.join(known)}", details={"field": name})  # fmt: skip


def _head(live: Live, answer: Answer) -> Headers:
    """The headers that every answer of this choice shares, made once per snapshot and choice."""
    choice = answer.choice
    key = id(choice)
    head: Headers | None = live.heads.get(key)  # type: ignore[assignment]
    if head is None:
        head = live.heads[key] = [
            (b"content-type", b"application/json"),
            (b"kedge-release", b"r%d" % choice.release),
            (b"kedge-epoch", b"%d" % live.state.epoch),
            (b"kedge-arm", str(choice.arm).encode()),
            (b"kedge-reason", str(choice.reason).encode()),
        ]
    return head


def render(
    live: Live, request: Request, answer: Answer, wanted: list[dict[str, Any]] | None
) -> bytes:
    """Encode an answer as the protocol's JSON. A value that is not finite is null, as JSON has none."""
    names = {output.get("name") for output in wanted} if wanted else None
    return _encode(InferAnswer(
        model_name=live.state.endpoint,
        model_version=f"r{answer.choice.release}",
        id=request.id,
        outputs=[
            OutputTensor(name, _datatype(array), list(array.shape), array.ravel().tolist())
            for name, array in answer.outputs.items()
            if names is None or name in names
        ],
    ))  # fmt: skip


def _datatype(array: NDArray[Any]) -> str:
    return _DATATYPES.get(array.dtype, "BYTES")
