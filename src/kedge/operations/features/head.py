"""Head of a feature schema: its followers move with it, all at once or not at all."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from kedge.core.errors import Refused
from kedge.core.features.schema import EQUAL, Outcome, TransformVersion
from kedge.core.release.commands import Follow, Promote
from kedge.core.release.machine import decide
from kedge.core.release.ways_back import condemned_as
from kedge.core.values import Refusal, Release, State, Value
from kedge.engine.submission import Gate, Receipt, Say
from kedge.operations.features.apply import version_of
from kedge.operations.features.compare import comparison_of
from kedge.operations.probe import probe
from kedge.operations.releases import release_of
from kedge.workspace import Workplace, actor


class Follower(Value, frozen=True, rename={"today": "from"}):
    """A follower of a schema, and its part in a move of the head."""

    endpoint: str
    today: str | None
    """The transformation version of its production."""
    moves: bool
    """False: it uses the head already."""
    outcome: Outcome
    """The difference of the head's answers from the follower's current ones."""
    obstacle: str | None
    """Why it cannot move; null: it can."""


class FollowerReceipt(Value, frozen=True, kw_only=True):
    """The result of one follower's move, with the duration of each part in milliseconds."""

    endpoint: str
    epoch: int
    release: str
    """The production release after the move."""
    decide_ms: float
    prepare_ms: float
    write_ms: float
    last_ack_ms: float | None
    first_old_answer_ms: float | None
    total_ms: float
    acks: dict[str, float]
    """By replica: the time of its acknowledgement."""
    silent: tuple[str, ...]
    """Replicas that did not acknowledge in time."""
    ended: tuple[str, ...]
    """Replicas whose processes ended before they acknowledged."""
    cold: dict[str, str]
    """By replica that does not keep a way back loaded: the reason."""


class HeadMove(Value, frozen=True, kw_only=True):
    """A head of a feature schema, and the endpoints that move with it."""

    head: str
    was: int | None
    """Number of the previous head; null: there was none."""
    moved: bool
    """False: this was a dry run."""
    followers: tuple[Follower, ...]
    holding: tuple[str, ...]
    """Endpoints on the schema that hold."""
    receipts: tuple[FollowerReceipt, ...] = ()
    """Receipts of the endpoints that moved."""


class Move(NamedTuple):
    """The planned move of a follower."""

    state: State
    release: Release | None
    """The release to move to. None: production uses the head already."""
    today: TransformVersion | None
    outcome: Outcome
    """The difference of the head's answers to golden rows from the follower's current ones."""
    obstacle: str | None
    """Why it cannot move; None: it can."""


def follow_command(place: Workplace, endpoint: str) -> Follow:
    """Return the command that lets an endpoint follow the head of its feature schema.

    Raises:
        Refused: `no_schema`: neither its policy nor a version of its model has a feature schema, so no
            head could move it.
    """
    state = place.ledger.read().states.get(endpoint)
    declared = state is not None and state.policy.features.schema is not None
    if not declared and all(v.schema is None for v in place.registry.versions(endpoint)):
        raise Refused(
            f"{endpoint} has no feature schema, so there is no head to follow",
            code="no_schema",
            hint=(
                f"kedge register {endpoint} MODEL --schema NAME/1, or set features.schema of it"
                " in kedge.toml and run kedge apply"
            ),
        )
    return Follow()


def moves_of(place: Workplace, head: TransformVersion, override: str | None) -> list[Move]:
    """Return the move of every follower of the schema if this were its head.

    No row is changed; a release that a move needs gets its number.

    Args:
        place: the state directory.
        head: the transformation version.
        override: why followers move although answers changed, or a rollback left them behind.
    """
    versions = {one.number: one for one in place.features.versions(head.schema)}
    compared: dict[int, Outcome] = {}
    found = []
    for state in place.ledger.read().states.values():
        live = state.releases.get(state.production) if state.production is not None else None
        if not state.follow or live is None or live.schema != head.schema:
            continue
        today = versions.get(live.transformation) if live.transformation is not None else None
        if today == head:
            found.append(Move(state, None, today, "bit-equal", None))
            continue
        outcome: Outcome = "changed"
        if today is not None:  # most followers use one version, which is compared once
            if today.number not in compared:
                compared[today.number] = comparison_of(place, today, head).outcome
            outcome = compared[today.number]
        release = release_of(place, state.endpoint, f"v{live.version}", transformation=head.number)
        found.append(
            Move(
                state, release, today, outcome, _obstacle(place, state, release, outcome, override)
            )
        )
    return found


