"""Whatever is commanded in whatever order, the row stays sound."""

from typing import Any

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from kedge.core.codec import decode, encode, fingerprint
from kedge.core.contract import lacking
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    AnyEvent,
    Canary,
    Certify,
    Configure,
    Drill,
    Fail,
    Pause,
    Promote,
    Resume,
    Return,
    Rollback,
    SetWeight,
    Shadow,
)
from kedge.core.release.guards import GUARDS
from kedge.core.release.machine import TABLE, Rule, apply, decide
from kedge.core.release.refusals import REFUSALS
from kedge.core.release.ways_back import returned, starved
from kedge.core.values import BUCKETS, CanaryPolicy, Placement, Policy, Refusal, Stage, State
from kedge.testing.samples import AT, endpoint, fields, release, run

NEEDS = ("dep_delay:float32", "dep_delay:float64,origin:string", "dep_delay:float32?,seats:int64")
GIVES = ("p_late:float32", "p_late:float32,why:string", "p_late:float64", "late:float32")
EVERYTHING = "dep_delay:float32,origin:string,seats:int64"
CONTRACTS = ("", *NEEDS, EVERYTHING, EVERYTHING)
# Four versions times three transformations, and 13 to 16: four of them placed elsewhere.
RELEASES = tuple(
    release(
        number,
        version=1 + number % 4,
        transformation=1 + number % 3,
        needs=NEEDS[number % 4 % 3],
        gives=GIVES[number % 4],
        placement=Placement.PROCESS if number > 12 else Placement.INLINE,
    )
    for number in range(1, 17)
)
START = endpoint(*RELEASES)

numbers = st.integers(1, 17)
weights = st.one_of(st.integers(0, BUCKETS), st.sampled_from((-1, 0, 100, BUCKETS, BUCKETS + 1)))
overrides = st.sampled_from((None, None, "an incident"))
policies = st.builds(
    Policy,
    audience=st.sampled_from(("customer", "internal", "internal")),
    fields=st.sampled_from(CONTRACTS).map(fields),
    answers=st.sampled_from((None, None, (), *map(fields, GIVES))),
    canary=st.builds(CanaryPolicy, steps=st.lists(st.floats(0, 101), max_size=4).map(tuple)),
)


def failed_pairs(state: State) -> set[tuple[int, int]]:
    return {(f.candidate, f.production) for f in state.automation.failures}


def refused(outcome: tuple[AnyEvent, ...] | Refusal) -> bool:
    return isinstance(outcome, Refusal)


def rule_of(state: State, command: AnyCommand) -> Rule | None:
    rules = TABLE.get((state.stage, type(command)), ())
    return next((r for r in rules if GUARDS[r.when](state, command)), None)


