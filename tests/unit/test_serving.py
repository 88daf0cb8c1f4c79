"""One answer: the release that gives it, its replacement, and the counts afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pytest

from kedge.core.errors import BadRequest, ModelFailure, Unavailable
from kedge.core.evidence.windows import CANDIDATE, INSTANT_S
from kedge.core.release.commands import Canary, Promote, Shadow
from kedge.core.routing import Reason, compile_plan
from kedge.core.values import (
    Arm,
    CanaryPolicy,
    Limits,
    Output,
    Placement,
    Policy,
    Signature,
    State,
)
from kedge.engine.recording.recorder import UNASKED, Recorder
from kedge.engine.request import Request
from kedge.engine.serving.absence import LASTS_S, MOST
from kedge.engine.serving.deadlines import (
    DEADLINE_CEILING_S,
    DEADLINE_FLOOR_S,
    DEADLINE_MIN_ANSWERS,
    UNKNOWN_DEADLINE_S,
)
from kedge.engine.serving.live import Answer, Live
from kedge.engine.serving.pool import Breaker, Handle
from kedge.engine.serving.serving import Serving
from kedge.ports import Predicted
from kedge.testing.samples import endpoint, release, run

if TYPE_CHECKING:
    from kedge.ports import Model, OnDone, RemoteModel
    from kedge.typing import Columns

SIGNATURE = Signature(inputs=(), outputs=())
POLICY = Policy(audience="internal", output=Output(kind="score", score="p"))
ROW = run(endpoint(release(1), release(2), policy=POLICY), Promote(1))
SHADOW = run(ROW, Shadow(2))
CANARY = run(ROW, Canary(2, 10_000))


class Inline:
    """A model in this process: answers with one number, or raises."""

    signature = SIGNATURE

    def __init__(self, answer: float | BaseException = 1.0) -> None:
        self.answer = answer
        self.asked = 0

    def predict(self, columns: Columns) -> Columns:
        self.asked += 1
        if isinstance(self.answer, BaseException):
            raise self.answer
        return {"p": np.full(len(columns["x"]), self.answer)}


class Remote:
    """A model in another process: answers with one number, or fails with a code."""

    def __init__(self, answer: float | str | Exception = 1.0, *, room: int = 64) -> None:
        self.answer = answer
        self.ready = answer != "model_down"
        self.stalled = False
        self.room = room
        self.violations: dict[str, int] = {}
        self.throttled = False
        self.violated = False
        self.asked: list[float] = []
        """The deadline of each question."""
        self.alone: list[bool] = []
        """Whether no other release could answer it."""
        self.waiting: list[tuple[Columns, OnDone]] = []
        self.late: list[OnDone] = []
        """What waits for an answer that was late."""
        self.patience: list[float] = []

    async def predict(
        self,
        columns: Columns,
        deadline_s: float,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        on_late: OnDone | None = None,
    ) -> Predicted:
        self.asked.append(deadline_s)
        self.alone.append(alone)
        self.patience.append(patience_s)
        if self.answer == "model_late" and on_late is not None:
            self.late.append(on_late)
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, str):
            raise ModelFailure(f"it failed: {self.answer}", code=self.answer)
        return Predicted({"p": np.full(len(columns["x"]), self.answer)}, 7, self.violated)

    def submit(
        self,
        columns: Columns,
        on_done: OnDone,
        deadline_s: float,
        *,
        patience_s: float = 0.0,
        apart: bool = False,
    ) -> bool:
        if len(self.waiting) >= self.room:
            return False
        self.asked.append(deadline_s)
        self.waiting.append((columns, on_done))
        return True

    def settle(self) -> None:
        """Answer everything that was submitted."""
        while self.waiting:
            columns, done = self.waiting.pop(0)
            if isinstance(self.answer, str):
                done(None, 0, self.answer, False)  # noqa: FBT003
            else:
                done({"p": np.full(len(columns["x"]), self.answer)}, 7, None, self.violated)

    def hang_up(self) -> None:
        """There is no connection."""


def request(*, rows: int = 1, entity: str | None = "N1", **more: Any) -> Request:
    return Request(id="a", columns={"x": np.zeros(rows)}, rows=rows, entity=entity, draw=0, **more)


class Place:
    """One endpoint that is served, with a clock that stands still until it is moved."""

    def __init__(
        self,
        state: State,
        production: Model | tuple[RemoteModel, ...] | None,
        candidate: tuple[RemoteModel, ...] | None = None,
    ) -> None:
        self.now = 0.0
        self.serving = Serving(lambda: self.now)
        handles = {}
        if isinstance(production, tuple):
            handles[1] = Handle(state.releases[1], remotes=production)
        elif production is not None:
            handles[1] = Handle(state.releases[1], inline=production)
        if candidate is not None:
            handles[2] = Handle(state.releases[2], remotes=candidate)
        self.handles = handles
        self.live = Live(
            state=state,
            plan=compile_plan(state),
            handles=handles,
            contract=cast("Any", None),
            recorder=Recorder("w0", state),
            lease=True,
            pinned=False,
        )
        self.serving.swap(self.live)

    def ask(self, asked: Request | None = None) -> Answer:
        """Answer and finish one request."""
        asked = asked or request()
        answer = asyncio.run(self.serving.answer(self.live, asked))
        self.serving.finish(self.live, asked, answer)
        return answer

    @property
    def counts(self) -> dict[str, int]:
        """Counts without the measured times, which differ from run to run."""
        counts = self.live.recorder.tally().counts
        return {name: n for name, n in counts.items() if not name.startswith("micros.")}


# ---------------------------------------------------------------- production


def test_production_answers_and_names_itself() -> None:
    """Arm, release and reason stand in the answer."""
    answer = Place(ROW, Inline(3.0)).ask()
    assert (answer.choice.arm, answer.choice.release) == (Arm.PRODUCTION, 1)
    assert answer.choice.reason is Reason.PRODUCTION
    assert answer.outputs["p"].tolist() == [3.0]
    assert answer.failover is None


def test_a_request_reads_one_snapshot_whatever_is_swapped_meanwhile() -> None:
    """The old row answers what it was asked; the next request meets the new one."""
    place = Place(ROW, Inline(1.0))
    held = place.serving.live("flights")
    assert held is place.live
    newer = Place(ROW, Inline(2.0)).live
    place.serving.swap(newer)
    assert asyncio.run(place.serving.answer(held, request())).outputs["p"].tolist() == [1.0]
    assert place.serving.live("flights") is newer
    assert place.serving.lives() == [newer]
    assert place.serving.live("elsewhere") is None


@pytest.mark.parametrize("fault", [ValueError("poison"), SystemExit("poison")])
def test_an_exception_of_a_model_becomes_one_failure_and_is_counted(fault: BaseException) -> None:
    """With its type and its words; one that would end the process ends nothing."""
    place = Place(ROW, Inline(fault))
    with pytest.raises(ModelFailure, match=f"r1 raised {type(fault).__name__}: poison") as caught:
        place.ask()
    assert caught.value.code == "model_raised"
    assert place.counts == {"errors.production": 1}


def test_a_release_that_is_not_loaded_is_said_to_be_so() -> None:
    """Retryable: another worker may have it."""
    with pytest.raises(Unavailable) as caught:
        Place(ROW, None).ask()
    assert (caught.value.code, caught.value.retryable) == ("not_loaded", True)


@pytest.mark.parametrize("dead", ["model_died", "model_down"])
def test_the_second_process_answers_when_the_first_died_under_the_question(dead: str) -> None:
    """The caller sees an answer and nothing is counted as an error."""
    first, second = Remote(dead), Remote(5.0)
    first.ready = True
    place = Place(ROW, (first, second))
    answer = place.ask()
    assert (answer.outputs["p"].tolist(), answer.micros) == ([5.0], 7)
    assert len(first.asked) == len(second.asked) == 1
    assert "errors.production" not in place.counts


def test_the_process_that_is_there_is_asked_first() -> None:
    """A dead one is not even tried while the other answers."""
    gone, there = Remote("model_down"), Remote(5.0)
    assert Place(ROW, (gone, there)).ask().outputs["p"].tolist() == [5.0]
    assert gone.asked == []


def test_a_process_that_says_nothing_is_asked_last() -> None:
    """One request that computes for ever holds up no other one."""
    stalled, other = Remote(4.0), Remote(5.0)
    stalled.stalled = True
    assert Place(ROW, (stalled, other)).ask().outputs["p"].tolist() == [5.0]
    assert stalled.asked == []


@pytest.mark.parametrize("code", ["model_late", "model_raised", "model_nonsense"])
def test_a_process_that_answered_badly_is_not_asked_a_second_time(code: str) -> None:
    """The other one runs the same model: it would only take as long, or fail the same way."""
    first, second = Remote(code), Remote(5.0)
    place = Place(ROW, (first, second))
    with pytest.raises(ModelFailure) as caught:
        place.ask()
    assert caught.value.code == code
    assert second.asked == []
    assert place.counts == {"errors.production": 1}


def test_when_both_processes_are_dead_production_has_failed() -> None:
    """Each was asked once."""
    both = Remote("model_down"), Remote("model_died")
    place = Place(ROW, both)
    with pytest.raises(ModelFailure):
        place.ask()
    assert [len(remote.asked) for remote in both] == [1, 1]
    assert place.counts == {"errors.production": 1}


class Returning(Remote):
    """A process that is down, and there again after some looks at it."""

    def __init__(self, looks: int, answer: float | str = 5.0) -> None:
        self.looks = looks
        super().__init__(answer)

    @property
    def ready(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    @ready.setter
    def ready(self, value: bool) -> None: ...

    async def predict(self, columns: Columns, deadline_s: float, **more: Any) -> Predicted:
        if self.looks >= 0:
            self.asked.append(deadline_s)
            raise ModelFailure("no process", code="model_down")
        return await super().predict(columns, deadline_s, **more)


def absent(place: Place) -> Place:
    """The same place, whose production was there before."""
    place.handles[1].met = True
    return place


def test_a_request_waits_for_a_process_when_both_are_gone() -> None:
    """A kill of both costs callers time, and no answer."""
    died = Remote("model_died")
    died.ready = False
    place = absent(Place(ROW, (died, Returning(4))))
    assert place.ask().outputs["p"].tolist() == [5.0]
    assert "errors.production" not in place.counts


def test_a_request_that_two_processes_died_of_is_not_sent_to_a_third() -> None:
    """It may be what they died of, however long it waited in between."""
    first, second = Remote("model_died"), Returning(4, "model_died")
    first.ready = False
    place = absent(Place(ROW, (first, second)))
    with pytest.raises(ModelFailure) as caught:
        place.ask()
    assert caught.value.code == "model_died"
    assert len(first.asked) == 1
    assert place.counts == {"errors.production": 1}


def test_a_rollback_rescues_the_requests_that_wait_for_the_release_it_leaves() -> None:
    """They are answered by the release that is served from then on, and say so."""
    place = absent(Place(ROW, (Remote("model_down"),)))
    changed = run(CANARY, Promote(2, full=True))
    back = Live(
        state=changed,
        plan=compile_plan(changed),
        handles={2: Handle(ROW.releases[2], inline=Inline(8.0))},
        contract=place.live.contract,
        recorder=Recorder("w0", ROW),
        lease=True,
        pinned=False,
    )

    async def ask(asked: Request) -> Answer:
        waiting = asyncio.create_task(place.serving.answer(place.live, asked))
        await asyncio.sleep(0.05)
        place.serving.swap(back)
        return await waiting

    answer = asyncio.run(ask(request()))
    assert (answer.choice.release, answer.outputs["p"].tolist()) == (2, [8.0])
    assert answer.live is back
    assert "errors.production" not in place.counts


async def wait_out(place: Place, asked: Request) -> Answer:
    """Ask, and let the time pass that a request waits."""
    waiting = asyncio.create_task(place.serving.answer(place.live, asked))
    await asyncio.sleep(0.05)
    place.now = 1e9
    return await waiting


def test_a_request_is_not_moved_to_a_release_that_reads_other_fields() -> None:
    """Its columns were read for another contract; and a tester's asks for one release."""
    for asked, contract in ((request(), object()), (request(asked=1), None)):
        place = absent(Place(ROW, (Remote("model_down"),)))
        promoted = run(CANARY, Promote(2, full=True))
        place.serving.swap(
            Live(
                state=promoted,
                plan=compile_plan(promoted),
                handles={},
                contract=cast("Any", contract),
                recorder=Recorder("w0", ROW),
                lease=True,
                pinned=False,
            )
        )
        with pytest.raises(ModelFailure) as caught:
            asyncio.run(wait_out(place, asked))
        assert caught.value.code == "model_down"


