"""Two identical releases: neither their tails, nor pauses, nor errors, nor one caller condemn one.

The product's own Serving, Recorder, Counter, Watch and policy on a clock that is moved by hand, with
a process that works on one request at a time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from typing import TYPE_CHECKING, Any, cast

import msgspec
import numpy as np
import pytest

from kedge.core.automation import Decision, decide
from kedge.core.errors import ModelFailure
from kedge.core.release.commands import Canary, Promote, Shadow
from kedge.core.routing import compile_plan
from kedge.core.values import CanaryPolicy, Output, Policy, State
from kedge.engine.recording.counter import Counter
from kedge.engine.recording.recorder import Recorder
from kedge.engine.request import Request
from kedge.engine.serving.live import Live
from kedge.engine.serving.pool import Handle
from kedge.engine.serving.serving import Serving
from kedge.engine.watch import Watch
from kedge.ports import Predicted
from kedge.testing.samples import endpoint, release, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from kedge.ports import OnDone
    from kedge.typing import Columns

POLICY = Policy(
    audience="internal", output=Output(kind="score", score="p"), canary=CanaryPolicy(dwell="1h")
)
ROW = run(endpoint(release(1), release(2), policy=POLICY), Promote(1))
CANARY, SHADOW = run(ROW, Canary(2, 2_500)), run(ROW, Shadow(2))
REQUESTS = 8_000
"""Of a run with chance in it: the faults that it guards against took hundreds."""


class World:
    """A model that production runs inline and the candidate in a process of its own."""

    def __init__(self, took_s: Callable[[int], float], fails: Callable[[], str]) -> None:
        self.now = 0.0
        self.took_s = took_s
        """How long it works on so many rows."""
        self.fails = fails
        """Why it fails; empty when it answers."""
        self.later: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self.wall = 1_000_000.0

    def due(self, at: float, what: Callable[[], None]) -> None:
        heapq.heappush(self.later, (at, next(self._number), what))

    def until(self, at: float) -> None:
        """Let everything happen that is due before."""
        while self.later and self.later[0][0] <= at:
            self.now, _, what = heapq.heappop(self.later)
            what()
        self.now = at


class Alike:
    """Production's model, in the worker."""

    signature = None

    def __init__(self, world: World) -> None:
        self.world = world
        self.micros = 0

    def predict(self, columns: Columns) -> Columns:
        cause = self.world.fails()
        if cause:
            raise ModelFailure("it failed", code=cause)
        return answer(columns)


def answer(columns: Columns) -> Columns:
    return {"p": np.zeros(len(columns["x"]))}


