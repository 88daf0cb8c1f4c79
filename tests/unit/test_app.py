"""The data plane's edge: paths, statuses, headers, and every bound with its answer."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID

import msgspec
import numpy as np
import pytest
from structlog.testing import capture_logs

from kedge.core.entities import spell
from kedge.core.errors import (
    BadRequest,
    CorruptArtifact,
    KedgeError,
    ModelFailure,
    Overloaded,
    Unavailable,
)
from kedge.core.release.commands import Canary, Promote
from kedge.core.routing import compile_plan
from kedge.core.values import Limits, Policy, State
from kedge.engine.recording.recorder import Recorder
from kedge.engine.request import Request
from kedge.engine.serving.live import Answer, Live
from kedge.engine.serving.pool import Handle
from kedge.engine.serving.serving import Serving
from kedge.gateway.auth import SECRET, Tokens, make_secret, read_secret
from kedge.gateway.contract import Contract
from kedge.gateway.http.app import PATHS_KEPT, STATUS, Gateway, Route, parse_path, status_of
from kedge.gateway.http.infer import WorkerBounds
from kedge.testing.samples import endpoint, fields, release, run

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from kedge.typing import Columns

LIMIT = 1000
"""Bytes of a body."""
NEEDS = "x:float32,word:string?"
POLICY = Policy(audience="internal", entity="word", limits=Limits(rows=4))
ROW = run(
    endpoint(
        release(1, needs=NEEDS), release(2, needs=NEEDS), release(3, needs=NEEDS), policy=POLICY
    ),
    Promote(1),
    Promote(2, override="a test"),
)
CANARY = run(ROW, Canary(3, 10_000))
INFER = "/v2/models/flights/infer"


def body(data: Any = (1.0,), **more: Any) -> bytes:
    one = {"name": "x", "datatype": "FP32", "shape": [len(data)], "data": list(data)}
    return json.dumps({"inputs": [one], **more}).encode()


class Doubles:
    """A model; `meanwhile` is called while it answers."""

    signature = ROW.releases[1].signature

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        self._meanwhile = meanwhile

    def predict(self, columns: Columns) -> Columns:
        self._meanwhile()
        x: NDArray[Any] = columns["x"]
        return {"p_late": x * np.float32(2)}


class Answered:
    """What an ASGI server was given."""

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        start, end = sent
        self.status: int = start["status"]
        self.headers = {k.decode(): v.decode() for k, v in start["headers"]}
        self.raw: bytes = end["body"]
        assert self.headers["content-length"] == str(len(self.raw))

    @property
    def json(self) -> Any:
        return json.loads(self.raw)


class Place:
    """A gateway that serves one endpoint."""

    def __init__(
        self,
        state: State = ROW,
        meanwhile: Callable[[], object] = lambda: None,
        *,
        ready: bool = True,
        requests: int = 2,
        serving: Serving | None = None,
        testers: Tokens | None = None,
    ) -> None:
        self.serving = serving or Serving(lambda: 0.0)
        self.bounds = WorkerBounds(body=LIMIT, requests=requests, testers=testers)
        self.limited: list[str] = []
        """Bounds that refused something, in order."""
        self.gateway = Gateway(self.serving, self.bounds, lambda: ready, self.limited.append)
        handles = {n: Handle(state.releases[n], inline=Doubles(meanwhile)) for n in (1, 2)}
        self.live = Live(
            state=state,
            plan=compile_plan(state),
            handles=handles,
            contract=Contract(state.fields, rows=state.policy.limits.rows, entity=POLICY.entity),
            recorder=Recorder("w0", state),
            lease=True,
            pinned=False,
        )
        self.serving.swap(self.live)

    async def call(
        self,
        method: str,
        path: str,
        receive: Callable[[], Awaitable[dict[str, Any]]],
        headers: dict[str, str],
    ) -> list[dict[str, Any]]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        told = [(k.encode(), v.encode("latin-1")) for k, v in headers.items()]
        scope = {"type": "http", "method": method, "path": path, "headers": told}
        await self.gateway(scope, receive, send)
        return sent

    def ask(
        self,
        path: str = INFER,
        raw: bytes | None = None,
        method: str = "POST",
        *parts: dict[str, Any],
        **headers: str,
    ) -> Answered:
        """Send one request; its body in one part unless parts are given."""
        messages = [*parts] or [{"type": "http.request", "body": body() if raw is None else raw}]

        async def receive() -> dict[str, Any]:
            return messages.pop(0)

        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return Answered(asyncio.run(self.call(method, path, receive, named)))

    def get(self, path: str) -> Answered:
        return self.ask(path, b"", "GET")

    @property
    def counts(self) -> dict[str, int]:
        return self.live.recorder.tally().counts


def part(raw: bytes, *, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": raw, "more_body": more}


# ---------------------------------------------------------------- paths


@pytest.mark.parametrize(
    "path, route",
    [
        ("/v2", Route("server")),
        ("/v2/", Route("server")),
        ("/v2/health/live", Route("live")),
        ("/v2/health/ready", Route("ready")),
        ("/v2/repository/index", Route("index")),
        ("/v2/models/flights", Route("model/metadata", "flights")),
        ("/v2/models/flights/ready", Route("model/ready", "flights")),
        ("/v2/models/flights/config", Route("model/config", "flights")),
        ("/v2/models/flights/infer", Route("model/infer", "flights")),
        ("/v2/models/flights/versions/r7/infer", Route("model/infer", "flights", 7)),
        ("/v2/models/flights/versions/7/infer", Route("model/infer", "flights", 7)),
        ("/v2/models/flights/versions/r7", Route("model/metadata", "flights", 7)),
        ("/v2/models/flights/versions/r7/ready", Route("model/ready", "flights", 7)),
        ("/v2/models/versions/infer", Route("model/infer", "versions")),
    ],
)
def test_a_path_of_the_protocol_is_understood(path: str, route: Route) -> None:
    """With and without a version, in both spellings."""
    assert parse_path(path) == route


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/v2/health",
        "/v2/health/sleepy",
        "/v2/models",
        "/v2/models/a/explain",
        "/v2/models/a/versions",
        "/v2/models/a/infer/more",
        "/v2/models/a/versions/r1/infer/more",
        "/v2/repository",
        "/v2/models/a/b/infer",
    ],
)
def test_any_other_path_is_unknown(path: str) -> None:
    """404, with a hint at what there is."""
    with pytest.raises(BadRequest) as caught:
        parse_path(path)
    assert (caught.value.code, status_of(caught.value)) == ("unknown_path", 404)
    assert "infer" in caught.value.hint


@pytest.mark.parametrize("version", ["", "r", "seven", "r-1", "rr1", "1.5", "²", "9" * 10, "r1 "])
def test_a_version_that_is_no_release_is_not_found(version: str) -> None:
    """Also digits that only Unicode knows, and numbers that no ledger reaches."""
    with pytest.raises(BadRequest) as caught:
        parse_path(f"/v2/models/flights/versions/{version}/infer")
    assert (caught.value.code, status_of(caught.value)) == ("release_not_live", 404)


def test_parsed_paths_are_kept_and_bounded() -> None:
    """A scanner cannot fill the memory."""
    place = Place()
    for number in range(PATHS_KEPT + 10):
        place.get(f"/v2/models/m{number}")
    assert len(place.gateway._routes) <= PATHS_KEPT
    assert place.ask().status == 200


@pytest.mark.parametrize(
    "method, path, allow",
    [
        ("GET", INFER, "POST"),
        ("PUT", INFER, "POST"),
        ("DELETE", "/v2/models/flights", "GET, HEAD"),
        ("POST", "/v2/models/flights", "GET, HEAD"),
        ("PUT", "/v2/health/ready", "GET, HEAD"),
        ("PATCH", "/v2/repository/index", "GET, HEAD, POST"),
        ("OPTIONS", "/v2", "GET, HEAD"),
    ],
)
def test_another_method_is_refused_and_the_answer_names_those_that_are_answered(
    method: str, path: str, allow: str
) -> None:
    """Nothing is deleted by a DELETE, and nothing says so."""
    refused = Place().ask(path, b"", method)
    assert (refused.status, refused.headers["allow"]) == (405, allow)
    assert refused.json["hint"] == f"use {allow}"


def test_the_index_is_asked_by_post_as_the_protocol_has_it() -> None:
    place = Place()
    asked = [place.ask("/v2/repository/index", b"", each).json for each in ("GET", "POST")]
    assert asked[0] == asked[1]
    assert place.ask("/v2/models/flights", b"", "HEAD").status == 200


@pytest.mark.parametrize(
    "path, status", [("/v2/" + "x" * 3000, 404), ("/v2/models/" + "x" * 3000 + "/infer", 404)]
)
def test_a_path_is_repeated_in_part(path: str, status: int) -> None:
    refused = Place().ask(path)
    assert refused.status == status
    assert len(refused.raw) < 400


# ---------------------------------------------------------------- statuses


@pytest.mark.parametrize(
    "error, status",
    [
        (BadRequest(), 400),
        (BadRequest(code="wrong_dtype"), 400),
        (BadRequest(code="unknown_endpoint"), 404),
        (BadRequest(code="unknown_path"), 404),
        (BadRequest(code="release_not_live"), 404),
        (BadRequest(code="wrong_method"), 405),
        (BadRequest(code="body_too_slow"), 408),
        (BadRequest(code="body_too_large"), 413),
        (BadRequest(code="too_many_rows"), 413),
        (Overloaded(code="queue_full"), 503),
        (BadRequest(code="head_too_slow"), 408),
        (BadRequest(code="head_too_large"), 431),
        (BadRequest(code="too_many_headers"), 431),
        (Overloaded(code="peer_busy"), 429),
        (BadRequest(code="unsupported_type"), 415),
        (BadRequest(code="unsupported_encoding"), 415),
        (BadRequest(code="token_missing"), 401),
        (BadRequest(code="token_refused"), 403),
        (BadRequest(code="entity_refused"), 403),
        (Overloaded(code="bodies_full"), 503),
        (Unavailable(code="not_loaded"), 503),
        (ModelFailure(code="model_raised"), 500),
        (ModelFailure(code="model_late"), 504),
        (ModelFailure(code="model_expired"), 504),
        (ModelFailure(code="model_unasked"), 504),
        (CorruptArtifact(), 500),
        (KedgeError(), 500),
    ],
)
def test_every_error_has_its_status(error: KedgeError, status: int) -> None:
    """By its code, else by its class."""
    assert status_of(error) == status


def test_every_code_of_the_table_is_tried_above() -> None:
    """A new one must be given its status here too."""
    (mark,) = test_every_error_has_its_status.pytestmark  # type: ignore[attr-defined]
    assert set(STATUS) <= {error.code for error, _ in mark.args[1]}


# ---------------------------------------------------------------- infer


def test_an_answer_says_which_release_gave_it_at_which_epoch_and_why() -> None:
    """In its headers and, as the protocol has it, in its body."""
    answer = Place().ask(raw=body(id="abc"))
    assert answer.status == 200
    assert answer.json == {
        "model_name": "flights",
        "model_version": "r2",
        "id": "abc",
        "outputs": [{"name": "p_late", "datatype": "FP32", "shape": [1], "data": [2.0]}],
    }
    assert answer.headers == {
        "content-type": "application/json",
        "content-length": str(len(answer.raw)),
        "kedge-release": "r2",
        "kedge-epoch": str(ROW.epoch),
        "kedge-arm": "production",
        "kedge-reason": "production",
    }


def test_a_request_without_an_id_gets_one_that_names_its_hour() -> None:
    """The outcome of an answer is joined by it (RFC 9562, version 7)."""
    first, second = (Place().ask().json["id"] for _ in range(2))
    assert first != second
    assert UUID(first).version == 7
    assert abs((UUID(first).int >> 80) / 1e3 - time.time()) < 60


def test_a_value_that_is_not_finite_is_null_in_the_answer() -> None:
    """JSON has no NaN."""
    place = Place()
    place.live.handles[2].inline = type(
        "Nan", (Doubles,), {"predict": lambda self, columns: {"p_late": np.full(1, np.nan)}}
    )()
    assert place.ask().json["outputs"][0]["data"] == [None]


def test_a_caller_may_choose_among_the_outputs() -> None:
    """And learns it when there is none of that name."""
    place = Place()
    assert len(place.ask(raw=body(outputs=[{"name": "p_late"}])).json["outputs"]) == 1
    refused = place.ask(raw=body(outputs=[{"name": "p_early"}]))
    assert (refused.status, refused.json["code"]) == (400, "unknown_output")
    assert refused.json["field"] == "p_early"
    assert "p_late" in refused.json["hint"]


@pytest.mark.parametrize("asked", ["header", "path"])
def test_a_tester_gets_the_release_that_was_asked_for(asked: str, tmp_path: Path) -> None:
    """By header or by path; any other is not found."""
    make_secret(tmp_path)
    place = Place(testers=Tokens(tmp_path / SECRET))
    shown = f"Bearer {read_secret(tmp_path)}"

    def ask(number: int) -> Answered:
        if asked == "header":
            return place.ask(kedge_release=f"r{number}", authorization=shown)
        return place.ask(f"/v2/models/flights/versions/r{number}/infer", authorization=shown)

    found = ask(1)
    assert found.json["model_version"] == found.headers["kedge-release"] == "r1"
    assert (found.headers["kedge-arm"], found.headers["kedge-reason"]) == ("previous", "asked")
    assert (ask(3).status, ask(3).json["code"]) == (404, "release_not_live")


def test_the_entity_header_routes_and_wins_over_the_field() -> None:
    """A request without either is keyless."""
    place = Place()
    place.ask(kedge_entity="N1")
    assert "keyless" not in place.counts
    place.ask()
    word = {"name": "word", "datatype": "BYTES", "shape": [1], "data": ["N2"]}
    place.ask(raw=json.dumps({"inputs": [json.loads(body())["inputs"][0], word]}).encode())
    assert place.counts["keyless"] == 1


class Noting(Serving):
    """Notes the entity of each request."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.entities: list[str | None] = []

    async def answer(self, live: Live, request: Request) -> Answer:
        self.entities.append(request.entity)
        return await super().answer(live, request)


