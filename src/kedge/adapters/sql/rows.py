"""Rows of the ledger as values, and back. This module is pure and uses no connection."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, TypeVar

import msgspec

from kedge.adapters.sql.tables import POINTERS
from kedge.core import codec
from kedge.core.errors import Unavailable
from kedge.core.release.commands import AnyEvent
from kedge.core.stored.ledger import Author, Entry, Note
from kedge.core.stored.upcast import derive_actor, read_body
from kedge.core.values import ActorKind, Automation, Field, Policy, Release, Stage, State

Row = Mapping[Any, Any]


class HashedColumns(TypedDict):
    """Columns of a ledger entry that its hash covers."""

    seq: int
    endpoint: str
    epoch: int
    at: str
    by: str
    reason: str
    event: str
    previous_hash: str
    actor: str
    token: NotRequired[str]
    """Missing in an entry without a token, so that its hash is that of earlier versions."""


class LedgerRow(HashedColumns):
    """All columns of a ledger entry."""

    hash: str


"""A stored row, by column name."""
T = TypeVar("T")

_EVENT = msgspec.json.Decoder(AnyEvent | Note)
_FIELDS = msgspec.json.Decoder(tuple[Field, ...])
_ANSWERS = msgspec.json.Decoder(tuple[Field, ...] | None)
_AUTOMATION = msgspec.json.Decoder(Automation)
_NUMBERS = msgspec.json.Decoder(tuple[int, ...])
_RELEASE = msgspec.json.Decoder(Release)
_POLICY = msgspec.json.Decoder(Policy)


def damaged(what: str) -> Unavailable:
    """Return the fault of a ledger whose parts contradict each other."""
    return Unavailable(
        f"the ledger contradicts itself: {what}",
        code="ledger_damaged",
        hint="kedge doctor shows what is wrong with it; restore it from a backup",
    )


def read_all(decode: Callable[[bytes], T], bodies: Iterable[bytes]) -> tuple[T, ...]:
    """Decode telemetry; skip a body that is damaged or of a newer kedge."""
    found = []
    for body in bodies:
        try:
            found.append(decode(body))
        except (msgspec.MsgspecError, ValueError, TypeError):  # also damaged text
            continue
    return tuple(found)


def release_of(body: bytes) -> Release:
    """Read a release back."""
    return _RELEASE.decode(body)


def policy_of(body: bytes) -> Policy:
    """Read a policy back."""
    return _POLICY.decode(body)


def automation_of(body: bytes) -> Automation:
    """Read the automation's record back."""
    return _AUTOMATION.decode(body)


def row_of(state: State) -> dict[str, object]:
    """Return the columns of `endpoint` for a state."""
    return {
        "endpoint": state.endpoint,
        "epoch": state.epoch,
        "stage": state.stage.value,
        **{name: getattr(state, name) for name in POINTERS},
        "paused": int(state.paused),
        "weight": state.weight,
        "sample": state.sample,
        "salt": state.salt,
        "holdback": state.holdback,
        "follow": int(state.follow),
        "policy_digest": state.policy_digest or None,
        "fields": codec.encode(state.fields),
        "answers": codec.encode(state.answers),
        "served": codec.encode(state.served),
        "automation": codec.encode(state.automation),
        "flipped_at": state.flipped_at,
    }


def state_of(
    row: Row,
    *,
    policy: Policy,
    condemned: tuple[int, ...],
    releases: dict[int, Release],
) -> State:
    """Return the state of a row.

    Raises:
        Unavailable: it names a release that the endpoint does not have.
    """
    state = State(
        endpoint=row["endpoint"],
        epoch=row["epoch"],
        stage=msgspec.convert(row["stage"], Stage),
        **{name: row[name] for name in POINTERS},
        paused=bool(row["paused"]),
        weight=row["weight"],
        sample=row["sample"],
        salt=row["salt"],
        holdback=row["holdback"],
        follow=bool(row["follow"]),
        policy=policy,
        policy_digest=row["policy_digest"] or "",
        fields=_FIELDS.decode(row["fields"]),
        answers=_ANSWERS.decode(row["answers"]),
        served=_NUMBERS.decode(row["served"]),
        condemned=condemned,
        automation=automation_of(row["automation"]),
        flipped_at=row["flipped_at"],
        releases=releases,
    )
    for name in POINTERS:
        if row[name] is not None and row[name] not in releases:
            raise damaged(f"{state.endpoint}'s {name} is r{row[name]}, which does not exist")
    return state


def columns_of(
    *,
    seq: int,
    endpoint: str,
    epoch: int,
    at: str,
    by: str,
    reason: str,
    event: AnyEvent | Note,
    previous_hash: str,
    author: Author,
) -> LedgerRow:
    """Return the columns of a new entry, chained to the one before it."""
    columns: HashedColumns = {
        "seq": seq,
        "endpoint": endpoint,
        "epoch": epoch,
        "at": at,
        "by": by,
        "reason": reason,
        "event": codec.encode(event).decode(),
        "previous_hash": previous_hash,
        "actor": author.kind.value,
    }
    if author.token:
        columns["token"] = author.token
    return {**columns, "hash": codec.chain(previous_hash, columns)}


def hash_of(row: Row) -> str:
    """Return the expected hash of a stored entry: over every column but itself.

    An entry from before revision 0005 has no actor, and most entries have no token. Their hashes
    cover none.
    """
    columns = {name: value for name, value in row.items() if name != "hash"}
    for name in ("actor", "token"):
        if columns[name] is None:
            del columns[name]
    return codec.chain(row["previous_hash"], columns)


def entry_of(row: Row) -> Entry:
    """Read an entry back; one in an earlier spelling is converted."""
    event = _EVENT.decode(row["event"])
    if isinstance(event, Note):
        event = Note(event.kind, read_body(event.kind, event.body))
    stored = row["actor"]
    actor = derive_actor(row["by"]) if stored is None else msgspec.convert(stored, ActorKind)
    token = row.get("token") or ""
    return Entry(**{**row, "event": event, "actor": actor, "token": token})


def entries_of(rows: Sequence[Row]) -> tuple[Entry, ...]:
    """Read entries back."""
    return tuple(entry_of(row) for row in rows)