class Machine(RuleBasedStateMachine):
    """Commands in any order; the ledger is kept, so that it can be folded again."""

    def __init__(self) -> None:
        super().__init__()
        self.state = START
        self.ledger: list[AnyEvent] = []

    def submit(self, command: AnyCommand) -> tuple[AnyEvent, ...] | Refusal:
        before, said = self.state, rule_of(self.state, command)
        outcome = decide(before, command, AT)
        self.no_step_forward_without_an_event(command, outcome)
        if isinstance(outcome, Refusal):
            assert outcome.code in REFUSALS
            assert "None" not in outcome.message
            assert said is None or said.refuse == outcome.code
            return outcome
        for event in outcome:
            self.state = apply(self.state, event)
        self.ledger += outcome
        assert outcome
        assert said is not None
        assert self.state.epoch == before.epoch + len(outcome)
        assert self.state.stage is (said.to or before.stage)
        return outcome

    def no_step_forward_without_an_event(
        self, command: AnyCommand, outcome: tuple[AnyEvent, ...] | Refusal
    ) -> None:
        """Without an override no caller gets less than was promised, or what a verdict failed."""
        if isinstance(outcome, Refusal) or getattr(command, "override", None) is not None:
            return
        before, after = self.state, self.state
        for event in outcome:
            after = apply(after, event)
        moved = after.production if after.production != before.production else after.candidate
        further = (after.production, after.candidate) != (before.production, before.candidate)
        further = further or after.weight > before.weight
        if isinstance(command, Rollback | Drill | Return | Abort) or not further or moved is None:
            return
        signature = before.releases[moved].signature
        assert lacking(signature, after.answers or ()) == ()
        if before.stage in (Stage.SETTLED, Stage.SHADOW) and not isinstance(command, Shadow):
            assert (moved, before.production) not in failed_pairs(before)

    @initialize(first=st.permutations(range(1, 17)), many=st.sampled_from((0, 1, 3, 6)))
    def some_served_before(self, first: list[int], many: int) -> None:
        policy = Policy(audience="internal", fields=fields(EVERYTHING) if many > 1 else ())
        self.submit(Configure(policy=policy, digest=fingerprint(policy)))
        for number in first[:many]:
            self.submit(Promote(number, override="an incident"))

    @rule(release=st.none() | numbers, full=st.booleans(), override=overrides)
    def promote(self, **asked: Any) -> None:
        self.submit(Promote(**asked))

    @rule(release=numbers)
    def promote_for_a_reason(self, release: int) -> None:
        before = self.state
        outcome = self.submit(Promote(release=release, full=True, override="an incident"))
        if not refused(outcome):
            assert self.state.production == release
            assert self.state.previous == before.production
            assert release not in self.state.condemned

    @rule(release=numbers, sample=weights, override=overrides)
    def shadow(self, **asked: Any) -> None:
        self.submit(Shadow(**asked))

    @rule(release=numbers, weight=weights, override=overrides)
    def canary(self, **asked: Any) -> None:
        before = self.state
        outcome = self.submit(Canary(**asked))
        if not refused(outcome) and before.stage is Stage.SHADOW:
            assert self.state.salt == before.salt

    @rule(weight=weights, override=overrides)
    def set_weight(self, **asked: Any) -> None:
        self.submit(SetWeight(**asked))

    @rule(release=numbers)
    def certify(self, release: int) -> None:
        if not refused(self.submit(Certify(release))):
            assert (release, self.state.production) not in failed_pairs(self.state)

    @rule(release=numbers, pausing=st.booleans())
    def fail(self, release: int, *, pausing: bool) -> None:
        before = self.state
        command = Pause(failure="quality") if pausing else Fail(release, reason="quality")
        self.submit(command)
        assert (self.state.production, self.state.candidate) == (
            before.production,
            before.candidate,
        )
        assert (self.state.weight, self.state.condemned) == (before.weight, before.condemned)

    @rule(override=overrides)
    def resume(self, override: str | None) -> None:
        self.submit(Resume(override=override))

    @rule(weight=weights)
    def a_smaller_share_is_never_refused(self, weight: int) -> None:
        if self.state.stage is Stage.CANARY and 0 <= weight < self.state.weight:
            assert not refused(self.submit(SetWeight(weight)))

    @rule(command=st.sampled_from((Pause(), Resume(), Abort(), SetWeight(100))))
    def hold(self, command: AnyCommand) -> None:
        before = self.state
        self.submit(command)
        assert self.state.condemned == before.condemned
        assert self.state.production == before.production

    @rule(policy=policies)
    def configure(self, policy: Policy) -> None:
        before = self.state
        self.submit(Configure(policy=policy, digest=fingerprint(policy)))
        assert self.state.production == before.production
        assert self.state.candidate == before.candidate

    @rule(to=st.none() | numbers, axis=st.sampled_from((None, "model", "features")))
    def rollback_of_production(self, **asked: Any) -> None:
        before = self.state
        outcome = self.submit(Rollback(production=True, **asked))
        if not refused(outcome):
            assert self.state.production in before.served
            assert self.state.production != returned(before).production
            assert self.state.production not in self.state.condemned
            assert returned(before).production in self.state.condemned
            assert self.state.candidate is None

    @rule()
    def rollback(self) -> None:
        before = self.state
        outcome = self.submit(Rollback())
        if isinstance(outcome, Refusal):
            assert outcome.code == "nothing_to_go_back_to"
            assert before.back is None
            assert before.stage is not Stage.CANARY
        elif before.stage is Stage.CANARY:
            assert self.state.production == before.production
            assert self.state.candidate is None
            assert before.candidate in self.state.condemned
        else:
            assert self.state.production == before.back
            assert returned(before).production in self.state.condemned

    @rule(until=st.sampled_from((10.0, 20.0)))
    def drill(self, until: float) -> None:
        before = self.state
        outcome = self.submit(Drill(until=until))
        if not refused(outcome):
            assert before.stage is Stage.SETTLED
            assert self.state.production == before.back
            assert self.state.drill is not None
            back = run(self.state, Return(until=until))
            assert back == msgspec.structs.replace(before, epoch=before.epoch + 2)

    @rule(until=st.sampled_from((None, 10.0, 20.0)))
    def end_of_a_drill(self, until: float | None) -> None:
        before = self.state
        outcome = self.submit(Return(until=until))
        if refused(outcome):
            assert before.drill is None or until not in (None, before.drill.until)
        else:
            assert before.drill is not None
            assert self.state.production == before.drill.left

    @rule()
    def rollback_until_nothing_is_left(self) -> None:
        """Rolling back on and on visits every release at most once, and then says so."""
        state, seen = self.state, []
        while not refused(outcome := decide(state, Rollback(), AT)):
            if state.stage is not Stage.CANARY:
                seen.append(returned(state).production)
            state = run(state, Rollback())
        seen.append(state.production)
        assert isinstance(outcome, Refusal)
        assert outcome.code == "nothing_to_go_back_to"
        assert len(seen) == len(set(seen))

    @invariant()
    def there_is_a_candidate_exactly_while_a_rollout_runs(self) -> None:
        settled = self.state.stage in (Stage.EMPTY, Stage.SETTLED, Stage.DRILL)
        assert (self.state.candidate is None) is settled
        assert self.state.candidate != self.state.production or self.state.production is None
        assert (self.state.production is None) is (self.state.stage is Stage.EMPTY)
        if settled:
            assert (self.state.paused, self.state.salt) == (False, "")

    @invariant()
    def shares_belong_to_their_stage(self) -> None:
        assert self.state.weight == 0 or self.state.stage is Stage.CANARY
        assert self.state.sample == 0 or self.state.stage is Stage.SHADOW
        assert 0 <= self.state.weight <= BUCKETS
        assert 0 <= self.state.sample <= BUCKETS

    @invariant()
    def production_is_never_condemned(self) -> None:
        assert self.state.production not in self.state.condemned

    @invariant()
    def a_way_back_served_is_good_and_is_another(self) -> None:
        state = self.state
        for back in (state.back, state.back_model, state.back_features):
            if back is not None:
                assert back in state.served
                assert back not in state.condemned
                assert back != returned(state).production
                assert starved(state, back, state.fields) == ()
        good = set(state.served) - set(state.condemned) - {returned(state).production}
        unfed = {r for r in good if starved(state, r, state.fields)}
        assert (state.back is None) is (good == unfed)

    @invariant()
    def nothing_that_serves_is_starved(self) -> None:
        ends = (self.state.production, returned(self.state).production, self.state.candidate)
        for live in ends:
            assert starved(self.state, live, self.state.fields) == ()

    @invariant()
    def served_and_condemned_hold_each_release_once(self) -> None:
        for numbers in (self.state.served, self.state.condemned):
            assert len(numbers) == len(set(numbers))
        if self.state.production is not None:
            assert self.state.served[-1] == returned(self.state).production

    @invariant()
    def a_drill_is_its_stage_and_condemns_no_restored_release(self) -> None:
        drill = self.state.drill
        assert (drill is not None) is (self.state.stage is Stage.DRILL)
        if drill is not None:
            assert drill.left not in self.state.condemned
            assert drill.left != self.state.production
            assert self.state.compared is None

    @invariant()
    def the_row_comes_back_from_storage_as_it_was(self) -> None:
        assert decode(encode(self.state), State) == self.state

    def teardown(self) -> None:
        """The stored ledger, folded from the start, is the row."""
        state = START
        for event in self.ledger:
            state = apply(state, msgspec.json.decode(encode(event), type=AnyEvent))
        assert state == self.state
        assert state.epoch == len(self.ledger)


Machine.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
test_whatever_is_commanded_the_row_stays_sound = Machine.TestCase
