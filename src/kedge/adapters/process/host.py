"""Host of a model: one process, one model, many clients.

The model runs on the loop's own thread. While it works, questions queue in the sockets; the next
batch answers all of them. So there is batching without a timer, and none at low traffic. A model
whose answers depend on other rows, or may depend on them, is asked request by request. Other
callers' rows must not change an answer. A hanging model therefore hangs the host. Its clients see
late answers. An alarm that only a living loop postpones ends the process, whatever holds the
interpreter. A timer of processor time that each question sets again does the same: an endless
computation ends its process in seconds, not in two minutes.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter, perf_counter_ns

import msgspec
import numpy as np
import uvloop
from numpy.typing import NDArray

from kedge.adapters.process import wire
from kedge.columns import check_proof
from kedge.core.errors import KedgeError, ModelFailure, UnfitModel
from kedge.core.features.generations import Online
from kedge.core.values import Proof
from kedge.inspection.independence import merges
from kedge.ports import Artifacts, Loader, Model
from kedge.system.door import HandedSocket, receive, write_status
from kedge.system.terminal import show
from kedge.transforms.bundle import Bare, Composed, Transform
from kedge.transforms.lookup import lookups_of

BATCH_ROWS = 256
"""Maximum rows of a batch: beyond it small models gain nothing, and the first row waits for the
last."""
ORPHAN_S = 5.0
"""Time after which an orphan without clients ends; with clients it continues to serve them."""
HANG_S = 120
"""Time after which a busy model counts as hanging: no request may wait longer than 30 s."""
CPU_S = 10.0
"""Processor time limit of one question, or its caller's patience if longer: a later answer is
useless. A worker's watchdog allows a model inside it the same ten seconds."""
LOAD_CPU_S = 900.0
"""Processor time limit of loading and golden rows, as in a probe."""
THREADS = "OMP_NUM_THREADS"
"""Variable with the number of threads of a question: processor time is that of all threads."""
DETAIL = 1500
"""Maximum characters of a fault in a status file: escaped, they still fit into it."""
QUEUE_BYTES = 64 << 20
UNREAD_BYTES = 64 << 20
UNREAD_COPIES = 4 << 20
"""Unread bytes above which the answer to a copy is left out. The gateway reads copies only as fast
as its callers are not delayed, and must not count as dead."""
UNREAD = "model_unread"
"""Code of a copy whose answer was left out: the model is alive, and the answer is unknown."""
FLUSH_S = 2.0
"""Time that a stopping host waits for its clients to read their last answers."""
LOAD_NICE = 5
COPIES_S = 0.005
"""Time for answering copies before callers' questions are checked again."""
CALM_S = 1.0
"""Time without a caller's question after which the process counts as answering copies only."""
UNTESTED_S = 2.0
"""Time limit for testing a model without a batch mark in its proof: it delays readiness."""
Marks = NDArray[np.bool_] | None
"""Rows with a feature that broke its schema's promise; None if none did."""
NOWHERE = Online()


def load(
    loader: Callable[[], Loader], path: Path, trusted: tuple[str, ...], *, memory_mb: int
) -> tuple[Model, float]:
    """Load at low priority: another model's load must leave the processor to requests.

    Raises:
        KedgeError: it cannot be loaded, whatever the loader raised.
    """
    polite = _may_return_from_nice()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if polite:
        os.setpriority(os.PRIO_PROCESS, 0, own + LOAD_NICE)
    try:
        ready = loader()  # imports the library, which does not count as load time
        started = perf_counter()
        return ready.load(path, trusted), perf_counter() - started
    except KedgeError:
        raise
    except MemoryError as error:
        raise UnfitModel(
            f"it needs more than {memory_mb} MB to load",
            code="out_of_memory",
            hint="raise memory_mb",
        ) from error
    except BaseException as error:  # a loader may raise anything and may even exit: one refusal
        raise UnfitModel(f"loading raised {type(error).__name__}: {error}") from error
    finally:
        if polite:
            os.setpriority(os.PRIO_PROCESS, 0, own)
            if os.getpgrp() == os.getpid():
                # Threads that the load started have its niceness, too, and would answer callers
                # with it. The fence forbids this process to name a thread.
                os.setpriority(os.PRIO_PGRP, 0, own)


