"""Serving of one request: its steps in order, against one snapshot, whatever is swapped meanwhile.

`answer` reads the live snapshot once. `finish` is called when the answer is on its way: it mirrors
and counts, and nothing in it can reach the caller any more. A swap is one assignment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter_ns, time
from typing import TYPE_CHECKING

import structlog

from kedge.core.errors import BadRequest, ModelFailure, Unavailable
from kedge.core.evidence import unrecorded
from kedge.core.evidence.windows import CANDIDATE, PRODUCTION
from kedge.core.routing import Choice, Reason
from kedge.core.values import BUCKETS, Arm
from kedge.engine.recording.agreement import agreeing_rows
from kedge.engine.recording.observation import Observation
from kedge.engine.recording.recorder import ANSWERED, UNASKED, size_of_columns
from kedge.engine.request import Request
from kedge.engine.serving.copies import Copies
from kedge.engine.serving.deadlines import DEADLINE_RATIO
from kedge.engine.serving.last_asked import LastAsked
from kedge.engine.serving.live import Answer, Live
from kedge.engine.serving.pool import Handle
from kedge.transforms.lookup import EXCUSED

if TYPE_CHECKING:
    from kedge.ports import Predicted
    from kedge.typing import Columns

log = structlog.get_logger("kedge.serving")

BROKEN = ("model_nonsense", "transform_nonsense")
"""Failures which mean that an answer did not fit the signature."""
LATE, DIED = "model_late", "model_died"
UNREAD = "model_unread"
"""Cause of a copy that is not asked, or not read, because of the limit on bytes of copies."""
MUTE = (LATE, DIED, "model_down", "model_unasked", "bad_column", "too_large")
"""Failures that are no sign of life: nothing came from the process."""
GONE = (DIED, "model_down", "model_unasked")
"""Failures after which another process of the release is asked."""
MOST_ASKED = 2
"""Most processes that one request is sent to: the request may be the cause of their deaths."""
DROPPED = {
    "model_down": "down",
    "model_expired": "expired",
    "model_unasked": "full",
    UNREAD: "bytes",
    EXCUSED: "unread",
}
"""The names of these causes in the counts of copies."""


COPIED = 32 << 20
"""Limit of the bytes of inputs and answers of copies under way in a worker: 64 copies of 500 kB."""


class Serving:
    """What this worker serves now."""

    def __init__(
        self,
        monotonic: Callable[[], float],
        last_asked: LastAsked | None = None,
        copies: Copies | None = None,
    ) -> None:
        """Start with nothing served. Without `copies`, `finish` sends each copy itself."""
        self._lives: dict[str, Live] = {}
        self._monotonic = monotonic
        self._copies = copies
        self._copied = 0
        """Bytes of inputs and answers that copies under way hold."""
        self._last_asked = last_asked or LastAsked()
        self._note = self._last_asked.note

    def swap(self, live: Live) -> None:
        """Serve this from now on. One assignment: a request sees the old or the new snapshot."""
        self._lives[live.state.endpoint] = live

    def live(self, endpoint: str) -> Live | None:
        """Return what an endpoint serves now."""
        return self._lives.get(endpoint)

    def lives(self) -> list[Live]:
        """Return everything that is served now."""
        return list(self._lives.values())

    async def answer(self, live: Live, request: Request) -> Answer:
        """Answer one request.

        Raises:
            BadRequest: a tester asked for a release that is not live here.
            ModelFailure: production itself failed.
        """
        try:
            choice = live.plan.choose(request.entity, request.draw, request.asked)
        except KeyError:
            loaded = ", ".join(f"r{number}" for number in sorted(live.plan.asked))
            raise BadRequest(
                f"r{request.asked} is not live on {live.state.endpoint}; live are {loaded}",
                code="release_not_live",
            ) from None
        if choice.reason is Reason.HELD_BACK:
            return await self._held_back(live, choice, request)
        if choice.arm is not Arm.CANDIDATE:
            try:
                return await self._trusted(live, choice, request)
            except ModelFailure:
                if request.asked is None and not request.probe:
                    self._failed(live, choice, request)
                raise
        if request.asked is not None:
            return await self._trusted(live, choice, request)
        return await self._canary(live, choice, request)

    def _failed(self, live: Live, choice: Choice, request: Request) -> None:
        """Note that production failed a caller, and check whether the copy would have failed."""
        if choice.shadow is not None:
            self._copy(live, choice.shadow, request, None)
        elif live.watched:
            live.recorder.offer(
                Observation(
                    time(),
                    request,
                    PRODUCTION,
                    0,
                    True,  # noqa: FBT003
                    live.state.stratum,
                )
            )

    async def _canary(self, live: Live, choice: Choice, request: Request) -> Answer:
        """Ask the candidate; production answers if it fails, is late or is withheld."""
        handle = live.handles.get(choice.release)
        counts = not request.probe  # a probe changes neither the breaker nor a count
        if counts:
            live.recorder.conduct.routed(request.entity)
        cause = self._unasked(live, handle, request)
        late: Late | None = None
        if not cause:
            assert handle is not None
            late = Late(self, live, handle, request) if counts else None
            try:
                found = await self._asked(live, handle, request, late)
            except (ModelFailure, BadRequest) as failure:
                cause = failure.code
            else:
                if counts:
                    self._succeeded(live, handle)
                return Answer(choice, *found)
            if counts:
                self._heard(live, handle, cause)
        reason = Reason.BREAKER if cause == Reason.BREAKER.value else Reason.FAILOVER
        unknown = cause in UNASKED or cause == LATE
        if counts and late is None:
            live.recorder.conduct.unasked(cause)
        try:
            answer = await self._instead(live, reason, cause, request, unknown=unknown)
        except (ModelFailure, Unavailable):
            # A failure that production shares is no evidence against the candidate.
            if late is not None:
                late.answered = False
            raise
        if late is not None:
            late.answered = True
            if cause != LATE:
                self._failed_alone(live, late.handle, request, cause)
        return answer

    def _unasked(self, live: Live, handle: Handle | None, request: Request) -> str:
        """Return why a request does not go to the candidate; empty if it goes."""
        now = self._monotonic()
        if handle is None or not handle.remotes:
            return "model_down"
        there = handle.remotes[0].ready
        handle.met = handle.met or there
        breaker = handle.breaker
        if request.probe:
            return Reason.BREAKER.value if breaker.open else "" if there else "model_down"
        if not there:
            if handle.met:
                self._waits(live, handle, now)
            return "model_down"
        if not breaker.allows(now, live.deadlines.behind(handle, request.rows, now)):
            self._waits(live, handle, now, asks=False)
            return Reason.BREAKER.value
        handle.asks(request.rows, now)
        self._waits(live, handle, now)
        return ""

    @staticmethod
    def _waits(live: Live, handle: Handle, now: float, *, asks: bool = True) -> None:
        """Note that the candidate is asked, and how long it has been silent."""
        silence = handle.breaker.silence
        if asks:
            silence.asked(now)
        lasts_s = silence.lasts_s(now)
        if lasts_s:
            live.recorder.conduct.silent_s = lasts_s

    async def _asked(
        self, live: Live, handle: Handle, request: Request, late: Late | None
    ) -> Predicted:
        """Ask the candidate for a caller, or for a probe, which waits in a separate lane."""
        remote = handle.remotes[0]
        deadline_s = live.deadlines.behind(handle, request.rows, self._monotonic())
        if late is not None:
            return await remote.predict(
                request.columns, deadline_s, patience_s=live.deadlines.timeout_s, on_late=late
            )
        async with self._lane(live, handle, request):
            return await remote.predict(request.columns, deadline_s)

    @asynccontextmanager
    async def _lane(self, live: Live, handle: Handle, request: Request) -> AsyncIterator[None]:
        """Let one request of a tester or a probe reach a candidate at a time.

        Raises:
            ModelFailure: `model_unasked`: the requests before it took all of its time.
        """
        handle.asks(request.rows, self._monotonic())
        try:
            async with asyncio.timeout(live.deadlines.timeout_s):
                await handle.lane.acquire()
        except TimeoutError:
            raise ModelFailure(
                "requests of other testers are before it", code="model_unasked"
            ) from None
        try:
            yield
        finally:
            handle.lane.release()

    @staticmethod
    def _succeeded(live: Live, handle: Handle) -> None:
        """Note an answer of the candidate that fits its signature."""
        handle.breaker.succeeded()
        live.recorder.conduct.answered()
        live.recorder.conduct.silent_s = 0.0

    def _heard(self, live: Live, handle: Handle, cause: str) -> None:
        """Note what a failure shows about the candidate's process, whatever production does."""
        conduct = live.recorder.conduct
        if cause == DIED:
            conduct.crashed(self._monotonic())
        elif cause not in MUTE:
            handle.breaker.heard()
            conduct.alive()
            conduct.silent_s = 0.0
        if cause in UNASKED or cause == EXCUSED:
            conduct.unasked(cause)

    def _failed_alone(self, live: Live, handle: Handle, request: Request, cause: str) -> None:
        """Count a failure of the candidate where production answered."""
        if cause in UNASKED or cause == EXCUSED:
            return
        now = self._monotonic()
        handle.breaker.failed(now)
        live.recorder.conduct.failed(request.entity, now)
        if cause in BROKEN:
            live.recorder.nonsense()

    def settle(self, late: Late, answered: bool, cause: str) -> None:
        """Note the result of a request after its deadline."""
        if answered:
            self._succeeded(late.live, late.handle)
            return
        self._heard(late.live, late.handle, cause)
        if late.answered:
            self._failed_alone(late.live, late.handle, late.request, cause)

    async def _instead(
        self, live: Live, reason: Reason, cause: str, request: Request, *, unknown: bool
    ) -> Answer:
        """Let production answer for the release that was asked; count a failure of both arms."""
        try:
            answer = await self._trusted(live, live.instead[reason], request)
        except (ModelFailure, Unavailable):
            if live.watched and not request.probe and not unknown and cause != EXCUSED:
                live.recorder.offer(
                    Observation(
                        time(),
                        request,
                        CANDIDATE,
                        0,
                        True,  # noqa: FBT003
                        live.state.stratum,
                    )
                )
            raise
        answer.failover, answer.unknown = cause, unknown
        return answer

    async def _held_back(self, live: Live, choice: Choice, request: Request) -> Answer:
        """Ask the previous release; production answers if it is missing or fails."""
        try:
            return await self._trusted(live, choice, request)
        except (ModelFailure, Unavailable) as failure:
            unknown = failure.code in UNASKED
            return await self._instead(
                live, Reason.FAILOVER, failure.code, request, unknown=unknown
            )

    async def _trusted(self, live: Live, choice: Choice, request: Request) -> Answer:
        """Ask a release that has no other release behind it."""
        handle = live.handles.get(choice.release)
        if handle is None:
            raise Unavailable(f"r{choice.release} is not loaded on this replica", code="not_loaded")
        if handle.inline is not None:
            started = perf_counter_ns()
            if not handle.mark:
                handle.mark = self._last_asked.mark(handle.release)
            self._note[0] = handle.mark
            try:
                outputs = handle.inline.predict(request.columns)
            except (
                BaseException
            ) as error:  # a model may raise anything, and may even exit: one kind of failure
                live.recorder.count(f"errors.{choice.arm}")
                if isinstance(error, MemoryError):
                    self._last_asked.starve(handle.mark)
                if isinstance(error, ModelFailure):
                    raise ModelFailure(f"r{choice.release}: {error}", code=error.code) from error
                raise ModelFailure(
                    f"r{choice.release} raised {type(error).__name__}: {error}", code="model_raised"
                ) from error
            finally:
                self._note[0] = 0
            micros = (perf_counter_ns() - started) // 1000
            return Answer(choice, outputs, micros)
        return await self._remote(live, handle, choice, request)

    async def _remote(self, live: Live, handle: Handle, choice: Choice, request: Request) -> Answer:
        """Ask the process; if it dies during the request, ask the second one, once."""
        if choice.release == live.state.candidate:  # only a tester gets here
            async with self._lane(live, handle, request):
                return await self._one_of(live, handle, choice, request)
        return await self._one_of(live, handle, choice, request)

    async def _one_of(self, live: Live, handle: Handle, choice: Choice, request: Request) -> Answer:
        """Ask at most two of its processes: the request may be what kills them.

        A request for production has no other release behind it. While none of its processes is
        there, the request waits for one that is started again.
        """
        failure = ModelFailure(f"r{choice.release} has no process", code="model_down")
        waits = choice.release == live.state.production and handle.met
        waits = waits and not request.probe and request.asked is None
        began, left_s, asked = self._monotonic(), live.deadlines.timeout_s, 0
        while True:
            for remote in sorted(handle.remotes, key=lambda r: (not r.ready, r.stalled)):
                try:
                    found = await remote.predict(request.columns, left_s, alone=True)
                except ModelFailure as caught:
                    failure = caught
                    if caught.code not in GONE:
                        asked = MOST_ASKED  # the other one would answer the same
                    elif caught.code != "model_down":
                        asked += 1
                    if asked >= MOST_ASKED:
                        break
                else:
                    handle.absence.over()
                    return Answer(choice, *found)
            until = began + live.deadlines.timeout_s
            if not waits or asked >= MOST_ASKED:
                break
            is_there = partial(self._is_there, live, handle, choice)
            if not await handle.absence.wait(is_there, self._monotonic, until):
                break
            later = self._later(live, choice)
            if later is not None:
                answer = await self.answer(later, request)
                answer.live = answer.live or later
                return answer
            left_s = max(until - self._monotonic(), 0.0)
        live.recorder.count(f"errors.{choice.arm}")
        raise failure

    def _is_there(self, live: Live, handle: Handle, choice: Choice) -> bool:
        """Return whether a request that waits for production's process can be sent to one now."""
        ready = any(remote.ready for remote in handle.remotes)
        return ready or self._later(live, choice) is not None

    def _later(self, live: Live, choice: Choice) -> Live | None:
        """Return the snapshot that replaced this one with another release in production.

        A rollback also rescues the requests that wait for the release that it leaves. Their columns
        were read for this contract: if the contract differs, they continue to wait.
        """
        later = self._lives.get(live.state.endpoint)
        if later is None or later.contract is not live.contract:
            return None
        return later if later.state.production != choice.release else None

    def finish(self, live: Live, request: Request, answer: Answer) -> None:
        """Mirror and count. The caller has its answer; nothing here can change or delay it."""
        if request.probe:
            return
        try:
            self._finish(live, request, answer)
        except BaseException as error:  # noqa: BLE001 - a second answer would break the connection
            self._trouble(live, error)

    def _finish(self, live: Live, request: Request, answer: Answer) -> None:
        recorder, choice = live.recorder, answer.choice
        if request.asked is not None:
            recorder.count("asked")
            recorder.lack(unrecorded.TESTER, request.rows)
            return
        if not live.answered:
            live.answered = True
            live.first_answer()
        names = live.names.get(id(choice))
        if names is None:
            arm = choice.arm.value
            names = live.names[id(choice)] = (arm, f"{ANSWERED[0]}{arm}", f"{ANSWERED[1]}{arm}")
        recorder.answered(names, request.rows, answer.micros, keyless=not request.entity)
        if answer.failover is not None:
            recorder.count(f"failover.{answer.failover}")
        if choice.shadow is not None:
            self._copy(live, choice.shadow, request, answer)
        elif answer.failover == EXCUSED:
            recorder.lack(unrecorded.EXCUSED, request.rows)
        elif not live.watched:
            recorder.lack(unrecorded.SAMPLING, request.rows)
        else:
            if live.sampled and not live.log.keeps(request.entity or request.id):
                recorder.lack(unrecorded.SAMPLING, request.rows)
                return  # a request that waits for a second costs more than this hash
            failed = answer.failover is not None
            side = PRODUCTION if not failed and choice.arm is Arm.PRODUCTION else CANDIDATE
            recorder.offer(
                Observation(
                    time(),
                    request,
                    side,
                    answer.micros,
                    failed,
                    live.state.stratum,
                    answer.outputs,
                    dropped=answer.unknown,
                    violated=answer.violated and not failed,
                )
            )

    def _copy(self, live: Live, release: int, request: Request, answer: Answer | None) -> None:
        """Schedule a copy, to be sent once the answer has left this process."""
        if self._copies is None:
            self._shadow(live, release, request, answer)
            return

        def give() -> None:
            try:
                self._shadow(live, release, request, answer)
            # One copy's fault must not affect the others.
            except BaseException as error:  # noqa: BLE001
                self._trouble(live, error)

        size = sum(column.nbytes for column in request.columns.values())
        self._copies.add(give, size, most=live.gathers)

    @staticmethod
    def _trouble(live: Live, error: BaseException) -> None:
        """Count a fault after an answer."""
        live.recorder.count("errors.after_answer")
        if not live.troubled:  # log once a snapshot: the count has the rest
            live.troubled = True
            log.warning("serving.after_answer", fault=f"{type(error).__name__}: {error}")

    def _shadow(self, live: Live, release: int, request: Request, answer: Answer | None) -> None:
        """Send a release a copy: bounded, with a deadline, dropped and counted when full.

        `answer` is production's; None if it failed.
        """
        recorder = live.recorder
        recorder.count("shadow.requests")
        handle = live.handles.get(release)
        ours, our_micros = (None, 0) if answer is None else (answer.outputs, answer.micros)
        pair = partial(_offer_pair, live, request, answer)

        def drop(cause: str) -> None:
            recorder.count(f"shadow.dropped.{DROPPED.get(cause, cause)}")
            recorder.conduct.unasked(cause)
            pair(None, dropped=True)

        recorder.conduct.routed(request.entity)
        size = size_of_columns(request.columns, ours)
        cause = self._not_copied(handle, size) or self._unasked(live, handle, request)
        if cause or handle is None:
            drop(cause)
            return
        # Production has just answered this request: a copy may take as long as that allows.
        now = self._monotonic()
        usual_s = live.deadlines.behind(handle, request.rows, now)
        deadline_s = max(usual_s, DEADLINE_RATIO * our_micros / 1e6)
        due = now + deadline_s
        patience_s = live.deadlines.copy_patience(our_micros / 1e6, deadline_s)

        def done(theirs: Columns | None, micros: int, error: str | None, bad: bool) -> None:
            self._copied -= size
            if theirs is None:
                error = error or LATE
                self._copy_failed(live, handle, request, error, answered=ours is not None)
                pair(None, dropped=error in UNASKED or error in (EXCUSED, LATE))
                return
            self._succeeded(live, handle)
            if self._monotonic() > due:
                recorder.conduct.late()
                recorder.count("shadow.late")
            recorder.count("shadow.answered")
            recorder.latency("shadow", micros)
            recorder.count("shadow.pairs", request.rows)
            if ours is not None and live.compares:
                same = agreeing_rows(live.output, ours, theirs, request.rows)
                recorder.count("shadow.agreeing", same)
            pair(theirs, micros, bad=bad)

        taken = handle.remotes[0].submit(
            request.columns, done, deadline_s, patience_s=patience_s, apart=live.reverse
        )
        if not taken:
            drop("full")
            return
        self._copied += size
        if live.noise and ours is not None and request.draw < live.noise * BUCKETS:
            self._again(live, request, ours)

    def _not_copied(self, handle: Handle | None, size: int) -> str:
        """Return the cause if a limit of bytes stops a copy, or "".

        The release is not asked for such a copy, so it is not silent over it.
        """
        full = self._copied > 0 and self._copied + size > COPIED
        throttled = handle is not None and handle.remotes and handle.remotes[0].throttled
        return UNREAD if full or throttled else ""

    def _copy_failed(
        self, live: Live, handle: Handle, request: Request, error: str, *, answered: bool
    ) -> None:
        """Count a copy that was not answered; a failure that production shares is no evidence.

        A copy that is later than its limit is lost coverage: a silent process is detected by its
        silence.
        """
        if error in UNASKED or error == EXCUSED:
            live.recorder.count(f"shadow.dropped.{DROPPED.get(error, error)}")
        else:
            live.recorder.count(f"shadow.failed.{error}")
        self._heard(live, handle, error)
        if answered and error != LATE:
            self._failed_alone(live, handle, request, error)

    def _again(self, live: Live, request: Request, ours: Columns) -> None:
        """Ask production a second time, after its answer went out, to measure its own noise."""

        def done(theirs: Columns | None, micros: int, _error: str | None, _bad: bool) -> None:
            if theirs is not None:
                live.recorder.offer(
                    Observation(
                        time(),
                        request,
                        PRODUCTION,
                        micros,
                        False,  # noqa: FBT003
                        0,
                        ours,
                        mirrored=True,
                        theirs=theirs,
                        again=True,
                    )
                )

        handle = live.handles[live.plan.outside.release]
        live.recorder.count("shadow.asked_again")
        if handle.inline is not None:
            self._note[0] = handle.mark  # it has just answered this request
            try:
                again = handle.inline.predict(request.columns)
            finally:
                self._note[0] = 0
            done(again, 0, None, False)  # noqa: FBT003
        else:
            handle.remotes[0].submit(request.columns, done, live.deadlines.by_rows(request.rows))