@pytest.mark.parametrize("name", ["Zoë", "李雷", "N 1", "42", "100%25", "a\u0301"])
def test_header_and_field_name_one_entity(name: str) -> None:
    """A caller that says who it is in two ways meets one release."""
    noting = Noting()
    place = Place(serving=noting)
    place.ask(kedge_entity=name.encode().decode("latin-1"))
    x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
    word = {"name": "word", "datatype": "BYTES", "shape": [1], "data": [name]}
    place.ask(raw=json.dumps({"inputs": [x, word]}).encode())
    assert len(noting.entities) == 2
    assert set(noting.entities) == {spell(name)}


@pytest.mark.parametrize("header", ["å\x80", "Zo\xeb"])
def test_an_entity_in_another_encoding_is_refused(header: str) -> None:
    """It would be routed as another entity."""
    refused = Place().ask(kedge_entity=header)
    assert (refused.status, refused.json["code"]) == (400, "bad_entity")
    assert "UTF-8" in refused.json["error"]


def test_a_probe_is_answered_and_not_counted(tmp_path: Path) -> None:
    """It is kedge's own."""
    make_secret(tmp_path)
    place = Place(testers=Tokens(tmp_path / SECRET))
    shown = f"Bearer {read_secret(tmp_path)}"
    assert place.ask(kedge_probe="1", authorization=shown).status == 200
    assert place.counts == {}


