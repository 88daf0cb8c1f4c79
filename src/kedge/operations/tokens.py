"""Tokens of control: create, list, revoke; the admin token of this machine; login links."""

from __future__ import annotations

import os
import re
import secrets
import stat
from pathlib import Path
from typing import Literal

from kedge.core.access import Role, Scope
from kedge.core.errors import BadConfig, KedgeError, Refused, Unavailable
from kedge.core.sessions import LINK_S, Session, digest_secret
from kedge.core.time.durations import seconds
from kedge.core.time.instants import iso
from kedge.core.tokens import SECRET_BYTES, Token, digest_of, is_spelled_well, spell
from kedge.core.values import Value
from kedge.operations.known_endpoints import Configured, find_endpoint
from kedge.system.durable import write_atomically
from kedge.workspace import Workplace

ADMIN_TOKEN = "admin-token"
"""Name of a file in the state directory, of mode 0600: the token of commands on this machine."""
LOCAL_NAME = "local"
"""Name of that token."""
NEVER = "never"
DEFAULT_EXPIRY = "90d"
"""A forgotten token ends with its quarter; `never` is a choice that must be stated."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
LONGEST_FILE = 4096
"""Maximum bytes of a file that has one token."""

TokenState = Literal["valid", "expired", "revoked"]


class Grants(Value, frozen=True):
    """What a new token may do, as an admin asks for it."""

    name: str
    role: Role | None = None
    scopes: tuple[Scope, ...] = ()
    endpoints: tuple[str, ...] = ()
    """Empty: all endpoints."""
    expires: str = DEFAULT_EXPIRY
    """A duration such as 90d, or never."""


class ListedToken(Value, frozen=True):
    """A token as lists show it: without its secret and its digest."""

    number: int
    name: str
    state: TokenState
    role: Role | None
    scopes: tuple[Scope, ...]
    endpoints: tuple[str, ...] | None
    """Null: all endpoints."""
    created_at: str
    created_by: str
    expires_at: str | None
    """Null: never."""
    last_used_at: str | None
    """To the minute; null: never, or not known."""
    revoked_at: str | None = None
    revoked_by: str = ""


class CreatedToken(ListedToken, frozen=True, kw_only=True):
    """A new token. Its secret is shown this once, and stored nowhere."""

    token: str


def create_token(
    place: Workplace, grants: Grants, *, by: str, configured: Configured = tuple
) -> CreatedToken:
    """Create a token, with an entry in the ledger.

    Raises:
        Refused: `bad_token_name`, `bad_expiry`, `no_grant`, `unknown_endpoint`, `token_exists`.
    """
    if NAME.fullmatch(grants.name) is None:
        raise Refused(
            "a token's name has letters, digits and . _ @ -, and at most 64 of them,"
            f" got {grants.name[:80]!r}",
            code="bad_token_name",
        )
    if grants.role is None and not grants.scopes:
        raise Refused(
            f"token {grants.name} has neither a role nor a scope",
            code="no_grant",
            hint=f"add --role {Role.VIEWER}, or --scope {Scope.METRICS}",
        )
    named = tuple(
        find_endpoint(place, name, configured, needs_row=False) for name in grants.endpoints
    )
    text = spell(secrets.token_bytes(SECRET_BYTES))
    now = place.clock.unix()
    token = Token(
        number=0,
        name=grants.name,
        digest=digest_of(text),
        role=grants.role,
        scopes=tuple(dict.fromkeys(grants.scopes)),
        endpoints=tuple(dict.fromkeys(named)) or None,
        created_at=now,
        created_by=by,
        expires_at=_end(grants.expires, now),
    )
    made = place.tokens.create(token, at=place.clock.now())
    listed = _listed(made, now, None)
    return CreatedToken(**{name: getattr(listed, name) for name in _FIELDS}, token=text)


def list_tokens(place: Workplace, *, every: bool = False) -> list[ListedToken]:
    """Return the tokens that were not revoked, or all, with their last use."""
    now = place.clock.unix()
    try:
        uses = place.sessions.uses()
    except KedgeError:  # a lost last use must not hide the tokens
        uses = {}
    return [
        _listed(token, now, uses.get(token.number))
        for token in place.tokens.all()
        if every or token.revoked_at is None
    ]


def revoke_token(place: Workplace, name: str, *, by: str, reason: str = "") -> ListedToken:
    """Revoke a token, with an entry in the ledger. Its sessions end within seconds.

    Raises:
        Refused: `no_such_token`.
    """
    now = place.clock.unix()
    token = place.tokens.revoke(name, by=by, reason=reason, at=place.clock.now(), now=now)
    return _listed(token, now, None)


def keep_admin_token(place: Workplace, *, by: str) -> str:
    """Return the token of this machine's commands; create it if the file has no valid one.

    Raises:
        BadConfig: `token_file`: the file is there and cannot be read. Another token would end the
            one that it has.
    """
    path = place.state_dir / ADMIN_TOKEN
    now = place.clock.unix()
    current = {t.digest: t for t in place.tokens.all() if t.name == LOCAL_NAME and t.is_valid(now)}
    try:
        text = read_token(path)
    except BadConfig as error:
        if isinstance(error.__cause__, OSError) and path.exists():
            raise
        text = ""
    if text and digest_of(text) in current:
        return text
    if current:
        revoke_token(place, LOCAL_NAME, by=by, reason=f"{ADMIN_TOKEN} does not have it")
    made = create_token(place, Grants(LOCAL_NAME, Role.ADMIN, expires=NEVER), by=by)
    write_atomically(path, made.token.encode() + b"\n")
    return made.token


def read_admin_token(state_dir: Path) -> str:
    """Return the token of this machine's commands; empty if there is none to read."""
    try:
        return read_token(state_dir / ADMIN_TOKEN)
    except BadConfig:
        return ""