def test_no_request_waits_longer_than_an_absence_is_waited_out() -> None:
    """A release whose processes keep dying fails at once, after a while."""
    place = absent(Place(ROW, (Remote("model_down"),)))
    place.handles[1].absence._since = -LASTS_S
    with pytest.raises(ModelFailure) as caught:
        place.ask()
    assert caught.value.code == "model_down"


def test_a_probe_and_a_request_too_many_do_not_wait() -> None:
    """Those that wait hold places of the worker."""
    place = absent(Place(ROW, (Remote("model_down"),)))
    with pytest.raises(ModelFailure):
        place.ask(request(probe=True))
    place.handles[1].absence._waiting = MOST
    with pytest.raises(ModelFailure):
        place.ask()


def test_the_end_of_an_absence_is_forgotten() -> None:
    """The next one is waited out again."""
    place = absent(Place(ROW, (Returning(2),)))
    place.handles[1].absence._since = -1.0
    place.ask()
    assert place.handles[1].absence._since is None


def test_no_process_at_all_is_a_failure_too() -> None:
    """And not an endless wait."""
    with pytest.raises(ModelFailure) as caught:
        Place(ROW, ()).ask()
    assert caught.value.code == "model_down"


def test_production_gets_the_time_that_the_policy_gives() -> None:
    """A candidate's deadline is another thing."""
    limits = Limits(timeout_ms=1500)
    slow = msgspec.structs.replace(ROW, policy=msgspec.structs.replace(POLICY, limits=limits))
    remote = Remote()
    Place(slow, (remote,)).ask()
    assert remote.asked == [1.5]


