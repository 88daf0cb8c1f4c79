"""Commands and events are values that go over the ledger and come back."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from kedge.core.release import commands as c
from kedge.core.release.commands import AnyCommand, AnyEvent, Certify, Promote, Rollback
from kedge.core.release.machine import decide
from kedge.core.values import Stage, Value
from kedge.testing.samples import AT, endpoint, release, run


@pytest.mark.parametrize("every", [get_args(AnyCommand), get_args(AnyEvent)])
def test_each_has_a_tag_of_its_own_and_may_carry_evidence(every: tuple[type[Value], ...]) -> None:
    tags = [one.__struct_config__.tag for one in every]
    assert len(set(tags)) == len(every)
    assert all("evidence" in one.__struct_fields__ for one in every)


def test_the_evidence_of_an_automatic_decision_is_in_the_ledger() -> None:
    state = run(
        endpoint(release(1), release(2)),
        Promote(release=1),
        c.Canary(release=2, weight=500, override="a test"),
    )
    seen = {"verdict": "fail", "units": [5, 6]}
    told = decide(state, Rollback(evidence=seen), at=AT)
    assert isinstance(told, tuple)
    assert [event.evidence for event in told] == [seen] * len(told)
    raw = msgspec.json.encode(told)
    assert msgspec.json.decode(raw, type=tuple[AnyEvent, ...]) == told


def test_a_certificate_is_for_this_pair_only() -> None:
    """Another production, or another candidate, has to be shadowed anew."""
    state = run(endpoint(release(1), release(2)), Promote(release=1), c.Shadow(release=2))
    state = run(state, Certify(release=2))
    assert state.automation.proven == (2, 1)
    assert state.stage is Stage.SHADOW
    state = run(state, c.Abort(), c.Shadow(release=2))
    assert state.automation.proven in ((2, 1), None)
