"""Acts under way: each command of a page runs in a thread, and its page shows its progress."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import Callable
from typing import NamedTuple

from msgspec.structs import replace

from kedge.core.errors import KedgeError
from kedge.engine.submission import ACK_S
from kedge.web.dashboard.commands import ActAsk, begun, refused
from kedge.web.dashboard.pages.marks import changes_of
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.pages.receipts import AGAIN, ActReceipt, replica_lines
from kedge.web.readers import Readers
from kedge.workspace import Workplace

KEPT = 200
"""Acts whose results are kept; then the oldest is dropped."""
AT_ONCE_S = 0.5
"""How long a request waits for its command, so that most of them answer with the receipt."""
KEY_BYTES = 12
_NAME = re.compile(r"(?P<epoch>\d{1,15})-(?P<key>[A-Za-z0-9_-]{16,40})", re.ASCII)


class ActName(NamedTuple):
    """The name of a command in the address of its receipt: the epoch of its form, and its key."""

    epoch: int
    key: str

    @classmethod
    def read(cls, text: str) -> ActName | None:
        """Return the name in an address; None: it is none."""
        found = _NAME.fullmatch(text)
        return cls(int(found["epoch"]), found["key"]) if found is not None else None

    def __str__(self) -> str:
        """Return the name as addresses spell it."""
        return f"{self.epoch}-{self.key}"


class UnderWay(NamedTuple):
    """One command: what was asked, and its result when it is there."""

    ask: ActAsk
    task: asyncio.Task[ActReceipt]

    @property
    def can_repeat(self) -> bool:
        """Whether it ended without a change, so that the same form may be sent again."""
        return self.task.done() and self.task.result().state in AGAIN


def make_key() -> str:
    """Return the key of a new form."""
    return secrets.token_urlsafe(KEY_BYTES)


class Acts:
    """The commands that pages started."""

    def __init__(
        self,
        threads: Readers,
        rollbacks: Readers,
        open_place: Callable[[str], Workplace],
        carry_out: Callable[[Workplace, ActAsk], ActReceipt],
    ) -> None:
        """Carry commands out, rollbacks in threads of their own.

        `open_place` opens the place of a token.
        """
        self._open = open_place
        self._threads = threads
        self._rollbacks = rollbacks
        self._carry_out = carry_out
        self._acts: dict[str, UnderWay] = {}

    async def start(self, ask: ActAsk, key: str) -> str:
        """Start a command; return its name once it is done, or after half a second.

        A form that is sent twice, by a double click or by a browser that repeats it, is carried out
        once: both get the same name.
        """
        name = str(ActName(ask.epoch, key))
        if ActName.read(name) is None:
            name = str(ActName(ask.epoch, make_key()))
        known = self._acts.get(name)
        if known is not None and known.ask != replace(ask, at=known.ask.at):
            name, known = str(ActName(ask.epoch, make_key())), None
        if known is None or known.can_repeat:
            known = UnderWay(ask, asyncio.create_task(self._run(ask)))
            self._acts.pop(name, None)
            self._acts[name] = known
            while len(self._acts) > KEPT:
                self._acts.pop(next(iter(self._acts)))
        await asyncio.wait({known.task}, timeout=AT_ONCE_S)
        return name

    async def _run(self, ask: ActAsk) -> ActReceipt:
        try:
            threads = self._rollbacks if ask.act == "rollback" else self._threads
            return await threads.run(lambda _: self._in_own_place(ask))
        except KedgeError as error:
            return refused(
                ask, error, state="failed", heading="Nothing happened: it could not be started"
            )

    def _in_own_place(self, ask: ActAsk) -> ActReceipt:
        place = self._open(ask.holder)
        try:
            return self._carry_out(place, ask)
        finally:
            place.database.close()

    def find(self, name: str, endpoint: str) -> UnderWay | None:
        """Return a command of an endpoint; None: it is not known, or control was restarted since."""
        found = self._acts.get(name)
        return found if found is not None and found.ask.endpoint == endpoint else None


def receipt_now(act: UnderWay, reading: PageReading) -> ActReceipt:
    """Return the receipt of a command, or what its replicas do while it runs."""
    if act.task.done():
        return act.task.result()
    status, ask = reading.status, act.ask
    changes = changes_of(reading.entries, ask.epoch)
    # The change of another operator is not the result of this command, which is then stale.
    moved = bool(changes) and (changes[-1].by, changes[-1].reason) == (
        ask.by,
        ask.reason or ask.override,
    )
    heading = "Replicas prepare; nothing has changed yet"
    if moved:
        heading = f"Written as epoch {status.epoch}; replicas follow"
    started = begun(
        act.ask,
        state="running",
        heading=heading,
        text=f"A replica that does not acknowledge within {ACK_S:.0f} s is named here."
        if moved
        else "",
    )
    acks = replica_lines(status.replicas, status.epoch, is_written=moved)
    return replace(started, acks=acks, epoch=status.epoch)