# ---------------------------------------------------------------- holdback

HELD = run(
    endpoint(
        release(1),
        release(2),
        policy=msgspec.structs.replace(POLICY, canary=CanaryPolicy(holdback=50.0)),
    ),
    Promote(2),
    Promote(1, override="a test"),
)
"""Production is release 1, and half of the callers stay on release 2."""
STAYS = "N5"


def test_a_held_back_caller_is_answered_by_the_previous_release() -> None:
    production, previous = Inline(), Remote(9.0)
    place = Place(HELD, production, (previous,))
    answer = place.ask(request(entity=STAYS))
    assert (answer.choice.arm, answer.choice.release) == (Arm.PREVIOUS, 2)
    assert answer.outputs["p"].tolist() == [9.0]
    (seen,) = place.live.recorder.taken()[0]
    assert (seen.arm, seen.weight, seen.failed) == (CANDIDATE, 5_000, False)


@pytest.mark.parametrize("previous", [None, (Remote("model_down"),), (Remote("model_raised"),)])
def test_when_the_previous_release_fails_production_answers(
    previous: tuple[RemoteModel, ...] | None,
) -> None:
    place = Place(HELD, Inline(), previous)
    answer = place.ask(request(entity=STAYS))
    assert (answer.choice.arm, answer.choice.reason) == (Arm.PRODUCTION, Reason.FAILOVER)
    (seen,) = place.live.recorder.taken()[0]
    assert (seen.arm, seen.failed) == (CANDIDATE, True)
    assert seen.dropped == (answer.failover in UNASKED), "what was never asked is no failure"


