"""Forms and receipts of the dashboard: sent once, stale, interrupted, and without scripts."""

from __future__ import annotations

import html
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from contract.sql_world import World, world
from kedge.core.access import Access, AccessKind, Role
from kedge.core.errors import Denied
from kedge.core.release.commands import Canary, Drill, Pause, Promote, Rollback, Shadow
from kedge.core.release.machine import apply, decide
from kedge.core.stored.notes import ReceiptNote, build_note
from kedge.core.values import Refusal
from kedge.web.auth import PROXIED, take_csrf
from kedge.web.dashboard.pages.refusals import refusals_of, rollbacks_of
from kedge.workspace import Workplace
from support.pages import Pages
from support.waiting import wait_until

AT = "2026-11-23T12:00:00.000000Z"
ROLLBACK = "/endpoints/flights/act/rollback"


@pytest.fixture
def made(tmp_path: Path) -> World:
    """r1 was production, r2 is, and r3 is a canary at a quarter."""
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    made.do(Canary(release=3, weight=2500, override="a test"))
    return made


@pytest.fixture
def pages(made: World) -> Iterator[Pages]:
    opened = Pages(made.state_dir)
    yield opened
    opened.close()


def fields(text: str) -> dict[str, str]:
    """The hidden fields of a form."""
    return dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', text))


def main(text: str) -> str:
    """The content of a page, without the tags."""
    content = re.search(r"<main.*?>(.*)</main>", text, re.DOTALL)
    assert content is not None
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", content[1])))


def test_a_form_that_is_sent_twice_is_carried_out_once(made: World, pages: Pages) -> None:
    form = fields(pages.get(ROLLBACK).text)
    first = pages.post(ROLLBACK, **form, reason="late flights")
    second = pages.post(ROLLBACK, **form, reason="late flights")
    assert first.url == second.url
    assert "r3 went from 25 % to zero" in second.text
    assert "Nothing happened" not in second.text
    assert len(made.ledger.entries("flights", "candidate_rolled_back", 5)) == 1
    other = pages.post(ROLLBACK, **form, reason="another reason")
    assert "Nothing happened" in other.text
    assert other.url != first.url


def test_back_after_a_rollback_shows_what_the_next_one_would_do(pages: Pages) -> None:
    form = fields(pages.get(ROLLBACK).text)
    pages.post(ROLLBACK, **form, reason="late flights")
    again = main(pages.get(ROLLBACK).text)
    assert "sends all callers from r2 · v2 back to r1 · v1" in again
    assert "Last change: r3 went from 25 % to zero and is condemned, by ada" in again


def test_a_stale_form_keeps_the_reason_and_says_who_did_what(made: World, pages: Pages) -> None:
    form = fields(pages.get(ROLLBACK).text)
    made.do(Pause(), by="grace", reason="wait for me")
    text = main(pages.post(ROLLBACK, **form, reason="late flights").text)
    assert "Nothing happened" in text
    assert "grace : the rollout is held wait for me" in text
    assert "late flights" in text
    assert "Open the form again" in text


def test_a_form_says_what_changed_since_the_button_and_since_it_was_made(
    made: World, pages: Pages
) -> None:
    seen = made.row().epoch
    made.do(Pause(), by="grace", reason="wait for me")
    text = pages.get(f"{ROLLBACK}?epoch={seen}").text
    assert "Since the page that you came from: grace : the rollout is held" in main(text)
    live = re.search(r'hx-sse:connect="([^"]*)"', text)
    assert live is not None
    assert live[1].endswith(f"act/rollback/live?epoch={seen + 1}")
    assert "changed after this form was made" not in text


@pytest.mark.parametrize("reason", ["x" * 501, ""])
def test_a_reason_is_never_cut_and_never_missing(pages: Pages, reason: str) -> None:
    answer = pages.post(ROLLBACK, **fields(pages.get(ROLLBACK).text), reason=reason)
    assert answer.status_code == 400
    assert "reason" in answer.text
    assert reason in answer.text
    assert pages.place.ledger.read().states["flights"].candidate == 3


