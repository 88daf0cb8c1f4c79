"""The ways back, and which releases qualify: every flip and every rollback uses these rules.

A release is a way back if it served, no rollback condemned it, and callers still promise every
field that it needs. A drill lands on a way back, restores production, and changes nothing else.
"""

from __future__ import annotations

from msgspec.structs import replace

from kedge.core.contract import unmet
from kedge.core.values import Drilling, Failure, Field, Release, Stage, State


def returned(state: State) -> State:
    """Return the row without its drill: the earlier production is restored. Else the row itself."""
    if state.drill is None:
        return state
    return replace(
        state,
        stage=Stage.SETTLED,
        production=state.drill.left,
        automation=replace(state.automation, drill=None),
    )


def drilled(state: State, release: int, drill: Drilling) -> State:
    """Return the row in a drill: another release answers for a while; nothing else changes."""
    return replace(
        state,
        stage=Stage.DRILL,
        production=release,
        automation=replace(state.automation, drill=drill),
    )


def ways_back(state: State) -> dict[str, int | None]:
    """Return the release on which each kind of rollback would land now.

    `back` undoes the newest change of production. `back_model` is the newest good release
    with another model and today's features, `back_features` the reverse. A drill changes none of
    them: a rollback within it lands where it would have landed before the drill.
    """
    state = returned(state)
    good = [
        state.releases[number]
        for number in reversed(state.served)
        if number != state.production
        and number not in state.condemned
        and number in state.releases
        and not starved(state, number, state.fields)
    ]
    now = state.releases.get(state.production) if state.production is not None else None

    def newest(*, same_model: bool, same_features: bool) -> int | None:
        return next(
            (
                release.number
                for release in good
                if now is not None
                and (_model(release) == _model(now)) is same_model
                and (_features(release) == _features(now)) is same_features
            ),
            None,
        )

    return {
        "back": good[0].number if good else None,
        "back_model": newest(same_model=False, same_features=True),
        "back_features": newest(same_model=True, same_features=False),
    }


def starved(state: State, number: int | None, fields: tuple[Field, ...]) -> tuple[str, ...]:
    """Return what a release needs beyond these fields; () if there are no fields yet."""
    release = state.releases.get(number) if number is not None else None
    return unmet(release.signature, fields) if release and fields else ()


def first_starved(state: State, fields: tuple[Field, ...]) -> tuple[int, tuple[str, ...]] | None:
    """Return the first live release or way back that a contract would starve, and what it lacks."""
    live = (
        state.production,
        returned(state).production,
        state.candidate,
        state.back,
        state.back_model,
        state.back_features,
    )
    for number in live:
        if number is not None and (lacking := starved(state, number, fields)):
            return number, lacking
    return None


def condemned_as(state: State, number: int | None) -> int | None:
    """Return the condemned release that this one equals: itself, or its bundle elsewhere.

    The same model and features in another runtime are another release, with another number. That
    release counts as condemned too, unless it served and was never condemned itself.
    """
    if number is None or number in state.condemned or number in state.served:
        return number if number in state.condemned else None
    return next((other for other in state.condemned if _same_bundle(state, other, number)), None)


def failed_as(state: State, number: int | None) -> Failure | None:
    """Return the failed verdict on this release against today's production, if any.

    A verdict on the same bundle placed elsewhere also counts, until this release has passed.
    """
    if number is None:
        return None
    production = returned(state).production
    passed = state.automation.proven == (number, production)
    return next(
        (
            failure
            for failure in reversed(state.automation.failures)
            if failure.production == production
            and (
                failure.candidate == number
                or (not passed and _same_bundle(state, failure.candidate, number))
            )
        ),
        None,
    )


def _same_bundle(state: State, one: int, other: int) -> bool:
    """Return whether two releases have the same model and features."""
    a, b = state.releases.get(one), state.releases.get(other)
    return (
        a is not None and b is not None and _model(a) == _model(b) and _features(a) == _features(b)
    )


def _model(release: Release) -> tuple[str, int]:
    return release.model, release.version


def _features(release: Release) -> tuple[str | None, int | None, str | None]:
    return release.schema, release.transformation, release.generation