# ---------------------------------------------------------------- what comes late


def test_a_late_answer_is_latency_and_no_failure() -> None:
    """Production answers the caller; the candidate is held to production's own timeout."""
    candidate = Remote("model_late")
    place = Place(CANARY, Inline(3.0), (candidate,))
    answer = place.ask()
    assert (answer.failover, answer.outputs["p"].tolist()) == ("model_late", [3.0])
    assert candidate.patience == [POLICY.limits.timeout_ms / 1e3]
    (kept,) = place.live.recorder.taken().seen
    assert (kept.failed, kept.dropped, kept.ours is None) == (True, True, False), "for the log only"
    (late,) = candidate.late
    late({"p": np.full(1, 9.0)}, 70_000, None, False)  # noqa: FBT003
    taken = place.live.recorder.taken()
    (seen,) = taken.seen
    assert (seen.arm, seen.micros, seen.failed, seen.settles) == (CANDIDATE, 70_000, False, True)
    assert seen.ours is None, "no caller got it"
    assert (taken.streak, taken.conduct.late, taken.conduct.unasked) == (0, 1, {})
    assert place.counts["late.candidate"] == 1


@pytest.mark.parametrize(
    ("error", "streak", "broken", "crashes"),
    [
        ("model_late", 1, 0, 0),
        ("model_raised", 1, 0, 0),
        ("model_nonsense", 1, 1, 0),
        ("model_died", 1, 0, 1),
    ],
)
def test_a_late_failure_or_a_missing_answer_is_a_failure(
    error: str, streak: int, broken: int, crashes: int
) -> None:
    """No answer within production's own timeout is what production's would be."""
    candidate = Remote("model_late")
    place = Place(CANARY, Inline(3.0), (candidate,))
    place.ask()
    place.live.recorder.taken()
    candidate.late[0](None, 0, error, False)  # noqa: FBT003
    taken = place.live.recorder.taken()
    (seen,) = taken.seen
    assert (seen.arm, seen.failed, seen.dropped, seen.settles) == (CANDIDATE, True, False, True)
    assert (taken.streak, taken.broken, taken.conduct.crashes) == (streak, broken, crashes)


@pytest.mark.parametrize("error", ["model_expired", "model_unasked", "features_unread"])
def test_a_request_dropped_before_its_turn_is_neither_a_failure_nor_a_unit(error: str) -> None:
    candidate = Remote("model_late")
    place = Place(CANARY, Inline(3.0), (candidate,))
    place.ask()
    place.live.recorder.taken()
    candidate.late[0](None, 0, error, False)  # noqa: FBT003
    taken = place.live.recorder.taken()
    assert (taken.seen, taken.streak, taken.conduct.unasked) == ([], 0, {error: 1})
    assert taken.conduct.answered == (error != "model_unasked"), "the process said so itself"


