"""Writes of control's API: receipts, preconditions, repetitions, access, and children."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract.sql_world import World, world
from kedge.adapters.clock import SystemClock
from kedge.core.access import Access, AccessKind, Role
from kedge.core.alerts.alerts import Raise, Topic
from kedge.core.errors import BadRequest, Overloaded, Refused
from kedge.core.release.commands import Promote
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.catalogue import API, BY_NAME
from kedge.operations.parameters import CanaryParameters, DrillParameters, HeadParameters
from kedge.web import repeats, writes
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.children import Unfinished, read_output, write_line
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.web.repeats import AnswerStore
from kedge.web.writes import Writes
from kedge.workspace import Workplace
from models import environment
from support.access import Open
from support.api import api_of

FREEZE = "/endpoints/flights/freeze"


class Desk:
    """The API over a state directory with two releases of flights in production's history."""

    def __init__(self, root: Path) -> None:
        self.world: World = world(root)
        for number in (1, 2):
            release = self.world.release(number)
            self.world.do(Promote(release=release.number, override="a test"))
        (root / "kedge.toml").write_text('[endpoints.flights]\naudience = "internal"\n')
        self.faults = ProcessFaults(SystemClock())
        readers = Readers(partial(Workplace, self.world.state_dir))
        streams = Streams(readers, self.faults)
        earlier = Admin(lambda _: [], lambda _: None, None)  # type: ignore[arg-type]
        self.gate = Open()
        api = api_of(readers, streams, self.world.state_dir)
        self.app = Front(earlier, api.routes(), self.faults, gate=self.gate)
        self.loop = asyncio.Runner()
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://127.0.0.1", timeout=60
        )

    def post(self, path: str, json: Any = None, **headers: str) -> httpx2.Response:
        """One POST below /api/v1."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.loop.run(self.http.post(API + path, json=json, headers=named))

    def entries(self) -> int:
        """How many entries the ledger has."""
        return len(self.world.ledger.later(0, 1000))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    (tmp_path / ".kedge").symlink_to(tmp_path / "state")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Desk(tmp_path)
    yield made
    made.loop.run(made.http.aclose())
    made.loop.close()


def test_a_rollback_answers_with_its_receipt_and_records_its_caller(desk: Desk) -> None:
    seen = desk.world.row().epoch
    asked = {"reason": "late flights up"}
    done = desk.post("/endpoints/flights/rollback", asked, if_match=f'"{seen}"')
    receipt = done.json()
    assert (done.status_code, receipt["event"]) == (200, "rolled_back")
    assert done.headers["etag"] == f'"{receipt["epoch"]}"'
    assert desk.world.row().production == 1
    (entry, *_) = [e for e in desk.world.ledger.history("flights") if e.reason == asked["reason"]]
    assert (entry.by, entry.token) == ("api", "token api")


def test_a_stale_page_changes_nothing_and_learns_who_was_first(desk: Desk) -> None:
    seen = desk.world.row().epoch
    assert desk.post(FREEZE, {"reason": "a storm"}, if_match=f'"{seen}"').status_code == 200
    before = desk.entries()
    late = desk.post("/endpoints/flights/rollback", {}, if_match=f'"{seen}"')
    assert (late.status_code, late.json()["code"]) == (412, "stale")
    assert late.json()["details"] == {"epoch": seen + 1, "by": "api", "reason": "a storm"}
    assert desk.entries() == before
    assert desk.post(FREEZE, {}, if_match="W/abc").json()["code"] == "bad_match"


def test_a_repetition_gets_the_first_answer(desk: Desk) -> None:
    first = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k1")
    before = desk.entries()
    again = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k1")
    assert (again.content, again.headers["etag"]) == (first.content, first.headers["etag"])
    assert again.headers["idempotency-replayed"] == "true"
    other = desk.post(FREEZE, {"reason": "y"}, idempotency_key="k1")
    assert (other.status_code, other.json()["code"]) == (422, "key_reused")
    assert desk.entries() == before
    desk.gate.access = Access("second", AccessKind.TOKEN, Role.OPERATOR)
    mine = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k1")
    assert (mine.status_code, "idempotency-replayed" in mine.headers) == (409, False)  # frozen
    refused = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k1")
    assert (refused.content, refused.status_code) == (mine.content, 409)
    assert refused.headers["content-type"] == "application/problem+json"


def test_a_key_outlives_control_and_a_day_ends_it(tmp_path: Path) -> None:
    now = 1_000_000_000.0
    first = AnswerStore(tmp_path, lambda: now)
    assert first.begin("token ci", "k", b"request") is None
    with pytest.raises(Refused) as told:
        first.begin("token ci", "k", b"request")
    assert told.value.code == "in_progress"
    second = AnswerStore(tmp_path, lambda: now)
    with pytest.raises(Refused) as told:
        second.begin("token ci", "k", b"request")
    assert told.value.code == "outcome_unknown"
    first.finish("token ci", "k", b"request", 200, b"{}", 7)
    known = second.begin("token ci", "k", b"request")
    assert known is not None
    assert (known.status, known.body, known.epoch) == (200, b"{}", 7)
    later = AnswerStore(tmp_path, lambda: now + repeats.KEPT_S + 1)
    assert later.begin("token ci", "k", b"another request") is None
    later.release("token ci", "k")
    assert later.begin("token ci", "k", b"a third one") is None


def test_a_key_whose_request_failed_in_the_middle_is_not_under_way(tmp_path: Path) -> None:
    """As when the answer cannot be stored: no caller waits for it, and a repetition changes nothing."""
    store = AnswerStore(tmp_path, lambda: 1e9)
    assert store.begin("token ci", "k", b"request") is None
    store.abandon("token ci", "k")
    with pytest.raises(Refused) as told:
        store.begin("token ci", "k", b"request")
    assert told.value.code == "outcome_unknown"


@pytest.mark.parametrize("fault", [Unfinished("late", code="child_late"), ZeroDivisionError()])
def test_a_command_that_may_have_changed_something_is_not_repeated(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def fail(_self: object, _write: object) -> object:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr(Writes, "_command", fail)
        first = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k")
    assert first.status_code >= 500
    assert "retry-after" not in first.headers
    again = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k")
    assert (again.status_code, again.json()["code"]) == (409, "outcome_unknown")


def test_rollbacks_and_other_commands_are_bounded_apart(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writes, "WAITING", 0)
    for path in (FREEZE, "/endpoints/flights/rollback"):
        refused = desk.post(path, {"reason": "x"})
        assert (refused.status_code, refused.json()["code"]) == (503, "queue_full")


def test_keys_of_one_process_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 2)
    store = AnswerStore(tmp_path, lambda: 1e9)
    for number in range(3):
        assert store.begin("one", f"k{number}", b"") is None
    with pytest.raises(Overloaded):
        store.begin("one", "k4", b"")


def test_a_null_character_never_reaches_a_command_line() -> None:
    with pytest.raises(BadRequest):
        write_line(BY_NAME["drill"], "flights\0", DrillParameters())


def test_a_rollback_needs_no_space_for_its_key(desk: Desk) -> None:
    """As on a full disk: the key cannot be stored, and the epoch refuses a repetition."""
    (desk.world.state_dir / repeats.REQUESTS_DIR).write_text("")  # no folder can be made here
    seen = desk.world.row().epoch
    refused = desk.post(FREEZE, {"reason": "x"}, idempotency_key="k")
    assert (refused.status_code, refused.json()["code"]) == (503, "requests_unwritable")
    for status, code in ((200, None), (412, "stale")):
        rollback = "/endpoints/flights/rollback"
        done = desk.post(rollback, {}, idempotency_key="k", if_match=f'"{seen}"')
        assert (done.status_code, done.json().get("code")) == (status, code)


def test_stored_keys_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(repeats, "MOST", 2)
    for number in range(3):
        assert AnswerStore(tmp_path, lambda: 1e9).begin("one", f"k{number}", b"") is None
    with pytest.raises(Overloaded):
        AnswerStore(tmp_path, lambda: 1e9).begin("one", "k4", b"")
    for wrong in ("", "x" * 129, "é", "a\n"):
        with pytest.raises(BadRequest):
            repeats.read_key(wrong)


def test_a_viewer_changes_nothing(desk: Desk) -> None:
    before = desk.entries()
    desk.gate.access = Access("eve", AccessKind.TOKEN, Role.VIEWER)
    for path in (FREEZE, "/endpoints/flights/promote", "/apply"):
        assert desk.post(path, {}).status_code == 403
    desk.gate.access = Access("op", AccessKind.TOKEN, Role.OPERATOR, endpoints=("other",))
    assert desk.post(FREEZE, {}).json()["code"] == "endpoint_denied"
    assert desk.post("/apply", {}).status_code == 403
    assert desk.entries() == before


def test_an_alert_is_acknowledged_by_whom_may_see_its_endpoint(desk: Desk) -> None:
    place = Workplace(desk.world.state_dir)
    found = Raise(key="k", topic=Topic.OTHER, level="page", lasts="event", summary="late")
    (alert,) = place.alerts.raise_all([("flights", found)], by="a", at="", now=0.0)
    assert desk.post("/alerts/99/ack", {}).status_code == 404
    desk.gate.access = Access("op", AccessKind.TOKEN, Role.OPERATOR, endpoints=("other",))
    hidden = desk.post(f"/alerts/{alert.number}/ack", {})
    assert (hidden.status_code, hidden.json()["code"]) == (404, "unknown_alert")
    desk.gate.access = Access("op", AccessKind.TOKEN, Role.OPERATOR, endpoints=("flights",))
    assert desk.post(f"/alerts/{alert.number}/ack", {}).json()["acknowledged_by"] == "op"
    again = desk.post(f"/alerts/{alert.number}/ack", {}).json()
    assert again["code"] == "already_acknowledged"


@pytest.mark.parametrize(
    ("json", "code"),
    [
        ({"reason": 5}, "bad_parameters"),
        ({"why": "x"}, "bad_parameters"),
        ({"reason": "x" * 5000}, "bad_parameters"),
        ({"reason": "x" * 70_000}, "too_large"),
    ],
)
def test_parameters_are_checked_before_anything_happens(desk: Desk, json: Any, code: str) -> None:
    before = desk.entries()
    assert desk.post(FREEZE, json).json()["code"] == code
    assert desk.entries() == before


def test_a_child_carries_out_what_is_slow_with_the_callers_epoch(desk: Desk) -> None:
    release = desk.world.release(3)
    seen = desk.world.row().epoch
    asked = {"version": f"r{release.number}", "override": "a test"}
    late = desk.post("/endpoints/flights/promote", asked, if_match=f'"{seen - 1}"')
    assert (late.status_code, late.json()["code"]) == (412, "stale")
    done = desk.post("/endpoints/flights/promote", asked, if_match=f'"{seen}"')
    assert (done.status_code, done.json()["event"]) == (200, "promoted")
    assert done.headers["etag"] == f'"{done.json()["epoch"]}"'
    entries = desk.world.ledger.history("flights")
    (entry, *_) = [e for e in entries if e.epoch == done.json()["epoch"]]
    assert (entry.by, entry.token) == ("api", "token api")


def test_values_of_a_caller_are_never_read_as_options() -> None:
    given = CanaryParameters(version="--config=/etc/passwd", weight=5.0, override="-x")
    assert write_line(BY_NAME["canary"], "flights", given) == [
        "canary",
        "--weight=5.0",
        "--override=-x",
        "--json",
        "--",
        "flights",
        "--config=/etc/passwd",
    ]
    head = write_line(BY_NAME["features head"], None, HeadParameters(version="a/1#2", dry_run=True))
    assert head == ["features", "head", "--dry-run", "--json", "--", "a/1#2"]
    drill = write_line(BY_NAME["drill"], "flights", DrillParameters(for_="20s", dry=True))
    assert drill == ["drill", "--for=20s", "--dry", "--json", "--", "flights"]


def test_a_child_without_a_document_is_a_named_failure() -> None:
    assert bytes(read_output(b"[1]", 1)) == b"[1]"
    for raw in (b"", b"{", b"Traceback"):
        with pytest.raises(Exception, match="without a document") as told:
            read_output(raw, 1)
        assert told.value.code == "child_failed"  # type: ignore[attr-defined]
    with pytest.raises(Refused) as refused:
        read_output(b'{"error": {"code": "no_rollout", "message": "m", "hint": "h", "x": 1}}', 1)
    assert (refused.value.code, refused.value.details) == ("no_rollout", {"x": 1})


def test_a_token_is_shown_once_and_stored_by_no_key(desk: Desk) -> None:
    asked = {"name": "ci", "scope": ["outcomes", "metrics"], "endpoint": ["flights"]}
    made = desk.post("/tokens", asked, idempotency_key="one")
    assert made.status_code == 200, made.text
    text = made.json()["token"]
    assert (made.json()["scopes"], made.json()["endpoints"]) == (
        ["outcomes", "metrics"],
        ["flights"],
    )
    again = desk.post("/tokens", asked, idempotency_key="one")
    assert (again.status_code, again.json()["code"]) == (409, "token_exists")
    kept = [file for file in desk.world.state_dir.rglob("*") if file.is_file()]
    assert not [file for file in kept if text[6:-6].encode() in file.read_bytes()]
    (entry,) = desk.world.ledger.history("*")
    assert (entry.by, entry.token) == ("api", "token api")


def test_only_an_admin_of_all_endpoints_makes_tokens(desk: Desk) -> None:
    for role, endpoints, code in (
        (Role.OPERATOR, None, "role_too_low"),
        (Role.ADMIN, ("flights",), "endpoint_denied"),
    ):
        desk.gate.access = Access("x", AccessKind.TOKEN, role=role, endpoints=endpoints)
        for path in ("/tokens", "/tokens/revoke"):
            found = desk.post(path, {"name": "mine", "role": "admin"})
            assert (found.status_code, found.json()["code"]) == (403, code)
