"""Writes: commands of remote callers, each carried out once and to its end.

A command continues when its caller disconnects. A rollback has threads of its own, so that it never
waits for another command.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

import msgspec
from starlette.requests import Request

from kedge.core.codec import encode
from kedge.core.errors import BadRequest, KedgeError, Overloaded, Stale, Unavailable
from kedge.core.uploads import check_inside, check_new
from kedge.operations.ask import Ask
from kedge.operations.catalogue import Lane, Operation
from kedge.operations.parameters import NoParameters, OutcomesParameters
from kedge.operations.served import SERVED
from kedge.web.children import ChildFiles, Children, RemoteCaller, Unfinished
from kedge.web.labels import Join, LabelData, get_corrector, get_form
from kedge.web.problems import Unmatched, describe_problem
from kedge.web.repeats import AnswerStore
from kedge.web.uploads import Uploads
from kedge.workspace import Workplace

Found = TypeVar("Found")

THREADS = 4
"""Threads of commands; each may wait two minutes for replicas to load."""
ROLLBACK_THREADS = 2
WAITING = 16
"""Maximum commands that run or wait; rollbacks have as many of their own."""
LONGEST_EPOCH = 15
LOOK_S = 1.0
"""Interval at which the free space is checked while a command writes files."""
STDIN = "stdin"
"""The file of an upload that is the standard input of its command."""
CSV = "outcomes.csv"
"""The file name of outcomes that a request has as CSV."""
NO_UPLOAD = ""
"""The upload of files that a request has itself."""


class Write(NamedTuple):
    """One write, as its request asks for it."""

    operation: Operation
    endpoint: str | None
    given: NoParameters
    caller: RemoteCaller
    number: int | None = None
    """The number of the alert that the path names."""
    expect: int | None = None
    """The epoch that the caller saw; None: any."""
    key: str | None = None
    request: bytes = b""
    """Everything that the key is bound to."""
    owner: str = ""
    """The name under which the caller's uploads are stored."""
    data: LabelData | None = None
    """Outcomes in the body of the request."""


class Written(NamedTuple):
    """The answer of a write."""

    status: int
    body: bytes
    epoch: int | None
    is_repeated: bool = False