def test_a_late_failure_of_what_production_failed_too_is_no_streak() -> None:
    candidate = Remote("model_late")
    place = Place(CANARY, Inline(ValueError("poison")), (candidate,))
    with pytest.raises(ModelFailure):
        place.ask()
    assert place.live.recorder.taken().seen == []
    candidate.late[0](None, 0, "model_raised", False)  # noqa: FBT003
    taken = place.live.recorder.taken()
    assert [(one.arm, one.failed) for one in taken.seen] == [(CANDIDATE, True)]
    assert taken.streak == 0


@pytest.mark.parametrize("cause", ["model_down", "breaker_open"])
def test_a_request_that_was_never_sent_is_no_failure_and_counts_as_unasked(cause: str) -> None:
    candidate = Remote("model_down" if cause == "model_down" else 1.0)
    place = Place(CANARY, Inline(3.0), (candidate,))
    if cause == "breaker_open":
        for number in range(Breaker.FAILURES):
            place.handles[2].breaker.failed(float(number))
        place.now = float(Breaker.FAILURES) - 1
    for _ in range(30):
        assert place.ask().failover == cause
    taken = place.live.recorder.taken()
    assert all(one.dropped for one in taken.seen)
    assert (taken.streak, taken.conduct.routed, taken.conduct.unasked) == (0, 30, {cause: 30})
    assert candidate.asked == []


@pytest.mark.parametrize(
    ("error", "dropped"),
    [
        ("model_raised", False),
        ("model_late", True),
        ("model_expired", True),
        ("model_unasked", True),
    ],
)
def test_a_copy_that_was_never_put_to_the_candidate_is_lost_coverage_and_no_failure(
    error: str, dropped: bool
) -> None:
    candidate = Remote(error)
    place = Place(SHADOW, Inline(3.0), (candidate,))
    place.ask()
    candidate.settle()
    taken = place.live.recorder.taken()
    (seen,) = taken.seen
    assert (seen.theirs, seen.dropped) == (None, dropped)
    assert taken.streak == 1 - dropped


# ---------------------------------------------------------------- canary


def test_a_candidate_in_its_share_answers() -> None:
    """Within its deadline, and production is not asked."""
    production, candidate = Inline(), Remote(9.0)
    place = Place(CANARY, production, (candidate,))
    answer = place.ask()
    assert (answer.choice.arm, answer.choice.release) == (Arm.CANDIDATE, 2)
    assert answer.outputs["p"].tolist() == [9.0]
    assert production.asked == 0
    assert candidate.asked == [UNKNOWN_DEADLINE_S]
    assert place.counts == {"requests.candidate": 1, "rows.candidate": 1}


@pytest.mark.parametrize("code", ["model_late", "model_died", "model_raised", "model_nonsense"])
def test_a_candidate_that_fails_is_answered_by_production_and_counted_against_it(code: str) -> None:
    """No caller sees a canary's failure."""
    place = Place(CANARY, Inline(3.0), (Remote(code),))
    answer = place.ask()
    assert answer.outputs["p"].tolist() == [3.0]
    assert (answer.choice.arm, answer.choice.reason) == (Arm.PRODUCTION, Reason.FAILOVER)
    assert answer.failover == code
    assert place.counts == {
        "requests.production": 1,
        "rows.production": 1,
        f"failover.{code}": 1,
    }


def test_a_failed_look_up_of_a_candidate_is_answered_by_production_and_blames_no_release() -> None:
    """The rule `production`: counted, not judged, and no step towards an open breaker."""
    candidate = Remote("features_unread")
    place = Place(CANARY, Inline(3.0), (candidate,))
    for _ in range(Breaker.FAILURES + 1):
        answer = place.ask()
        assert (answer.outputs["p"].tolist(), answer.failover) == ([3.0], "features_unread")
    assert len(candidate.asked) == Breaker.FAILURES + 1, "it is asked every time"
    assert candidate.alone == [False] * (Breaker.FAILURES + 1)
    assert place.counts["failover.features_unread"] == Breaker.FAILURES + 1
    assert place.live.recorder.taken()[0] == []


def test_what_production_looks_up_has_to_make_do() -> None:
    """There is no release behind production, and the caller gets the error."""
    production = Remote(3.0)
    Place(CANARY, (production,), (Remote("model_raised"),)).ask()
    assert production.alone == [True]


@pytest.mark.parametrize("candidate", [None, ()])
def test_a_candidate_that_is_not_there_is_answered_by_production(
    candidate: tuple[RemoteModel, ...] | None,
) -> None:
    """Its process may not have come yet, or be gone."""
    answer = Place(CANARY, Inline(), candidate).ask()
    assert (answer.choice.reason, answer.failover) == (Reason.FAILOVER, "model_down")