class Late:
    """A request that production answered for its caller while the candidate still works on it.

    The object is called once, with the result. The candidate is held to production's own timeout:
    an answer within it is latency. No answer, or a failure, is an error, as production's would be.
    """

    __slots__ = ("answered", "handle", "live", "request", "serving")

    def __init__(self, serving: Serving, live: Live, handle: Handle, request: Request) -> None:
        self.serving = serving
        self.live = live
        self.handle = handle
        self.request = request
        self.answered: bool | None = None
        """Whether production answered the caller; None until then."""

    def __call__(
        self, theirs: Columns | None, micros: int, error: str | None, violated: bool
    ) -> None:
        """Count the result."""
        live = self.live
        self.serving.settle(self, theirs is not None, error or LATE)
        if theirs is not None:
            live.recorder.conduct.late()
            live.recorder.count("late.candidate")
            live.recorder.latency(Arm.CANDIDATE, micros)
        elif error in UNASKED or error == EXCUSED:
            return
        if not live.watched or (
            live.sampled and not live.log.keeps(self.request.entity or self.request.id)
        ):
            return
        live.recorder.offer(
            Observation(
                time(),
                self.request,
                CANDIDATE,
                micros,
                theirs is None,
                live.state.stratum,
                theirs=theirs,
                violated=violated,
                settles=True,
            )
        )


def _offer_pair(
    live: Live,
    request: Request,
    answer: Answer | None,
    theirs: Columns | None,
    micros: int = 0,
    *,
    dropped: bool = False,
    bad: bool = False,
) -> None:
    """Record both answers to a request; `answer` is production's, None if it failed."""
    if not live.watched:
        return
    ours, our_micros = (None, 0) if answer is None else (answer.outputs, answer.micros)
    live.recorder.offer(
        Observation(
            time(),
            request,
            PRODUCTION,
            our_micros,
            ours is None,
            0,
            ours,
            mirrored=True,
            theirs=theirs,
            their_micros=micros,
            dropped=dropped,
            violated=answer is not None and answer.violated,
            their_violated=bad,
        )
    )
