"""One answer: the order of its steps, against one snapshot, whatever is swapped meanwhile.

`answer` reads the live snapshot once. `finish` is called when the answer is on its way: it
mirrors and counts, and nothing in it can reach the caller any more. A swap is one assignment.
"""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter_ns, time
from typing import TYPE_CHECKING

import structlog

from kedge.core.errors import BadRequest, ModelFailure, Unavailable
from kedge.core.evidence.answers import get_target
from kedge.core.route import Choice, Plan, Reason
from kedge.core.values import BUCKETS, Arm, Stage, State
from kedge.core.windows import CANDIDATE, PRODUCTION
from kedge.engine.agreement import agreeing_rows
from kedge.engine.models import Handle
from kedge.engine.observe import ANSWERED, Recorder
from kedge.engine.predictions import Log
from kedge.engine.seen import Seen
from kedge.lookups import EXCUSED

if TYPE_CHECKING:
    from kedge.ports import Columns

log = structlog.get_logger("kedge.serving")

UNKNOWN_DEADLINE_S = 1.0
"""A candidate's deadline until production's own p99 is known."""
DEADLINE_FLOOR_S, DEADLINE_CEILING_S = 0.05, 2.0
DEADLINE_RATIO = 2.0
BROKEN = ("model_nonsense", "transform_nonsense")
"""Failures that say an answer did not fit the signature."""
DEADLINE_MIN_ANSWERS = 200
"""Production answers from which a p99 is worth a deadline: two of them lie above it."""


class Request:
    """One parsed request. Routed whole; each row is one prediction."""

    __slots__ = ("asked", "columns", "draw", "entity", "id", "probe", "rows")

    def __init__(
        self, *, id: str, columns: Columns, rows: int, entity: str | None, draw: int,  # noqa: A002
        asked: int | None = None, probe: bool = False,
    ) -> None:  # fmt: skip
        self.id = id
        self.columns = columns
        self.rows = rows
        self.entity = entity
        self.draw = draw
        self.asked = asked
        self.probe = probe


class Answer:
    """What goes back, which release gave it, at which epoch, and why that one."""

    __slots__ = ("choice", "failover", "micros", "outputs", "violated")

    def __init__(
        self, choice: Choice, outputs: Columns, micros: int, violated: bool = False
    ) -> None:
        self.choice = choice
        self.outputs = outputs
        self.micros = micros
        self.violated = violated
        """Whether a feature of it was not as its schema promises."""
        self.failover: str | None = None
        """Why the candidate's answer was not used; None when it was, or was not asked."""


def watched(state: State) -> bool:
    """Whether observations are of use: to compare with a candidate, or for the prediction log."""
    return state.compared is not None or state.policy.log.sample > 0