def test_a_question_that_only_the_candidate_cannot_take_is_answered_by_production() -> None:
    """Too large for its socket, or a null that its columns cannot hold: production can."""
    unfit = BadRequest("the columns do not fit the model", code="bad_column")
    answer = Place(CANARY, Inline(3.0), (Remote(unfit),)).ask()
    assert answer.outputs["p"].tolist() == [3.0]
    assert answer.failover == "bad_column"


def test_a_candidate_that_keeps_failing_gets_no_requests_and_is_retried() -> None:
    """Twenty in a row open the breaker; one question is let through when its time is over."""
    candidate = Remote("model_raised")
    place = Place(CANARY, Inline(3.0), (candidate,))
    reasons = []
    for _ in range(Breaker.FAILURES + 3):
        place.now += INSTANT_S * 1.01
        reasons.append(place.ask().choice.reason)
    assert reasons == [Reason.FAILOVER] * Breaker.FAILURES + [Reason.BREAKER] * 3
    assert len(candidate.asked) == Breaker.FAILURES
    assert place.counts["failover.breaker_open"] == 3
    place.now += Breaker.FIRST_S
    candidate.answer = 9.0
    assert [place.ask().choice.arm for _ in range(2)] == [Arm.CANDIDATE] * 2


def test_an_answer_in_between_keeps_the_breaker_closed() -> None:
    """Only failures in a row are the model's."""
    candidate = Remote("model_raised")
    place = Place(CANARY, Inline(), (candidate,))
    for _ in range(3):
        candidate.answer = "model_raised"
        for _ in range(Breaker.FAILURES - 1):
            place.ask()
        candidate.answer = 9.0
        assert place.ask().choice.arm is Arm.CANDIDATE
    assert "failover.breaker_open" not in place.counts


def test_when_production_fails_too_the_caller_gets_productions_failure() -> None:
    """There is no release behind production."""
    place = Place(CANARY, Inline(ValueError("poison")), (Remote("model_died"),))
    with pytest.raises(ModelFailure, match="r1 raised"):
        place.ask()
    assert place.counts == {"errors.production": 1}


def test_an_outage_of_both_is_a_failure_of_both_and_no_streak_of_the_candidate() -> None:
    """Or every shared incident would take a healthy canary back."""
    place = Place(CANARY, Inline(ValueError("poison")), (Remote("model_raised"),))
    for _ in range(30):
        with pytest.raises(ModelFailure):
            place.ask()
    taken = place.live.recorder.taken()
    assert [(one.arm, one.failed) for one in taken.seen] == [(CANDIDATE, True)] * 30
    assert (taken.streak, taken.broken) == (0, 0)
    assert taken.conduct.answered == 30, "it is alive"
    assert not place.live.handles[2].breaker.open


# ---------------------------------------------------------------- testers and probes


def test_a_tester_gets_the_release_that_was_asked_for_and_is_counted_apart() -> None:
    """Also within the other arm's share, and never as evidence."""
    place = Place(CANARY, Inline(3.0), (Remote(9.0),))
    assert place.ask(request(asked=1)).outputs["p"].tolist() == [3.0]
    assert place.ask(request(asked=2)).outputs["p"].tolist() == [9.0]
    assert place.counts == {"asked": 2, "unrecorded.tester": 2}
    assert place.live.recorder.tally().latency == {}


def test_a_tester_sees_the_failure_of_the_release_that_was_asked_for() -> None:
    """Production's answer would be a lie."""
    place = Place(CANARY, Inline(), (Remote("model_raised"),))
    with pytest.raises(ModelFailure) as caught:
        place.ask(request(asked=2))
    assert caught.value.code == "model_raised"


def test_a_release_that_is_not_live_cannot_be_asked_for() -> None:
    """And the answer lists those that can."""
    with pytest.raises(BadRequest, match=r"r9 is not live on flights; live are r1, r2") as caught:
        Place(CANARY, Inline(), (Remote(),)).ask(request(asked=9))
    assert caught.value.code == "release_not_live"


def test_a_probe_is_answered_and_leaves_no_trace() -> None:
    """Neither a count nor a copy for the shadow, and it does not pass for a caller's answer."""
    candidate = Remote()
    place = Place(SHADOW, Inline(), (candidate,))
    assert place.ask(request(probe=True)).choice.release == 1
    assert place.counts == {}
    assert candidate.waiting == []
    assert not place.live.answered
    place.ask()
    assert place.live.answered


# ---------------------------------------------------------------- counting


def test_each_row_is_one_prediction_and_no_request_with_an_entity_is_keyless() -> None:
    """Requests and rows are counted apart."""
    place = Place(ROW, Inline())
    place.ask(request(rows=3))
    place.ask(request(entity=None))
    place.ask(request(entity=""))
    recorded = sum(one.request.rows for one in place.live.recorder.taken().seen)
    assert place.counts == {
        "requests.production": 3,
        "rows.production": 5,
        "keyless": 2,
        "unrecorded.sampling": 5 - recorded,
    }


