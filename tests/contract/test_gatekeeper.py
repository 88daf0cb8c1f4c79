"""The gatekeeper over a real ledger: who is let in, who is refused, and how a session ends."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pytest

from kedge.adapters.sql.sqlite.create import create
from kedge.core.access import Access, AccessKind, Need, Role, Scope
from kedge.core.errors import KedgeError, Unavailable
from kedge.core.sessions import LINK_S, LONGEST_S, csrf_token
from kedge.core.tokens import SECRET_BYTES, spell
from kedge.operations.tokens import Grants, create_token, make_login, revoke_token
from kedge.web.access_table import KEEP_USES_S, AccessTable, Stores
from kedge.web.auth import FAILURES, Cookie, Gatekeeper
from kedge.workspace import Workplace

T = TypeVar("T")
UNKNOWN = spell(bytes(SECRET_BYTES))
PORT = 8081


@dataclass
class Gate:
    """A gatekeeper of a real state directory, whose clock can be moved."""

    place: Workplace
    ahead_s: float = 0.0
    table: AccessTable = field(init=False)
    keeper: Gatekeeper = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget everything in memory, as a restart of control does."""

        def open_stores() -> Stores:
            own = Workplace(self.place.state_dir, patience_s=0.2)
            return Stores(own.tokens, own.sessions)

        self.table = AccessTable(open_stores, self.now)
        self.keeper = Gatekeeper(self.table, self.now, PORT)

    def now(self) -> float:
        return self.place.clock.unix() + self.ahead_s

    def make(self, name: str = "ci", **grants: Any) -> str:
        """Create a token; an admin for all endpoints by default."""
        asked = {"role": Role.ADMIN, **grants}
        return create_token(self.place, Grants(name, **asked), by="ada").token

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run(work)

    def refresh(self) -> None:
        """Do what control's loop does each second."""
        self.table.thread.submit(self.table.refresh).result()

    def identify(self, method: str = "GET", **headers: str) -> Access:
        return self.run(self.keeper.identify(scope(method, **headers)))

    def allow(self, need: Need, endpoint: str | None = None, **headers: str) -> Access:
        return self.run(self.keeper.allow(scope("GET", **headers), need, endpoint))

    def code(self, method: str = "GET", **headers: str) -> str:
        """The code of the refusal; empty if the request is allowed."""
        try:
            self.identify(method, **headers)
        except KedgeError as error:
            return error.code
        return ""

    def log_in(self, text: str) -> str:
        """Log a browser in with a link; returns its Cookie header."""
        link = make_login(self.place, text)
        done = self.run(self.keeper.login(scope("GET"), link=link))
        return done.set_cookie.split(";")[0]


def scope(method: str, *, scheme: str = "http", **headers: str) -> dict[str, Any]:
    """The head of a request, as ASGI has it."""
    raw = [(n.replace("_", "-").encode(), v.encode("latin-1")) for n, v in headers.items()]
    return {"type": "http", "method": method, "headers": raw, "scheme": scheme, "path": "/"}


def bearer(text: str) -> dict[str, str]:
    return {"authorization": f"Bearer {text}"}


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    create(tmp_path)
    return Gate(Workplace(tmp_path))


def test_a_valid_token_is_its_holder(gate: Gate) -> None:
    text = gate.make("ci", role=Role.VIEWER, scopes=(Scope.OUTCOMES,))
    access = gate.identify(authorization=f"bEaReR  {text} ")
    assert (access.name, access.role, access.scopes) == ("ci", Role.VIEWER, (Scope.OUTCOMES,))
    assert access.kind is AccessKind.TOKEN


def test_a_new_token_works_at_once_and_a_revoked_one_ends_at_the_next_look(gate: Gate) -> None:
    gate.identify(**bearer(gate.make("first")))
    text = gate.make("second")
    access = gate.identify(**bearer(text))
    revoke_token(gate.place, "second", by="ada")
    assert gate.keeper.ended(access) is None
    gate.refresh()
    ended = gate.keeper.ended(access)
    assert ended is not None
    assert ended.code == "token_revoked"
    assert gate.code(**bearer(text)) == "token_revoked"