def read_token(path: Path) -> str:
    """Read the token of a file that only its user can read.

    Raises:
        BadConfig: `token_file`: it cannot be read, other users can read it, or it has no token.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(LONGEST_FILE).decode("ascii", "replace").strip()
    except OSError as error:
        raise BadConfig([f"{path}: {error.strerror}"], code="token_file") from error
    if stat.S_IMODE(mode) & 0o077:
        raise BadConfig(
            [f"{path} can be read by other users"], code="token_file", hint=f"chmod 600 {path}"
        )
    if not is_spelled_well(text):
        raise BadConfig(
            [f"{path} does not have a token of kedge"],
            code="token_file",
            hint="the file has one line: what kedge token create printed",
        )
    return text


class LoginLink(Value, frozen=True):
    """A link that logs one browser in."""

    url: str
    expires_at: str
    """Until when it can be used, once."""


def make_link(place: Workplace, base: str) -> LoginLink:
    """Return a login link of this machine's admin; `base` is the address of control.

    Raises:
        Unavailable: `no_admin_token`: control has not made the admin token yet.
    """
    text = read_admin_token(place.state_dir)
    if not text:
        raise Unavailable(
            f"{ADMIN_TOKEN} is missing in {place.state_dir}",
            code="no_admin_token",
            hint="kedge up makes it; wait until it serves",
        )
    ends = place.clock.unix() + LINK_S
    return LoginLink(f"{base}/login?link={make_login(place, text)}", iso(ends))


def make_login(place: Workplace, text: str) -> str:
    """Return the secret of a login link, which a browser can use once, in place of a token.

    Raises:
        Refused: `no_such_token`: no valid token has this text.
    """
    now, digest = place.clock.unix(), digest_of(text)
    token = next((t for t in place.tokens.all() if t.digest == digest and t.is_valid(now)), None)
    if token is None:
        raise Refused("the token is not valid", code="no_such_token", hint="kedge token list")
    secret = secrets.token_urlsafe(SECRET_BYTES)
    place.sessions.save(
        Session(digest_secret(secret), token.number, now, now + LINK_S, is_link=True)
    )
    return secret


_FIELDS = ListedToken.__struct_fields__


def _listed(token: Token, now: float, used: float | None) -> ListedToken:
    state: TokenState = "valid" if token.is_valid(now) else "expired"
    return ListedToken(
        number=token.number,
        name=token.name,
        state="revoked" if token.revoked_at is not None else state,
        role=token.role,
        scopes=token.scopes,
        endpoints=token.endpoints,
        created_at=iso(token.created_at),
        created_by=token.created_by,
        expires_at=None if token.expires_at is None else iso(token.expires_at),
        last_used_at=None if used is None else iso(used),
        revoked_at=None if token.revoked_at is None else iso(token.revoked_at),
        revoked_by=token.revoked_by,
    )


def _end(expires: str, now: float) -> float | None:
    if expires == NEVER:
        return None
    try:
        lasts = seconds(expires)
    except ValueError as error:
        raise Refused(str(error), code="bad_expiry", hint=f"--expires 90d, or {NEVER}") from error
    if not lasts:
        raise Refused("a token must last longer than nothing", code="bad_expiry")
    return now + lasts