def test_the_latency_of_an_answer_is_that_of_the_model() -> None:
    """As the process says: transport and waiting are another thing."""
    place = Place(ROW, (Remote(),))
    place.ask()
    assert place.live.recorder.quantile_us(Arm.PRODUCTION, 0.5) == (7, 1)


# ---------------------------------------------------------------- shadow


def test_a_shadow_gets_a_copy_after_the_answer_and_the_two_are_compared() -> None:
    """Row by row, in the endpoint's own sense."""
    candidate = Remote(1.0)
    place = Place(SHADOW, Inline(1.0), (candidate,))
    answer = place.ask(request(rows=3))
    assert answer.choice.arm is Arm.PRODUCTION
    candidate.settle()
    candidate.answer = 2.0
    place.ask()
    candidate.settle()
    counts = {k: v for k, v in place.counts.items() if k.startswith("shadow")}
    assert counts == {
        "shadow.requests": 2,
        "shadow.answered": 2,
        "shadow.pairs": 4,
        "shadow.agreeing": 3,
    }
    assert sum(place.live.recorder.tally().latency["shadow"].values()) == 2


def test_a_shadow_is_never_waited_for() -> None:
    """The answer is there while the candidate still thinks."""
    candidate = Remote()
    assert Place(SHADOW, Inline(3.0), (candidate,)).ask().outputs["p"].tolist() == [3.0]
    assert len(candidate.waiting) == 1


def test_a_full_shadow_is_dropped_and_counted() -> None:
    """Bounded: production goes on, the loss is shown."""
    place = Place(SHADOW, Inline(), (Remote(room=2),))
    for _ in range(5):
        place.ask()
    assert place.counts["shadow.requests"] == 5
    assert place.counts["shadow.dropped.full"] == 3
    assert place.counts["requests.production"] == 5


@pytest.mark.parametrize("candidate", [None, (), (Remote("model_down"),)])
def test_a_shadow_that_is_not_there_is_dropped_and_counted(
    candidate: tuple[RemoteModel, ...] | None,
) -> None:
    """A silent shadow must be seen to be silent."""
    place = Place(SHADOW, Inline(), candidate)
    place.ask()
    assert place.counts["shadow.dropped.down"] == 1


def test_a_shadow_that_fails_is_counted_by_cause_and_then_gets_no_copies() -> None:
    """Twenty in a row; then it is dropped until its time is over."""
    candidate = Remote("model_raised")
    place = Place(SHADOW, Inline(), (candidate,))
    for _ in range(Breaker.FAILURES + 2):
        place.now += INSTANT_S * 1.01
        place.ask()
        candidate.settle()
    assert place.counts["shadow.failed.model_raised"] == Breaker.FAILURES
    assert place.counts["shadow.dropped.breaker_open"] == 2
    place.now += Breaker.FIRST_S
    candidate.answer = 1.0
    place.ask()
    candidate.settle()
    assert place.counts["shadow.answered"] == 1


def test_a_request_outside_the_sample_is_not_copied() -> None:
    """Not even counted as lost."""
    candidate = Remote()
    place = Place(run(ROW, Shadow(2, 0)), Inline(), (candidate,))
    place.ask()
    assert candidate.waiting == []
    assert "shadow.requests" not in place.counts


# ---------------------------------------------------------------- the candidate's deadline


def deadline(us: int, answers: int, own: int | None = None) -> float:
    """The candidate's deadline after so many production answers that took so long."""
    limits = Limits(candidate_deadline_ms=own)
    state = msgspec.structs.replace(CANARY, policy=msgspec.structs.replace(POLICY, limits=limits))
    live = Place(state, Inline()).live
    for _ in range(answers):
        live.recorder.latency(Arm.PRODUCTION, us)
    live.refresh_deadline()
    return live.deadline_s


def test_the_deadline_is_twice_productions_p99() -> None:
    """Within what a bin can tell."""
    assert 0.4 <= deadline(200_000, DEADLINE_MIN_ANSWERS) <= 0.4 * 1.125


def test_the_deadline_has_a_floor_and_a_ceiling() -> None:
    """Below it the machine would be measured, above it the caller would wait."""
    assert deadline(10, DEADLINE_MIN_ANSWERS) == DEADLINE_FLOOR_S
    assert deadline(60_000_000, DEADLINE_MIN_ANSWERS) == DEADLINE_CEILING_S


def test_too_few_answers_make_no_deadline() -> None:
    """One slow answer of three is not a p99."""
    assert deadline(200_000, DEADLINE_MIN_ANSWERS - 1) == UNKNOWN_DEADLINE_S
    assert deadline(0, 0) == UNKNOWN_DEADLINE_S


