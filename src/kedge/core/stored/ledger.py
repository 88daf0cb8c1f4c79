"""Entries of the ledger as values: events, notes, and what a command wished for."""

from __future__ import annotations

from kedge.core.release.commands import AnyEvent
from kedge.core.stored.head import Head
from kedge.core.values import (
    ActorKind,
    Placement,
    State,
    Value,
)


class Note(Value, tag_field="event", tag="noted", frozen=True):
    """A ledger entry that changed no row: a registration, a receipt, a refused pin."""

    kind: str
    body: object
    """The struct of this kind (`core.stored.notes`); a dict where this version knows none that fits."""


class Entry(Value, frozen=True):
    """One line of the ledger. `epoch` is the endpoint's after it."""

    seq: int
    endpoint: str
    epoch: int
    at: str
    by: str
    reason: str
    event: AnyEvent | Note
    previous_hash: str
    hash: str
    actor: ActorKind = ActorKind.PERSON
    """What `by` is. Derived from `by` in entries that were written before this was stored."""


class Wanted(Value, frozen=True):
    """A release that replicas should hold ready, because a command is about to need it.

    `until` is Unix time: when the command died, the wish dies with it.
    """

    endpoint: str
    release: int
    placement: Placement
    until: float
    by: str
    copies: int = 1
    """How many processes of it a host should run, where it runs in one."""


class Book(Value, frozen=True):
    """All rows and wishes, read in one transaction."""

    states: dict[str, State]
    wanted: tuple[Wanted, ...] = ()
    head: Head | None = None
    """The newest entry; None: there is none."""
    follows: bool = True
    """Whether the history has the head that the reader knew, or an operator accepted that it has not."""


class Change(Value, frozen=True):
    """What happens to one endpoint, decided on at an epoch."""

    endpoint: str
    events: tuple[AnyEvent, ...]
    expect: int
