"""Traces of requests and rollbacks, at a real receiver of OTLP over HTTP."""

from __future__ import annotations

import gzip
import http.client
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from contract import http_world
from contract.sql_world import world
from kedge.adapters.clock import SystemClock
from kedge.adapters.traces import otlp
from kedge.core.release.commands import Promote
from kedge.core.stored.notes import ReceiptNote, build_note
from kedge.core.trace_context import SpanRecord
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.gateway import traces
from kedge.gateway.traces import RequestTraces
from kedge.ports.traces import LOST_SPANS, SpanSink
from kedge.runtime.traces import RollbackTraces, open_sink
from kedge.workspace import Workplace
from support.waiting import wait_until

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Collector(ThreadingHTTPServer):
    """Receives spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                assert self.path == "/v1/traces"
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for pair in resource.resource.attributes:
                        if pair.key == "service.name":
                            collector.services.add(pair.value.string_value)
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def said(self, span: Any) -> dict[str, Any]:
        return {
            pair.key: getattr(pair.value, pair.value.WhichOneof("value") or "string_value")
            for pair in span.attributes
        }


class Lost:
    """Counts lost spans, as the faults of a process do."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, bound: str, count: int = 1) -> None:
        assert bound == LOST_SPANS
        self.count += count


@pytest.fixture
def collector() -> Iterator[Collector]:
    server = Collector()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@contextmanager
def traced(sink: SpanSink, share: float = 1.0) -> Iterator[http_world.World]:
    with http_world.World() as served:
        served.bounds.traces = RequestTraces(sink, share, lambda _: None)
        yield served


def ask(
    served: http_world.World, headers: dict[str, str] | None = None, body: bytes | None = None
) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=10)
    body = http_world.body() if body is None else body
    connection.request("POST", "/v2/models/flights/infer", body, headers or {})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer


def test_a_request_has_a_span_in_its_callers_trace(collector: Collector) -> None:
    sink = open_sink(collector.url, "kedge-gateway", Lost())
    with traced(sink, 0.0) as served:
        answer = ask(served, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
        assert answer.status == 200
        own = answer.headers["traceparent"]
    sink.close()
    (span,) = collector.spans
    assert own == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"
    assert (span.trace_id.hex(), span.parent_span_id.hex()) == (TRACE, SPAN)
    said = collector.said(span)
    assert (said["kedge.endpoint"], said["kedge.arm"]) == ("flights", "production")
    assert span.end_time_unix_nano >= span.start_time_unix_nano
    assert collector.services == {"kedge-gateway"}


def test_a_refused_request_has_a_span_with_its_code(collector: Collector) -> None:
    sink = open_sink(collector.url, "kedge-gateway", Lost())
    with traced(sink) as served:
        assert ask(served, body=b"{").status == 400
    sink.close()
    (span,) = collector.spans
    assert span.status.message == "malformed_body"


def test_the_state_of_a_caller_is_passed_on_and_an_error_names_its_span(
    collector: Collector,
) -> None:
    sink = open_sink(collector.url, "kedge-gateway", Lost())
    with traced(sink, 0.0) as served:
        headers = {"traceparent": f"00-{TRACE}-{SPAN}-01", "tracestate": "vendor=a/b,other=1"}
        answer = ask(served, headers, body=b"{")
        assert answer.status == 400
        own = answer.headers["traceparent"]
    sink.close()
    (span,) = collector.spans
    assert span.trace_state == "vendor=a/b,other=1"
    assert own == f"00-{span.trace_id.hex()}-{span.span_id.hex()}-01"


def test_a_caller_decides_that_its_request_is_not_sampled(collector: Collector) -> None:
    sink = open_sink(collector.url, "kedge-gateway", Lost())
    with traced(sink, 1.0) as served:
        answer = ask(served, {"traceparent": f"00-{TRACE}-{SPAN}-00"})
        assert answer.headers["traceparent"].startswith(f"00-{TRACE}-")
    sink.close()
    assert collector.spans == []


def test_without_tracing_no_header_is_added() -> None:
    with http_world.World() as served:
        answer = ask(served, {"traceparent": f"00-{TRACE}-{SPAN}-01"})
        assert (answer.status, "traceparent" in answer.headers) == (200, False)


def test_a_collector_that_is_gone_delays_no_answer() -> None:
    with Collector() as gone:
        url = gone.url
    lost = Lost()
    sink = open_sink(url, "kedge-gateway", lost)
    with traced(sink) as served:
        for _ in range(20):
            assert ask(served).status == 200
    sink.close()
    wait_until(lambda: lost.count == 20, "the spans are counted as lost", 30)


def test_a_collector_that_hangs_delays_neither_an_answer_nor_the_end_of_a_worker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        lost = Lost()
        sink = open_sink(f"http://127.0.0.1:{silent.getsockname()[1]}", "kedge-gateway", lost)
        began = time.monotonic()
        for number in range(1, 2 * otlp.QUEUE + 1):
            sink.take(SpanRecord("kedge.infer", number, number, None, 1, 2, {}))
        assert time.monotonic() - began < 10, "5 ms each on a busy machine; it takes 20 us"
        assert lost.count >= otlp.QUEUE - 512, "a full queue drops, and counts"
        began = time.monotonic()
        sink.close()
        assert time.monotonic() - began < otlp.TIMEOUT_S + otlp.CLOSE_S, "it had 23 s of batches"


class Kept:
    """A sink in memory."""

    def __init__(self) -> None:
        self.count = 0

    def take(self, _: object) -> None:
        self.count += 1

    def close(self) -> None:
        pass


def test_spans_of_a_second_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "time_ns", lambda: 5)
    sink = Kept()
    lost = Lost()
    requests = RequestTraces(sink, 1.0, lost)
    for _ in range(traces.MOST + 7):
        requests.fail(requests.begin({"headers": []}), "flights", "queue_full")
    assert (sink.count, lost.count) == (traces.MOST, 7)


def test_the_receipt_of_a_rollback_becomes_a_span(collector: Collector, tmp_path: Path) -> None:
    made = world(tmp_path)
    made.do(Promote(release=1))
    place = Workplace(tmp_path / "state")
    clock = SystemClock()
    sink = open_sink(collector.url, "kedge-control", Lost())
    loop = RollbackTraces(Duty(clock, ProcessFaults(clock)), place, sink)
    loop.look()
    receipt = ReceiptNote(of=1, command="rollback", last_ack_ms=3.0, total_ms=4.0)
    made.ledger.note("flights", build_note(receipt), by="ada", reason="late", at=clock.now())
    loop.look()
    loop.look()
    sink.close()
    names = sorted(span.name for span in collector.spans)
    assert names.count("kedge.rollback") == 1
    assert "kedge.rollback.acks" in names
    (whole,) = [span for span in collector.spans if span.name == "kedge.rollback"]
    assert collector.said(whole)["kedge.by"] == "ada"