def _may_return_from_nice() -> bool:
    """Test it on a thread that ends: niceness belongs to a thread on Linux, and rights vary."""
    may: list[bool] = []

    def attempt() -> None:
        own = os.getpriority(os.PRIO_PROCESS, 0)
        try:
            os.setpriority(os.PRIO_PROCESS, 0, own + 1)
            os.setpriority(os.PRIO_PROCESS, 0, own)
        except OSError:
            return
        may.append(True)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    return bool(may)


def serve(
    *,
    given: HandedSocket,
    line: socket.socket,
    fence: Callable[[], tuple[str, ...]],
    artifacts: Artifacts,
    digest: str,
    loader: Callable[[], Loader],
    trusted: tuple[str, ...],
    memory_mb: int,
    code: str | None = None,
    generation: str | None = None,
    online: Online = NOWHERE,
) -> int:
    """Load, prove, then answer until told to stop. Return the exit code.

    With `code`, the digest of a transformation's bundle, it takes raw columns. `generation` are the
    runs that the transformation reads by key, and `online` is their store. `fence` is called before
    anything of the model's is touched, and returns its missing parts.

    Callers are answered once a proven model serves the given socket; until then they wait in it. A
    socket that is handed over later on `line` replaces it.
    """
    parent, watch = os.getppid(), CpuWatch()
    watch.allow(LOAD_CPU_S)
    status = _Status(given.status)
    status.write("loading")
    try:
        status.unfenced = fence()
        model, load_s = load(loader, artifacts.verify(digest), trusted, memory_mb=memory_mb)
        together = prove(model, artifacts.proof(digest))
        if code is not None:
            transform = Transform(
                artifacts.verify(code),
                lambda spec: lookups_of(spec, generation, online, alone=False),
            )
            together = prove(Bare(transform), artifacts.proof(code)) and together
            model = Composed(transform, model)
    except (KedgeError, OSError, MemoryError) as error:
        fault = f"{type(error).__name__}: {error}"
        status.write("failed", fault)
        show(f"it cannot serve: {fault}", err=True)
        return 1
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        host = Host(model, watch, merges=together)
        ready = lambda: status.write("ready", "", load_s)  # noqa: E731 - as `run` calls it
        runner.run(host.run(given.listener, parent, ready, _Line(line, status)))
    return 0


def prove(model: Model, proof: Proof) -> bool:
    """Ask the golden rows. Return whether rows of several requests can be asked together.

    Raises:
        UnfitModel: `golden_mismatch`.
    """
    fault = check_proof(model, proof)
    if fault is not None:
        raise UnfitModel(f"golden rows: {fault}", code="golden_mismatch")
    return merges(model, proof, perf_counter, UNTESTED_S)