def test_after_the_end_of_a_session_the_reason_is_shown_again(
    pages: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    form = fields(pages.get(ROLLBACK).text)

    async def refuse(*_: object) -> Access:
        raise Denied("the session has ended", code="session_ended", hint="log in again")

    monkeypatch.setattr(pages.session, "allow", refuse)
    answer = pages.post(ROLLBACK, **form, reason="late <b>flights</b>")
    assert answer.status_code == 401
    assert "late <b>flights</b>" in main(answer.text) or "late" in main(answer.text)
    assert "<b>flights" not in answer.text
    assert "login?next=endpoints/flights/act/rollback" in answer.text


def test_a_locked_ledger_changes_nothing_and_the_same_form_can_be_sent_again(
    made: World, pages: Pages
) -> None:
    form = fields(pages.get(ROLLBACK).text)
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        def work(_: object) -> None:
            held.set()
            assert free.wait(60)

        Workplace(made.state_dir).database.write(work)

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(20)
    running = pages.post(ROLLBACK, **form, reason="late flights")
    wait_until(
        lambda: "under way" not in pages.get(running.url.path).text,
        lambda: "the end of the command",
    )
    refused = pages.get(running.url.path)
    free.set()
    thread.join(20)
    assert 'http-equiv="refresh"' in running.text
    assert "late flights" in running.text
    assert "Nothing was changed: the ledger could not be used" in refused.text
    assert 'http-equiv="refresh"' not in refused.text
    assert "late flights" in refused.text
    done = pages.post(ROLLBACK, **form, reason="late flights")
    assert done.url == refused.url
    assert "r3 went from 25 % to zero" in done.text


# ---------------------------------------------------------------- control restarted


def test_after_a_restart_of_control_the_ledger_has_the_receipt(made: World, pages: Pages) -> None:
    form = fields(pages.get(ROLLBACK).text)
    address = pages.post(ROLLBACK, **form, reason="late flights").url.path
    before = main(pages.get(address).text)
    again = Pages(made.state_dir)
    try:
        text = main(again.get(address).text)
    finally:
        again.close()
    assert "Control was restarted since. The ledger recorded this." in text
    assert "r3 went from 25 % to zero" in text
    assert "late flights" in text
    assert before.count("written") == text.count("written")


def test_a_command_that_control_did_not_finish_is_interrupted(made: World, pages: Pages) -> None:
    epoch = made.row().epoch
    address = f"/endpoints/flights/acts/{epoch}-abcdefghijklmnop"
    text = main(pages.get(address).text)
    assert "Nothing was changed: control was restarted before the command was written" in text
    made.do(Rollback(), by="ada", reason="late flights")
    pages.dashboard._source._kept.clear()
    text = main(pages.get(address).text)
    assert "Control was restarted before the end of the command was recorded" in text
    assert "late flights" in text
    parts = {"decide_ms": 1.0, "total_ms": 9.0, "acks": {"w0": 5.0}, "silent": ("w1",)}
    (entry,) = made.ledger.entries("flights", "candidate_rolled_back")
    note = build_note(ReceiptNote(of=entry.seq, command="rollback", **parts))  # type: ignore[arg-type]
    made.ledger.note("flights", note, by="ada", reason="", at=AT)
    pages.dashboard._source._kept.clear()
    text = main(pages.get(address).text)
    assert "w0 acknowledged after 5.0 ms" in text
    assert "w1 did not acknowledge" in text


def test_the_command_of_another_operator_is_not_shown_as_ones_own(
    made: World, pages: Pages
) -> None:
    epoch = made.row().epoch
    made.do(Pause(), by="grace", reason="wait for me")
    text = main(pages.get(f"/endpoints/flights/acts/{epoch}-abcdefghijklmnop").text)
    assert "Nothing happened: the endpoint changed meanwhile" in text
    assert "grace : the rollout is held wait for me" in text


@pytest.mark.parametrize("name", ["x", "1-x", "9999999999999999-abcdefghijklmnop", "1-" + "x" * 90])
def test_an_address_that_names_no_command_is_not_found(pages: Pages, name: str) -> None:
    assert pages.get(f"/endpoints/flights/acts/{name}").status_code == 404


# ---------------------------------------------------------------- what is possible


@pytest.mark.parametrize("stage", ["settled", "shadow", "canary", "drill"])
def test_the_page_of_a_rollback_tells_what_the_machine_would_do(tmp_path: Path, stage: str) -> None:
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Promote(release=2, full=True, override="a test"))
    if stage == "shadow":
        made.do(Shadow(release=3, sample=10_000, override="a test"))
    if stage == "canary":
        made.do(Canary(release=3, weight=2500, override="a test"))
    if stage == "drill":
        made.do(Drill(until=2e9))
    row = made.row()
    events = decide(row, Rollback(), AT)
    assert not isinstance(events, Refusal)
    after = row
    for event in events:
        after = apply(after, event)
    pages = Pages(made.state_dir)
    try:
        assert pages.get("/").status_code == pages.get("/endpoints/flights").status_code == 200
        text = main(pages.get(ROLLBACK).text)
        form = fields(pages.get(ROLLBACK).text)
        done = main(pages.post(ROLLBACK, **form, reason="x").text)
    finally:
        pages.close()
    told = {
        "canary": "takes r3 · v3 from 25 % to zero and condemns it; production stays r2 · v2",
        "drill": "keeps r1 · v1 in production and ends the drill; r2, which the drill left, is cond",
    }
    back = f"from r2 · v2 back to r{after.production} · v{after.production} and condemns r2"
    assert told.get(stage, back) in text
    assert ("uncondemned" in text) == (stage == "shadow")
    assert after.condemned == ((3,) if stage == "canary" else (2,))
    row = made.row()
    assert (row.production, row.condemned) == (after.production, after.condemned)
    assert "Nothing" not in done


