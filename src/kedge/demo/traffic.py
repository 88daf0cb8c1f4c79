"""Replay real flights as live HTTP traffic, and count every request.

Open loop: a request is due 1 / rate after the one before, whether or not that was answered, and its
latency counts from the moment it was due. So a server that stalls cannot slow the clock that
measures it. What is sent is sent once: nothing is ever retried. A request failed when its answer
is not 200, is not the protocol's JSON with a probability in it, or carries another request's
id. It also failed when it takes longer than the timeout, or never comes because the connection was refused or reset.

Standard output is one JSON object a second, then {"summary": ...}. SIGTERM ends the sending;
what is in flight is waited for.

With --outcomes DIR, what was true of each answered flight is written there some seconds later, in
files for `kedge outcomes`, shuffled as late labels are. A cancelled flight's is null.

SIGUSR1: from now on the flights of four days of snow in December, again and again.

The rate falls while the machine cannot keep up: see `pace`.

    python -m kedge.demo.traffic --port 8080 --rate 120 --seconds 30 [--cache DIR] [--outcomes DIR]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import socket
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from kedge.demo import flights as data
from kedge.demo.figures import EpochAnswers, TrafficSecond, TrafficSummary, TrafficTotals
from kedge.demo.pace import MOST_WAITING, Pace
from kedge.demo.scorecard import quality
from kedge.system.durable import write_atomically
from kedge.system.terminal import show_json

ENDPOINT = "flights"
HOST = "127.0.0.1"
REPLAYED_MONTHS = (7, 12)
SAMPLE = 40_000
"""Flights replayed before the sample starts again. Of these, 6,600 are July's, the busiest month
of the summer: about what the demo replays before its first rollback."""
SEED = 7
SNOW = (9, 10, 14, 17)
"""Days of December on which 61 to 77 % of the flights were late; 24 % are over the year."""
SNOW_ROWS = 1_800
"""Of their 3,464 flights: about what the demo sends before it asks why; then they repeat."""
TIMEOUT_S = 30.0
"""As long as a gateway waits for a production answer."""
LATE_S, TELL_EVERY_S = 4.0, 3
"""How late outcomes come, and how often: hours in life, seconds in a demo."""
IDLE_S = 2.0
"""An idle connection older than this is closed by us, well before a server would close it."""
KEPT = 64
DATATYPES = {"U": "BYTES", "i": "INT32", "f": "FP32"}


@dataclass(slots=True)
class Exchange:
    """One request and its result. Times are seconds of the host's monotonic clock."""

    row: int
    due: float
    done: float = 0.0
    failure: str | None = None
    release: str = ""
    arm: str = ""
    epoch: int = -1
    p_late: float = float("nan")


