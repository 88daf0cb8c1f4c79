"""Limits on callers of a worker, over real sockets, each with its answer and its count."""

from __future__ import annotations

import socket
import threading
import time
from pathlib import Path

import pytest

from contract.http_world import (
    POLICY,
    Answer,
    Wide,
    World,
    answer,
    body,
    closed,
    head,
    request,
)
from kedge.gateway.auth import CALLERS, Tokens
from kedge.gateway.http.connections import ConnectionLimits
from kedge.gateway.http.peers import Peers
from support.waiting import wait_until

ELSEWHERE = ("192.0.2.7", 1234)
TOKEN = "0123456789abcdef-tester"


def is_cut_off(line: socket.socket, part: bytes, times: int = 1000) -> bool:
    """Whether a connection breaks while the same part is sent again and again."""
    try:
        for _ in range(times):
            line.sendall(part)
    except (ConnectionError, TimeoutError):
        return True
    return False


# ---------------------------------------------------------------- bodies


def test_half_a_body_takes_no_place_of_a_request() -> None:
    raw = body()
    with World(requests=2) as world:
        lines = [world.line(head(len(raw)) + raw[:1]) for _ in range(100)]
        assert world.ask(request()).status == 200
        assert world.bounds.in_flight == 0
        lines[0].sendall(raw[1:])
        assert answer(lines[0]).status == 200
        for line in lines:
            line.close()
        wait_until(lambda: not world.connections.body_bytes, "the bytes to be let go")
        assert world.problems == []


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_in_parts_is_put_together(chunked: bool) -> None:
    raw = body(1000, id="parts" * 4).ljust(300_000)
    with World() as world, world.line(head(None if chunked else len(raw))) as line:
        for at in range(0, len(raw), 70_000):
            part = raw[at : at + 70_000]
            line.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            time.sleep(0.01)
        if chunked:
            line.sendall(b"0\r\n\r\n")
        assert answer(line).status == 200
        line.sendall(request())
        assert answer(line).status == 200
        assert world.on_loop(lambda: world.connections.body_bytes) == 0


@pytest.mark.parametrize("sent", [b"", b"{"])
def test_a_body_slower_than_the_least_rate_is_refused(sent: bytes) -> None:
    with World() as world, world.line(head(5000) + sent) as line:
        wait_until(lambda: world.connections._bodies, "the body to begin")
        world.later(4.5)
        assert world.counted == {}
        world.later(7.0)
        refused = answer(line)
        assert (refused.status, refused.code) == (408, "body_too_slow")
        assert refused.headers["connection"] == "close"
        assert closed(line)
        assert world.counted == {"body_too_slow": 1}
        assert world.live.recorder.tally().counts == {"refused.body_too_slow": 1}


def test_a_body_at_the_least_rate_is_waited_for() -> None:
    raw = body().ljust(40_000)
    with World() as world, world.line(head(len(raw)) + raw[:30_000]) as line:
        wait_until(lambda: world.connections.body_bytes == 30_000, "most of the body")
        world.later(29.0)
        line.sendall(raw[30_000:])
        assert answer(line).status == 200


def test_no_body_is_waited_for_longer_than_its_time() -> None:
    with World() as world, world.line(head(900_000) + b" " * 800_000) as line:
        wait_until(lambda: world.connections.body_bytes == 800_000, "most of the body")
        world.later(31.0)
        assert answer(line).code == "body_too_slow"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_beyond_the_bound_is_dropped_and_its_connection_is_kept(chunked: bool) -> None:
    with World(ConnectionLimits(body=20_000)) as world:
        with world.line(head(None if chunked else 100_000)) as line:
            for _ in range(10):
                part = b" " * 10_000
                line.sendall(b"%x\r\n%s\r\n" % (len(part), part) if chunked else part)
            if chunked:
                line.sendall(b"0\r\n\r\n")
            refused = answer(line)
            assert (refused.status, refused.code) == (413, "body_too_large")
            line.sendall(request())
            assert answer(line).status == 200
        assert world.counted["body_too_large"] == 1
        assert world.connections.body_bytes == 0


def test_a_body_without_end_is_cut_off() -> None:
    with World(ConnectionLimits(body=20_000)) as world, world.line(head(None)) as line:
        assert is_cut_off(line, b"2710\r\n" + b" " * 10_000 + b"\r\n")
        assert world.counted["body_too_large"] == 1