class _Status:
    """Status of this process, in a file beside its socket."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.unfenced: tuple[str, ...] = ()

    def write(self, state: str, detail: str = "", load_s: float = 0.0) -> None:
        """Write the status whole. If that fails, the model still serves."""
        said = {
            "state": state,
            "detail": detail[:DETAIL],
            "load_s": load_s,
            "pid": os.getpid(),
            "unfenced": self.unfenced,
        }
        try:
            write_status(self.file, msgspec.json.encode(said))
        except OSError as error:
            with suppress(OSError):  # the log may be on the same disk
                show(f"{state} {detail}; status file: {error}", err=True)


class _Line:
    """Connection to the starter, which recreates a deleted socket and hands it over."""

    def __init__(self, line: socket.socket, status: _Status) -> None:
        line.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._line: socket.socket | None = line
        self._status = status

    def handed(self) -> socket.socket | None:
        """Return the new socket to listen on, if one was handed over."""
        if self._line is None:
            return None
        try:
            given = receive(self._line)
        except BlockingIOError:
            return None
        except OSError:
            given = None
        if given is None:  # the starter has ended; the given socket stays in use
            self._line.close()
            self._line = None
            return None
        os.close(self._status.file)
        self._status.file = given.status
        return given.listener


class Priority:
    """Scheduling of the thread that asks the model.

    While only copies are asked it is a batch job, which never preempts processes that serve
    callers. A caller's first question restores the usual policy. Any user may do both. A niced or
    idle thread cannot be raised again without rights, and would answer callers late after a
    rollback.
    """

    def __init__(self) -> None:
        self._asked_at = perf_counter()
        self._batch = False
        self._usual = os.sched_getscheduler(0) == os.SCHED_OTHER
        """Whether the policy may be changed: no other policy was chosen for this process."""

    def asked(self) -> None:
        """Record that a caller's question came."""
        self._asked_at = perf_counter()
        if self._batch:
            self._set(os.SCHED_OTHER)

    def copies(self) -> float:
        """Record that copies are answered now; return the time."""
        now = perf_counter()
        if self._usual and not self._batch and now - self._asked_at > CALM_S:
            self._set(os.SCHED_BATCH)
        return now

    def _set(self, policy: int) -> None:
        with suppress(OSError):
            os.sched_setscheduler(0, policy, os.sched_param(0))
            self._batch = policy == os.SCHED_BATCH


class CpuWatch:
    """Limit of processor time: the kernel ends this process beyond it.

    The signal keeps its default action: it works while C code holds the interpreter.
    """

    def __init__(self) -> None:
        """Read how many threads may work on a question."""
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        threads = os.environ.get(THREADS, "")
        self._threads = int(threads) if threads.isdecimal() and int(threads) else 1

    def allow(self, seconds: float) -> None:
        """Allow so much for each thread from now on; this replaces the earlier limit."""
        signal.setitimer(signal.ITIMER_PROF, seconds * self._threads)


