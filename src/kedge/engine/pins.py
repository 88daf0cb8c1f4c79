"""Pins and other state that a host stores on its disk: the last state, and a pin set by hand.

A gateway starts and serves from here while the ledger is unavailable. A pin is the break-glass
rollback (`kedge rollback --local`): a file that every replica of the host follows. It contains the
operator's command and the epoch that it left. When the ledger is back, the command is submitted
with that epoch. If the row moved on meanwhile, the pin stays and is shown as drift, and only
`kedge unpin` ends it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

from kedge.core.codec import decode, encode
from kedge.core.errors import Refused, Unavailable
from kedge.core.release.commands import AnyEvent, Rollback
from kedge.core.release.machine import apply, decide
from kedge.core.stored.head import Head
from kedge.core.values import Refusal, State, Value
from kedge.system.durable import sync, write_atomically
from kedge.system.files import list_aside, set_aside

if TYPE_CHECKING:
    from kedge.engine.process_faults import ProcessFaults

_Kept = TypeVar("_Kept")


class Pin(Value, frozen=True):
    """A host pinned by hand. `state` is the row as this host serves it while pinned."""

    endpoint: str
    command: Rollback
    left: int
    """The epoch that the host served when it was pinned."""
    state: State
    by: str
    reason: str
    at: str
    drift: str = ""
    """Why the pin could not be submitted; empty while the ledger is unavailable."""

    def events(self, row: State, at: str) -> tuple[AnyEvent, ...]:
        """Return the events of the pinned command for the row, now that the ledger is back.

        Raises:
            Refused: the rules refuse it by now.
        """
        return _decided(row, self.command, at)


def _write(path: Path, raw: bytes, *, durable: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, raw, durable=durable)
    if durable:
        with suppress(OSError):  # it is in force: an operator must not read that it failed
            sync(path.parent)


class Apart(Value, frozen=True):
    """A release that runs in a process on this host, although it was made to run inline."""

    endpoint: str
    release: int
    code: Literal["not_plain", "hung", "memory"]
    why: str
    at: str


HEAD = "ledger.head"
"""File of a replica with the head of the ledger's chain. Not `.json`: that is an endpoint's row."""


class HostDisk:
    """The directory of a host: `replicas/NAME/ENDPOINT.json`, `pins/ENDPOINT.json` and `apart/`."""

    def __init__(self, state_dir: Path) -> None:
        self._replicas = state_dir / "replicas"
        self.pins_dir = state_dir / "pins"
        self._apart_dir = state_dir / "apart"

    def remember(self, replica: str, state: State) -> None:
        """Store the last state that a replica served.

        It is not flushed: eight workers that flush at once would delay the receipt of the very
        rollback that they store. After a power cut the ledger is there, which is flushed.
        """
        path = self._replicas / replica / f"{state.endpoint}.json"
        _write(path, encode(state), durable=False)

    def set_aside_unreadable(self, replica: str) -> list[str]:
        """Rename this replica's unreadable files; return the new names. Their writer calls this."""
        found = []
        for path in sorted((self._replicas / replica).glob("*.json")):
            try:
                decode(path.read_bytes(), State)
            except (PermissionError, IsADirectoryError, msgspec.DecodeError, UnicodeDecodeError):
                with suppress(OSError):
                    found.append(set_aside(path))
            except OSError:
                continue  # no descriptors, a failed read: it may be whole
        return found

    def list_aside(self, endpoint: str) -> list[Path]:
        """Return the unreadable files that replicas of this host stored of an endpoint."""
        folders = sorted(self._replicas.glob("*/"))
        return [one for folder in folders for one in list_aside(folder / f"{endpoint}.json")]

    def remember_head(self, replica: str, head: Head) -> None:
        """Store the newest entry of the ledger that a replica followed."""
        _write(self._replicas / replica / HEAD, encode(head), durable=False)

    def heads(self) -> dict[str, Head]:
        """Return the newest entry that each replica of this host followed; skip unreadable ones."""
        found = {}
        for path in sorted(self._replicas.glob(f"*/{HEAD}")):
            try:
                found[path.parent.name] = decode(path.read_bytes(), Head)
            except (OSError, msgspec.DecodeError):
                continue
        return found

    def remembered(self) -> dict[str, State]:
        """Return the newest state of every endpoint that any replica of this host has served.

        A file that cannot be read is skipped: another replica's may be whole.
        """
        newest: dict[str, State] = {}
        for path in self._replicas.glob("*/*.json"):
            try:
                state = decode(path.read_bytes(), State)
            except (OSError, msgspec.DecodeError):
                continue
            if state.endpoint not in newest or newest[state.endpoint].epoch < state.epoch:
                newest[state.endpoint] = state
        return newest

    def has_served(self, endpoint: str) -> bool:
        """Return whether any replica of this host has served an endpoint, or it is pinned here."""
        files = self._replicas.glob(f"*/{endpoint}.json")
        return any(files) or (self.pins_dir / f"{endpoint}.json").exists()

    def set_apart(self, one: Apart) -> None:
        """Run a release in a process on this host from now on, whatever it was made for."""
        _write(self._apart_dir / f"{one.endpoint}-r{one.release}.json", encode(one))

    def forgive(self, endpoint: str, release: int, code: str) -> None:
        """Let a release run where it was made to run, if it was set apart for this reason."""
        found = self.apart().get((endpoint, release))
        if found is not None and found.code == code:
            (self._apart_dir / f"{endpoint}-r{release}.json").unlink(missing_ok=True)

    def apart(self) -> dict[tuple[str, int], Apart]:
        """Return the releases that run in a process here although they were made to run inline.

        Raises:
            OSError: as `pins`.
        """
        found = {}
        for path in _named_files(self._apart_dir):
            one = _read(path, Apart)
            if one is not None:
                found[one.endpoint, one.release] = one
        return found

    def pins(self) -> dict[str, Pin]:
        """Return the pins in force on this host.

        Raises:
            OSError: they cannot be read. That is not the same as none: what is pinned stays pinned.
        """
        found = {}
        for path in _named_files(self.pins_dir):
            pin = _read(path, Pin)
            if pin is not None:
                found[pin.endpoint] = pin
        return found

    def pin(self, endpoint: str, command: Rollback, *, by: str, reason: str, at: str) -> Pin:
        """Pin this host: roll back from what it served last, without the ledger.

        Raises:
            Unavailable: this host has never served the endpoint.
            Refused: there is nothing to roll back to.
        """
        state = self.remembered().get(endpoint)
        if state is None:
            raise Unavailable(
                f"this host has no saved state of {endpoint}",
                code="no_memory",
                hint="run it on a host where a gateway of this endpoint has served",
            )
        after = state
        for event in _decided(state, command, at):
            after = apply(after, event)
        pin = Pin(
            endpoint=endpoint,
            command=command,
            left=state.epoch,
            state=after,
            by=by,
            reason=reason,
            at=at,
        )
        self.write(pin)
        return pin

    def write(self, pin: Pin) -> None:
        """Put a pin in force."""
        _write(self.pins_dir / f"{pin.endpoint}.json", encode(pin))

    def unpin(self, endpoint: str) -> bool:
        """End a pin; return False if there was none."""
        path = self.pins_dir / f"{endpoint}.json"
        if not path.exists():
            return False
        path.unlink()
        return True


