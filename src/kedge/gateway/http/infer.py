"""Infer call: read, check, answer, send. It is the first of the four files of a request's path."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from random import getrandbits
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import numpy as np

from kedge.core import entities
from kedge.core.contract import OIP_DTYPES
from kedge.core.encodings import JSON, check_type, inflate, is_gzip
from kedge.core.errors import BadRequest, Overloaded
from kedge.core.phrases import clip, tell_name
from kedge.core.values import BUCKETS
from kedge.engine.request import Request
from kedge.engine.serving.live import Answer, Headers, Live
from kedge.engine.serving.serving import Serving
from kedge.gateway.auth import Tokens
from kedge.gateway.decode import WantedOutput
from kedge.gateway.fields import DIGITS
from kedge.gateway.http.decoder import Decoder, decode_here
from kedge.gateway.http.peers import Peers
from kedge.gateway.traces import RequestTraces
from kedge.ports import CallerContract

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.gateway.http.decoder import Decoded

T = TypeVar("T")
Receive = Any
Send = Any


class OutputTensor(msgspec.Struct):
    """One output as the answer has it."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferAnswer(msgspec.Struct, omit_defaults=True):
    """The body of an answer. `model_version` is the release that answered."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str = ""


PLAIN = b"application/json"
"""The content type of nearly every body."""
READ = frozenset(
    (
        b"content-type",
        b"content-encoding",
        b"kedge-entity",
        b"kedge-release",
        b"kedge-probe",
        b"inference-header-content-length",
    )
)
"""Headers that affect the handling of a request."""
MOST_INFLATED = 128 * 2**20
"""Maximum bytes of a worker's inflated gzip bodies: the same as for uncompressed bodies."""
BESIDE = 64 * 1024
"""Bytes above which a body is decoded beside the event loop: nested data, or data that is refused
late, takes 100 ns per byte."""
ID_BYTES = 256
"""Maximum length of an id, in bytes of UTF-8: it is stored in memory and in records."""
UNREAD = "unread"
"""Key in an error's details: the body was not read to its end, so the connection must close."""

_encode = msgspec.json.Encoder().encode
_DATATYPES = {np.dtype(ours): theirs for ours, theirs in OIP_DTYPES.items() if ours != "string"}


class WorkerBounds:
    """The bounds of one worker's work at one time, with its trusted peers and testers."""

    __slots__ = (
        "beside",
        "body",
        "callers",
        "decoder",
        "in_flight",
        "inflated",
        "peers",
        "requests",
        "testers",
        "traces",
    )

    def __init__(
        self,
        *,
        body: int,
        requests: int,
        testers: Tokens | None = None,
        callers: Tokens | None = None,
        peers: Peers | None = None,
        traces: RequestTraces | None = None,
    ) -> None:
        self.body = body
        self.traces = traces
        """None: no request is traced."""
        self.requests = requests
        self.testers = testers or Tokens()
        self.callers = callers
        """The tokens of callers; None: callers need none."""
        self.peers = peers or Peers()
        self.in_flight = 0
        self.inflated = 0
        """Bytes of present bodies that inflating gzip added to the received ones."""
        self.beside = ThreadPoolExecutor(1, "kedge-decode")
        """One thread: large bodies wait for each other, and small ones do not wait."""
        self.decoder = Decoder()

    def enter(self) -> None:
        """Take the place of a request.

        Raises:
            Overloaded: `queue_full`.
        """
        if self.in_flight >= self.requests:
            raise Overloaded(
                f"{self.requests} requests are under way in this worker", code="queue_full"
            )
        self.in_flight += 1

    def decode(self, contract: CallerContract, body: bytes, json_length: int | None) -> Decoded:
        """Decode a large body, in the thread `beside`.

        Its JSON goes to another process, since a decoder holds the interpreter until its end.
        Numbers in binary form are used without a copy.

        Raises:
            BadRequest, Overloaded: as `Decoder.decode`.
        """
        text = len(body) if json_length is None else json_length
        decode = self.decoder.decode if text > BESIDE else decode_here
        return decode(contract, body, json_length)

    def run_beside(self, work: Callable[..., T], *given: Any) -> Awaitable[T]:
        """Run a function in the thread `beside`."""
        return asyncio.get_running_loop().run_in_executor(self.beside, work, *given)

    async def decode_gzip(
        self, contract: CallerContract, body: bytes, json_length: int | None
    ) -> tuple[Decoded, int]:
        """Inflate and decode a body; small ones here, others in the thread `beside`.

        Returns:
            The decoded body, and the bytes by which `inflated` grew, which the caller subtracts.

        Raises:
            BadRequest: it is not gzip, does not fit, or exceeds the maximum of a body.
            Overloaded: `bodies_full`: the present bodies hold `MOST_INFLATED` bytes.
        """
        if len(body) <= BESIDE and (small := inflate(body, min(BESIDE, self.body))) is not None:
            return decode_here(contract, small, json_length), 0
        decoded, size = await self.run_beside(self._decode_inflated, contract, body, json_length)
        self.inflated += size
        return decoded, size

    def _decode_inflated(
        self, contract: CallerContract, body: bytes, json_length: int | None
    ) -> tuple[Decoded, int]:
        if self.inflated + self.body > MOST_INFLATED:
            raise Overloaded(
                f"gzip bodies under way hold {self.inflated} bytes in this worker",
                code="bodies_full",
            )
        whole = inflate(body, self.body)
        if whole is None:
            raise too_large(self.body)
        return self.decode(contract, whole, json_length), len(whole)


