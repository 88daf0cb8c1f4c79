"""Tokens of control in a real ledger: created, listed, revoked, and the admin token of `up`."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import pytest

from kedge.adapters.sql.sqlite.create import create
from kedge.core.access import Role, Scope
from kedge.core.errors import BadConfig, KedgeError, Refused, Unavailable
from kedge.core.sessions import LINK_S, digest_secret
from kedge.core.stored.ledger import EVERYWHERE, Note
from kedge.core.stored.notes import RunbookNote, TokenCreated, TokenRevoked, build_note
from kedge.core.tokens import digest_of, is_spelled_well
from kedge.core.values import ActorKind
from kedge.operations.tokens import (
    ADMIN_TOKEN,
    LOCAL_NAME,
    Grants,
    create_token,
    keep_admin_token,
    list_tokens,
    make_login,
    read_admin_token,
    read_token,
    revoke_token,
)
from kedge.workspace import Workplace

CI = Grants("ci", Role.OPERATOR, (Scope.METRICS, Scope.METRICS), expires="90d")


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    create(tmp_path)
    return Workplace(tmp_path)


def test_a_created_token_is_stored_without_its_secret(place: Workplace) -> None:
    made = create_token(place, CI, by="ada")
    assert is_spelled_well(made.token)
    (stored,) = place.tokens.all()
    assert stored.digest == digest_of(made.token)
    assert stored.number == made.number
    assert (stored.role, stored.scopes, stored.endpoints) == (Role.OPERATOR, (Scope.METRICS,), None)
    assert stored.expires_at == stored.created_at + 90 * 86_400
    secret = made.token[6:-6].encode()
    for file in place.state_dir.rglob("*"):
        assert not file.is_file() or secret not in file.read_bytes(), file


def test_creating_and_revoking_are_entries_of_the_ledger(place: Workplace) -> None:
    made = create_token(place, CI, by="ada")
    revoke_token(place, "ci", by="bob", reason="stolen")
    newest, first = place.ledger.history(EVERYWHERE)
    assert isinstance(first.event, Note)
    assert isinstance(newest.event, Note)
    assert first.event.body == TokenCreated(
        token=made.number,
        name="ci",
        role=Role.OPERATOR,
        scopes=(Scope.METRICS,),
        expires_at=place.tokens.all()[0].expires_at,
    )
    assert newest.event.body == TokenRevoked(token=made.number, name="ci")
    assert (newest.by, newest.reason, newest.actor) == ("bob", "stolen", ActorKind.PERSON)
    assert place.ledger.verify() == []


def test_a_revoked_token_stays_listed_and_frees_its_name(place: Workplace) -> None:
    create_token(place, CI, by="ada")
    with pytest.raises(Refused) as caught:
        create_token(place, CI, by="ada")
    assert caught.value.code == "token_exists"
    revoked = revoke_token(place, "ci", by="bob")
    assert (revoked.state, revoked.revoked_by) == ("revoked", "bob")
    again = create_token(place, CI, by="ada")
    assert [one.number for one in list_tokens(place)] == [again.number]
    assert [one.state for one in list_tokens(place, every=True)] == ["revoked", "valid"]
    with pytest.raises(Refused) as caught:
        revoke_token(place, "nothing", by="bob")
    assert caught.value.code == "no_such_token"


@pytest.mark.parametrize(
    "grants, code",
    [
        (Grants("", Role.VIEWER), "bad_token_name"),
        (Grants("a b", Role.VIEWER), "bad_token_name"),
        (Grants("<script>", Role.VIEWER), "bad_token_name"),
        (Grants("x" * 65, Role.VIEWER), "bad_token_name"),
        (Grants("ci"), "no_grant"),
        (Grants("ci", Role.VIEWER, expires="soon"), "bad_expiry"),
        (Grants("ci", Role.VIEWER, expires="0s"), "bad_expiry"),
        (Grants("ci", Role.VIEWER, endpoints=("nowhere",)), "unknown_endpoint"),
    ],
)
def test_grants_that_make_no_sense_are_refused(place: Workplace, grants: Grants, code: str) -> None:
    with pytest.raises(KedgeError) as caught:
        create_token(place, grants, by="ada")
    assert caught.value.code == code
    assert place.tokens.all() == ()


def test_the_admin_token_is_for_its_user_only_and_stays(place: Workplace) -> None:
    text = keep_admin_token(place, by="control")
    path = place.state_dir / ADMIN_TOKEN
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_admin_token(place.state_dir) == text == keep_admin_token(place, by="control")
    (token,) = list_tokens(place)
    assert (token.name, token.role, token.endpoints, token.expires_at) == (
        LOCAL_NAME,
        Role.ADMIN,
        None,
        None,
    )


@pytest.mark.parametrize("damage", ["gone", "open", "other", "cut"])
def test_a_lost_or_damaged_admin_token_is_replaced_and_the_old_one_revoked(
    place: Workplace, damage: str
) -> None:
    text = keep_admin_token(place, by="control")
    path = place.state_dir / ADMIN_TOKEN
    match damage:
        case "gone":
            path.unlink()
        case "open":
            path.chmod(0o644)
        case "other":
            path.write_text(create_token(place, CI, by="ada").token)
        case _:
            path.write_text(text[:-1])
    new = keep_admin_token(place, by="control")
    assert new != text
    assert read_admin_token(place.state_dir) == new
    states = {one.number: one.state for one in list_tokens(place, every=True)}
    assert states[1] == "revoked"


def test_an_admin_token_that_cannot_be_read_now_is_not_replaced(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = keep_admin_token(place, by="control")

    def fail(_: int) -> None:
        raise OSError(errno.EIO, "input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fstat", fail)
        with pytest.raises(BadConfig, match="input/output error"):
            keep_admin_token(place, by="control")
    assert keep_admin_token(place, by="control") == text


def test_a_file_that_others_can_read_is_no_token_file(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for content, mode in (("kedge_nothing", 0o600), ("x", 0o640)):
        path.write_text(content)
        path.chmod(mode)
        with pytest.raises(BadConfig) as caught:
            read_token(path)
        assert caught.value.code == "token_file"
    assert read_admin_token(tmp_path) == ""


def test_a_login_link_is_taken_once(place: Workplace) -> None:
    text = keep_admin_token(place, by="control")
    secret = make_login(place, text)
    link = place.sessions.take(digest_secret(secret))
    assert link is not None
    assert link.is_link
    assert link.expires_at == link.created_at + LINK_S
    assert place.sessions.take(digest_secret(secret)) is None
    revoke_token(place, LOCAL_NAME, by="ada")
    with pytest.raises(Refused):
        make_login(place, text)


def test_sessions_and_last_uses_survive_a_restart(place: Workplace) -> None:
    made = create_token(place, CI, by="ada")
    place.sessions.note_uses({made.number: 1_000.0})
    place.sessions.note_uses({made.number: 2_000.0})
    place.sessions.note_uses({})
    session = place.sessions
    make_login(place, made.token)
    later = Workplace(place.state_dir)
    assert later.sessions.uses() == {made.number: 2_000.0}
    assert later.sessions.all() == session.all()
    assert list_tokens(later)[0].last_used_at == "1970-01-01T00:33:20Z"


def test_a_token_cannot_be_created_without_the_ledger(tmp_path: Path) -> None:
    with pytest.raises(Unavailable):
        create_token(Workplace(tmp_path), CI, by="ada")


def test_an_entry_names_the_token_that_allowed_it(place: Workplace) -> None:
    remote = Workplace(place.state_dir, token="token ci")
    note = build_note(RunbookNote(digest="d"))
    remote.ledger.note("flights", note, by="ada", reason="", at=place.clock.now())
    place.ledger.note("flights", note, by="ada", reason="", at=place.clock.now())
    local, entry = place.ledger.history("flights")
    assert (entry.token, local.token) == ("token ci", "")
    assert place.ledger.verify() == []
