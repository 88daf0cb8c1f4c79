"""What a host keeps on its own disk: the last state, and a pin set by hand.

A gateway starts and serves from here when the ledger is away. A pin is the break-glass
rollback (`kedge rollback --local`): a file that every replica of the host follows, with the
command that a human gave and the epoch it left. When the ledger is back the command is
submitted with that epoch. If the row moved on meanwhile the pin stays, is shown as drift, and
only `kedge unpin` ends it.
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
from kedge.system.durable import write_atomically
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
    """Why the pin could not be handed in; empty while the ledger is away."""

    def events(self, row: State, at: str) -> tuple[AnyEvent, ...]:
        """What the pinned command does to the row, now that the ledger is back.

        Raises:
            Refused: the rules say no to it by now.
        """
        return _decided(row, self.command, at)


def _write(path: Path, raw: bytes, *, durable: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, raw, durable=durable)


class Apart(Value, frozen=True):
    """A release that runs in a process on this host, although it was made to run inline."""

    endpoint: str
    release: int
    code: Literal["not_plain", "hung", "memory"]
    why: str
    at: str


HEAD = "ledger.head"
"""The file of a replica with the head of the ledger's chain. Not `.json`: that is an endpoint's row."""


class HostDisk:
    """The directory of a host: `replicas/NAME/ENDPOINT.json`, `pins/ENDPOINT.json` and `apart/`."""

    def __init__(self, state_dir: Path) -> None:
        self._replicas = state_dir / "replicas"
        self.pins_dir = state_dir / "pins"
        self._apart_dir = state_dir / "apart"

    def remember(self, replica: str, state: State) -> None:
        """Keep the last state a replica served.

        Without a flush: eight workers that flush at once would hold up the receipt of the very
        rollback that they remember. After a power cut the ledger, which is flushed, is there.
        """
        path = self._replicas / replica / f"{state.endpoint}.json"
        _write(path, encode(state), durable=False)

    def set_aside_unreadable(self, replica: str) -> list[str]:
        """Rename what this replica keeps and cannot be read; the new names. Its writer calls it."""
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
        """What replicas of this host kept of an endpoint, and could not be read."""
        folders = sorted(self._replicas.glob("*/"))
        return [one for folder in folders for one in list_aside(folder / f"{endpoint}.json")]

    def remember_head(self, replica: str, head: Head) -> None:
        """Keep the newest entry of the ledger that a replica followed."""
        _write(self._replicas / replica / HEAD, encode(head), durable=False)

    def heads(self) -> dict[str, Head]:
        """The newest entry that each replica of this host followed; without files that cannot be read."""
        found = {}
        for path in sorted(self._replicas.glob(f"*/{HEAD}")):
            try:
                found[path.parent.name] = decode(path.read_bytes(), Head)
            except (OSError, msgspec.DecodeError):
                continue
        return found

    def remembered(self) -> dict[str, State]:
        """The newest state of every endpoint that any replica of this host has served.

        A file that cannot be read is passed over: another replica's may be whole.
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
        """Whether any replica of this host has served an endpoint, or it is pinned here."""
        files = self._replicas.glob(f"*/{endpoint}.json")
        return any(files) or (self.pins_dir / f"{endpoint}.json").exists()

    def set_apart(self, one: Apart) -> None:
        """Have a release run in a process on this host from now on, whatever it was made for."""
        _write(self._apart_dir / f"{one.endpoint}-r{one.release}.json", encode(one))

    def forgive(self, endpoint: str, release: int, code: str) -> None:
        """Let a release run where it was made to run, when it was set apart for this reason."""
        found = self.apart().get((endpoint, release))
        if found is not None and found.code == code:
            (self._apart_dir / f"{endpoint}-r{release}.json").unlink(missing_ok=True)

    def apart(self) -> dict[tuple[str, int], Apart]:
        """The releases that run in a process on this host although they were made to run inline.

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
        """The pins in force on this host.

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
            Refused: there is nothing to go back to.
        """
        state = self.remembered().get(endpoint)
        if state is None:
            raise Unavailable(
                f"this host has no memory of {endpoint}",
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
        """End a pin; False when there was none."""
        path = self.pins_dir / f"{endpoint}.json"
        if not path.exists():
            return False
        path.unlink()
        return True


class KeptPins:
    """Pins, and releases set apart, as they were read last: a read that fails once ends neither.

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
    """The files of a folder; none where it is missing."""
    # Asked at each wake-up: listing an empty directory costs a third of what a glob does.
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):  # neither holds any
        return
    for name in names:
        if name.endswith(".json") and name[0] != ".":
            yield folder / name


def _read(path: Path, kind: type[_Kept]) -> _Kept | None:
    """Read one; None where it is no such value, or was deleted meanwhile."""
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
