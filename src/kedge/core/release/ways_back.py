"""The ways back, and what may stand in one: asked by every flip and by every rollback.

A release is a way back when it served, no rollback left it behind, and callers still promise
every field it needs. A drill goes to a way back, restores production, and changes nothing else.
"""

from __future__ import annotations

from msgspec.structs import replace

from kedge.core.contract import unmet
from kedge.core.values import Drilling, Failure, Field, Release, Stage, State


def returned(state: State) -> State:
    """The row as it is without the drill: what was production is production. Else as it stands."""
    if state.drill is None:
        return state
    return replace(
        state,
        stage=Stage.SETTLED,
        production=state.drill.left,
        automation=replace(state.automation, drill=None),
    )


def drilled(state: State, release: int, drill: Drilling) -> State:
    """The row in a drill: another release answers for a while, and that is all that is changed."""
    return replace(
        state,
        stage=Stage.DRILL,
        production=release,
        automation=replace(state.automation, drill=drill),
    )


def ways_back(state: State) -> dict[str, int | None]:
    """Name the release that each kind of rollback would land on now.

    `back` undoes the newest change of production. `back_model` is the newest good release
    with another model and today's features, `back_features` the reverse. A drill changes none of
    them: a rollback within it lands where one before it would have.
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
    """What a release needs beyond these fields. No fields: there is no contract to break yet."""
    release = state.releases.get(number) if number is not None else None
    return unmet(release.signature, fields) if release and fields else ()


def first_starved(state: State, fields: tuple[Field, ...]) -> tuple[int, tuple[str, ...]] | None:
    """The first release, live or a way back, that a new contract would starve, and of what."""
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
    """The condemned release that this one is: itself, or the same bundle placed elsewhere.

    The same model and features in another runtime are another release, under a number that no
    rollback left behind. Unless that one served and stayed good, it is as condemned.
    """
    if number is None or number in state.condemned or number in state.served:
        return number if number in state.condemned else None
    return next((other for other in state.condemned if _same_bundle(state, other, number)), None)


def failed_as(state: State, number: int | None) -> Failure | None:
    """Return the failed verdict on this release against today's production, if any.

    A verdict on the same bundle placed elsewhere is one on this release, until this one has passed.
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
    """Whether two releases have the same model and features."""
    a, b = state.releases.get(one), state.releases.get(other)
    return (
        a is not None and b is not None and _model(a) == _model(b) and _features(a) == _features(b)
    )


def _model(release: Release) -> tuple[str, int]:
    return release.model, release.version


def _features(release: Release) -> tuple[str | None, int | None, str | None]:
    return release.schema, release.transformation, release.generation