def test_a_refusal_names_the_field_its_code_and_a_hint_and_is_counted() -> None:
    """As JSON, whatever was sent."""
    place = Place()
    refused = place.ask(raw=body([None]))
    assert refused.status == 400
    assert (refused.json["field"], refused.json["code"]) == ("x", "null_value")
    assert "nullable" in refused.json["hint"]
    assert place.ask(raw=b"{").json["code"] == "malformed_body"
    assert place.counts == {"refused.null_value": 1, "refused.malformed_body": 1}


def test_a_model_that_raises_is_an_error_and_not_a_refusal() -> None:
    """500 in plain words; counted once, as an error of its arm; the log has what it raised."""

    def raises() -> None:
        raise ValueError("poison")

    place = Place(meanwhile=raises)
    with capture_logs() as logged:
        failed, again = place.ask(), place.ask()
    assert (failed.status, failed.json["code"]) == (500, "model_raised")
    assert failed.json == again.json
    assert "poison" not in str(failed.json)
    assert "ValueError" not in str(failed.json)
    assert [(each["event"], each["fault"]) for each in logged] == [
        ("gateway.model_failed", "r2 raised ValueError: poison")
    ]
    assert place.counts["errors.production"] == 2
    assert "answered.production" not in place.counts


def test_an_unforeseen_exception_is_an_answer_too() -> None:
    """Without its inner words: they stand in the log."""
    place = Place()
    place.live.contract = cast("Any", None)
    failed = place.ask()
    assert (failed.status, failed.json["code"]) == (500, "internal")
    assert "log" in failed.json["error"]
    assert "AttributeError" not in str(failed.json)