class Process:
    """The same model in a process: one request at a time, and none while it is stopped."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ready = True
        self.stalled = False
        self.violations: dict[str, int] = {}
        self.throttled = False
        self.free_at = 0.0
        self.stopped: list[tuple[float, float]] = []
        self.took: dict[int, float] = {}

    def _end(self, begin: float, took_s: float) -> float:
        """When it has worked so long, with the pauses that fall into it."""
        for start, end in self.stopped:
            if start <= begin < end:
                begin = end
            elif begin < start < begin + took_s:
                took_s += end - start
        return begin + took_s

    def _work(self, rows: int, deadline_s: float) -> tuple[float, float, str]:
        """When it will be done, how long the model takes, and what comes of it."""
        now = self.world.now
        begin = self._end(max(now, self.free_at), 0.0)
        if begin > now + deadline_s:
            return begin, 0.0, "model_expired"
        took_s = self.world.took_s(rows)
        self.free_at = self._end(begin, took_s)
        return self.free_at, self.free_at - begin, self.world.fails()

    async def predict(
        self,
        columns: Columns,
        deadline_s: float,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        on_late: OnDone | None = None,
    ) -> Predicted:
        asked_at = self.world.now
        done_at, took_s, cause = self._work(len(columns["x"]), deadline_s)
        if done_at > asked_at + deadline_s:
            if on_late is not None:
                self._later(on_late, columns, asked_at, done_at, took_s, cause, patience_s)
            raise ModelFailure("late", code="model_late")
        if cause:
            raise ModelFailure("it failed", code=cause)
        return Predicted(answer(columns), int(took_s * 1e6))

    def _later(
        self,
        told: OnDone,
        columns: Columns,
        asked_at: float,
        done_at: float,
        took_s: float,
        cause: str,
        patience_s: float,
    ) -> None:
        if done_at > asked_at + patience_s:
            done_at, cause = asked_at + patience_s, "model_late"
        found = None if cause else answer(columns)
        self.world.due(done_at, lambda: told(found, int(took_s * 1e6), cause or None, False))  # noqa: FBT003

    def submit(
        self,
        columns: Columns,
        on_done: OnDone,
        deadline_s: float,
        *,
        patience_s: float = 0.0,
        apart: bool = False,
    ) -> bool:
        done_at, took_s, cause = self._work(len(columns["x"]), deadline_s)
        patience_s = max(patience_s, deadline_s)
        self._later(on_done, columns, self.world.now, done_at, took_s, cause, patience_s)
        return True

    def hang_up(self) -> None:
        """There is no connection."""


class Rollout:
    """One worker that serves the two, and a patrol that looks every second."""

    def __init__(self, state: State, world: World, seed: int) -> None:
        self.world, self.state = world, state
        self.rng = np.random.default_rng(seed)
        self.serving = Serving(lambda: world.now)
        self.recorder = Recorder("w0", state)
        self.process = Process(world)
        handles = {
            1: Handle(state.releases[1], inline=Alike(world)),  # type: ignore[arg-type]
            2: Handle(state.releases[2], remotes=(self.process,)),
        }
        self.live = Live(
            state=state,
            plan=compile_plan(state),
            handles=handles,
            contract=cast("Any", None),
            recorder=self.recorder,
            lease=True,
            pinned=False,
        )
        self.counter, self.watch = Counter("w0", state), Watch(state)
        self.number = 0
        self.decisions: list[Decision] = []

    async def ask(self, rows: int = 1, entity: str | None = None, **more: Any) -> None:
        self.number += 1
        request = Request(
            id=str(self.number),
            columns={"x": np.zeros(rows)},
            rows=rows,
            entity=entity,
            draw=int(self.rng.integers(10_000)),
            **more,
        )
        try:
            found = await self.serving.answer(self.live, request)
        except ModelFailure:
            return
        if found.choice.release == 1:  # the clock stands still while a model works inline
            found.micros = int(self.world.took_s(rows) * 1e6)
        self.serving.finish(self.live, request, found)

    def look(self, second: int) -> Decision:
        """Count a second, judge it, and decide."""
        bounds = self.recorder.bounds(2.0, 5_000, 200)
        taken = self.recorder.taken()
        window, _ = self.counter.window(
            taken.seen,
            second,
            bounds,
            number=second,
            paired=self.state.mirrored is not None,
            weight=self.state.stratum,
            lost=taken.lost,
            streak=taken.streak,
            broken=taken.broken,
            conduct=taken.conduct,
        )
        self.watch.fold(window)
        self.live.refresh_deadline()
        decision = decide(self.state, self.watch.facts(float(second)))
        self.decisions.append(decision)
        return decision

    async def traffic(
        self, seconds: float, rate: float, each: Callable[[int], dict[str, Any]] | None = None
    ) -> Decision:
        """Requests at random instants; ends when something is decided against the candidate."""
        end, second = self.world.now + seconds, int(self.world.now)
        while self.world.now < end:
            self.world.until(self.world.now + self.rng.exponential(1 / rate))
            while second < int(self.world.now):
                second += 1
                decision = self.look(second)
                if decision.verdict == "fail":
                    return decision
            await self.ask(**(each(self.number) if each is not None else {}))
        return self.look(second + 1)


def never() -> str:
    return ""


def played(story: Any) -> Decision:
    decision: Decision = asyncio.run(story)
    return decision


@pytest.mark.parametrize("state", [CANARY, SHADOW], ids=["canary", "shadow"])
@pytest.mark.parametrize("p", [0.01, 0.05, 0.1, 0.3])
def test_errors_that_both_have_end_no_rollout(state: State, p: float) -> None:
    """20 in a row at random are impossible; five in a row, and what is then spared, were not."""
    rng = np.random.default_rng(4)
    world = World(lambda _: 0.002, lambda: "model_raised" if rng.random() < p else "")
    rollout = Rollout(state, world, seed=int(p * 100))
    decision = played(rollout.traffic(REQUESTS / 100, 100))
    assert decision.verdict != "fail", decision
    assert rollout.watch.faults.streak < 20
    assert sum(rollout.watch.faults.unasked.values()) == 0


@pytest.mark.parametrize("state", [CANARY, SHADOW], ids=["canary", "shadow"])
@pytest.mark.parametrize(("median_s", "sigma"), [(0.003, 1.0), (0.01, 1.0)])
def test_a_long_tail_that_both_have_ends_no_rollout(
    state: State, median_s: float, sigma: float
) -> None:
    """Beyond the deadline lies latency, by the bound that production is held to: no error."""
    rng = np.random.default_rng(5)
    world = World(lambda _: float(median_s * np.exp(sigma * rng.standard_normal())), never)
    rollout = Rollout(state, world, seed=5)
    # The candidate's process works for a fifth of its time.
    rate = (4 if state is CANARY else 1) * 0.2 / (median_s * np.exp(sigma**2 / 2))
    decision = played(rollout.traffic(REQUESTS / rate, rate))
    assert decision.verdict != "fail", decision
    assert rollout.watch.faults.late > 0 or sigma < 1
    errors = [v for v in rollout.watch.verdicts({("errors", "")}) if v.metric == "errors"]
    assert errors[0].bad == (0, 0)


@pytest.mark.parametrize("state", [CANARY, SHADOW], ids=["canary", "shadow"])
def test_a_pause_of_less_than_half_a_second_ends_no_rollout(state: State) -> None:
    """What waited in it was late, or was dropped unasked; the candidate is asked again at once."""
    rng = np.random.default_rng(6)
    world = World(lambda _: float(0.002 * np.exp(0.1 * rng.standard_normal())), never)
    rollout = Rollout(state, world, seed=6)
    rollout.process.stopped = [(60.0 + 20 * k, 60.4 + 20 * k) for k in range(3)]
    decision = played(rollout.traffic(150, 100))
    assert decision.verdict != "fail", decision
    faults = rollout.watch.faults
    assert 0 < sum(faults.unasked.values()) < 0.05 * faults.routed
    assert (faults.streak, faults.crashes, faults.silence_s) == (0, 0, 0.0)


@pytest.mark.parametrize("how", ["plain", "probe", "asked", "keyless"])
def test_large_requests_of_one_caller_end_no_rollout(how: str) -> None:
    """The allowed 1,024 rows take 350 ms in either release; six at once, every ten seconds."""
    world = World(lambda rows: 0.002 + rows * 0.00034, never)
    rollout = Rollout(CANARY, world, seed=7)
    plan = rollout.live.plan
    caller = next(
        name for name in map(str, range(1_000)) if plan.choose(name, 0).release == 2
    )  # one of the candidate's

    async def story() -> Decision:
        found = await rollout.traffic(30, 100, each=lambda n: {"entity": f"c{n % 500}"})
        for _ in range(12):
            more: dict[str, Any] = {"entity": None if how == "keyless" else caller}
            if how in ("probe", "asked"):
                more[how] = True if how == "probe" else 2
            for _ in range(6):
                await rollout.ask(1_024, **more)
            found = await rollout.traffic(10, 100, each=lambda n: {"entity": f"c{n % 500}"})
            if found.verdict == "fail":
                break
        return found

    decision = played(story())
    assert decision.verdict != "fail", decision
    errors = [v for v in rollout.watch.verdicts({("errors", "")}) if v.metric == "errors"]
    assert errors[0].bad == (0, 0)


def test_probes_and_testers_move_neither_the_breaker_nor_the_streak() -> None:
    """Also when the candidate fails every one of them."""
    world = World(lambda _: 0.002, lambda: "model_raised")
    for more in ({"probe": True}, {"asked": 2}):
        rollout = Rollout(CANARY, world, seed=8)
        for _ in range(100):
            world.now += 0.2
            asyncio.run(rollout.ask(entity="5", **more))
        taken = rollout.recorder.taken()
        assert (taken.streak, taken.broken, taken.conduct.routed) == (0, 0, 0)
        assert not rollout.live.handles[2].breaker.open
        assert taken.seen == []


# ---------------------------------------------------------------- and what is bad is found as soon


@pytest.mark.parametrize(
    ("kind", "within_s"),
    [("model_raised", 4), ("model_nonsense", 2), ("model_died", 7), ("hangs", 6), ("down", 6)],
)
def test_a_candidate_that_fails_always_is_found_within_seconds(kind: str, within_s: float) -> None:
    world = World(lambda _: 0.002, never)
    rollout = Rollout(CANARY, world, seed=9)

    async def story() -> Decision:
        await rollout.traffic(20, 100)
        if kind == "hangs":
            rollout.process.stopped = [(20.0, 1e9)]
        elif kind == "down":
            rollout.process.ready = False
        else:
            work = rollout.process._work
            rollout.process._work = (  # type: ignore[method-assign]
                lambda rows, deadline_s: (*work(rows, deadline_s)[:2], kind)
            )
        return await rollout.traffic(30, 100)

    decision = played(story())
    assert decision.verdict == "fail", decision
    assert decision.code == "hard_kill" or kind == "model_raised"
    assert world.now - 20 <= within_s


def test_one_caller_whose_requests_only_the_candidate_fails_ends_no_rollout() -> None:
    """Its failures are counted, and named as one caller's."""
    rng = np.random.default_rng(10)
    bad = {"yes": ""}
    world = World(lambda _: 0.002, never)
    rollout = Rollout(CANARY, world, seed=10)
    rollout.process.world = world
    work = rollout.process._work
    rollout.process._work = (  # type: ignore[method-assign]
        lambda rows, deadline_s: (*work(rows, deadline_s)[:2], bad["yes"])
    )
    caller = next(n for n in map(str, range(1_000)) if rollout.live.plan.choose(n, 0).release == 2)

    async def story() -> Decision:
        found = await rollout.traffic(10, 50, each=lambda n: {"entity": f"c{n}"})
        for _ in range(60):
            bad["yes"] = "model_raised"
            for _ in range(30):
                world.until(world.now + 0.01 + 0.001 * rng.random())
                await rollout.ask(entity=caller)
            bad["yes"] = ""
            found = await rollout.traffic(1, 50, each=lambda n: {"entity": f"c{n}"})
            if found.verdict == "fail":
                break
        return found

    decision = played(story())
    assert decision.verdict != "fail", decision
    assert rollout.watch.faults.spread("errors").callers == 1


def test_a_policy_with_a_deadline_of_its_own_is_held_to_the_same_standard() -> None:
    """It bounds what a caller waits, and makes no failure of what comes later."""
    limits = msgspec.structs.replace(POLICY.limits, candidate_deadline_ms=5)
    policy = msgspec.structs.replace(POLICY, limits=limits)
    rng = np.random.default_rng(11)
    world = World(lambda _: float(0.003 * np.exp(0.6 * rng.standard_normal())), never)
    rollout = Rollout(msgspec.structs.replace(CANARY, policy=policy), world, seed=11)
    decision = played(rollout.traffic(120, 60))
    assert decision.verdict != "fail", decision
    assert rollout.watch.faults.late > 50
