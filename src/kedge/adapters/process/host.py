"""The model's end: one process, one model, many clients.

The model runs on the loop's own thread. While it works, questions gather in the sockets; what
has gathered is answered in one batch: batching without a timer, and none when traffic is low.
A model whose answer to a row depends on the rows beside it, or of which that is not known, is
asked request by request. What others ask must not change an answer.
A hanging model therefore hangs the host. Its clients see lateness, and an alarm that only a
living loop puts off ends the process, whatever holds the interpreter. So does a timer of processor
time that each question sets anew: one that computes for ever costs its process, and not two minutes.
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
"""Where a batch ends: beyond it small models gain nothing, and the first row waits for the last."""
ORPHAN_S = 5.0
"""An orphan without clients ends after this long; with clients it serves on: they come first."""
HANG_S = 120
"""No request may wait for longer than 30 s, so a model that is busy for this long hangs."""
CPU_S = 10.0
"""Processor time that one question may take, or as much as its caller waits if that is more: no answer
that takes longer is of use. Ten seconds are what a worker's watchdog allows a model inside it."""
LOAD_CPU_S = 900.0
"""Processor time of loading and golden rows, as in a probe."""
THREADS = "OMP_NUM_THREADS"
"""Processor time is that of all threads, and this many may work on a question."""
DETAIL = 1500
"""Characters of a fault in a status file: escaped, they still fit into it."""
QUEUE_BYTES = 64 << 20
UNREAD_BYTES = 64 << 20
UNREAD_COPIES = 4 << 20
"""Unread bytes above which the answer to a copy is left out. The gateway reads copies as fast as they cost
its callers nothing, and must not be taken for one that died."""
UNREAD = "model_unread"
"""The code of a copy whose answer was left out: it is alive, and nothing is known of the answer."""
FLUSH_S = 2.0
"""How long a host that was told to stop waits for its clients to take their last answers."""
LOAD_NICE = 5
COPIES_S = 0.005
"""How long copies are answered before callers' questions are looked for again."""
CALM_S = 1.0
"""Without a caller's question for this long, the process is one that answers copies only."""
UNTESTED_S = 2.0
"""For testing a model whose proof has no batch mark: it delays its readiness by as much at most."""
Marks = NDArray[np.bool_] | None
"""Which rows had a feature that was not as its schema promises; None when none had."""
NOWHERE = Online()


def load(
    loader: Callable[[], Loader], path: Path, trusted: tuple[str, ...], *, memory_mb: int
) -> tuple[Model, float]:
    """Load politely: while traffic is served, another model's load gets what is left over.

    Raises:
        KedgeError: it cannot be loaded, whatever the loader raised.
    """
    polite = _may_return_from_nice()
    own = os.getpriority(os.PRIO_PROCESS, 0)
    if polite:
        os.setpriority(os.PRIO_PROCESS, 0, own + LOAD_NICE)
    try:
        ready = loader()  # imports the library, which is not the model's own load time
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
    except BaseException as error:  # a loader may raise anything, and may even exit: one refusal
        raise UnfitModel(f"loading raised {type(error).__name__}: {error}") from error
    finally:
        if polite:
            os.setpriority(os.PRIO_PROCESS, 0, own)
            if os.getpgrp() == os.getpid():
                # Threads that the load started, too: they were born with its niceness, and
                # would answer callers with it. The fence lets this process name no thread.
                os.setpriority(os.PRIO_PGRP, 0, own)