@pytest.mark.parametrize("length", ["160001", "9" * 17, "9" * 300])
def test_a_length_far_beyond_the_bound_is_refused_before_the_body_comes(length: str) -> None:
    with World(ConnectionLimits(body=20_000)) as world:
        sent = head(0).replace(b"content-length: 0", f"content-length: {length}".encode())
        assert world.ask(sent).status in {400, 413}


def test_a_body_that_waits_to_be_asked_for_is_asked_for_unless_it_is_too_large() -> None:
    raw = body()
    with World(ConnectionLimits(body=20_000)) as world:
        with world.line(head(len(raw), "expect: 100-continue")) as line:
            assert line.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            line.sendall(raw)
            assert answer(line).status == 200
        refused = world.ask(head(20_001, "expect: 100-continue"))
        assert (refused.status, refused.code) == (413, "body_too_large")


def test_the_oldest_body_goes_when_all_together_are_too_much() -> None:
    with World(ConnectionLimits(body=100_000, bodies=200_000, peer_bytes=10**9)) as world:
        lines = []
        for number in range(3):
            lines.append(world.line(head(100_000) + b" " * 90_000))
            if number < 2:
                held = 90_000 * (number + 1)
                wait_until(lambda held=held: world.connections.body_bytes == held, "the bytes")  # type: ignore[misc]
        refused = answer(lines[0])
        assert (refused.status, refused.code) == (503, "bodies_full")
        assert refused.headers["retry-after"] == "1"
        assert world.counted == {"bodies_full": 1}
        lines[2].sendall(body().rjust(10_000))
        assert answer(lines[2]).status == 200
        assert world.ask(request()).status == 200
        for line in lines:
            line.close()


def test_one_caller_has_a_part_of_bodies_and_of_bytes() -> None:
    limits = ConnectionLimits(body=100_000, peer_bodies=3, peer_bytes=150_000)
    with World(limits, as_peer=ELSEWHERE) as world:
        lines = [world.line(head(1000) + b"{") for _ in range(3)]
        wait_until(lambda: len(world.connections._bodies) == 3, "three bodies")
        refused = world.ask(head(1000) + b"{")
        assert (refused.status, refused.code) == (429, "peer_busy")
        assert world.ask(request()).status == 200
        for line in lines:
            line.close()
        wait_until(lambda: not world.connections._bodies, "them to go")
        first = world.line(head(100_000) + b" " * 90_000)
        wait_until(lambda: world.connections.body_bytes == 90_000, "the first")
        assert world.ask(head(100_000) + b" " * 90_000).code == "peer_busy"
        first.close()
        wait_until(lambda: not world.connections.body_bytes, "all to be let go")
        assert not world.connections._peer_bytes
        assert not world.connections._peer_bodies


def test_callers_on_this_host_have_no_bounds_of_their_own() -> None:
    """Behind a proxy on the same host that is not listed, all callers have one address."""
    with World(ConnectionLimits(body=100_000, peer_bodies=1, peer_bytes=1)) as world:
        lines = [world.line(head(100_000) + b" " * 20_000) for _ in range(20)]
        wait_until(lambda: world.connections.body_bytes == 400_000, "all bodies")
        assert world.counted == {}
        for line in lines:
            line.close()


def test_behind_a_trusted_peer_the_forwarded_address_counts() -> None:
    limits = ConnectionLimits(body=1000, peer_bodies=2)
    peers = Peers(["127.0.0.0/8", "10.0.0.1"])
    with World(limits, peers=peers) as world:
        half = [head(100, f"x-forwarded-for: 9.9.9.9, 198.51.100.{n}, 10.0.0.1") for n in (1, 2)]
        lines = [world.line(each + b"{") for each in half * 2]
        wait_until(lambda: len(world.connections._bodies) == 4, "two bodies of two callers")
        assert world.ask(half[0] + b"{").code == "peer_busy"
        lines.append(world.line(head(100, "forwarded: for=203.0.113.9;proto=http") + b"{"))
        wait_until(lambda: len(world.connections._bodies) == 5, "a third caller")
        for line in lines:
            line.close()


# ---------------------------------------------------------------- heads


