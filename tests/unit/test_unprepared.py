"""A command after which callers are answered as before waits for no replica."""

from __future__ import annotations

import pytest

from kedge.core.release.commands import (
    AnyCommand,
    Canary,
    Follow,
    Freeze,
    Hold,
    Pause,
    Promote,
    Thaw,
)
from kedge.core.values import State
from kedge.engine.submission import UNPREPARED
from kedge.testing.samples import endpoint, release, run


def served(state: State) -> tuple[object, ...]:
    return state.stage, state.production, state.candidate, state.weight


@pytest.mark.parametrize("commands", [(Pause(),), (Freeze(), Thaw()), (Follow(), Hold())])
def test_a_flag_changes_nothing_that_is_served_and_waits_for_nothing(
    commands: tuple[AnyCommand, ...],
) -> None:
    state = run(endpoint(release(1), release(2)), Promote(1), Canary(2, 500))
    for command in commands:
        after = run(state, command)
        assert after != state
        assert served(after) == served(state)
        assert isinstance(command, UNPREPARED)
        state = after