def test_a_deadline_that_is_declared_wins() -> None:
    """Over the floor, the ceiling and everything measured."""
    assert deadline(200_000, DEADLINE_MIN_ANSWERS, own=7) == 0.007
    assert deadline(10, 0, own=9_000) == 9.0


def test_the_shadow_gets_the_candidates_deadline() -> None:
    """The same clock for both arms of its life."""
    candidate = Remote()
    place = Place(SHADOW, Inline(), (candidate,))
    place.live.deadlines.single_s = 0.25
    place.ask()
    assert candidate.asked == [0.25]


def test_production_in_a_process_is_not_held_to_the_candidates_deadline() -> None:
    """It has no release behind it."""
    apart = endpoint(release(1, placement=Placement.PROCESS), release(2), policy=POLICY)
    remote = Remote()
    place = Place(run(apart, Promote(1), Canary(2, 1)), (remote,), (Remote(),))
    place.live.deadlines.single_s = 0.01
    place.ask(request(asked=1))
    assert remote.asked == [POLICY.limits.timeout_ms / 1e3]


def test_a_fault_after_the_answer_is_counted_and_logged_once() -> None:
    """The caller has its answer: a second one would break the connection."""
    place = Place(CANARY, Inline(3.0), None)
    place.live.handles = dict(place.handles)
    told: list[str] = []

    def broken() -> None:
        told.append("asked")
        raise OSError("the bell is gone")

    for _ in range(2):
        place.live.first_answer, place.live.answered = broken, False
        assert place.ask().outputs["p"].tolist() == [3.0]
    assert told == ["asked", "asked"]
    assert place.counts["errors.after_answer"] == 2
    assert place.live.troubled


def test_copies_that_would_hold_too_many_bytes_are_not_asked() -> None:
    """Of inputs of ten megabytes three are under way at once; an answer gives its bytes back."""
    candidate = Remote(2.0)
    place = Place(SHADOW, Inline(), (candidate,))
    asked = request()
    asked.columns = {"x": np.zeros(1), "image": np.zeros((1, 10 << 17))}
    for _ in range(5):
        place.ask(asked)
    assert len(candidate.waiting) == 3
    assert place.counts["shadow.dropped.bytes"] == 2
    candidate.settle()
    place.ask(asked)
    assert len(candidate.waiting) == 1


def test_a_process_whose_answers_used_up_their_bytes_is_not_asked_and_not_silent() -> None:
    candidate = Remote(2.0)
    place = Place(SHADOW, Inline(), (candidate,))
    candidate.throttled = True
    for _ in range(30):
        place.now += 1.0
        place.ask()
    assert candidate.waiting == []
    assert place.counts["shadow.dropped.bytes"] == 30
    conduct = place.live.recorder.taken().conduct
    assert (conduct.silent_s, conduct.unasked, conduct.failed) == (0.0, {"model_unread": 30}, 0)
    candidate.throttled = False
    place.ask()
    assert len(candidate.waiting) == 1


def test_an_answer_that_was_not_read_is_no_failure() -> None:
    candidate = Remote("model_unread")
    place = Place(SHADOW, Inline(), (candidate,))
    for _ in range(30):
        place.ask()
        candidate.settle()
    assert place.counts["shadow.dropped.bytes"] == 30
    assert not place.handles[2].breaker.open
    conduct = place.live.recorder.taken().conduct
    assert (conduct.failed, conduct.unasked) == (0, {"model_unread": 30})


# ---------------------------------------------------------------- what leaves no record


@pytest.mark.parametrize(
    ("state", "sample", "asked", "counted"),
    [
        (ROW, 0.0, request(rows=3), {"unrecorded.sampling": 3}),
        (ROW, 100.0, request(rows=3), {}),
        (CANARY, 0.0, request(rows=3), {}),
        (ROW, 100.0, request(asked=1), {"unrecorded.tester": 1}),
    ],
)
def test_an_answer_that_is_not_recorded_is_counted_by_cause(
    state: State, sample: float, asked: Request, counted: dict[str, int]
) -> None:
    policy = msgspec.structs.replace(POLICY, log=msgspec.structs.replace(POLICY.log, sample=sample))
    place = Place(msgspec.structs.replace(state, policy=policy), Inline(), (Remote(),))
    place.ask(asked)
    assert {k: n for k, n in place.counts.items() if k.startswith("unrecorded.")} == counted


def test_a_sample_of_the_callers_is_recorded_and_the_others_are_counted() -> None:
    place = Place(ROW, Inline())
    for number in range(200):
        place.ask(request(entity=f"caller-{number}"))
    seen = len(place.live.recorder.taken().seen)
    assert 5 <= seen <= 40
    assert place.counts["unrecorded.sampling"] == 200 - seen