def test_an_unknown_endpoint_is_not_found_and_the_known_ones_are_named() -> None:
    """Nothing is counted: there is no endpoint to count it for."""
    refused = Place().ask("/v2/models/fights/infer")
    assert (refused.status, refused.json["code"]) == (404, "unknown_endpoint")
    assert "flights" in refused.json["hint"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "HEAD"])
def test_infer_is_a_post(method: str) -> None:
    """And the answer says so."""
    refused = Place().ask(INFER, b"", method)
    assert (refused.status, refused.headers["allow"]) == (405, "POST")


# ---------------------------------------------------------------- bodies


def test_a_body_in_parts_is_put_together() -> None:
    """However it was cut."""
    raw = body()
    for cut in (0, 1, 10, len(raw)):
        answer = Place().ask(INFER, None, "POST", part(raw[:cut]), part(raw[cut:], more=False))
        assert answer.status == 200


def test_a_body_of_just_the_bound_is_read_and_one_byte_more_is_not() -> None:
    """In one part or in several; the connection can be used again."""
    place = Place()
    fits = body().ljust(LIMIT)
    assert place.ask(raw=fits).status == 200
    for refused in (
        place.ask(raw=fits + b" "),
        place.ask(INFER, None, "POST", part(fits), part(b" ", more=False)),
    ):
        assert (refused.status, refused.json["code"]) == (413, "body_too_large")
        assert "max_body_mb" in refused.json["hint"]
    assert place.counts["refused.body_too_large"] == 2
    assert place.bounds.in_flight == 0