@pytest.mark.parametrize(
    "headers, code",
    [
        ({}, "token_missing"),
        ({"authorization": ""}, "token_malformed"),
        ({"authorization": "Bearer"}, "token_malformed"),
        ({"authorization": "Basic YTpi"}, "token_malformed"),
        (bearer("kedge_"), "token_malformed"),
        (bearer(UNKNOWN[:-1] + "x"), "token_malformed"),
        (bearer("é" * 55), "token_malformed"),
        (bearer(UNKNOWN), "token_unknown"),
        ({"cookie": f"kedge-{PORT}=nothing"}, "session_ended"),
        ({"cookie": "kedge-9999=nothing"}, "token_missing"),
        ({"cookie": "]bad[=;;;="}, "token_missing"),
        ({"x_forwarded_user": "ada", "x_forwarded_for": "127.0.0.1"}, "token_missing"),
    ],
)
def test_a_request_without_a_valid_proof_is_refused(
    gate: Gate, headers: dict[str, str], code: str
) -> None:
    gate.make()
    assert gate.code(**headers) == code


def test_two_tokens_in_one_request_are_none(gate: Gate) -> None:
    text = gate.make()
    head = scope("GET", **bearer(text))
    head["headers"] *= 2
    with pytest.raises(KedgeError) as caught:
        gate.run(gate.keeper.identify(head))
    assert caught.value.code == "token_malformed"


def test_an_expired_token_is_refused(gate: Gate) -> None:
    text = gate.make(expires="1h")
    access = gate.identify(**bearer(text))
    gate.ahead_s = 3601.0
    assert gate.code(**bearer(text)) == "token_expired"
    ended = gate.keeper.ended(access)
    assert ended is not None
    assert ended.code == "token_expired"


def test_a_wrong_role_scope_or_endpoint_is_refused(gate: Gate) -> None:
    text = gate.make(role=Role.VIEWER)
    assert gate.allow(Need.READ, "flights", **bearer(text)).name == "ci"
    for need, code in (
        (Need.OPERATE, "role_too_low"),
        (Need.ADMIN, "role_too_low"),
        (Need.OUTCOMES, "scope_missing"),
    ):
        with pytest.raises(KedgeError) as caught:
            gate.allow(need, "flights", **bearer(text))
        assert caught.value.code == code


def test_a_valid_token_is_never_refused_because_others_failed(gate: Gate) -> None:
    text = gate.make()
    codes = [gate.code(**bearer(UNKNOWN)) for _ in range(FAILURES + 5)]
    assert codes[:FAILURES] == ["token_unknown"] * FAILURES
    assert set(codes[FAILURES:]) <= {"token_unknown", "too_many_attempts"}
    assert codes[-1] == "too_many_attempts"
    assert gate.code(**bearer(text)) == ""
    assert gate.code(**bearer(gate.make("another"))) == ""
    gate.ahead_s = 10.0
    assert gate.code(**bearer(UNKNOWN)) == "token_unknown"


def test_pages_whose_session_has_ended_use_up_no_attempts_with_tokens(gate: Gate) -> None:
    cookie = f"kedge-{PORT}=ended"
    codes = [gate.code(cookie=cookie) for _ in range(FAILURES + 5)]
    assert codes[0] == "session_ended"
    assert codes[-1] == "too_many_attempts"
    assert gate.code(**bearer(UNKNOWN)) == "token_unknown"
    assert gate.code(cookie=gate.log_in(gate.make())) == ""


def test_known_tokens_count_while_the_ledger_cannot_be_read(gate: Gate) -> None:
    text = gate.make()
    assert gate.code(**bearer(text)) == ""
    ledger = gate.place.state_dir / "ledger"
    ledger.rename(ledger.with_name("elsewhere"))
    with pytest.raises(Unavailable):
        gate.refresh()
    assert gate.code(**bearer(text)) == ""
    assert gate.code(**bearer(UNKNOWN)) == "tokens_unread"


def test_the_last_use_is_stored_once_a_minute(gate: Gate) -> None:
    text = gate.make()
    access = gate.identify(**bearer(text))
    gate.refresh()
    (first,) = gate.place.sessions.uses().values()
    gate.ahead_s = KEEP_USES_S / 2
    gate.identify(**bearer(text))
    gate.refresh()
    assert gate.place.sessions.uses() == {access.token: first}
    gate.ahead_s = KEEP_USES_S + 1
    gate.refresh()
    assert gate.place.sessions.uses()[access.token or 0] > first


