"""Auth of control's callers: a token, a browser's session, or a trusted proxy's headers.

Theory of operation
-------------------
* A loopback address proves nothing: a proxy on the same host makes every caller a loopback one, and
  other users share the address. So each request but /health and the login shows a proof.
* A known token is accepted before anything is counted. Failed attempts of others cannot lock it out.
* A token that is not known yet is looked up in the ledger, so that a new one works at once.
* A cookie alone changes nothing. A write also needs the session's CSRF token, in a header that no
  other site can send.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any, NamedTuple, Protocol

from msgspec.structs import replace
from starlette.requests import Request

from kedge.core.access import Access, Need, refuse
from kedge.core.errors import Denied, KedgeError, Overloaded, Unavailable
from kedge.core.sessions import LONGEST_S, Session, csrf_token, digest_secret, is_csrf_token
from kedge.core.tokens import SECRET_BYTES, Token, digest_of, refuse_token
from kedge.web.access_table import AccessTable
from kedge.web.origin import Headers, values_of
from kedge.web.proxy import NO_PROXY, TrustedProxy

SAFE = ("GET", "HEAD", "OPTIONS")
BEARER = "bearer "
CSRF_HEADER = b"kedge-csrf"
PROXIED = "proxied"
"""The value of that header for a browser without a session here."""
FAILURES = 20
"""Failed attempts in a row that are answered one by one; a misconfigured job makes as many."""
FAILURES_PER_S = 1.0
"""Failed attempts a second that are answered after that; the others get 429."""
LONGEST_COOKIE = 4096
PROXIED_S = 3_600.0
"""How long a stream of a proxy's user stays open: kedge does not learn that the proxy ended the
user's session, so the stream's next request asks the proxy again."""
ASK = "Authorization: Bearer TOKEN; kedge token create makes one"


class Cookie(NamedTuple):
    """The cookie of a port: browsers do not separate the cookies of two ports of one host."""

    port: int

    def name(self, *, secure: bool) -> str:
        """Return the cookie's name; `__Host-` makes a browser refuse one of a sibling domain."""
        return f"__Host-kedge-{self.port}" if secure else f"kedge-{self.port}"

    def set(self, secret: str, *, secure: bool) -> str:
        """Return the value of Set-Cookie that begins a session."""
        return self._spell(secret, int(LONGEST_S), secure=secure)

    def clear(self, *, secure: bool) -> str:
        """Return the value of Set-Cookie that ends it."""
        return self._spell("", 0, secure=secure)

    def read(self, headers: Headers, *, secure: bool) -> str:
        """Return the secret of the session that a request shows; empty if it shows none."""
        found: SimpleCookie = SimpleCookie()
        for value in values_of(headers, b"cookie"):
            try:
                found.load(value[:LONGEST_COOKIE])
            except CookieError:
                continue
        morsel = found.get(self.name(secure=secure))
        return morsel.value if morsel is not None else ""

    def _spell(self, value: str, age: int, *, secure: bool) -> str:
        name = self.name(secure=secure)
        flags = "; Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if secure else "")
        return f"{name}={value}; Max-Age={age}{flags}"