class KeptPins:
    """Pins, and releases set apart, as last read: a single failed read ends neither.

    A host that could never read them serves what the ledger says: production comes first.
    """

    def __init__(self, disk: HostDisk, faults: ProcessFaults) -> None:
        self._disk = disk
        self._faults = faults
        self._last: tuple[dict[str, Pin], dict[tuple[str, int], Apart]] = {}, {}

    def read(self) -> tuple[dict[str, Pin], dict[tuple[str, int], Apart]]:
        """Return the pins by endpoint, and what is set apart by endpoint and release."""
        try:
            self._last = self._disk.pins(), self._disk.apart()
            self._faults.clear("supervisor.read_pins")
        except OSError as error:
            self._faults.note("supervisor.read_pins", error)
        return self._last


def _named_files(folder: Path) -> Iterator[Path]:
    """Return the files of a folder; none if it is missing."""
    # Called at each wake-up: listing an empty directory costs a third of what a glob does.
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):  # neither has files
        return
    for name in names:
        if name.endswith(".json") and name[0] != ".":
            yield folder / name


def _read(path: Path, kind: type[_Kept]) -> _Kept | None:
    """Read one file; return None if it is no such value, or was deleted meanwhile."""
    try:
        return decode(path.read_bytes(), kind)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _decided(state: State, command: Rollback, at: str) -> tuple[AnyEvent, ...]:
    events = decide(state, command, at)
    if isinstance(events, Refusal):
        raise Refused(events.message, code=events.code, hint=events.hint)
    return events


def read_pins(disk: HostDisk) -> tuple[dict[str, Pin], str]:
    """Return the pins of this host, and why they cannot be read."""
    try:
        return disk.pins(), ""
    except OSError as error:
        return {}, f"the pins of this host cannot be read ({error})"