class Live:
    """What an endpoint serves at one epoch. Immutable but for the deadline and the answered mark."""

    __slots__ = ("answered", "compares", "contract", "deadline_s", "first_answer", "handles", "heads", "instead",
                 "lease", "log", "names", "noise", "output", "pinned", "plan", "recorder", "sampled", "state", "troubled", "watched")  # fmt: skip

    def __init__(
        self, *, state: State, plan: Plan, handles: dict[int, Handle], contract: object,
        recorder: Recorder, lease: bool, pinned: bool, first_answer: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        self.first_answer = first_answer
        """Called once, when a caller got the first answer of this snapshot."""
        self.state = state
        self.watched = watched(state)
        self.log = Log(state)
        self.sampled = not state.divided
        self.output = get_target(state)
        self.compares = state.policy.output.kind != "custom"  # that is somebody's code: not here
        self.noise = state.policy.shadow.noise / 100 if state.stage is Stage.SHADOW else 0.0
        self.plan = plan
        self.handles = handles
        self.contract = contract
        self.recorder = recorder
        self.lease = lease
        self.pinned = pinned
        # Every choice that is answered here belongs to this snapshot, so its identity is a key.
        self.instead = {
            reason: Choice(arm=Arm.PRODUCTION, release=plan.outside.release, reason=reason)
            for reason in (Reason.FAILOVER, Reason.BREAKER)
        }
        self.heads: dict[int, object] = {}
        self.names: dict[int, tuple[str, str, str]] = {}
        self.deadline_s = UNKNOWN_DEADLINE_S
        self.answered = False
        self.troubled = False

    def refresh_deadline(self) -> None:
        """Set the candidate's deadline from production's own latency."""
        own = self.state.policy.limits.candidate_deadline_ms
        if own is not None:
            self.deadline_s = own / 1e3
            return
        p99, n = self.recorder.quantile_us(Arm.PRODUCTION, 0.99)
        if p99 is not None and n >= DEADLINE_MIN_ANSWERS:
            wished = DEADLINE_RATIO * p99 / 1e6
            self.deadline_s = min(max(wished, DEADLINE_FLOOR_S), DEADLINE_CEILING_S)


class Serving:
    """What this worker serves now."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._lives: dict[str, Live] = {}
        self._monotonic = monotonic

    def swap(self, live: Live) -> None:
        """Serve this from now on. One assignment: a request sees the old or the new, whole."""
        self._lives[live.state.endpoint] = live

    def live(self, endpoint: str) -> Live | None:
        """What an endpoint serves now."""
        return self._lives.get(endpoint)

    def lives(self) -> list[Live]:
        """Everything that is served now."""
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
        """Note that production failed a caller, and see whether the copy would have."""
        if choice.shadow is not None:
            self._shadow(live, choice.shadow, request, None)
        elif live.watched:
            live.recorder.offer(Seen(
                time(), request, PRODUCTION, 0, True, live.state.stratum  # noqa: FBT003
            ))  # fmt: skip

    async def _canary(self, live: Live, choice: Choice, request: Request) -> Answer:
        """Ask the candidate; production answers when it fails, is late, or is spared."""
        handle = live.handles.get(choice.release)
        now = self._monotonic()
        if handle is None or not handle.remotes:
            cause, reason = "model_down", Reason.FAILOVER
        elif not handle.breaker.allows(now):
            cause, reason = "breaker_open", Reason.BREAKER
        else:
            try:
                found = await handle.remotes[0].predict(request.columns, live.deadline_s)
            except (ModelFailure, BadRequest) as failure:
                cause, reason = failure.code, Reason.FAILOVER
            else:
                handle.breaker.succeeded()
                live.recorder.candidate_answered()
                return Answer(choice, *found)
        answer = await self._instead(live, reason, cause, request)
        if cause == EXCUSED:  # what it reads by key is not there: nobody's failure
            return answer
        # Only now: what production fails too says nothing about the candidate alone.
        if handle is not None and handle.remotes and reason is Reason.FAILOVER:
            handle.breaker.failed(self._monotonic())
        live.recorder.candidate_failed(broken=cause in BROKEN)
        return answer

    async def _instead(self, live: Live, reason: Reason, cause: str, request: Request) -> Answer:
        """Let production answer for the release that was asked. When it fails too, both arms have."""
        try:
            answer = await self._trusted(live, live.instead[reason], request)
        except (ModelFailure, Unavailable):
            if live.watched and not request.probe:
                live.recorder.offer(Seen(
                    time(), request, CANDIDATE, 0, True, live.state.stratum  # noqa: FBT003
                ))  # fmt: skip
            raise
        answer.failover = cause
        return answer

    async def _held_back(self, live: Live, choice: Choice, request: Request) -> Answer:
        """Ask the previous release; production answers when it is not there, or fails."""
        try:
            return await self._trusted(live, choice, request)
        except (ModelFailure, Unavailable) as failure:
            return await self._instead(live, Reason.FAILOVER, failure.code, request)

    async def _trusted(self, live: Live, choice: Choice, request: Request) -> Answer:
        """Ask a release that has no other behind it."""
        handle = live.handles.get(choice.release)
        if handle is None:
            raise Unavailable(f"r{choice.release} is not loaded on this replica", code="not_loaded")
        if handle.inline is not None:
            started = perf_counter_ns()
            try:
                outputs = handle.inline.predict(request.columns)
            except Exception as error:  # a model may raise anything; it becomes one kind of failure
                live.recorder.count(f"errors.{choice.arm}")
                code = error.code if isinstance(error, ModelFailure) else "model_raised"
                raise ModelFailure(f"r{choice.release} raised {type(error).__name__}: {error}",
                                   code=code) from error  # fmt: skip
            micros = (perf_counter_ns() - started) // 1000
            return Answer(choice, outputs, micros, violated=handle.violated())
        return await self._remote(live, handle, choice, request)

    async def _remote(self, live: Live, handle: Handle, choice: Choice, request: Request) -> Answer:
        """Ask the process; when it dies under the question, ask the one beside it, once."""
        deadline_s = live.state.policy.limits.timeout_ms / 1e3
        failure = ModelFailure(f"r{choice.release} has no process", code="model_down")
        for remote in sorted(handle.remotes, key=lambda r: not r.ready):
            try:
                found = await remote.predict(request.columns, deadline_s, alone=True)
            except ModelFailure as caught:
                failure = caught
                if failure.code not in ("model_died", "model_down"):
                    break
            else:
                return Answer(choice, *found)
        live.recorder.count(f"errors.{choice.arm}")
        raise failure

    def finish(self, live: Live, request: Request, answer: Answer) -> None:
        """Mirror and count. The caller has its answer; nothing here can change or delay it."""
        if request.probe:
            return
        try:
            self._finish(live, request, answer)
        except Exception as error:  # noqa: BLE001 - a second answer would break the connection
            live.recorder.count("errors.after_answer")
            if not live.troubled:  # once a snapshot: the count has the rest
                live.troubled = True
                log.warning("serving.after_answer", fault=f"{type(error).__name__}: {error}")

    def _finish(self, live: Live, request: Request, answer: Answer) -> None:
        recorder, choice = live.recorder, answer.choice
        if request.asked is not None:
            recorder.count("asked")
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
            self._shadow(live, choice.shadow, request, answer)
        elif live.watched and answer.failover != EXCUSED:
            if live.sampled and not live.log.keeps(request.entity or request.id):
                return  # held for a second, a request costs more than this hash
            failed = answer.failover is not None
            side = PRODUCTION if not failed and choice.arm is Arm.PRODUCTION else CANDIDATE
            recorder.offer(Seen(
                time(), request, side, answer.micros, failed, live.state.stratum, answer.outputs,
                violated=answer.violated and not failed,
            ))  # fmt: skip

    def _shadow(self, live: Live, release: int, request: Request, answer: Answer | None) -> None:
        """Give a release a copy: bounded, with a deadline, dropped and counted when full.

        `answer` is production's; None when it failed.
        """
        recorder = live.recorder
        recorder.count("shadow.requests")
        handle = live.handles.get(release)
        now = self._monotonic()
        ours, our_micros = (None, 0) if answer is None else (answer.outputs, answer.micros)
        violated = answer is not None and answer.violated

        def pair(
            theirs: Columns | None, micros: int = 0, *, dropped: bool = False, bad: bool = False
        ) -> None:
            if live.watched:
                recorder.offer(Seen(
                    time(), request, PRODUCTION, our_micros, ours is None, 0, ours,
                    mirrored=True, theirs=theirs, their_micros=micros, dropped=dropped,
                    violated=violated, their_violated=bad,
                ))  # fmt: skip

        if handle is None or not handle.remotes or not handle.remotes[0].ready:
            recorder.count("shadow.dropped.down")
            pair(None)
            return
        if not handle.breaker.allows(now):
            recorder.count("shadow.dropped.breaker_open")
            pair(None)
            return
        rows = request.rows

        def done(theirs: Columns | None, micros: int, error: str | None, bad: bool) -> None:
            if theirs is None and error == EXCUSED:
                recorder.count("shadow.dropped.unread")
                pair(None, dropped=True)
                return
            if theirs is None:
                if ours is not None:  # what production failed too says nothing about the copy
                    handle.breaker.failed(self._monotonic())
                recorder.count(f"shadow.failed.{error}")
                pair(None)
                return
            handle.breaker.succeeded()
            recorder.count("shadow.answered")
            recorder.latency("shadow", micros)
            recorder.count("shadow.pairs", rows)
            if ours is not None and live.compares:
                same = agreeing_rows(live.output, ours, theirs, rows)
                recorder.count("shadow.agreeing", same)
            pair(theirs, micros, bad=bad)

        if not handle.remotes[0].submit(request.columns, done, live.deadline_s):
            recorder.count("shadow.dropped.full")
            pair(None, dropped=True)
        elif live.noise and ours is not None and request.draw < live.noise * BUCKETS:
            self._again(live, request, ours)

    def _again(self, live: Live, request: Request, ours: Columns) -> None:
        """Ask production a second time, after its answer went out: how much is its own noise."""

        def done(theirs: Columns | None, micros: int, _error: str | None, _bad: bool) -> None:
            if theirs is not None:
                live.recorder.offer(Seen(
                    time(), request, PRODUCTION, micros, False, 0, ours,  # noqa: FBT003
                    mirrored=True, theirs=theirs, again=True,
                ))  # fmt: skip

        handle = live.handles[live.plan.outside.release]
        live.recorder.count("shadow.asked_again")
        if handle.inline is not None:
            done(handle.inline.predict(request.columns), 0, None, False)  # noqa: FBT003
        else:
            handle.remotes[0].submit(request.columns, done, live.deadline_s)