async def infer(
    serving: Serving,
    bounds: WorkerBounds,
    live: Live,
    scope: Any,
    receive: Receive,
    send: Send,
    version: int | None,
    drain: bool,
) -> None:
    """Answer one infer call; mirror and count it after the answer was sent.

    Raises:
        BadRequest, Overloaded, ModelFailure: the app's error table turns them into an answer.
    """
    span = bounds.traces.begin(scope) if bounds.traces is not None else None
    entity, asked, probe, json_length, gzip = _told(scope, version, bounds)
    message = await receive()
    body = message.get("body", b"")
    if message.get("more_body"):
        body = await _rest(body, bounds, receive)
    elif message["type"] == "http.disconnect":
        return
    if len(body) > bounds.body:
        raise too_large(bounds.body)
    # Count from here: a caller whose body is not whole must not take another caller's place.
    bounds.enter()
    inflated = 0
    try:
        contract = live.contract
        if gzip:
            (parsed, columns, rows), inflated = await bounds.decode_gzip(
                contract, body, json_length
            )
        elif len(body) > BESIDE:
            parsed, columns, rows = await bounds.run_beside(
                bounds.decode, contract, body, json_length
            )
        else:
            parsed, columns, rows = decode_here(contract, body, json_length)
        if parsed.outputs:
            _check_outputs(live, asked, parsed.outputs)
        request = Request(
            id=_checked(parsed.id) or fresh_id(),
            chosen=bool(parsed.id),
            columns=columns,
            rows=rows,
            entity=entity or contract.entity(columns, rows),
            draw=getrandbits(48) % BUCKETS,
            asked=asked,
            probe=probe,
        )
        answer = await serving.answer(live, request)
        live = answer.live or live
        payload = render(live, request, answer, parsed.outputs)
    finally:
        # Free the place before the answer leaves: a caller that does not read must not occupy it.
        bounds.in_flight -= 1
        bounds.inflated -= inflated
    headers = [*_head(live, answer), (b"content-length", b"%d" % len(payload))]
    if drain:
        headers.append((b"connection", b"close"))
    if span is not None:
        headers.append(span.header)
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": payload})
    serving.finish(live, request, answer)
    if span is not None and bounds.traces is not None:
        bounds.traces.end(span, live, request, answer)