def test_a_gzip_body_is_read_as_what_it_holds() -> None:
    """Also in parts, and of rows."""
    place = Place()
    for raw in (body(), b'{"rows": [{"x": 1}]}'):
        packed = gzip.compress(raw)
        parts = part(packed[:9]), part(packed[9:], more=False)
        for given in ((), parts):
            answer = place.ask(INFER, packed, "POST", *given, content_encoding="gzip")
            assert answer.json["outputs"][0]["data"] == [2.0]
    assert place.bounds.inflated == place.bounds.in_flight == 0


def test_a_gzip_body_may_hold_as_much_as_any_other() -> None:
    """And says so when it holds more, or is none."""
    place = Place()
    fits = body().ljust(LIMIT)
    assert place.ask(raw=gzip.compress(fits), content_encoding="gzip").status == 200
    for raw, status, code in (
        (gzip.compress(fits + b" "), 413, "body_too_large"),
        (gzip.compress(bytes(500_000)), 413, "body_too_large"),
        (body(), 400, "malformed_body"),
    ):
        refused = place.ask(raw=raw, content_encoding="gzip")
        assert (refused.status, refused.json["code"]) == (status, code)
    assert place.limited == ["body_too_large"] * 2
    assert place.bounds.inflated == place.bounds.in_flight == 0