def _obstacle(
    place: Workplace, state: State, release: Release, outcome: Outcome, override: str | None
) -> str | None:
    """Return why a follower cannot move; None if it can."""
    if state.candidate is not None:
        return f"{state.endpoint} has a candidate, r{state.candidate}: promote or abort it first"
    # The release may be newer than the row that was read before.
    known = msgspec.structs.replace(state, releases={**state.releases, release.number: release})
    left = condemned_as(known, release.number)
    if left is not None and override is None:
        return (
            f"{state.endpoint} was rolled back from it (r{left}): kedge features hold"
            f" {state.endpoint}"
        )
    if outcome not in EQUAL and override is None:
        gets = "answers that nothing was compared on" if outcome == "untested" else "other answers"
        return f"{state.endpoint} would get {gets}: shadow it there first"
    said = decide(known, _command(release, override), place.clock.now())
    return f"{state.endpoint}: {said.message}" if isinstance(said, Refusal) else None


def _command(release: Release, override: str | None) -> Promote:
    moved = None if override is not None else "the head of its feature schema moved"
    return Promote(release=release.number, override=override, equivalence=moved)


def move_head(
    place: Workplace, text: str, *, override: str | None, dry: bool, say: Say, gate: Gate
) -> HeadMove:
    """Make a transformation version the head of its schema, and move its followers.

    Returns:
        The followers that move and that hold; with receipts after a move.

    Raises:
        Refused: `unknown_transformation`; `head_refused`: names the followers that cannot move, and
            why; `not_prepared`: a replica could not load a release. No follower has moved then.
            `not_ready`: a follower is not ready for a rollback, and no `override` was given.
        Stale: a follower's row changed meanwhile; no follower has moved then.
    """
    head = version_of(place, text)
    moves = moves_of(place, head, override)
    obstacles = [move.obstacle for move in moves if move.obstacle is not None]
    told = HeadMove(
        head=head.label,
        was=place.features.heads().get(head.schema),
        moved=False,
        followers=tuple(
            Follower(
                move.state.endpoint,
                move.today.label if move.today else None,
                move.release is not None,
                move.outcome,
                move.obstacle,
            )
            for move in moves
        ),
        holding=_holding(place, head.schema),
    )
    if dry:
        return told
    if obstacles:
        raise Refused(
            f"{head.label} cannot become the head: {'; '.join(obstacles)}",
            code="head_refused",
            hint=(
                "no endpoint has moved; kedge features head --dry-run shows each; --override REASON"
                " for changed or untested answers"
            ),
            details={"followers": told.followers},
        )
    commands = {
        move.state.endpoint: _command(move.release, override)
        for move in moves
        if move.release is not None
    }
    receipts = place.control(say, probe(place), gate).together(
        commands,
        by=actor(),
        reason=override or f"head {head.label}",
        head=(head.schema, head.number),
        override=override,
    )
    return msgspec.structs.replace(
        told, moved=True, receipts=tuple(_receipt(one) for one in receipts)
    )


def _holding(place: Workplace, schema: str) -> tuple[str, ...]:
    """Return the endpoints on the schema that hold."""
    found = []
    for state in place.ledger.read().states.values():
        live = state.releases.get(state.production) if state.production is not None else None
        if live is not None and live.schema == schema and not state.follow:
            found.append(state.endpoint)
    return tuple(found)


def _receipt(receipt: Receipt) -> FollowerReceipt:
    return FollowerReceipt(
        endpoint=receipt.endpoint,
        epoch=receipt.epoch,
        release=f"r{receipt.state.production}",
        decide_ms=receipt.decide_ms,
        prepare_ms=receipt.prepare_ms,
        write_ms=receipt.write_ms,
        last_ack_ms=receipt.last_ack_ms,
        first_old_answer_ms=receipt.first_old_answer_ms,
        total_ms=receipt.total_ms,
        acks=receipt.acks,
        silent=receipt.silent,
        ended=receipt.ended,
        cold=receipt.cold,
    )