@pytest.mark.parametrize("kind", ["header", "headers", "url", "name"])
def test_a_head_beyond_its_bound_is_refused(kind: str) -> None:
    big = b"x" * 1000
    start = {"header": b"GET /v2 HTTP/1.1\r\na: ", "url": b"GET /", "name": b"GET /v2 HTTP/1.1\r\n"}
    with World() as world, world.line(start.get(kind, b"GET /v2 HTTP/1.1\r\n")) as line:
        refused = None
        for number in range(200):
            try:
                line.sendall(b"h%d: %s\r\n" % (number, big) if kind == "headers" else big)
            except OSError:
                break
            time.sleep(0.001)
            if world.counted:
                refused = answer(line)
                break
        assert refused is not None
        assert (refused.status, refused.code) == (431, "head_too_large")
        assert number < 150
        assert closed(line)
        assert world.ask(request()).status == 200


def test_a_head_of_just_the_bound_is_taken_and_one_beyond_is_not() -> None:
    with World() as world:
        for size, status in ((32_000, 200), (33_000, 431)):
            assert world.ask(request(None, "a: " + "x" * (size - 120))).status == status
        for count, status in ((97, 200), (99, 431)):
            sent = request(None, *(f"h{n}: 1" for n in range(count)))
            assert world.ask(sent).status == status
        assert world.counted == {"head_too_large": 1, "too_many_headers": 1}


def test_a_head_that_does_not_come_is_refused_in_time() -> None:
    with World() as world, world.line(b"POST /v2/mod") as line:
        wait_until(lambda: world.connections._heads, "the head to begin")
        world.later(9.0)
        assert world.counted == {}
        line.sendall(b"els/flights/")
        world.later(10.5)
        refused = answer(line)
        assert (refused.status, refused.code) == (408, "head_too_slow")
        assert closed(line)


def test_a_head_that_comes_byte_by_byte_is_a_request() -> None:
    with World() as world, world.line() as line:
        for byte in request():
            line.sendall(bytes([byte]))
        assert answer(line).status == 200


def test_data_that_is_not_http_is_refused_and_counted() -> None:
    with World() as world:
        refused = world.ask(b"\x16\x03\x01 hello\r\n\r\n")
        assert (refused.status, refused.code) == (400, "not_http")
        assert world.counted == {"not_http": 1}


def test_what_stands_outside_of_the_body_is_bounded_too() -> None:
    with World() as world:
        for stray in (b"a: " + b"x" * 60_000, b"1;" + b"x" * 60_000):
            prefix = b"0\r\n" if stray.startswith(b"a") else b""
            with world.line(head(None) + prefix) as line:
                refused = Answer(0, {}, b"")
                for at in range(0, len(stray), 5000):
                    line.sendall(stray[at : at + 5000])
                    time.sleep(0.005)
                    if world.counted:
                        refused = answer(line)
                        break
                assert (refused.status, refused.code) == (431, "head_too_large")
            world.counted.clear()


@pytest.mark.parametrize("name", ["kedge-release: r1", "kedge-entity: a", "content-length: 3"])
def test_trailers_are_no_headers(name: str) -> None:
    raw = body()
    sent = head(None) + b"%x\r\n%s\r\n0\r\n%s\r\n\r\n" % (len(raw), raw, name.encode())
    with World() as world, world.line(sent) as line:
        got = answer(line)
        if got.status == 200:
            assert got.headers["kedge-release"] == "r2"
            assert world.counted == {"trailers": 1}
            line.sendall(request())
            assert answer(line).status == 200
        else:
            assert got.code == "not_http"


# ---------------------------------------------------------------- connections


def test_a_connection_that_never_asked_goes_first_and_then_the_longest_idle() -> None:
    with World(most=10) as world:
        kept = []
        for _ in range(4):
            kept.append(world.line(request()))
            assert answer(kept[-1]).status == 200
            time.sleep(0.005)
        silent = [world.line() for _ in range(6)]
        for number in range(6):
            kept.append(world.line(request()))
            assert answer(kept[-1]).status == 200
            assert closed(silent[number])
        assert world.ask(request()).status == 200
        assert closed(kept[0])
        kept[3].sendall(request())
        assert answer(kept[3]).status == 200
        assert world.counted["connections"] == 7


def test_a_connection_whose_body_is_under_way_is_not_closed_for_a_new_one() -> None:
    raw = body()
    with World(most=8) as world:
        busy = [world.line(head(len(raw)) + raw[:1]) for _ in range(8)]
        wait_until(lambda: len(world.connections._bodies) == 8, "the bodies")
        assert closed(world.line())
        for line in busy:
            line.sendall(raw[1:])
            assert answer(line).status == 200