def _may_return_from_nice() -> bool:
    """Try it on a thread that ends: niceness belongs to a thread on Linux, and rights vary."""
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
    """Load, prove, then answer until told to stop. Returns the exit code.

    With `code`, the digest of a transformation's bundle, it takes raw columns; `generation` are the
    runs that this reads by key, `online` the store that they lie in. `fence` is entered before anything
    of the model's is touched, and says which of its parts are missing.

    Callers are answered once a proven model stands behind the socket that was given; until then they
    wait in it. What is handed over later on `line` takes the place of what was given.
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
    """Ask the golden rows. Returns whether rows of several requests may be asked together.

    Raises:
        UnfitModel: `golden_mismatch`.
    """
    fault = check_proof(model, proof)
    if fault is not None:
        raise UnfitModel(f"golden rows: {fault}", code="golden_mismatch")
    return merges(model, proof, perf_counter, UNTESTED_S)


class _Status:
    """What this process says of itself, in a file beside its socket."""

    def __init__(self, file: int) -> None:
        self.file = file
        self.unfenced: tuple[str, ...] = ()

    def write(self, state: str, detail: str = "", load_s: float = 0.0) -> None:
        """Say it, in one piece. Where it cannot be written the model is still served."""
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
    """The line to the starter: what a cleanup job deleted is made again there, and handed over."""

    def __init__(self, line: socket.socket, status: _Status) -> None:
        line.setblocking(False)  # noqa: FBT003 - the standard library's own signature
        self._line: socket.socket | None = line
        self._status = status

    def handed(self) -> socket.socket | None:
        """Return a socket to listen on from now on, if one was handed over."""
        if self._line is None:
            return None
        try:
            given = receive(self._line)
        except BlockingIOError:
            return None
        except OSError:
            given = None
        if given is None:  # the starter is gone; what was given serves on
            self._line.close()
            self._line = None
            return None
        os.close(self._status.file)
        self._status.file = given.status
        return given.listener


class Priority:
    """How the kernel schedules the thread that asks the model.

    While only copies are asked it is a batch job, which never preempts what serves callers. The
    first question of a caller makes it a usual one again. Any user may do both; what is niced, or
    idle, cannot be raised again without rights, and would answer callers late after a rollback.
    """

    def __init__(self) -> None:
        self._asked_at = perf_counter()
        self._batch = False
        self._usual = os.sched_getscheduler(0) == os.SCHED_OTHER
        """Whether it is ours to change: no other policy was chosen for this process."""

    def asked(self) -> None:
        """A caller's question came."""
        self._asked_at = perf_counter()
        if self._batch:
            self._set(os.SCHED_OTHER)

    def copies(self) -> float:
        """Copies are answered now; returns the time."""
        now = perf_counter()
        if self._usual and not self._batch and now - self._asked_at > CALM_S:
            self._set(os.SCHED_BATCH)
        return now

    def _set(self, policy: int) -> None:
        with suppress(OSError):
            os.sched_setscheduler(0, policy, os.sched_param(0))
            self._batch = policy == os.SCHED_BATCH


class CpuWatch:
    """The kernel ends this process when it uses more processor time than was allowed.

    The signal keeps its default action: it works while code in C holds the interpreter.
    """

    def __init__(self) -> None:
        """Read how many threads may work on a question."""
        signal.signal(signal.SIGPROF, signal.SIG_DFL)
        threads = os.environ.get(THREADS, "")
        self._threads = int(threads) if threads.isdecimal() and int(threads) else 1

    def allow(self, seconds: float) -> None:
        """Allow so much for each thread from now on; what was allowed before is over."""
        signal.setitimer(signal.ITIMER_PROF, seconds * self._threads)


class Host:
    """Answers all clients: in batches of what has gathered, or request by request."""

    def __init__(self, model: Model, watch: CpuWatch, *, merges: bool) -> None:
        """Hold a model; without `merges` each request is asked as it was sent, and by itself."""
        self._model = model
        self._watch = watch
        self._merges = merges
        self._inputs = wire.InputCodec(model.signature.inputs)
        self._hello = wire.frame(wire.greeting(model.signature))
        self._queue: deque[tuple[_Client, wire.WireRequest, int]] = deque()
        self._copies: deque[tuple[_Client, wire.WireRequest, int]] = deque()
        """Questions for which no caller waits: answered when no other is there."""
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
        """Serve until SIGTERM, or until orphaned and unused; on another socket once it is handed over."""
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
            client.pause()  # what was not read yet is asked elsewhere by its asker
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
        """Forget a client; what it asked is not worth answering any more."""
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
        """Answer one batch, then let the loop read what has come in meanwhile.

        Copies are answered for a while: all that is sent in one turn of the loop is one write,
        which wakes the worker once.
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
        """Predict once. When that fails, each alone: a poisoned request fails by itself."""
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
        # A model may raise anything, and may even exit.
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
        """What the transformation's checks have counted and not reported yet; which rows now."""
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
        """Cut an answer into each client's rows. One that cannot be cut or sent is nonsense."""
        try:
            return _cut(requests, columns, micros, told, marks)
        except (AttributeError, TypeError, ValueError) as error:
            if len(requests) > 1:
                raise
            fault = ("model_nonsense", f"an answer that cannot be sent: {error}"[:2000])
            return [wire.frame(wire.WireAnswer(requests[0].id, micros, None, fault))]


def _left_out(request: wire.WireRequest) -> bytes:
    """Say that a copy was answered, and that its answer does not go to a gateway that lags behind."""
    return wire.frame(wire.WireAnswer(request.id, 0, None, (UNREAD, "its answer was not read")))


def _dropped(request: wire.WireRequest) -> bytes:
    """Say that a question was never put to the model, so that it does not count as a failure."""
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
        raise TypeError("the answer is no mapping of names to arrays")
    if len(requests) == 1:
        # Whole, whatever its length: the client's check says better what is wrong with it.
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
            self._transport.abort()  # not our protocol: nothing after this byte can be trusted

    def takes(self, request: wire.WireRequest) -> bool:
        """Whether the answer of a request is sent: that of a copy only to a client that keeps up."""
        return not request.copy or self._transport.get_write_buffer_size() <= UNREAD_COPIES

    def send(self, raw: bytes) -> None:
        """Send, unless the client has stopped reading: then hang up, for memory ends too."""
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