class Host:
    """Server of all clients: it answers in batches or request by request."""

    def __init__(self, model: Model, watch: CpuWatch, *, merges: bool) -> None:
        """Hold a model; without `merges` each request is asked alone, as it was sent."""
        self._model = model
        self._watch = watch
        self._merges = merges
        self._inputs = wire.InputCodec(model.signature.inputs)
        self._hello = wire.frame(wire.greeting(model.signature))
        self._queue: deque[tuple[_Client, wire.WireRequest, int]] = deque()
        self._copies: deque[tuple[_Client, wire.WireRequest, int]] = deque()
        """Questions without a waiting caller: they are answered when there are no others."""
        self._priority = Priority()
        self._queued_bytes = 0
        self._draining = False
        self._full = False
        self._stopping = False
        self._clients: set[_Client] = set()
        self._alone_since = perf_counter()
        self._stop: asyncio.Event
        self._loop: asyncio.AbstractEventLoop

    async def run(
        self, listener: socket.socket, parent: int, ready: Callable[[], None], line: _Line
    ) -> None:
        """Serve until SIGTERM, or until orphaned and unused; switch to a later socket."""
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        server = await self._listen(listener)
        ready()
        while not self._stop.is_set():
            signal.alarm(HANG_S)
            self._watch.allow(CPU_S)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), 1.0)
            if os.getppid() != parent and self._unused():
                break
            fresh = line.handed()
            if fresh is not None:
                server.close()
                server = await self._listen(fresh)
                ready()
        server.close()
        self._stopping = True
        for client in self._clients:
            client.pause()  # its client asks another process the unread questions
        # The queue drains in the loop's next turns.
        while self._queue or self._copies:  # noqa: ASYNC110
            await asyncio.sleep(0)
        for client in list(self._clients):
            client.close()
        until = perf_counter() + FLUSH_S
        while self._clients and perf_counter() < until:  # noqa: ASYNC110 - once in a life
            await asyncio.sleep(0.005)

    async def _listen(self, listener: socket.socket) -> asyncio.AbstractServer:
        listener.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        return await self._loop.create_unix_server(lambda: _Client(self), sock=listener)

    def _unused(self) -> bool:
        return not self._clients and perf_counter() - self._alone_since > ORPHAN_S

    def joined(self, client: _Client) -> None:
        """Greet a client."""
        self._clients.add(client)
        client.send(self._hello)

    def left(self, client: _Client) -> None:
        """Forget a client; its questions need no answer any more."""
        self._clients.discard(client)
        self._alone_since = perf_counter()

    def offer(self, client: _Client, request: wire.WireRequest, size: int) -> None:
        """Put a question into the queue."""
        if request.copy:
            self._copies.append((client, request, size))
        else:
            self._priority.asked()
            self._queue.append((client, request, size))
        self._queued_bytes += size
        if self._queued_bytes > QUEUE_BYTES and not self._full:
            self._full = True
            for each in self._clients:
                each.pause()
        if not self._draining:
            self._draining = True
            self._loop.call_soon(self._drain)

    def _drain(self) -> None:
        """Answer one batch, then let the loop read new questions.

        Copies are answered for a while: everything sent in one turn of the loop is one write, which
        wakes the worker once.
        """
        if self._queue:
            if batch := self._take(self._queue):
                self._answer(batch)
        else:
            until = self._priority.copies() + COPIES_S
            while self._copies:
                if batch := self._take(self._copies):
                    self._answer(batch)
                if perf_counter() >= until:
                    break
        if self._queue or self._copies:
            self._loop.call_soon(self._drain)
        else:
            self._draining = False

    def _take(
        self, queue: deque[tuple[_Client, wire.WireRequest, int]]
    ) -> list[tuple[_Client, wire.WireRequest]]:
        batch: list[tuple[_Client, wire.WireRequest]] = []
        rows, now = 0, perf_counter()
        while queue:
            client, request, size = queue[0]
            live = client in self._clients and request.expires > now
            if (
                live
                and batch
                and (
                    not self._merges
                    or rows + request.rows > BATCH_ROWS
                    or request.shapes != batch[0][1].shapes
                    or request.alone != batch[0][1].alone
                    or request.apart
                    or batch[0][1].apart
                )
            ):
                break
            queue.popleft()
            self._queued_bytes -= size
            if live:
                batch.append((client, request))
                rows += request.rows
            elif client in self._clients:
                client.send(_dropped(request))
        if self._full and self._queued_bytes <= QUEUE_BYTES // 2 and not self._stopping:
            self._full = False
            for each in self._clients:
                each.resume()
        return batch

    def _answer(self, batch: list[tuple[_Client, wire.WireRequest]]) -> None:
        """Predict once. If that fails, ask each request alone: a poisoned one fails by itself."""
        requests = [request for _, request in batch]
        waited_s = max([request.expires for request in requests]) - perf_counter()
        self._watch.allow(max(CPU_S, waited_s))
        started = perf_counter_ns()
        if isinstance(self._model, Composed):
            self._model.transform.stands_alone(requests[0].alone)
        try:
            columns = self._model.predict(self._inputs.unpack(requests))
            micros = (perf_counter_ns() - started) // 1000
            frames = self._split(requests, columns, micros, *self._violations())
        # A model may raise anything and may even exit.
        except BaseException as error:  # noqa: BLE001
            if len(batch) > 1:
                for one in batch:
                    self._answer([one])
                return
            micros = (perf_counter_ns() - started) // 1000
            text, code = f"the model raised {type(error).__name__}: {error}", "model_raised"
            if isinstance(error, ModelFailure):
                text, code = str(error), error.code
            text = text[:2000]
            failed = wire.WireAnswer(requests[0].id, micros, None, (code, text))
            frames = [wire.frame(failed)]
        for (client, request), raw in zip(batch, frames, strict=True):
            client.send(raw if client.takes(request) else _left_out(request))

    def _violations(self) -> tuple[dict[str, int] | None, Marks]:
        """Return the transformation's unreported counts, and the marked rows."""
        if not isinstance(self._model, Composed):
            return None, None
        return self._model.transform.fresh() or None, self._model.transform.marks

    @staticmethod
    def _split(
        requests: list[wire.WireRequest],
        columns: object,
        micros: int,
        told: dict[str, int] | None,
        marks: Marks,
    ) -> list[bytes]:
        """Split an answer into each client's rows. One that cannot be split or sent is nonsense."""
        try:
            return _cut(requests, columns, micros, told, marks)
        except (AttributeError, TypeError, ValueError) as error:
            if len(requests) > 1:
                raise
            fault = ("model_nonsense", f"an answer that cannot be sent: {error}"[:2000])
            return [wire.frame(wire.WireAnswer(requests[0].id, micros, None, fault))]