def test_a_connection_that_never_asks_is_closed_in_the_end() -> None:
    with World() as world, world.line() as line:
        wait_until(lambda: world.connections._silent, "the connection")
        world.later(76.0)
        assert closed(line)
        assert world.counted == {"silent_connections": 1}


# ---------------------------------------------------------------- answers


def slow_reader(world: World) -> socket.socket:
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.settimeout(5)
    line.connect(("127.0.0.1", world.port))
    return line


def test_an_answer_that_is_not_read_takes_no_place_and_is_cut_in_time() -> None:
    with World(requests=1, model=Wide(2_000_000)) as world:
        line = slow_reader(world)
        line.sendall(request() * 3)
        wait_until(lambda: world.connections.answer_bytes > 1_000_000, "the answer to wait")
        assert world.bounds.in_flight == 0
        world.later(4.0)
        assert world.counted == {}
        world.later(6.0)
        wait_until(lambda: not world.connections.answer_bytes, "the bytes to be let go")
        assert world.counted == {"answers_unread": 1}
        assert closed(line)
        assert world.problems == []


def distant(world: World) -> socket.socket:
    """A slow reader over packets as they are elsewhere: the kernel holds some 100 kB for it."""
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
    line.settimeout(5)
    line.connect(("127.0.0.1", world.port))
    return line


def distant_reader(world: World, *last: str) -> socket.socket:
    """Ask five answers of 30 kB, and read none; what is left is too little to stop the app."""
    line = distant(world)
    for headers in ((), (), (), (), last):
        line.sendall(request(None, *headers))
        time.sleep(0.05)
    return line


def unsent(world: World) -> int:
    """Bytes that all connections hold in this process, counted or not."""
    return int(world.on_loop(lambda: sum(each.waiting() for each in world.connections._open)))


@pytest.mark.parametrize("last", [True, False])
def test_a_connection_that_ends_with_an_unread_answer_is_closed_in_time(last: bool) -> None:
    """It would hold its descriptor for as long as its caller does not read."""
    with World(model=Wide(7_500)) as world:
        line = distant_reader(world, *(["connection: close"] if last else []))
        wait_until(lambda: 0 < unsent(world) < 64 * 1024, "a part of the answer to wait")
        if not last:
            (each,) = world.connections._open
            world.on_loop(each.timeout_keep_alive_handler)  # type: ignore[attr-defined]
        assert world.connections.answer_bytes == unsent(world)
        world.later(10.0)
        wait_until(lambda: not world.connections._open, "the connection to be gone")
        assert world.counted == {"answers_unread": 1}
        assert world.connections.answer_bytes == 0
        line.close()


@pytest.mark.parametrize("headers", [[], ["connection: close"]])
def test_unread_answers_keep_no_new_connection_out(headers: list[str]) -> None:
    with World(most=4, model=Wide(7_500)) as world:
        lines = [distant_reader(world, *headers) for _ in range(4)]
        wait_until(lambda: unsent(world) > 4 * 16_000, "the answers to wait")
        for _ in range(4):
            assert world.ask(request()).status == 200
        for line in lines:
            line.close()


@pytest.mark.parametrize("what", ["answers", "heads", "bodies"])
def test_slow_callers_keep_no_new_connection_out(what: str) -> None:
    """Every place is taken, and none is idle: who has waited for his caller for longest goes."""
    raw = body()
    with World(
        ConnectionLimits(body=1_000_000, grace_s=0.3, linger_s=0.3), most=4, model=Wide(60_000)
    ) as world:
        lines = [distant(world) for _ in range(4)]
        for line in lines:
            if what == "answers":
                line.sendall(request() * 2)
            elif what == "bodies":
                line.sendall(head(len(raw)) + raw[:1])
            else:
                line.sendall(request(b"", path="/v2"))
                answer(line)
                line.sendall(b"POST")
        slow = {
            "answers": world.connections._readers,
            "heads": world.connections._heads,
            "bodies": world.connections._bodies,
        }[what]
        wait_until(lambda: len(slow) == 4, "all to be slow")
        if what != "answers":
            assert closed(world.line()), "a young one is no slow one"
            time.sleep(0.4)
        assert world.ask(request()).status == 200
        assert len(slow) == 3
        for each in lines:
            each.close()