def test_a_link_logs_a_browser_in_once(gate: Gate) -> None:
    text = gate.make(role=Role.VIEWER)
    link = make_login(gate.place, text)
    done = gate.run(gate.keeper.login(scope("GET"), link=link))
    assert (done.access.kind, done.access.name) == (AccessKind.SESSION, "ci")
    cookie = done.set_cookie.split(";")[0]
    assert "; Path=/; HttpOnly; SameSite=Lax" in done.set_cookie
    assert "Secure" not in done.set_cookie
    assert gate.identify(cookie=cookie).role is Role.VIEWER
    for again in (link, "", "kedge"):
        with pytest.raises(KedgeError) as caught:
            gate.run(gate.keeper.login(scope("GET"), link=again, token="x" if not again else ""))
        assert caught.value.code in ("link_used", "token_malformed")


def test_a_link_that_is_too_old_or_of_a_revoked_token_is_refused(gate: Gate) -> None:
    text = gate.make()
    gate.refresh()
    old = make_login(gate.place, text)
    gate.ahead_s = LINK_S
    late = gate.run(_refused(gate, old))
    assert late == "link_used"
    gate.ahead_s = 0.0
    other = make_login(gate.place, text)
    revoke_token(gate.place, "ci", by="ada")
    gate.refresh()
    assert gate.run(_refused(gate, other)) == "link_used"


async def _refused(gate: Gate, link: str) -> str:
    try:
        await gate.keeper.login(scope("GET"), link=link)
    except KedgeError as error:
        return error.code
    return ""


def test_a_link_is_no_session(gate: Gate) -> None:
    link = make_login(gate.place, gate.make())
    gate.refresh()
    assert gate.code(cookie=f"kedge-{PORT}={link}") == "session_ended"


def test_the_session_id_is_new_at_each_login_and_the_old_one_ends(gate: Gate) -> None:
    text = gate.make()
    first = gate.log_in(text)
    done = gate.run(gate.keeper.login(scope("POST", cookie=first), token=text))
    second = done.set_cookie.split(";")[0]
    assert second != first
    assert gate.code(cookie=first) == "session_ended"
    assert gate.code(cookie=second) == ""


def test_a_session_ends_after_12_hours_at_logout_and_with_its_token(gate: Gate) -> None:
    text = gate.make()
    aged, left, revoked = (gate.log_in(text) for _ in range(3))
    access = gate.identify(cookie=left)
    cleared = gate.run(gate.keeper.logout(scope("POST", cookie=left)))
    assert "Max-Age=0" in cleared
    ended = gate.keeper.ended(access)
    assert ended is not None
    assert ended.code == "session_ended"
    assert gate.code(cookie=left) == "session_ended"
    access = gate.identify(cookie=revoked)
    gate.ahead_s = LONGEST_S + 1
    assert gate.code(cookie=aged) == "session_ended"
    gate.ahead_s = 0.0
    assert gate.keeper.ended(access) is None
    revoke_token(gate.place, "ci", by="ada")
    gate.refresh()
    assert gate.keeper.ended(access) is not None
    assert gate.code(cookie=revoked) == "session_ended"


def test_a_session_survives_a_restart_of_control(gate: Gate) -> None:
    cookie = gate.log_in(gate.make())
    gate.restart()
    gate.refresh()
    assert gate.code(cookie=cookie) == ""
    gate.run(gate.keeper.logout(scope("POST", cookie=cookie)))
    gate.restart()
    gate.refresh()
    assert gate.code(cookie=cookie) == "session_ended"


def test_a_write_of_a_browser_needs_the_csrf_token_of_its_session(gate: Gate) -> None:
    cookie, other = gate.log_in(gate.make()), gate.log_in(gate.make("other"))
    good = csrf_token(cookie.partition("=")[2])
    assert gate.code("POST", cookie=cookie) == "csrf"
    assert gate.code("POST", cookie=cookie, kedge_csrf="") == "csrf"
    assert gate.code("POST", cookie=cookie, kedge_csrf=csrf_token(other)) == "csrf"
    assert gate.code("DELETE", cookie=cookie) == "csrf"
    assert gate.code("POST", cookie=cookie, kedge_csrf=good) == ""
    assert gate.code("POST", cookie=other, kedge_csrf=good) == "csrf"
    assert gate.code("HEAD", cookie=cookie) == ""


def test_under_tls_the_cookie_is_secure_and_bound_to_its_host() -> None:
    cookie = Cookie(PORT)
    assert cookie.set("s", secure=True).startswith(f"__Host-kedge-{PORT}=s; Max-Age=43200; Path=/;")
    assert cookie.set("s", secure=True).endswith("; Secure")
    plain = [(b"cookie", f"kedge-{PORT}=s".encode())]
    assert cookie.read(plain, secure=False) == "s"
    assert cookie.read(plain, secure=True) == ""