def _left_out(request: wire.WireRequest) -> bytes:
    """Return an answer without its rows, for a copy of a gateway that reads too slowly."""
    return wire.frame(wire.WireAnswer(request.id, 0, None, (UNREAD, "its answer was not read")))


def _dropped(request: wire.WireRequest) -> bytes:
    """Return the answer for a question that was never asked, so that it is no failure."""
    fault = ("model_expired", "its deadline was over before its turn")
    return wire.frame(wire.WireAnswer(request.id, 0, None, fault))


def _cut(
    requests: list[wire.WireRequest],
    columns: object,
    micros: int,
    told: dict[str, int] | None,
    marks: Marks,
) -> list[bytes]:
    if not isinstance(columns, Mapping):
        raise TypeError("the answer is not a mapping of names to arrays")
    if len(requests) == 1:
        # The answer is sent whole, whatever its length: the client's check describes its fault
        # better.
        outputs = wire.pack_outputs(columns, 0, max(map(len, columns.values()), default=0))
        violated = marks is not None
        return [wire.frame(wire.WireAnswer(requests[0].id, micros, outputs, None, told, violated))]
    if any(len(column) != sum(each.rows for each in requests) for column in columns.values()):
        raise ValueError("rows are missing or too many")
    frames, at = [], 0
    for request in requests:
        outputs = wire.pack_outputs(columns, at, at + request.rows)
        violated = marks is not None and bool(marks[at : at + request.rows].any())
        frames.append(
            wire.frame(wire.WireAnswer(request.id, micros, outputs, None, told, violated))
        )
        at, told = at + request.rows, None
    return frames


class _Client(asyncio.Protocol):
    """One connection of one gateway worker."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._frames = wire.Frames()
        self._decoder = msgspec.msgpack.Decoder(wire.WireRequest)
        self._transport: asyncio.Transport
        self._paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]
        self._host.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self._host.left(self)

    def data_received(self, data: bytes) -> None:
        try:
            for body in self._frames.feed(data):
                self._host.offer(self, self._decoder.decode(body), len(body))
        except (ValueError, msgspec.MsgspecError):
            self._transport.abort()  # another protocol: nothing after this byte can be trusted

    def takes(self, request: wire.WireRequest) -> bool:
        """Return whether an answer is sent: that of a copy only to a client that keeps up."""
        return not request.copy or self._transport.get_write_buffer_size() <= UNREAD_COPIES

    def send(self, raw: bytes) -> None:
        """Send; disconnect a client that has stopped reading, because memory is limited."""
        if self._transport.get_write_buffer_size() > UNREAD_BYTES:
            self._transport.abort()
        elif not self._transport.is_closing():
            self._transport.write(raw)

    def pause(self) -> None:
        if not self._paused and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._paused and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    def close(self) -> None:
        self._transport.close()