def test_the_kernel_holds_little_of_an_unread_answer() -> None:
    """Its memory is outside all limits; on loopback it would take all of this answer."""
    with World(model=Wide(300_000)) as world, slow_reader(world) as line:
        line.sendall(request())
        wait_until(lambda: world.connections.answer_bytes > 800_000, "the answer to be counted")


def test_a_slow_reader_that_reads_on_gets_all_of_its_answers() -> None:
    with World(model=Wide(60_000)) as world:
        line = world.line()
        line.sendall(request() * 3)
        for _ in range(3):
            assert answer(line).status == 200
        assert world.on_loop(lambda: world.connections.answer_bytes) == 0
        line.close()


def test_unread_answers_are_bounded_in_all_and_by_caller() -> None:
    with World(ConnectionLimits(answers=2_000_000), model=Wide(1_000_000)) as world:
        lines = [slow_reader(world) for _ in range(4)]
        for line in lines:
            line.sendall(request())
        wait_until(lambda: world.counted["answers_unread"], "one to be cut")
        assert world.on_loop(lambda: world.connections.answer_bytes) <= 2_000_000
        for line in lines:
            line.close()
    with World(
        ConnectionLimits(peer_answers=1_000_000), model=Wide(1_000_000), as_peer=ELSEWHERE
    ) as world:
        lines = [slow_reader(world) for _ in range(2)]
        for line in lines:
            line.sendall(request())
        wait_until(lambda: world.counted["answers_unread"], "one to be cut")
        for line in lines:
            line.close()


def test_a_caller_that_hangs_up_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    with World(model=Wide(1_000_000)) as world:
        for _ in range(5):
            line = slow_reader(world)
            line.sendall(request() * 4)
            wait_until(lambda: world.connections.answer_bytes, "the answer to wait")
            line.close()
            wait_until(lambda: not world.connections.answer_bytes, "the connection to go")
        world.ask(request())
        assert world.problems == []
        assert "refused.internal" not in world.live.recorder.tally().counts
    assert caplog.text == ""