def test_a_canary_can_also_roll_production_back(made: World, pages: Pages) -> None:
    text = main(pages.get(ROLLBACK).text)
    assert "r3 · v3 goes from 25 % to zero and is condemned; r2 · v2 stays" in text
    assert "production goes back from r2 · v2 to r1 · v1; r2 · v2 is condemned" in text
    form = fields(pages.get(ROLLBACK).text)
    pages.post(ROLLBACK, **form, reason="both are bad", kind="production")
    assert made.row().production == 1


def test_a_condemned_release_is_offered_when_nothing_else_is_left(
    made: World, pages: Pages
) -> None:
    made.do(Rollback(production=True))
    row = made.row()
    assert row.back is None
    assert not refusals_of(row, rollbacks_of(row, AT), AT)["rollback"].is_final
    text = pages.get(ROLLBACK).text
    assert "r2 · v2 was condemned before" in main(text)
    assert 'value="r2" required>' in text
    pages.post(ROLLBACK, **fields(text), reason="r1 is worse", kind="r2")
    assert made.row().production == 2


@pytest.mark.parametrize("kind", ["r99", "rx", "everything"])
def test_an_unknown_target_of_a_rollback_is_refused(pages: Pages, kind: str) -> None:
    form = fields(pages.get(ROLLBACK).text)
    assert "refused" in pages.post(ROLLBACK, **form, reason="x", kind=kind).text
    assert pages.place.ledger.read().states["flights"].candidate == 3


def test_a_check_that_an_operator_may_override_does_not_disable_the_button(
    tmp_path: Path,
) -> None:
    made = world(tmp_path)
    made.do(Promote(release=1))
    made.do(Shadow(release=2, sample=10_000, override="a test"))
    pages = Pages(made.state_dir)
    try:
        text = pages.get("/endpoints/flights/act/promote").text
        assert "A check speaks against it: " in main(text)
        assert 'name="override" maxlength="500" autocomplete="off" required' in text
        assert "disabled" not in text
        form = fields(text)
        refused = pages.post("/endpoints/flights/act/promote", **form)
        assert "refused" in refused.text
        sent = pages.post("/endpoints/flights/act/promote", **form, override="tested by hand")
        wait_until(
            lambda: "under way" not in pages.get(sent.url.path).text, "the end of the command"
        )
    finally:
        pages.close()
    assert made.row().production == 2


# ---------------------------------------------------------------- without scripts


def test_a_session_may_send_its_token_in_the_form_but_a_proxys_user_may_not() -> None:
    for expected, form, taken in (
        ("abc", {"csrf": "abc"}, [(b"kedge-csrf", b"abc")]),
        ("abc", {}, []),
        (PROXIED, {"csrf": PROXIED}, []),
        (PROXIED, {"csrf": "abc"}, []),
    ):
        scope: dict[str, Any] = {"headers": []}
        take_csrf(scope, form, expected)
        assert scope["headers"] == taken
    scope = {"headers": [(b"kedge-csrf", b"mine")]}
    take_csrf(scope, {"csrf": "other"}, "abc")
    assert scope["headers"] == [(b"kedge-csrf", b"mine")]


def test_a_viewer_has_no_command_although_the_form_can_be_read(pages: Pages) -> None:
    pages.session.access = Access("eve", AccessKind.SESSION, role=Role.VIEWER)
    text = pages.get(ROLLBACK).text
    assert "your role is viewer; an operator can do this" in text
    assert re.search(r'<button type="submit" class="danger" disabled>', text)
