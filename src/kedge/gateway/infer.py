"""One infer call: read, check, answer, send. The first of the four files a request goes through."""

from __future__ import annotations

import asyncio
from random import getrandbits
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


_encode = msgspec.json.Encoder().encode
_DATATYPES = {np.dtype(ours): theirs for ours, theirs in OIP_DTYPES.items() if ours != "string"}


class Bounds:
    """What one worker takes at once."""

    __slots__ = ("body", "body_s", "in_flight", "requests")

    def __init__(self, *, body: int, requests: int, body_s: float) -> None:
        self.body = body
        self.requests = requests
        self.body_s = body_s
        self.in_flight = 0


async def infer(
    serving: Serving, bounds: Bounds, live: Live, headers: Headers, receive: Receive, send: Send,
    version: int | None, drain: bool,
) -> None:  # fmt: skip
    """Answer one infer call; mirroring and counting come after the answer was sent.

    Raises:
        BadRequest, Overloaded, ModelFailure: the app's error table turns them into an answer.
    """
    if bounds.in_flight >= bounds.requests:
        raise Overloaded(
            f"{bounds.requests} requests are under way in this worker", code="queue_full"
        )
    bounds.in_flight += 1
    try:
        entity, asked, probe, json_length = _told(headers, version, bounds.body)
        message = await receive()
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
        request = Request(
            id=parsed.id or "", columns=columns, rows=rows,
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
            if value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        elif name == b"inference-header-content-length":
            if not value.isdigit():
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


def _too_large(limit: int) -> BadRequest:
    return BadRequest(f"the body is larger than {limit} bytes", code="body_too_large",
                      hint="[server] max_body_mb in kedge.toml")  # fmt: skip


async def _rest(body: bytes, bounds: Bounds, receive: Receive) -> bytes:
    """The rest of a body that came in parts: bounded in size and in time."""
    parts, size = [body], len(body)
    try:
        async with asyncio.timeout(bounds.body_s):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise BadRequest("the caller hung up within its body", code="malformed_body")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > bounds.body:
                    raise _too_large(bounds.body)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise BadRequest(
            f"the body took longer than {bounds.body_s:.0f} s", code="body_too_slow"
        ) from None


def _head(live: Live, answer: Answer) -> Headers:
    """The headers that every answer of this choice shares, made once per snapshot and choice."""
    choice = answer.choice
    key = hash((choice.arm, choice.release, choice.reason))
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
