"""Entries of the ledger as values: events, notes, and the wishes of commands."""

from __future__ import annotations

from kedge.core.release.commands import AnyEvent
from kedge.core.stored.head import Head
from kedge.core.values import (
    ActorKind,
    Placement,
    State,
    Value,
)

EVERYWHERE = "*"
"""The endpoint of an entry that concerns all of them, such as a new token."""


class Author(Value, frozen=True):
    """The component that writes an entry, and the token that allowed it."""

    kind: ActorKind = ActorKind.PERSON
    token: str = ""
    """The name of the token, or of the user of a proxy; empty for a command on this machine."""


LOCAL = Author()
"""A command on this machine."""


class Note(Value, tag_field="event", tag="noted", frozen=True):
    """A ledger entry that changed no row: a registration, a receipt, a refused pin."""

    kind: str
    body: object
    """The struct of this kind, or a plain object if this version knows none that fits."""


class Entry(Value, frozen=True):
    """One entry of the ledger. `epoch` is the endpoint's epoch after it."""

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
    """The kind of `by`. For entries older than this field it is derived from `by`."""
    token: str = ""
    """What allowed a request to control: `token ci`, for example. Empty for a local command."""


class Wanted(Value, frozen=True):
    """A wish: a release that replicas should hold ready, because a command is about to need it.

    `until` is Unix time. A wish expires with it even if its command died.
    """

    endpoint: str
    release: int
    placement: Placement
    until: float
    by: str
    copies: int = 1
    """Processes per host that should run it, if it runs in a process."""


class Book(Value, frozen=True):
    """All rows and wishes, read in one transaction."""

    states: dict[str, State]
    wanted: tuple[Wanted, ...] = ()
    head: Head | None = None
    """The newest entry; None if there is none."""
    follows: bool = True
    """Whether the history contains the head that the reader knew, or an operator accepted its
    absence."""


class Change(Value, frozen=True):
    """The change of one endpoint that was decided on at an epoch."""

    endpoint: str
    events: tuple[AnyEvent, ...]
    expect: int