class Writes:
    """The commands of all callers; for one event loop."""

    def __init__(
        self,
        open_place: Callable[[str], Workplace],
        children: Children,
        repeats: AnswerStore,
        uploads: Uploads,
        join: Join,
    ) -> None:
        """Start without commands.

        Args:
            open_place: opens the place of a command, for a token's name.
            children: run what is slow.
            repeats: the answers of earlier writes.
            uploads: the files that commands read.
            join: joins outcomes that are JSON lines.
        """
        self._join = join
        self._open = open_place
        self._uploads = uploads
        self._children = children
        self._repeats = repeats
        self._pools = {
            True: ThreadPoolExecutor(ROLLBACK_THREADS, thread_name_prefix="rollback"),
            False: ThreadPoolExecutor(THREADS, thread_name_prefix="command"),
        }
        self._under_way: dict[bool, set[asyncio.Task[Written]]] = {True: set(), False: set()}

    async def run(self, write: Write) -> Written:
        """Carry a write out, or return the stored answer of the same write.

        Raises:
            Overloaded: `queue_full`.
            KedgeError: as the operation; `begin` of `AnswerStore` for its key.
        """
        under_way = self._under_way[write.operation.name == "rollback"]
        if len(under_way) >= WAITING:
            raise Overloaded(f"{WAITING} commands are under way", code="queue_full")
        task = asyncio.ensure_future(self._once(write))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        return await asyncio.shield(task)

    async def _once(self, write: Write) -> Written:
        holder, key = write.caller.holder or write.caller.name, write.key
        if key is None:
            return await self._carry_out(write)
        try:
            known = await asyncio.to_thread(self._repeats.begin, holder, key, write.request)
        except Unavailable:
            if write.expect is None:
                raise
            # A rollback must work on a full disk, and the epoch refuses a repetition.
            return await self._carry_out(write)
        if known is not None:
            return Written(known.status, known.body, known.epoch, is_repeated=True)
        try:
            done = await self._carry_out(write)
        except Unfinished:  # it may have changed something: the key stays reserved
            await asyncio.to_thread(self._repeats.abandon, holder, key)
            raise
        except KedgeError as error:
            problem = describe_problem(error)
            if problem.status == 503:
                await asyncio.to_thread(self._repeats.release, holder, key)
                raise
            done = Written(problem.status, encode(problem), None)
            await asyncio.to_thread(self._repeats.finish, holder, key, write.request, *done[:3])
            raise
        except BaseException:  # as above
            await asyncio.to_thread(self._repeats.abandon, holder, key)
            raise
        await asyncio.to_thread(self._repeats.finish, holder, key, write.request, *done[:3])
        return done

    async def _carry_out(self, write: Write) -> Written:
        try:
            if write.operation.lane is Lane.CHILD:
                found: object = await self._run_child(write)
            else:
                pool = self._pools[write.operation.name == "rollback"]
                loop = asyncio.get_running_loop()
                found = await loop.run_in_executor(pool, self._command, write)
        except Stale as error:
            if write.expect is None:
                raise
            raise Unmatched(str(error), hint=error.hint, details=error.details) from error
        body = encode(found)
        return Written(200, body, _read_epoch(body))

    async def _run_child(self, write: Write) -> object:
        if write.data is not None:
            return await self._join_data(write, write.data)
        operation, endpoint, given, caller = write[:4]
        upload = getattr(given, "upload", None)
        if upload is None:
            return await self._children.run(*write[:4], write.expect)
        named = [getattr(given, name) for name in operation.files]
        async with self._uploads.reading(write.owner, upload, operation.name, endpoint) as ready:
            inside = [STDIN if path == "-" else path for path in named if path is not None]
            check_inside(inside, ready.files)
            if not operation.result:
                stdin = ready.folder / STDIN if "-" in named else None
                files = ChildFiles(ready.folder, stdin)
                return await self._children.run(
                    operation, endpoint, given, caller, write.expect, files
                )
            result = getattr(given, operation.result)
            check_new(result, ready.files)
            async with self._uploads.working(ready, result) as work:
                files = ChildFiles(work)
                return await self._watch(
                    self._children.run(operation, endpoint, given, caller, write.expect, files)
                )

    async def _watch(self, run: Coroutine[Any, Any, Found]) -> Found:
        """Wait for a command that writes files; end it when only the disk's reserve is left."""
        task = asyncio.ensure_future(run)
        try:
            while True:
                done, _ = await asyncio.wait({task}, timeout=LOOK_S)
                if done:
                    return task.result()
                self._uploads.check_room()
        except BaseException:
            task.cancel()
            with suppress(asyncio.CancelledError, KedgeError):
                await task
            raise

    async def _join_data(self, write: Write, data: LabelData) -> object:
        operation, endpoint, given, caller = write[:4]
        assert endpoint is not None
        if not data.is_csv:
            by = get_corrector(given, caller.name, caller.holder)
            return await self._join(endpoint, data.raw, by, get_form(given))
        async with self._uploads.keeping(CSV, data.raw) as folder:
            asked = OutcomesParameters(upload=NO_UPLOAD, file=CSV, **msgspec.structs.asdict(given))
            files = ChildFiles(folder)
            return await self._children.run(operation, endpoint, asked, caller, write.expect, files)

    def _command(self, write: Write) -> object:
        place = self._open(write.caller.holder)
        try:
            run = SERVED[write.operation.name].run
            assert run is not None
            ask = Ask(
                place, write.endpoint, write.given, write.caller.name, write.number, write.expect
            )
            return run(ask)
        finally:
            place.database.close()


class _Receipt(msgspec.Struct):
    """The member of a receipt that becomes the ETag."""

    epoch: int | None = None


def _read_epoch(body: bytes) -> int | None:
    return msgspec.json.decode(body, type=_Receipt).epoch if body[:1] == b"{" else None


def read_match(request: Request) -> int | None:
    """Return the epoch of If-Match; None: there is none, or it is `*`.

    Raises:
        BadRequest: `bad_match`.
    """
    text = request.headers.get("if-match")
    if text is None or text.strip() == "*":
        return None
    epoch = text.strip().removeprefix('"').removesuffix('"')
    if not (epoch.isascii() and epoch.isdigit() and len(epoch) <= LONGEST_EPOCH):
        raise BadRequest(
            f"If-Match must be the ETag of a view, got {text[:80]!r}",
            code="bad_match",
            hint='If-Match: "EPOCH"',
        )
    return int(epoch)