def test_a_bound_that_the_connection_counts_is_not_counted_twice() -> None:
    place = Place()
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def refuse() -> None:
        app = place.gateway.refuse_with(BadRequest("too much", code="body_too_large"))
        await app({"path": INFER, "headers": []}, None, send)

    asyncio.run(refuse())
    assert Answered(sent).status == 413
    assert (place.counts["refused.body_too_large"], place.limited) == (1, [])


@pytest.mark.parametrize("told", ["deflate", "br", "gzip, gzip"])
def test_another_encoding_is_unsupported_and_the_answer_names_what_is(told: str) -> None:
    refused = Place().ask(content_encoding=told)
    assert (refused.status, refused.json["code"]) == (415, "unsupported_encoding")
    assert refused.headers["accept-encoding"] == "gzip"


def test_another_content_type_is_unsupported() -> None:
    """None at all, and what curl says of any body, are read."""
    place = Place()
    refused = place.ask(content_type="text/csv")
    assert (refused.status, refused.json["code"]) == (415, "unsupported_type")
    assert '"rows"' in refused.json["hint"]
    for told in ("application/json", "application/x-www-form-urlencoded"):
        assert place.ask(content_type=told).status == 200


def test_a_fault_of_a_row_has_its_number() -> None:
    refused = Place().ask(raw=b'{"rows": [{"x": 1}, {"x": "one"}]}')
    assert refused.status == 400
    assert (refused.json["code"], refused.json["field"], refused.json["row"]) == (
        "wrong_dtype",
        "x",
        1,
    )


def test_a_caller_that_hangs_up_gets_no_answer() -> None:
    """Before its body nothing is sent; within it nothing is asked of a model."""
    place = Place()
    gone = {"type": "http.disconnect"}

    async def receive() -> dict[str, Any]:
        return gone

    assert asyncio.run(place.call("POST", INFER, receive, {})) == []
    assert place.ask(INFER, None, "POST", part(b"{"), gone).json["code"] == "malformed_body"
    assert place.bounds.in_flight == 0


@pytest.mark.parametrize("value", ["-1", "x", "1.5", "9" * 5000, "²"])
def test_a_json_length_that_is_no_number_is_malformed(value: str) -> None:
    """The header of the binary extension."""
    refused = Place().ask(inference_header_content_length=value)
    assert (refused.status, refused.json["code"]) == (400, "malformed_body")


# ---------------------------------------------------------------- bounds


class Gated(Serving):
    """Answers when the gate opens."""

    def __init__(self) -> None:
        super().__init__(lambda: 0.0)
        self.gate = asyncio.Event()

    async def answer(self, live: Live, request: Request) -> Answer:
        await self.gate.wait()
        return await super().answer(live, request)