class Identifier(Protocol):
    """Finds out who sends a request."""

    async def identify(self, scope: Mapping[str, Any]) -> Access:
        """Return the access that a request proves."""

    def ended(self, access: Access) -> Denied | None:
        """Return why a granted access ended, or None."""

    def is_secure(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the browser of a request uses TLS."""


_ACCESS, _GATE = "kedge.access", "kedge.gate"


async def admit(scope: MutableMapping[str, Any], gate: Identifier) -> None:
    """Identify the caller of a request; its route then asks `require`."""
    scope[_ACCESS] = await gate.identify(scope)
    scope[_GATE] = gate


def require(scope: Mapping[str, Any], need: Need | None, endpoint: str | None) -> Access:
    """Return the access of a request that was admitted, if it may use a route.

    Without a need every proof is enough, as for what belongs to the caller alone.

    Raises:
        Denied: the caller may not use it, or was not identified.
    """
    access: Access | None = scope.get(_ACCESS)
    if access is None:
        raise Denied("this needs a token", code="token_missing", hint=ASK)
    # Its end was checked a moment ago.
    refusal = None if need is None else refuse(access, need, endpoint, 0.0)
    if refusal is not None:
        raise refusal
    return access


def still_allowed(scope: Mapping[str, Any], access: Access) -> bool:
    """Return whether an admitted access counts still; a stream asks this every two seconds."""
    gate: Identifier = scope[_GATE]
    return gate.ended(access) is None


def keep_seen(access: Access, found: object) -> object:
    """Return the entries of a list that concern endpoints which a caller may see.

    Raises:
        Denied: the entries have no endpoint, and the caller may not see all of them.
    """
    if access.endpoints is None:
        return found
    if not isinstance(found, list | tuple) or not all(hasattr(one, "endpoint") for one in found):
        raise Denied(
            f"{access.holder} may see {', '.join(access.endpoints)} only",
            code="endpoint_denied",
            hint="ask for one of these endpoints",
        )
    return [one for one in found if access.sees(one.endpoint)]


def take_csrf(scope: MutableMapping[str, Any], form: Mapping[str, str], expected: str) -> None:
    """Take the CSRF token of a form, sent by a browser without scripts, as if it were the header.

    The token of a session proves as much in a form. A user of a proxy has none (`PROXIED`): for
    them only a header shows that no form of another site was sent.

    Args:
        scope: the request.
        form: its fields.
        expected: what `Gatekeeper.csrf` returns for it.
    """
    given = form.get("csrf", "")
    has_header = any(name == CSRF_HEADER for name, _ in scope["headers"])
    if given and expected != PROXIED and not has_header:
        scope["headers"] = [*scope["headers"], (CSRF_HEADER, given.encode("latin-1", "replace"))]


async def check_scraper(gate: Gatekeeper, request: Request) -> None:
    """Raise unless the caller may read the metrics of all endpoints.

    Raises:
        Denied: it may not, or only those of certain endpoints.
    """
    access = await gate.allow(request.scope, Need.METRICS, None)
    keep_seen(access, "the metrics of all endpoints")


class Failures:
    """A bucket of failed attempts, one for each kind of proof.

    Pages whose session has ended ask again by themselves, and must not use up the attempts with
    tokens.
    """

    def __init__(self, now: float) -> None:
        """Start full, at this Unix time."""
        self._left, self._at = float(FAILURES), now

    def take(self, now: float) -> bool:
        """Count a failed attempt; return whether it is answered with its own error."""
        grown = self._left + max(now - self._at, 0.0) * FAILURES_PER_S
        self._left, self._at = min(grown, float(FAILURES)), now
        if self._left < 1.0:
            return False
        self._left -= 1.0
        return True


class LoggedIn(NamedTuple):
    """A new session: what it may do, and the cookie to set."""

    access: Access
    set_cookie: str


class Gatekeeper:
    """Finds out who sends a request, and whether it is allowed; for one event loop."""

    def __init__(
        self,
        table: AccessTable,
        unix: Callable[[], float],
        port: int,
        proxy: TrustedProxy = NO_PROXY,
    ) -> None:
        """Compare requests with this table, and read the headers of a trusted proxy."""
        self._table = table
        self._unix = unix
        self._cookie = Cookie(port)
        self._proxy = proxy
        self._failed_tokens, self._failed_sessions = Failures(unix()), Failures(unix())

    async def allow(self, scope: Mapping[str, Any], need: Need, endpoint: str | None) -> Access:
        """Return the access of a request that may use a route; the one function that routes call.

        Raises:
            Denied: 401: no valid proof; 403: the proof does not allow it.
            Overloaded: `too_many_attempts`: too many invalid proofs arrived.
            Unavailable: `tokens_unread`: the ledger cannot be read.
        """
        access = await self.identify(scope)
        refusal = refuse(access, need, endpoint, self._unix())
        if refusal is not None:
            raise refusal
        return access

    async def identify(self, scope: Mapping[str, Any]) -> Access:
        """Return the access that a request proves, and check that a browser's write is its own.

        Raises:
            As `allow`.
        """
        self._proxy.check(scope)
        headers: Headers = scope["headers"]
        shown = values_of(headers, b"authorization")
        if shown:
            access = (await self._find_token(shown)).access()
        else:
            access = self._find_session(scope) or self._find_user(scope) or self._nothing()
        if access.token is not None:
            self._table.note_use(access.token)
        return access

    def ended(self, access: Access) -> Denied | None:
        """Return why a granted access ended, or None; an open stream asks every two seconds."""
        return self._table.ended(access)

    def is_secure(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the browser uses TLS, here or at the proxy; its cookie is Secure then."""
        return scope.get("scheme") == "https" or self._proxy.is_secure(scope)

    # ------------------------------------------------------------ sessions

    def csrf(self, scope: Mapping[str, Any]) -> str:
        """Return what the pages of a request send with each write.

        A user of a proxy has no session here: the header alone shows that no form sent the write.
        """
        secret = self.secret_of(scope)
        return csrf_token(secret) if secret else PROXIED

    def secret_of(self, scope: Mapping[str, Any]) -> str:
        """Return the secret of a request's session; empty without one."""
        return self._cookie.read(scope["headers"], secure=self.is_secure(scope))

    async def login(self, scope: Mapping[str, Any], *, link: str = "", token: str = "") -> LoggedIn:
        """Begin a session with a login link or a token; the session that the browser had ends.

        Raises:
            Denied: `link_used`; or as `identify` for the token.
        """
        self._proxy.check(scope)
        if link:
            found = await self._run(lambda: self._table.take_link(digest_secret(link)))
            if found is None:
                raise self._fail(
                    Denied(
                        "this login link was used, or is too old",
                        code="link_used",
                        hint="kedge login prints another link",
                    )
                )
            number = found.token
        else:
            number = (await self._find_token([f"Bearer {token}"])).number
        now = self._unix()
        secret = secrets.token_urlsafe(SECRET_BYTES)
        session = Session(digest_secret(secret), number, now, now + LONGEST_S)
        before = self.secret_of(scope)
        replaced = digest_secret(before) if before else ""
        await self._run(lambda: self._table.begin(session, instead_of=replaced))
        access = self._table.find_session(session.digest)
        if access is None:
            raise self._fail(Denied("the token of this link is not valid", code="link_used"))
        return LoggedIn(access, self._cookie.set(secret, secure=self.is_secure(scope)))

    async def logout(self, scope: Mapping[str, Any]) -> str:
        """End a request's session; return the value of Set-Cookie that removes its cookie."""
        secret = self.secret_of(scope)
        if secret:
            await self._run(lambda: self._table.end(digest_secret(secret)))
        return self._cookie.clear(secure=self.is_secure(scope))

    # ------------------------------------------------------------ proofs

    async def _find_token(self, shown: list[str]) -> Token:
        if len(shown) > 1 or shown[0][: len(BEARER)].lower() != BEARER:
            raise self._fail(
                Denied(
                    "Authorization must be Bearer and a token, once",
                    code="token_malformed",
                    hint="Authorization: Bearer TOKEN",
                )
            )
        try:
            digest = digest_of(shown[0][len(BEARER) :].strip())
        except Denied as error:
            raise self._fail(error) from None
        token = self._table.find_token(digest)
        if token is None:
            try:
                await self._run(self._table.refresh)
            except Unavailable as error:
                raise Unavailable(
                    f"the tokens cannot be read: {error}",
                    code="tokens_unread",
                    hint=error.hint,
                ) from error
            token = self._table.find_token(digest)
        if token is None:
            raise self._fail(Denied("the token is not known", code="token_unknown"))
        refusal = refuse_token(token, self._unix())
        if refusal is not None:
            raise self._fail(refusal)
        return token

    def _find_session(self, scope: Mapping[str, Any]) -> Access | None:
        secret = self.secret_of(scope)
        if not secret:
            return None
        access = self._table.find_session(digest_secret(secret))
        if access is None:
            ended = Denied("the session has ended", code="session_ended", hint="log in again")
            raise self._fail(ended, self._failed_sessions)
        if scope["method"] not in SAFE:
            given = values_of(scope["headers"], CSRF_HEADER)
            if len(given) != 1 or not is_csrf_token(secret, given[0]):
                raise _no_csrf()
        return access

    def _find_user(self, scope: Mapping[str, Any]) -> Access | None:
        access = self._proxy.identify(scope)
        if access is None:
            return None
        access = replace(access, expires_at=self._unix() + PROXIED_S)
        if scope["method"] in SAFE:
            return access
        headers: Headers = scope["headers"]
        browses = values_of(headers, b"origin") or values_of(headers, b"sec-fetch-site")
        if browses and not values_of(headers, CSRF_HEADER):
            # A proxy's own cookie comes with a form of another site; this header does not.
            raise _no_csrf()
        return access

    def _nothing(self) -> Access:
        raise Denied(
            "this needs a token",
            code="token_missing",
            hint=ASK,
        )

    def _fail(self, error: Denied, failures: Failures | None = None) -> KedgeError:
        """Count a failed attempt; return its error, or that of too many."""
        if (failures or self._failed_tokens).take(self._unix()):
            return error
        return Overloaded(
            "too many invalid proofs arrived",
            code="too_many_attempts",
            hint="a valid token or session is never refused for this",
        )

    async def _run(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._table.thread, work)


def _no_csrf() -> Denied:
    return Denied(
        "a browser's write needs the CSRF token of its session",
        code="csrf",
        hint="load the page again",
    )