def fresh_id() -> str:
    """Return an id for a request without one: a UUIDv7 (RFC 9562), which contains its time."""
    number = int(time() * 1000) << 80 | 7 << 76 | getrandbits(12) << 64 | 2 << 62 | getrandbits(62)
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _told(
    scope: Any, version: int | None, bounds: WorkerBounds
) -> tuple[str | None, int | None, bool, int | None, bool]:
    """Read the headers.

    Returns:
        Entity, release that a tester requests, whether it is a probe, bytes of JSON before binary
        data, and whether the body is gzip.
    """
    entity, asked, probe, json_length, gzip = None, version, False, None, False
    for name, value in scope["headers"]:
        if name not in READ:
            continue
        if name == b"content-type":
            if value != PLAIN:
                check_type(value, JSON)
        elif name == b"kedge-entity":
            entity = _entity(value, scope, bounds.peers)
        elif name == b"kedge-release":
            asked = release_number(value.decode("latin-1"))
        elif name == b"kedge-probe":
            probe = True
        elif name == b"content-encoding":
            gzip = is_gzip(value)
        else:
            if not value.isdigit() or len(value) > DIGITS:
                raise BadRequest(
                    "Inference-Header-Content-Length is not a number", code="malformed_body"
                )
            json_length = int(value)
    if probe or asked is not None:
        bounds.testers.check(scope["headers"])
    return entity, asked, probe, json_length, gzip


def _entity(value: bytes, scope: Any, peers: Peers) -> str | None:
    """Return the entity of the header, if this caller may name one."""
    if not peers.may_name_entity(scope.get("client")):
        raise BadRequest(
            "this caller may not send kedge-entity",
            code="entity_refused",
            hint="[server] entity_from in kedge.toml lists who may",
        )
    return entities.spell_header(value)


def _checked(chosen: str | None) -> str | None:
    """Return a body's id; raise if it has too many bytes. No character takes more than four."""
    if chosen is not None and len(chosen) > ID_BYTES // 4:
        size = len(chosen.encode("utf-8", "surrogatepass"))
        if size > ID_BYTES:
            raise BadRequest(f"the id has {size} bytes (limit {ID_BYTES})", code="id_too_long")
    return chosen


def release_number(text: str) -> int:
    """Return `r7` or `7` as a number.

    Raises:
        BadRequest: the text is neither.
    """
    digits = text.removeprefix("r")
    if not digits.isascii() or not digits.isdigit() or len(digits) > 9:
        raise BadRequest(f'"{clip(text)}" is not a release; write r7', code="release_not_live")
    return int(digits)


def too_large(limit: int, *, unread: bool = False) -> BadRequest:
    """Return the error for a body that is larger than the bound."""
    return BadRequest(
        f"the body is larger than {limit} bytes",
        code="body_too_large",
        hint="[server] max_body_mb in kedge.toml",
        details={"unread": unread},
    )


async def _rest(body: bytes, bounds: WorkerBounds, receive: Receive) -> bytes:
    """Return a whole body from a server that gives it in parts; the worker's own gives it whole."""
    parts, size, more = [body], len(body), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise BadRequest("the caller hung up within its body", code="malformed_body")
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > bounds.body:
            raise too_large(bounds.body, unread=True)
        more = message.get("more_body", False)
    return b"".join(parts)


def _check_outputs(live: Live, asked: int | None, wanted: list[WantedOutput]) -> None:
    """Raise if a requested output is not one of production (or of the requested release)."""
    release = live.state.releases.get(asked or live.state.production or 0)
    known = [field.name for field in release.signature.outputs] if release is not None else []
    for output in wanted:
        name = output.name
        if name not in known and release is not None:
            raise BadRequest(
                f"{tell_name(name)} is not an output",
                code="unknown_output",
                hint=f"outputs are {', '.join(known)}",
                details={"field": tell_name(name)},
            )


def _head(live: Live, answer: Answer) -> Headers:
    """Return the headers that every answer of this choice shares, made once per snapshot."""
    choice = answer.choice
    key = id(choice)
    head = live.heads.get(key)
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
    live: Live, request: Request, answer: Answer, wanted: list[WantedOutput] | None
) -> bytes:
    """Encode an answer as the protocol's JSON; a value that is not finite becomes null."""
    names = {output.name for output in wanted} if wanted else None
    return _encode(
        InferAnswer(
            model_name=live.state.endpoint,
            model_version=f"r{answer.choice.release}",
            id=request.id,
            outputs=[
                OutputTensor(name, _datatype(array), list(array.shape), array.ravel().tolist())
                for name, array in answer.outputs.items()
                if names is None or name in names
            ],
        )
    )


def _datatype(array: NDArray[Any]) -> str:
    return _DATATYPES.get(array.dtype, "BYTES")