def test_requests_in_a_row_are_bounded_and_answered_in_order() -> None:
    with World() as world:
        with world.line(b"".join(request(body(id=f"n{n}")) for n in range(50))) as line:
            got = b""
            while got.count(b'"id":') < 50:
                got += line.recv(65536)
            places = [got.index(b'"n%d"' % n) for n in range(50)]
            assert places == sorted(places)
        line = world.line()
        assert is_cut_off(line, b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n" * 2000)
        assert world.counted["pipelined"] == 1


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
def test_requests_that_wait_on_all_connections_are_bounded_together(at_once: bool) -> None:
    """Behind an answer that is not read, each of them keeps its memory.

    At once: one turn of the loop reads all connections, as on a busy machine. Only those are closed
    whose requests are too many, and none that waited before.
    """
    small = b"GET /v2 HTTP/1.1\r\nhost: x\r\n\r\n"
    with World(ConnectionLimits(all_pipelined=100), model=Wide(60_000)) as world:
        lines = [distant(world) for _ in range(6)]
        wait_until(lambda: len(world.connections._open) == 6, "all connections")
        sent = threading.Event()
        if at_once:
            world._loop.call_soon_threadsafe(sent.wait, 5)
        for line in lines:
            line.sendall(request() + small * 30)
        sent.set()
        wait_until(lambda: world.counted["pipelined"] >= 3, "the last ones to be closed")
        wait_until(lambda: world.connections.pipelined == 87, "the others to wait")
        wait_until(lambda: len(world.connections._open) == 3, "three connections to be left")
        assert world.counted == {"pipelined": 3}
        for line in lines:
            line.close()
        wait_until(lambda: not world.connections._open, "all to be gone")
        assert world.connections.pipelined == 0
        assert world.ask(request() + small * 3).status == 200
        wait_until(lambda: world.connections.pipelined == 0, "each to be let go in turn")


def test_a_body_behind_another_request_is_bounded_in_time_too() -> None:
    with World() as world, world.line(request() + head(5000) + b"{") as line:
        assert answer(line).status == 200
        wait_until(lambda: world.connections._bodies, "the body to be under way")
        world.later(8.0)
        assert answer(line).code == "body_too_slow"


def test_a_request_to_upgrade_is_answered_and_its_connection_closed() -> None:
    with World() as world, world.line(request(None, "connection: upgrade", "upgrade: h2c")) as line:
        assert answer(line).status in {200, 400}
        assert closed(line)
        assert world.problems == []


# ---------------------------------------------------------------- names and who is believed


@pytest.mark.parametrize("size, status", [(256, 200), (257, 400)])
def test_ids_and_entities_have_256_bytes(size: int, status: int) -> None:
    with World() as world:
        asked = [
            request(body(id="i" * size)),
            request(body(), f"kedge-entity: {'e' * size}"),
            request(body(id="é" * (size // 2) + "i" * (size % 2))),
        ]
        word = {"name": "word", "datatype": "BYTES", "shape": [1], "data": ["w" * size]}
        x = {"name": "x", "datatype": "FP32", "shape": [1], "data": [1.0]}
        asked.append(request(body(inputs=[x, word])))
        assert POLICY.entity == "word"
        got = [world.ask(each) for each in asked]
        assert {each.status for each in got} == {status}
        if status == 400:
            assert {each.code for each in got} == {"id_too_long", "entity_too_long"}
            assert world.counted == {"id_too_long": 2, "entity_too_long": 2}


def tokens_file(tmp_path: Path, text: str = f"# testers\n\n{TOKEN}\n", mode: int = 0o600) -> Path:
    path = tmp_path / "testers"
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    "sent, path",
    [
        ("kedge-release: r1", "/v2/models/flights/infer"),
        ("kedge-probe: 1", "/v2/models/flights/infer"),
        ("a: b", "/v2/models/flights/versions/r1/infer"),
    ],
)
def test_a_release_is_asked_and_a_probe_marked_by_testers_only(
    tmp_path: Path, sent: str, path: str
) -> None:
    file = tokens_file(tmp_path)
    with World(tokens=file) as world:
        got = world.ask(request(None, sent, path=path))
        assert (got.status, got.code) == (401, "token_missing")
        assert got.headers["www-authenticate"] == "bearer"
        for wrong in (f"Bearer {TOKEN}x", "Bearer ", f"Basic {TOKEN}", TOKEN, "Bearer \xff"):
            got = world.ask(request(None, sent, f"authorization: {wrong}", path=path))
            assert (got.status, got.code) == (403, "token_refused")
        good = request(None, sent, f"authorization: bearer {TOKEN}", path=path)
        assert world.ask(good).status == 200
        file.write_text(f"{TOKEN}-new\n")
        assert world.ask(good).code == "token_refused"
        assert world.ask(good.replace(TOKEN.encode(), f"{TOKEN}-new".encode())).status == 200
        file.chmod(0o644)
        assert world.ask(good.replace(TOKEN.encode(), f"{TOKEN}-new".encode())).status == 403
        file.unlink()
        assert world.ask(good).status == 403
        assert world.ask(request()).status == 200


def test_callers_need_a_token_where_a_file_lists_them(tmp_path: Path) -> None:
    file = tokens_file(tmp_path)
    with World(callers=Tokens(file, setting=CALLERS)) as world:
        got = world.ask(request())
        assert (got.status, got.code) == (401, "token_missing")
        assert b"caller_token_file" in got.raw
        assert world.ask(request(None, f"authorization: Bearer {TOKEN}x")).status == 403
        good = f"authorization: Bearer {TOKEN}"
        assert world.ask(request(None, good)).status == 200
        # A server before this one may have checked the other of two.
        for more in (f"{good}x", good):
            assert world.ask(request(None, good, more)).code == "token_refused"
            assert world.ask(request(None, more, good)).code == "token_refused"
        assert world.ask(b"GET /v2/health/live HTTP/1.1\r\nhost: a\r\n\r\n").status == 200
        assert world.ask(b"GET /v2/models/flights HTTP/1.1\r\nhost: a\r\n\r\n").status == 401


def test_without_any_token_no_caller_is_a_tester() -> None:
    with World() as world:
        got = world.ask(request(None, "kedge-probe: 1", "authorization: Bearer "))
        assert got.code == "token_refused"


def test_an_entity_is_taken_from_listed_peers_only_where_a_list_is_given() -> None:
    for listed, status in ((None, 200), (["127.0.0.0/8"], 200), (["10.0.0.0/8"], 403), ([], 403)):
        with World(peers=Peers((), listed)) as world:
            got = world.ask(request(None, "kedge-entity: ada"))
            assert got.status == status
            if status == 403:
                assert got.code == "entity_refused"
            assert world.ask(request()).status == 200