def test_requests_above_the_limit_are_asked_to_retry() -> None:
    """503 with retry-after; those under way are answered."""

    async def main() -> tuple[list[Answered], Place]:
        serving = Gated()
        place = Place(requests=2, serving=serving)

        async def receive() -> dict[str, Any]:
            return part(body(), more=False)

        held = [asyncio.create_task(place.call("POST", INFER, receive, {})) for _ in range(2)]
        await asyncio.sleep(0)
        assert place.bounds.in_flight == 2
        third = Answered(await place.call("POST", INFER, receive, {}))
        serving.gate.set()
        return [third, *map(Answered, await asyncio.gather(*held))], place

    (refused, *answers), place = asyncio.run(main())
    assert (refused.status, refused.json["code"]) == (503, "queue_full")
    assert refused.headers["retry-after"] == "1"
    assert [answer.status for answer in answers] == [200, 200]
    assert place.counts["refused.queue_full"] == 1
    assert place.bounds.in_flight == 0


@pytest.mark.parametrize(
    "path, method, raw",
    [
        (INFER, "POST", body()),
        (INFER, "POST", b"{"),
        ("/v2/health/live", "GET", b""),
        ("/v2/nowhere", "GET", b""),
        ("/v2/models/flights", "GET", b""),
        (INFER, "POST", b" " * 2 * LIMIT),
    ],
)
def test_a_worker_that_is_about_to_stop_asks_every_caller_to_hang_up(
    path: str, method: str, raw: bytes
) -> None:
    """Once, and not before."""
    place = Place()
    assert "connection" not in place.ask(path, raw, method).headers
    place.gateway.draining = True
    assert place.ask(path, raw, method).headers["connection"] == "close"


# ---------------------------------------------------------------- everything else


def test_the_server_says_what_it_is() -> None:
    """And which extensions it speaks."""
    told = Place().get("/v2").json
    assert told["name"] == "kedge"
    assert "binary_tensor_data" in told["extensions"]


def test_live_and_ready_are_two_things() -> None:
    """A worker without its models lives, and is not ready."""
    assert Place().get("/v2/health/ready").status == 200
    waiting = Place(ready=False)
    assert waiting.get("/v2/health/live").status == 200
    assert waiting.get("/v2/health/ready").status == 503


def test_metadata_is_the_contract_of_the_endpoint_and_the_outputs_of_the_release() -> None:
    """With what may be null."""
    told = Place().get("/v2/models/flights").json
    assert told == {
        "name": "flights",
        "versions": ["r1", "r2"],
        "platform": "kedge_onnx",
        "inputs": [
            {"name": "x", "datatype": "FP32", "shape": [-1]},
            {"name": "word", "datatype": "BYTES", "shape": [-1], "parameters": {"nullable": True}},
        ],
        "outputs": [{"name": "p_late", "datatype": "FP32", "shape": [-1]}],
    }
    assert Place().get("/v2/models/flights/versions/r1").json == told


def test_the_index_lists_every_release_that_can_be_asked() -> None:
    """With whether it is loaded here."""
    listed = {
        entry["version"]: entry["state"] for entry in Place(CANARY).get("/v2/repository/index").json
    }
    assert listed == {"r1": "READY", "r2": "READY", "r3": "UNAVAILABLE"}


def test_a_model_is_ready_when_its_release_is_loaded_here() -> None:
    """Production unless a version is named."""
    place = Place(CANARY)
    assert place.get("/v2/models/flights/ready").json == {"name": "flights", "ready": True}
    assert place.get("/v2/models/flights/versions/r3/ready").status == 503
    assert place.get("/v2/models/flights/versions/r9/ready").status == 404
    assert place.get("/v2/models/fights/ready").status == 404


def test_an_event_of_the_server_that_is_no_http_is_ignored() -> None:
    """The server asks about its own life too."""

    async def nothing(message: object = None) -> None:
        raise AssertionError(message)

    asyncio.run(Place().gateway({"type": "lifespan"}, nothing, nothing))


def test_contract_fields_are_listed_in_their_order() -> None:
    """As they were declared."""
    declared = msgspec.structs.replace(ROW, fields=fields("zulu:int8,alpha:bool"))
    told = Place(declared).get("/v2/models/flights").json["inputs"]
    assert [(field["name"], field["datatype"]) for field in told] == [
        ("zulu", "INT8"),
        ("alpha", "BOOL"),
    ]
