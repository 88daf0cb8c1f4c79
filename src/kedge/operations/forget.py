"""Removal of an entity's data (`kedge log forget`), with a report of what kedge cannot remove.

kedge removes its predictions with their inputs, and its labels, also those that wait, were refused
or corrected. It also removes predictions that workers wrote lately, and hashes of its ids. For
thirty days it stores a hash of the entity, by which it drops predictions that arrive later. It also
stores a hash of each id that two requests used, so that no label is joined to either.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

import msgspec

from kedge.adapters.offline.log import OFFLINE_DIR, OfflineLog
from kedge.core import entities, keys
from kedge.core.errors import KedgeError, Refused, Unavailable
from kedge.core.evidence.records import Ingested
from kedge.core.values import Proof, State, Value
from kedge.workspace import Workplace

COPIES = "exports, training sets and backups are copies that kedge does not know: remove it there"
HASHES = (
    "the evidence of rollouts, also of those that ended, holds keyed hashes of callers, and the ids"
    " of up to 20 requests that were answered differently"
)


class Forgotten(NamedTuple):
    """The result of a removal.

    Attributes:
        entity: its one spelling.
        removed: number of predictions and labels.
        under_way: predictions in files that workers still write: dropped when they are read.
        stays: data that kedge cannot remove, a sentence each.
    """

    entity: str
    removed: int
    under_way: int
    stays: tuple[str, ...]


class ForgottenEntity(Value, frozen=True):
    """The data of an entity that were removed."""

    removed: int
    """Number of predictions and labels."""
    under_way: int | msgspec.UnsetType = msgspec.UNSET
    """Predictions in files that workers still write: they are dropped within seconds. Absent: none."""
    stays: tuple[str, ...] = ()
    """Data that kedge cannot remove, a sentence each."""


def forget(place: Workplace, text: str, endpoint: str | None) -> Forgotten:
    """Remove all stored data of an entity.

    Args:
        place: the state directory.
        text: the entity, in any spelling of the callers.
        endpoint: the endpoint. None: all endpoints.

    Raises:
        Refused: `unknown_endpoint`; `nothing_forgotten`: nothing of it is stored; `details.stays`
            names the places that could not be searched.
        BadRequest: `no_unit`, `bad_entity`, `entity_too_long`.
        Unavailable: the records cannot be reached.
    """
    states = place.ledger.read().states
    if endpoint is not None and endpoint not in states:
        raise Refused(
            f"no endpoint {endpoint}",
            code="unknown_endpoint",
            hint=f"known are: {', '.join(sorted(states)) or 'none'}",
        )
    entity = entities.spell(text) or ""
    spellings = _spellings(entity, text)
    now = place.clock.unix()
    waiting = place.records.under_way(spellings, endpoint)
    removed = place.records.forget(entity, endpoint, until=now, also=spellings[1:])
    _drop_waiting(place, now)
    under_way = place.records.under_way(spellings, endpoint)
    removed += max(waiting - under_way, 0)
    mine = [state for name, state in sorted(states.items()) if endpoint in (None, name)]
    stays = (
        *_golden(place, mine, spellings),
        *_values(place, spellings),
        *_segments(mine),
        HASHES,
        COPIES,
    )
    if not removed and not under_way:
        raise Refused(
            f"nothing is recorded of {entity}" + (f" on {endpoint}" if endpoint else ""),
            code="nothing_forgotten",
            details={"removed": 0, "stays": list(stays)},
            hint=("check its spelling; kedge log export shows the entities that are recorded"),
        )
    return Forgotten(entity, removed, under_way, stays)


def _spellings(entity: str, text: str) -> list[str]:
    """Return the spellings that records may have: the current one first, then earlier versions'."""
    latin = entity.encode(errors="surrogatepass").decode("latin-1")
    return list(dict.fromkeys([entity, text, latin]))


def _drop_waiting(place: Workplace, now: float) -> None:
    """Read the files of workers, so that predictions of a removed entity are dropped."""
    with suppress(Unavailable):  # they are dropped when they can be read
        while place.records.waiting() and place.records.ingest(now) != Ingested():
            pass


def _golden(place: Workplace, states: list[State], spellings: list[str]) -> list[str]:
    """Return the versions whose golden rows or training set's rows contain the entity."""
    found = []
    for state in states:
        for version in place.registry.versions(state.endpoint):
            try:
                proof = place.artifacts.proof(version.digest)
            except KedgeError:
                continue  # it has no readable rows
            if _holds(proof, state.policy.entity, spellings):
                found.append(
                    f"golden rows of {version.model} v{version.number} have it: register the model"
                    " again with other rows (--golden FILE), and remove this version"
                )
    return found


def _holds(proof: Proof, field: str | None, spellings: list[str]) -> bool:
    """Return whether rows contain an entity: in its field in any spelling, elsewhere as a word."""
    return any(
        value in spellings if isinstance(value, str) else name == field and _is(value, spellings)
        for rows in (proof.inputs, proof.raw)
        for name, column in rows.items()
        for value in column
    )


def _is(value: Any, spellings: list[str]) -> bool:
    try:
        return entities.spell(value) in spellings
    except KedgeError:
        return False


def _values(place: Workplace, spellings: list[str]) -> list[str]:
    """Return the schemas whose values by key have the entity as a key, or could not be searched."""
    words = [key for key in map(keys.spell, spellings) if key is not None]
    if not words:
        return []
    log = OfflineLog(place.state_dir / OFFLINE_DIR)
    have, may = list[str](), list[str]()
    for schema in sorted({run.schema for run in place.generations.runs()}):
        try:
            known = bool(log.runs(schema))
            if known and log.holds(schema, words):
                have.append(schema)
        except KedgeError:
            known = False
        if not known:
            may.append(schema)
    where = f"in the online store and under {OFFLINE_DIR}/"
    how = (
        "remove it from their source, then kedge features backfill, and remove the folders of"
        " earlier runs"
    )
    return [
        f"values by key of {', '.join(schemas)} {verb} it, {where}: {how}"
        for schemas, verb in ((have, "have"), (may, "may have"))
        if schemas
    ]


def _segments(states: list[State]) -> list[str]:
    return [
        f"{state.endpoint} counts segments of {state.policy.entity}, by value, in its evidence and"
        " its history"
        for state in states
        if state.policy.entity is not None and state.policy.entity in state.policy.segments
    ]
