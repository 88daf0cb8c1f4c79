"""Control's API over real sockets: refused callers, discarded data, and every limit."""

from __future__ import annotations

import gzip
import http.client
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from contract.sql_world import world
from kedge.adapters.clock import SystemClock
from kedge.core.errors import Unavailable
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.evidence.read import evidence_of
from kedge.operations.feed import Happening
from kedge.operations.outcomes import hand_in_lines
from kedge.operations.status.read import status_of
from kedge.runtime import outcomes
from kedge.runtime.outcomes import OutcomesJoiner
from kedge.web import bodies, server
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.bodies import Bodies
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from models import environment
from support.access import Open
from support.api import api_of
from support.waiting import wait_until

NDJSON = {"content-type": "application/x-ndjson"}
LINES = "/api/outcomes/flights"


class Site:
    """Control's API on a port of its own, with a real store behind it."""

    def __init__(self, root: Path) -> None:
        self.place = Workplace(world(root).state_dir)
        self.faults = ProcessFaults(SystemClock())
        self.bodies = Bodies(slowest_s=1.0)
        (root / "kedge.toml").write_text('[endpoints.flights]\naudience = "internal"\n')
        joiner = OutcomesJoiner(
            partial(hand_in_lines, Workplace(self.place.state_dir)), partial(_command, root)
        )
        app = Admin(
            partial(status_of, self.place),
            partial(evidence_of, self.place),
            joiner.join,
            self.bodies,
        )
        readers = Readers(partial(Workplace, self.place.state_dir))
        self.streams = Streams(readers, self.faults)
        front = Front(
            app,
            api_of(readers, self.streams, self.place.state_dir, app.join, self.bodies).routes(),
            self.faults,
            gate=Open(),
        )
        self.listener = server.listen(0)
        self.port = int(self.listener.getsockname()[1])
        self.server: uvicorn.Server = server.make_server(front, self.faults)
        self.thread = threading.Thread(
            target=self.server.run, kwargs={"sockets": [self.listener]}, daemon=True
        )
        self.thread.start()

    def ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            raw = answer.read()
            return answer.status, json.loads(raw) if raw else None, answer.headers
        finally:
            connection.close()

    def open(self, *heads: str, body: bytes = b"") -> socket.socket:
        """Send a head and what there is of a body; returns the connection, still open."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=15)
        connection.sendall("\r\n".join((*heads, "", "")).encode("latin-1") + body)
        return connection

    def stop(self) -> None:
        """End the server."""
        self.server.should_exit = True
        self.thread.join(10)


def _command(root: Path, endpoint: str) -> tuple[str, ...]:
    return (
        sys.executable,
        "-m",
        "kedge",
        "--config",
        str(root / "kedge.toml"),
        "outcomes",
        endpoint,
        "--file",
        "-",
        "--json",
    )


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    (tmp_path / ".kedge").symlink_to(tmp_path / "state")
    monkeypatch.setattr(server, "HEAD_S", 0.5)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Site(tmp_path)
    yield made
    made.stop()


def batch(count: int, start: int = 0) -> bytes:
    return b"\n".join(b'{"id": "id%d", "value": 1}' % n for n in range(start, start + count))


def post(api: Site, body: bytes, path: str = LINES) -> tuple[int, Any]:
    return api.ask("POST", path, body, NDJSON)[:2]


def rest_of(connection: socket.socket) -> bytes:
    """Everything that still comes, up to the end of the connection."""
    got = b""
    try:
        while part := connection.recv(65_536):
            got += part
    except ConnectionResetError:
        pass
    finally:
        connection.close()
    return got


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Host": "evil.example:8081"}, 403, "foreign_host"),
        ({"Origin": "https://evil.example"}, 403, "foreign_origin"),
        ({"Sec-Fetch-Site": "cross-site"}, 403, "foreign_origin"),
        ({"Content-Type": "text/plain"}, 415, "unsupported_type"),
    ],
)
def test_a_page_of_another_site_changes_nothing(
    api: Site, headers: dict[str, str], status: int, code: str
) -> None:
    answered, problem, _ = api.ask("POST", LINES, batch(100), {**NDJSON, **headers})
    assert (answered, problem["code"]) == (status, code)
    assert api.faults.limited == {f"control.{code}": 1}
    assert api.place.records.waiting() == 0
    assert post(api, batch(100))[1]["parked"] == 100  # and none of them was there already


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE", "PATCH"])
@pytest.mark.parametrize("path", ["/health", "/api/status", LINES, "/nowhere"])
def test_a_foreign_host_gets_nothing_by_any_method(api: Site, method: str, path: str) -> None:
    status, _, headers = api.ask(method, path, None, {"Host": "evil.example"})
    assert status == 403
    assert not [name for name in headers if name.lower().startswith("access-control")]


@pytest.mark.parametrize(
    "target", ["http://evil.example/api/status", "HTTP://127.0.0.1/health", "*", "evil.example:80"]
)
def test_only_a_path_may_be_asked_for(api: Site, target: str) -> None:
    assert b"HTTP/1.1 400" in rest_of(api.open(f"OPTIONS {target} HTTP/1.1", "Host: 127.0.0.1"))


def test_reading_needs_no_header_but_host_and_cannot_be_framed(api: Site) -> None:
    status, found, headers = api.ask("GET", "/api/status/flights")
    assert (status, found[0]["endpoint"]) == (200, "flights")
    assert headers["x-content-type-options"] == "nosniff"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert api.ask("HEAD", "/api/status")[:2] == (200, None)
    assert api.ask("DELETE", "/api/status")[0] == 405
    assert api.ask("GET", "/api/nothing")[1]["code"] == "unknown_path"


def test_a_gzip_batch_is_read_within_the_bounds_of_any_batch(
    api: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts as what it holds, and what is no gzip is named."""
    packed = {**NDJSON, "Content-Encoding": "gzip"}
    assert api.ask("POST", LINES, gzip.compress(batch(100)), packed)[1]["parked"] == 100
    monkeypatch.setattr(bodies, "LINES", 10)
    for body, status, code in (
        (batch(3), 400, "malformed_body"),
        (gzip.compress(batch(3))[:-1], 400, "malformed_body"),
        (gzip.compress(b" " * (bodies.LONGEST + 1)), 413, "too_large"),
        (gzip.compress(b"\n" * 11), 413, "too_many_lines"),
    ):
        answered, problem, _ = api.ask("POST", LINES, body, packed)
        assert (answered, problem["code"]) == (status, code)
    answered, problem, headers = api.ask("POST", LINES, b"", {**NDJSON, "Content-Encoding": "br"})
    assert (answered, problem["code"]) == (415, "unsupported_encoding")
    assert headers["accept-encoding"] == "gzip"
    api.bodies._under_way = bodies.LONGEST
    assert api.ask("POST", LINES, gzip.compress(b"{}"), packed)[1]["code"] == "bodies_full"
    assert api.bodies.held == 0


