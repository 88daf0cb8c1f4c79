"""The event stream: order, resume, filters, acks, a reader that never reads, and a lost ledger."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from starlette.types import Message

from contract.sql_world import World, at, world
from kedge.adapters.clock import SystemClock
from kedge.core.access import Access
from kedge.core.errors import KedgeError
from kedge.core.release.commands import Frozen
from kedge.core.stored.ledger import Entry
from kedge.core.stored.notes import PinDrifts, build_note
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.feed import Feed
from kedge.web import events
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.workspace import Workplace, new_member
from support.access import ADMIN, Open
from support.api import api_of


class Wire:
    """One connection: what the app sent, and whether the reader reads and is there."""

    def __init__(self) -> None:
        self.raw = b""
        self.status = 0
        self.reads = asyncio.Event()
        self.reads.set()
        self.gone = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        else:
            await self.reads.wait()
            self.raw += message.get("body", b"")

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    @property
    def got(self) -> list[tuple[str, str, Any]]:
        """Every event so far: its name, its id and its data."""
        found = []
        for part in self.raw.decode().split("\n\n"):
            lines = dict(line.split(": ", 1) for line in part.split("\n") if ": " in line)
            if "event" in lines:
                found.append((lines["event"], lines.get("id", ""), json.loads(lines["data"])))
        return found

    def names(self) -> list[str]:
        return [name for name, _, _ in self.got]

    def entries(self) -> list[int]:
        """The numbers of the entries, in the order in which they came."""
        return [data["seq"] for name, _, data in self.got if name == "entry"]


class Station:
    """The stream of a state directory, whose feed looks when the test says so."""

    def __init__(self, root: Path) -> None:
        self.world: World = world(root)
        self.place = Workplace(self.world.state_dir)
        self.faults = ProcessFaults(SystemClock())
        self.stops = False
        self.meets = 0
        """Entries that another process writes beside each read of a returning reader."""
        self.start()

    def start(self, access: Access = ADMIN) -> None:
        """Begin as control does, without anything in memory; callers have this access."""
        readers = Readers(self._open)
        self.streams = Streams(readers, self.faults, lambda: self.stops)
        earlier = Admin(lambda _: [], lambda _: None, None)  # type: ignore[arg-type]
        self.app = Front(
            earlier,
            api_of(readers, self.streams, self.place.state_dir).routes(),
            self.faults,
            gate=Open(access),
        )
        self.feed = Feed(self.place)
        self.feed.look(None)

    def _open(self) -> Workplace:
        place = Workplace(self.world.state_dir)
        later = place.ledger.later

        def meet(after: int, limit: int) -> tuple[Entry, ...]:
            self.note(self.meets)
            found = later(after, limit)
            self.note(self.meets)
            return found

        place.ledger.later = meet  # type: ignore[method-assign]
        return place

    def note(self, count: int = 1) -> None:
        note = build_note(PinDrifts(host="h", why="a test"))
        for _ in range(count):
            self.world.ledger.note("flights", note, by="ada", reason="", at=at(1))

    async def look(self) -> None:
        """Look once, and let the streams send."""
        try:
            self.streams.publish(self.feed.look(self.streams.wanted))
        except KedgeError as error:
            self.streams.publish((), error)
        await asyncio.sleep(0.05)

    async def open(self, query: str = "", **headers: str) -> Wire:
        """Open a stream and wait for its first event."""
        wire = Wire()
        named = [(b"host", b"localhost")]
        named += [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
        scope = {
            "type": "http",
            "method": "GET",
            "path": "/api/v1/events",
            "query_string": query.encode(),
            "headers": named,
        }
        task = asyncio.ensure_future(self.app(scope, wire.receive, wire.send))
        wire.task = task  # type: ignore[attr-defined]
        for _ in range(200):
            if "start" in wire.names() or task.done():
                break
            await asyncio.sleep(0.01)
        return wire


@pytest.fixture
def station(tmp_path: Path) -> Station:
    return Station(tmp_path)


def test_entries_come_in_order_and_a_filter_leaves_others_out(station: Station) -> None:
    async def scenario() -> None:
        every, one, other = (
            await station.open(),
            await station.open("endpoint=flights"),
            await station.open("endpoint=other"),
        )
        station.note(3)
        await station.look()
        seqs = [data["seq"] for name, _, data in every.got if name == "entry"]
        assert seqs == [2, 3, 4]
        assert [seq for name, seq, _ in one.got if name == "entry"] == ["2", "3", "4"]
        assert "entry" not in other.names()
        for wire in (every, one, other):
            wire.gone.set()
        await asyncio.sleep(0.05)
        assert station.streams.wanted == set()

    asyncio.run(scenario())


def test_a_reader_that_returns_gets_what_it_missed_once(station: Station) -> None:
    async def scenario() -> None:
        first = await station.open()
        start = next(data["seq"] for name, _, data in first.got if name == "start")
        first.gone.set()
        station.note(4)  # while it is away; the feed has not looked yet
        again = await station.open(last_event_id=str(start))
        assert [data["seq"] for name, _, data in again.got if name == "entry"] == [2, 3, 4, 5]
        await station.look()  # the feed finds the same entries
        station.note()
        await station.look()
        assert [data["seq"] for name, _, data in again.got if name == "entry"] == [2, 3, 4, 5, 6]
        again.gone.set()

    asyncio.run(scenario())


def test_an_entry_that_is_written_while_a_reader_returns_is_sent_once(station: Station) -> None:
    async def scenario() -> None:
        station.note(2)
        station.meets = 1  # one entry before, and one after what the reader missed was read
        wire = await station.open(last_event_id="1")
        await station.look()
        assert wire.entries() == [2, 3, 4, 5]
        wire.gone.set()

    asyncio.run(scenario())


def test_a_reader_that_returns_while_the_ledger_is_gone_loses_nothing(station: Station) -> None:
    async def scenario() -> None:
        station.note(3)
        aside = station.world.path.with_suffix(".aside")
        station.world.path.rename(aside)
        wire = await station.open(last_event_id="1")
        await station.look()
        assert "start" not in wire.names()
        assert wire.entries() == []
        aside.rename(station.world.path)
        station.note(1)
        await station.look()
        station.note(1)
        await station.look()
        assert wire.entries() == [2, 3, 4, 5, 6]
        faults = [data["code"] for name, _, data in wire.got if name == "fault"]
        assert faults[0] == "ledger_gone"
        assert faults[-1] == ""
        wire.gone.set()

    asyncio.run(scenario())


def test_a_stream_continues_after_a_restart_of_control(station: Station) -> None:
    async def scenario() -> None:
        first = await station.open()
        station.note(2)
        await station.look()
        known = first.got[-1][1]
        first.gone.set()
        station.note(2)  # while control is down
        station.start()
        again = await station.open(last_event_id=known)
        station.note(1)
        await station.look()
        assert first.entries() + again.entries() == [2, 3, 4, 5, 6]
        again.gone.set()

    asyncio.run(scenario())


def test_a_token_of_certain_endpoints_gets_their_events_only(station: Station) -> None:
    async def scenario() -> None:
        wires = []
        for endpoints in (("flights",), ("fraud",), ()):
            station.start(replace(ADMIN, endpoints=endpoints))
            wires.append(await station.open())
            station.note(1)
            await station.look()
        assert [len(wire.entries()) for wire in wires] == [1, 0, 0]
        station.note(1)  # replayed entries are left out, too
        assert (await station.open(last_event_id="1")).entries() == []
        assert (await station.open("endpoint=flights")).status == 403
        for wire in wires:
            wire.gone.set()

    asyncio.run(scenario())


def test_a_reader_that_missed_too_much_is_told_to_read_again(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "REPLAYED", 3)
    station.note(5)

    async def scenario() -> None:
        for known in ("1", "999"):  # the second knows a history that this ledger lost
            wire = await station.open(f"after={known}")
            assert wire.names() == ["reset", "start"]
            assert wire.got[0][2] == {"dropped": None}
            wire.gone.set()
        for wrong in ("after=x", "after=-1", f"after={'9' * 30}", "colour=red"):
            assert (await station.open(wrong)).status == 400

    asyncio.run(scenario())


def test_a_reader_that_never_reads_holds_a_bounded_backlog(station: Station) -> None:
    async def scenario() -> None:
        slow, quick = await station.open(), await station.open()
        slow.reads.clear()
        station.note(1)
        happenings = station.feed.look(None)
        assert happenings
        for _ in range(100):
            station.streams.publish(happenings[:1] * 100)
            await asyncio.sleep(0)
        await asyncio.sleep(0.1)
        (reader,) = (one for one in station.streams._readers if one.waiting)
        assert len(reader.waiting) <= events.QUEUED
        assert station.faults.limited["control.events_dropped"] > 9_000
        assert quick.names().count("entry") > 1_000
        slow.reads.set()
        await asyncio.sleep(0.1)
        assert "reset" in slow.names()
        slow.gone.set()
        quick.gone.set()

    asyncio.run(scenario())


def test_acks_of_replicas_are_events(station: Station) -> None:
    async def scenario() -> None:
        wire = await station.open("endpoint=flights")
        row = station.world.row()
        members = [new_member("gateway", slot, at()) for slot in ("w0", "w1")]
        for member in members:
            station.place.roster.publish(member.__class__(**fields(member, beat_at=now())))
        change(station.world)
        await station.look()
        for member in members:
            epochs = {"flights": row.epoch + 1}
            station.place.roster.publish(
                member.__class__(**fields(member, beat_at=now(), epochs=epochs))
            )
            await station.look()
        acks = [data for name, _, data in wire.got if name == "ack"]
        assert [len(one["missing"]) for one in acks] == [1, 0]
        assert {one["epoch"] for one in acks} == {row.epoch + 1}
        wire.gone.set()

    asyncio.run(scenario())


def test_a_lost_ledger_is_an_event_and_so_is_its_return(station: Station) -> None:
    async def scenario() -> None:
        wire = await station.open()
        aside = station.world.path.with_suffix(".aside")
        station.world.path.rename(aside)
        await station.look()
        aside.rename(station.world.path)
        await station.look()
        faults = [data["code"] for name, _, data in wire.got if name == "fault"]
        assert faults == ["ledger_gone", ""]
        wire.gone.set()

    asyncio.run(scenario())


def test_streams_are_bounded_and_end_with_control(
    station: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "STREAMS", 1)

    async def scenario() -> None:
        wire, refused = await station.open(), await station.open()
        assert (wire.status, refused.status) == (200, 503)
        assert b"streams_full" in refused.raw
        assert station.faults.limited == {"control.streams_full": 1}
        station.stops = True
        await station.look()
        await asyncio.wait_for(wire.task, 5)  # type: ignore[attr-defined]

    asyncio.run(scenario())


def fields(member: Any, **changed: Any) -> dict[str, Any]:
    return {name: getattr(member, name) for name in member.__struct_fields__} | changed


def now() -> float:
    return SystemClock().unix()


def change(made: World) -> None:
    from_row = made.row()
    made.ledger.append("flights", (Frozen(),), expect=from_row.epoch, by="ada", reason="", at=at(2))