class HttpConnection(asyncio.Protocol):
    """One kept-alive HTTP/1.1 connection with at most one request under way."""

    def __init__(self) -> None:
        """Start without a transport; asyncio hands one over."""
        self.transport: asyncio.Transport | None = None
        self.usable = False
        self.idle_since = 0.0
        self._buffer = b""
        self._answer: asyncio.Future[tuple[bytes, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport and send small requests at once."""
        assert isinstance(transport, asyncio.Transport)
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.transport, self.usable = transport, True

    def ask(self, request: bytes) -> asyncio.Future[tuple[bytes, bytes]]:
        """Send a request; the future gets the answer's head, in lower case, and its body."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return self._answer

    def data_received(self, chunk: bytes) -> None:
        """Gather the answer until it is complete."""
        self._buffer += chunk
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        size = int(header(head, b"content-length") or 0)
        if len(self._buffer) < end + 4 + size:
            return
        body, self._buffer = self._buffer[end + 4 : end + 4 + size], b""
        self.usable = b"close" not in header(head, b"connection")
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((head, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request under way, if there is one: its answer will not come."""
        self.usable = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError())

    def drop(self) -> None:
        """Close at once."""
        self.usable = False
        if self.transport is not None:
            self.transport.abort()


def header(head: bytes, name: bytes) -> bytes:
    """A header's value in a lower-case head; b"" when it is not there."""
    start = head.find(b"\r\n" + name + b":")
    if start < 0:
        return b""
    return head[start + len(name) + 3 :].split(b"\r\n", 1)[0].strip()


class Traffic:
    """Sends the flights and counts the results."""

    def __init__(
        self,
        flights: data.Flights,
        snow: data.Flights,
        port: int,
        rate: float,
        outcomes: Path | None = None,
    ) -> None:
        """Prepare; nothing is sent before `run`."""
        self._ordinary = len(flights)
        self._snowing_since: int | None = None
        flights = flights.and_then(snow)
        self.outcomes = outcomes
        self._run = uuid.uuid4().hex[:8]
        self._told = 0
        self._files = 0
        self._dice = np.random.default_rng(SEED)
        # An aircraft on one day is routed and counted as one: a day of flights takes seconds here.
        weekday = flights.columns["weekday"]
        self._day = np.cumsum(np.diff(weekday, prepend=weekday[:1]) != 0)
        self.flights = flights
        self.port = port
        self.pace = Pace(rate)
        self.asked: list[Exchange] = []
        self.stopped = asyncio.Event()
        self._failures: Counter[str] = Counter()
        self._by_release: Counter[str] = Counter()
        self._by_arm: Counter[str] = Counter()
        self._finished: list[Exchange] = []
        self._idle: list[HttpConnection] = []
        self._names = [*flights.columns]
        self._datatypes = [DATATYPES[c.dtype.kind] for c in flights.columns.values()]
        self._texts = dict(zip(flights.columns, map(_texts, flights.columns.values()), strict=True))

    def name(self, number: int) -> str:
        """The id of a request, and so of its prediction: never used twice."""
        return f"{self._run}-{number}"

    def request(self, number: int, row: int) -> bytes:
        """One flight as a request of the Open Inference Protocol v2."""
        inputs = ",".join(
            f'{{"name":"{name}","shape":[1],"datatype":"{datatype}",'
            f'"data":[{"null" if name == "dep_delay" else self._texts[name][row]}]}}'
            for name, datatype in zip(self._names, self._datatypes, strict=True)
        )
        body = f'{{"id":"{self.name(number)}","inputs":[{inputs}]}}'.encode()
        tailnum = str(self.flights.tailnum[row])
        entity = f"kedge-entity: {tailnum}.{self._day[row]}\r\n" if tailnum else ""
        return (
            f"POST /v2/models/{ENDPOINT}/infer HTTP/1.1\r\nHost: {HOST}:{self.port}\r\n"
            f"Content-Type: application/json\r\n{entity}Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body

    async def run(self, seconds: float) -> None:
        """Send until the time is over or `stopped` is set; then wait for what is in flight."""
        loop = asyncio.get_running_loop()
        began = loop.time() + 0.05
        reporting = loop.create_task(self._report(began))
        under_way: set[asyncio.Task[None]] = set()
        number, due = 0, began
        while not self.stopped.is_set() and due < began + seconds:
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            if len(under_way) >= MOST_WAITING:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            asked = Exchange(row=self._row(number), due=due)
            self.asked.append(asked)
            task = loop.create_task(self._one(number, asked))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
            number += 1
            due = self.pace.next_due(due, loop.time(), len(under_way))
        while under_way:
            await asyncio.wait(under_way)
        reporting.cancel()
        for connection in self._idle:
            connection.drop()

    def let_it_snow(self) -> None:
        """Send the days of snow from the next request on."""
        if self._snowing_since is None:
            self._snowing_since = len(self.asked)

    def _row(self, number: int) -> int:
        """Return the flight of a request."""
        if self._snowing_since is None:
            return number % self._ordinary
        snow = len(self.flights) - self._ordinary
        return self._ordinary + (number - self._snowing_since) % snow

    async def _one(self, number: int, asked: Exchange) -> None:
        loop = asyncio.get_running_loop()
        connection = None
        try:
            async with asyncio.timeout(TIMEOUT_S):
                connection = await self._connection()
                head, body = await connection.ask(self.request(number, asked.row))
            asked.failure = _judge(asked, self.name(number), head, body)
        except TimeoutError:
            asked.failure = "timeout"
        except ConnectionRefusedError:
            asked.failure = "refused"
        except OSError:
            asked.failure = "reset"
        self._book(asked, loop.time())
        if connection is None:
            return
        if asked.failure is None and connection.usable and len(self._idle) < KEPT:
            connection.idle_since = asked.done
            self._idle.append(connection)
        else:
            connection.drop()

    def _book(self, asked: Exchange, now: float) -> None:
        asked.done = now
        self._finished.append(asked)
        if asked.failure is None:
            self._by_release[asked.release] += 1
            self._by_arm[asked.arm] += 1
        else:
            self._failures[asked.failure] += 1

    async def _connection(self) -> HttpConnection:
        """The connection used last, or a fresh one; never one that the server has closed."""
        loop = asyncio.get_running_loop()
        oldest = loop.time() - IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.usable and connection.idle_since >= oldest:
                return connection
            connection.drop()
        _, fresh = await loop.create_connection(HttpConnection, HOST, self.port)
        return fresh

    async def _report(self, began: float) -> None:
        """Print one line a second: what finished within it, and the totals."""
        loop = asyncio.get_running_loop()
        for second in range(1, 1_000_000):
            await asyncio.sleep(began + second - loop.time())
            fresh, self._finished = self._finished, []
            show(TrafficSecond(t=second, **msgspec.structs.asdict(self.totals(fresh))))
            if self.outcomes is not None and second % TELL_EVERY_S == 0:
                self._tell(self.outcomes, loop.time() - LATE_S)

    def _tell(self, folder: Path, before: float) -> None:
        """Write the true results of the flights that were answered until then, shuffled."""
        lines = []
        while self._told < len(self.asked) and 0.0 < self.asked[self._told].done <= before:
            one = self.asked[self._told]
            label = int(self.flights.label[one.row])
            value = None if label == data.NO_LABEL else label
            lines.append(json.dumps({"id": self.name(self._told), "value": value}))
            self._told += 1
        if not lines:
            return
        self._dice.shuffle(lines)
        self._files += 1
        told = folder / f"{self._files:04d}.jsonl"
        write_atomically(told, "".join(f"{line}\n" for line in lines).encode(), durable=False)

    def totals(self, measured: list[Exchange]) -> TrafficTotals:
        """Count everything that was sent so far, with the latency of some."""
        p50_ms, p99_ms = latency(measured)
        return TrafficTotals(
            sent=len(self.asked),
            ok=self._by_release.total(),
            failed=self._failures.total(),
            failures=dict(self._failures),
            by_release=dict(self._by_release),
            by_arm=dict(self._by_arm),
            rate=round(self.pace.rate, 1),
            slowed=self.pace.slowed,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
        )

    def summary(self) -> TrafficSummary:
        """Sum up the whole run, with the quality of the answers by label."""
        keyless = sum(1 for a in self.asked if not self.flights.tailnum[a.row])
        answered = [a for a in self.asked if a.failure is None]
        return TrafficSummary(
            **msgspec.structs.asdict(self.totals(self.asked)),
            keyless=keyless,
            epochs=epochs(answered),
            quality=quality(
                np.array([a.release for a in answered], dtype=np.str_),
                np.array([a.epoch for a in answered], dtype=np.int64),
                np.array([a.p_late for a in answered], dtype=np.float64),
                self.flights.label[[a.row for a in answered]],
            ),
        )


def epochs(answered: list[Exchange]) -> dict[str, dict[str, EpochAnswers]]:
    """Per epoch and release: how many answers, and when the first and the last arrived.

    Times are of the host's monotonic clock, which every process on it reads alike.
    """
    found: dict[str, dict[str, EpochAnswers]] = {}
    for a in sorted(answered, key=lambda a: a.done):
        of = found.setdefault(str(a.epoch), {})
        before = of.get(a.release, EpochAnswers(0, a.done, a.done))
        of[a.release] = EpochAnswers(before.answers + 1, before.first, a.done)
    return found


def _texts(column: Any) -> list[str]:
    """Return a column as texts for JSON."""
    if column.dtype.kind != "f":
        return [json.dumps(value) for value in column.tolist()]
    return ["null" if text == "nan" else text for text in column.astype(np.str_).tolist()]


def _judge(asked: Exchange, name: str, head: bytes, body: bytes) -> str | None:
    """Count an answer; return its fault, or None."""
    if head[9:12] != b"200":
        return f"status {head[9:12].decode('latin-1')}"
    try:
        answer = json.loads(body)
        outputs = {output["name"]: output["data"] for output in answer["outputs"]}
        asked.p_late = float(outputs["p_late"][0])
        asked.release = str(answer["model_version"])
        mine = answer["id"] == name
    except (ValueError, KeyError, TypeError, IndexError):
        return "wrong answer"
    asked.arm = header(head, b"kedge-arm").decode("latin-1")
    epoch = header(head, b"kedge-epoch")
    asked.epoch = int(epoch) if epoch.isdigit() else -1
    return None if mine and 0.0 <= asked.p_late <= 1.0 else "wrong answer"


def latency(asked: list[Exchange]) -> tuple[float | None, float | None]:
    """Median and 99th percentile, in milliseconds from the moment each request was due."""
    spent = [(a.done - a.due) * 1e3 for a in asked if a.done and a.failure is None]
    if not spent:
        return None, None
    p50, p99 = np.quantile(spent, (0.5, 0.99))
    return round(float(p50), 2), round(float(p99), 2)


def show(value: object) -> None:
    """Print one line of JSON now."""
    show_json(msgspec.json.encode(value))


def sample(cache: Path | None) -> data.Flights:
    """The fixed flights that are replayed, in order of scheduled departure."""
    return chosen(data.load(cache).months(*REPLAYED_MONTHS), SAMPLE)


def snow(cache: Path | None) -> data.Flights:
    """The flights of the days of snow."""
    december = data.load(cache).months(12, 12)
    return chosen(december.take(np.isin(december.day, SNOW)), SNOW_ROWS)


def chosen(flights: data.Flights, rows: int) -> data.Flights:
    """Return a random but fixed selection, in order."""
    dice = np.random.default_rng(SEED)
    return flights.take(np.sort(dice.choice(len(flights), rows, replace=False)))


async def replay(
    port: int, rate: float, seconds: float, cache: Path | None, outcomes: Path | None
) -> int:
    """Replay until the end; return how many requests failed."""
    traffic = Traffic(sample(cache), snow(cache), port, rate, outcomes)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, traffic.let_it_snow)
    for stop in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(stop, traffic.stopped.set)
    await traffic.run(seconds)
    summary = traffic.summary()
    show({"summary": summary})
    return summary.failed


def main() -> int:
    """Read the arguments and replay; exits 1 when a request failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, default=120.0, help="requests a second")
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--cache", type=Path, help="where the parsed flights are kept")
    parser.add_argument("--outcomes", type=Path, help="where late labels are written")
    asked = parser.parse_args()
    failed = asyncio.run(replay(asked.port, asked.rate, asked.seconds, asked.cache, asked.outcomes))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