@pytest.mark.parametrize("shape", ["length", "chunked"])
def test_half_a_batch_is_discarded(api: Site, shape: str) -> None:
    full = batch(100)
    half = full[: len(full) // 2]
    if shape == "chunked":
        how, half = "Transfer-Encoding: chunked", b"%x\r\n%s\r\n" % (len(half), half)
    else:
        how = f"Content-Length: {len(full)}"
    api.open(
        f"POST {LINES} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/x-ndjson",
        how,
        body=half,
    ).close()
    wait_until(lambda: api.faults.limited.get("control.hung_up") == 1, "the count")
    assert post(api, full)[1]["parked"] == 100
    assert api.bodies.held == 0


def test_trailers_are_no_headers(api: Site) -> None:
    connection = api.open(
        f"POST {LINES} HTTP/1.1",
        "Host: localhost",
        "Transfer-Encoding: chunked",
        body=b"2\r\n{}\r\n0\r\nContent-Type: application/x-ndjson\r\n\r\n",
    )
    assert b"HTTP/1.1 415" in rest_of(connection)


def test_a_slow_body_and_a_slow_head_are_cut(api: Site) -> None:
    heads = f"POST {LINES} HTTP/1.1", "Host: localhost", "Content-Type: application/x-ndjson"
    assert b" 408 " in rest_of(api.open(*heads, "Content-Length: 9", body=b"{"))
    connection = socket.create_connection(("127.0.0.1", api.port), timeout=10)
    connection.sendall(b"\r\n")
    assert rest_of(connection) == b""
    assert api.faults.limited == {"control.body_too_slow": 1, "control.head_too_slow": 1}


def test_a_head_is_bounded(api: Site) -> None:
    lines = [f"x-{n}: y" for n in range(server.HEADERS + 1)]
    assert b" 431 " in rest_of(api.open("GET /health HTTP/1.1", "Host: localhost", *lines))
    connection = socket.create_connection(("127.0.0.1", api.port), timeout=10)
    connection.sendall(b"GET /health HTTP/1.1\r\nx: " + b"y" * server.HEAD_BYTES)
    assert b" 431 " in rest_of(connection)
    assert api.faults.limited == {"control.head_too_large": 2}
    assert api.ask("GET", "/health")[0] == 200


def test_connections_are_bounded(api: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS", 4)
    held = [socket.create_connection(("127.0.0.1", api.port), timeout=5) for _ in range(20)]
    wait_until(lambda: api.faults.limited.get("control.connections", 0) >= 16, "the count")
    for one in held:
        one.close()
    wait_until(lambda: not api.server.server_state.connections, "all connections to end")
    assert api.ask("GET", "/health")[0] == 200


def test_a_stream_that_is_never_read_is_cut_and_delays_no_other_caller(
    api: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "ANSWER_S", 1.0)
    never = socket.socket()
    never.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    never.connect(("127.0.0.1", api.port))
    never.sendall(b"GET /api/v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
    wait_until(lambda: api.streams.wanted is None, "the stream")
    slowest = 0.0
    event = Happening("evidence", "flights", 1, {"x": "y" * 60_000})  # type: ignore[arg-type]

    def cut() -> bool:
        nonlocal slowest
        api.streams.publish([event] * 10)
        begun = time.monotonic()
        assert api.ask("GET", "/health")[0] == 200
        slowest = max(slowest, time.monotonic() - begun)
        return api.faults.limited.get("control.answer_too_slow", 0) == 1

    wait_until(cut, "the stream to be cut")
    assert slowest < 2  # of a busy machine
    wait_until(lambda: api.streams.wanted == set(), "the reader to be forgotten")
    never.settimeout(5)
    with suppress(ConnectionResetError):
        while never.recv(1 << 20):
            continue
    never.close()


def test_bodies_under_way_are_bounded_in_all(api: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    api.bodies._under_way, api.bodies._slowest_s = 1 << 20, 3.0
    heads = (
        f"POST {LINES} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/x-ndjson",
        f"Content-Length: {1 << 20}",
    )
    first = api.open(*heads, body=b"x" * (900 << 10))
    wait_until(lambda: api.bodies.held >= 900 << 10, "most of the body")
    assert b'"bodies_full"' in rest_of(api.open(*heads, body=b"x" * (1 << 20)))
    assert api.bodies.held <= 1 << 20
    first.close()
    wait_until(lambda: api.bodies.held == 0, "the body to be released")
    monkeypatch.setattr(bodies, "LONGEST", 1000)
    assert post(api, b"x" * 2000)[1]["code"] == "too_large"
    assert api.bodies.held == 0


def test_16_mb_of_newlines_cost_next_to_nothing(api: Site) -> None:
    begun = time.process_time()
    assert post(api, b"\n" * (16 << 20))[1]["code"] == "too_many_lines"
    assert time.process_time() - begun < 2  # of the caller and the server; it was 51 s
    assert api.ask("POST", LINES, b"\n" * (16 << 20))[0] == 415  # and who is refused hears it


def test_a_fault_of_a_line_costs_only_that_line(api: Site) -> None:
    odd = [
        b"[" * 3000,
        b'{"id": "a", "value": ' + b"[" * 3000,
        b'{"id": "a", "value": ' + b"9" * 5000 + b"}",
        b'{"id": "a", "value": 1, "at": ' + b"9" * 5000 + b"}",
        b'{"id": "a", "value": 1, "at": [[[1]]]}',
        b'{"id": "a", "value": "\\ud800"}',
        b"\xff\xfe",
        b"x" * 100_000,
        b"{" + b",".join(b'"k%d": 1' % n for n in range(2000)) + b"}",
    ]
    code, found = post(api, b"\n".join([*odd, batch(7)]))
    assert code == 200
    assert (found["parked"], found["unreadable"]) == (7, len(odd))
    assert [fault.partition(":")[0] for fault in found["faults"]] == [
        f"line {n}" for n in range(1, len(odd) + 1)
    ]


def test_a_large_batch_is_joined_by_a_process_of_its_own(
    api: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, found = post(api, batch(5_000))
    assert (code, found["parked"]) == (200, 5_000)
    assert post(api, batch(5_000))[1]["parked"] == 5_000, "those that wait already"
    code, problem = post(api, batch(5_000), "/api/outcomes/nowhere")
    assert (code, problem["code"]) == (404, "unknown_endpoint")
    monkeypatch.setattr(outcomes, "WITHIN_S", 0.05)
    code, problem = post(api, batch(5_000))
    assert (code, problem["code"]) == (503, "outcomes_late")


@pytest.mark.parametrize("empty", [1, 1_001], ids=["here", "in a process"])
def test_a_batch_corrects_labels_where_its_query_says_so(api: Site, empty: int) -> None:
    assert post(api, b'{"id": "a", "value": 1}')[1]["parked"] == 1
    again = b'{"id": "a", "value": 0}' + b"\n" * empty
    assert post(api, again.strip())[1]["conflicts"] == 1
    assert post(api, again, f"{LINES}?correct=true&by=Ada%20L")[1]["corrected"] == 1
    count, (one,) = api.place.records.corrections("flights", 9)
    assert (count, one.was, one.value, one.by) == (1, 1, 0, "Ada L (token api)")


def test_a_query_that_is_not_understood_joins_nothing(api: Site) -> None:
    code, problem = post(api, batch(3), f"{LINES}?corect=true")
    assert (code, problem["code"]) == (400, "bad_query")
    assert post(api, batch(3))[1]["parked"] == 3
    assert api.place.records.conflicts("flights", 9) == ()


@pytest.mark.parametrize(
    "lines",
    [
        ("Content-Length: 5", "Transfer-Encoding: chunked"),
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length: 6"),
        ("Content-Length: +5",),
        ("Content-Length: 5, 5",),
        ("Transfer-Encoding : chunked",),
        ("Transfer-Encoding: xchunked",),
        ("Transfer-Encoding: chunked, identity",),
        ("X: a", " b"),
        ("X: a\rY: b",),
        ("X: a\0b",),
    ],
)
def test_a_head_that_two_servers_could_read_in_two_ways_is_refused(
    api: Site, lines: tuple[str, ...]
) -> None:
    """Else a request could be hidden from the proxy before control in the body of another one."""
    hidden = b"0\r\n\r\nGET /api/status HTTP/1.1\r\nHost: localhost\r\n\r\n"
    connection = api.open(f"POST {LINES} HTTP/1.1", "Host: localhost", *lines, body=hidden)
    answer = rest_of(connection)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b'"code":"malformed_head"' in answer
    assert api.faults.limited["control.malformed_head"] == 1


def test_a_port_that_is_taken_is_refused_in_words(api: Site) -> None:
    with pytest.raises(Unavailable) as refused:
        server.listen(api.port)
    assert refused.value.code == "port_taken"


def test_a_fault_of_ours_is_answered_counted_and_shown(
    api: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api.place.roster, "members", lambda: 1 / 0)
    code, problem, _ = api.ask("GET", "/api/status")
    assert (code, problem["code"]) == (500, "internal")
    assert [fault.place for fault in api.faults.faults] == ["control.api"]


def test_random_requests_never_break_it(api: Site) -> None:
    """Heads and batches of every shape: each is answered in order, or its connection is closed."""
    dice = random.Random(17)
    seen: Counter[int] = Counter()
    api.bodies._slowest_s = 0.05
    end = time.monotonic() + 6
    for _ in range(2_000):
        if time.monotonic() > end:
            break
        method = dice.choice(["POST"] * 6 + ["GET", "HEAD", "OPTIONS", "BREW", "CONNECT"])
        path = dice.choice(
            [LINES] * 6
            + ["/api/status/%00", "/api/outcomes/..%2fflights", "/%ff", "//", "/api/outcomes/e'--"]
        )
        body = random_batch(dice)
        heads = [
            f"{method} {path} HTTP/1.1",
            dice.choice(["Host: localhost"] * 9 + ["Host: x", "Hos t: y", "Host:"]),
        ]
        heads.append(
            dice.choice(["Content-Type: application/x-ndjson"] * 9 + ["Content-Type: \x07", "X: y"])
        )
        heads.append(
            dice.choice(
                [f"Content-Length: {len(body)}"] * 9
                + [
                    "Content-Length: -1",
                    "Transfer-Encoding: chunked",
                    "Content-Length: 99999999999999999999",
                ]
            )
        )
        connection = api.open(*heads, "Connection: close", body=body)
        answer = rest_of(connection)
        seen[int(answer[9:12]) if answer.startswith(b"HTTP/1.1 ") else 0] += 1
    assert seen[200] > 50
    assert not api.faults.faults
    assert set(seen) <= {0, 200, 400, 403, 404, 405, 408, 413, 415}
    assert api.ask("GET", "/health")[0] == 200


def random_batch(dice: random.Random) -> bytes:
    values = [
        "1",
        "0",
        "1e308",
        "1e400",
        "-1",
        "NaN",
        "null",
        "true",
        '"yes"',
        '"' + "y" * 2000 + '"',
        "[1]",
        "{}",
        "9" * 5000,
        '"\\ud800"',
        "[" * 3000,
        '"\\u0000"',
        '"2026-01-01T00:00:00Z"',
        '"0001-01-01T00:00:00+23:59"',
    ]
    ids = ["7", '"id1"', '"x/0"', '""', '"\\u0000"', '"\\u001b[2J"']
    lines = []
    for _ in range(dice.randint(1, 12)):
        if dice.random() < 0.1:
            lines.append(dice.randbytes(40).replace(b"\n", b""))
            continue
        more = "".join(
            f', "{name}": {dice.choice(values)}'
            for name in ("at", "label_version", "valu")
            if dice.random() < 0.25
        )
        lines.append(f'{{"id": {dice.choice(ids)}, "value": {dice.choice(values)}{more}}}'.encode())
    return b"\n".join(lines)
