"""Access table: the tokens and sessions as control knows them, read again when they change.

All reads and writes of the stores happen in one thread, because their connections belong to it. The
event loop only reads two dictionaries, each of which is replaced as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import NamedTuple

from kedge.core.access import Access, expired
from kedge.core.errors import Denied, KedgeError, Unavailable
from kedge.core.sessions import Session
from kedge.core.tokens import Token, refuse_token
from kedge.ports.access import SessionStore, TokenStore

KEEP_USES_S = 60.0
"""How often last uses are stored: a minute is enough to find an unused token."""


class Stores(NamedTuple):
    """The stores of one thread."""

    tokens: TokenStore
    sessions: SessionStore


class AccessTable:
    """The tokens and sessions of this state directory, in memory."""

    def __init__(self, open_stores: Callable[[], Stores], unix: Callable[[], float]) -> None:
        """Open the stores at the first refresh, in the thread of the table."""
        self._open = open_stores
        self._unix = unix
        self._stores: Stores | None = None
        self._stamp: tuple[int, int, int] | None = None
        self._tokens: dict[str, Token] = {}
        self._numbers: dict[int, Token] = {}
        self._sessions: dict[str, Session] = {}
        self._uses: dict[int, float] = {}
        self._kept_at = 0.0
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="access")
        """The thread of everything below that reads or writes a store."""

    # ------------------------------------------------------------ in the event loop

    @property
    def is_read(self) -> bool:
        """Whether the tokens were read at least once."""
        return self._stamp is not None

    def find_token(self, digest: str) -> Token | None:
        """Return a token by its digest, whether it is valid or not."""
        return self._tokens.get(digest)

    def find_session(self, digest: str) -> Access | None:
        """Return what a session may do now; None if it ended, or its token is not valid."""
        session = self._sessions.get(digest)
        if session is None:
            return None
        token = self._numbers.get(session.token)
        now = self._unix()
        if token is None or not token.is_valid(now) or now >= session.expires_at:
            return None
        return session.access(token)

    def note_use(self, token: int) -> None:
        """Note that a token was used now."""
        self._uses[token] = self._unix()

    def ended(self, access: Access) -> Denied | None:
        """Return why an access that was granted earlier does not count any more, or None.

        An open stream asks this at least every two seconds.
        """
        if access.session is not None and self.find_session(access.session) is None:
            return expired(access.kind, access.name)
        now = self._unix()
        if access.token is not None and access.session is None:
            token = self._numbers.get(access.token)
            return expired(access.kind, access.name) if token is None else refuse_token(token, now)
        if access.expires_at is not None and now >= access.expires_at:
            return expired(access.kind, access.name)
        return None

    # ------------------------------------------------------------ in the thread

    def refresh(self) -> None:
        """Read the tokens again if the ledger has changed; store last uses once a minute.

        Raises:
            Unavailable: the ledger cannot be read. The tokens stay as they were read last.
        """
        stores = self._stores_here()
        stamp = stores.tokens.stamp()
        if stamp != self._stamp:
            tokens = stores.tokens.all()
            self._tokens = {token.digest: token for token in tokens}
            self._numbers = {token.number: token for token in tokens}
            if self._stamp is None:
                self._read_sessions(stores)
            self._stamp = stamp
        now = self._unix()
        self._sessions = {d: s for d, s in self._sessions.items() if now < s.expires_at}
        if self._uses and not 0 <= now - self._kept_at < KEEP_USES_S:
            self._kept_at = now
            self.keep_uses()

    def keep_uses(self) -> None:
        """Store last uses; drop them if that fails, since a database that may be lost has them."""
        uses, self._uses = self._uses, {}
        with suppress(KedgeError):
            self._stores_here().sessions.note_uses(uses)

    def take_link(self, digest: str) -> Session | None:
        """Return an unused, unexpired login link of a valid token; it is used now."""
        self.refresh()
        link = self._stores_here().sessions.take(digest)
        if link is None or not link.is_link or self._unix() >= link.expires_at:
            return None
        token = self._numbers.get(link.token)
        return link if token is not None and token.is_valid(self._unix()) else None

    def begin(self, session: Session, *, instead_of: str = "") -> None:
        """Store a new session, and end the one that the browser had."""
        self._stores_here().sessions.save(session, instead_of=instead_of)
        kept = {d: s for d, s in self._sessions.items() if d != instead_of}
        self._sessions = {**kept, session.digest: session}

    def end(self, digest: str) -> None:
        """End a session at once, in memory first: a logout counts also without a database."""
        self._sessions = {d: s for d, s in self._sessions.items() if d != digest}
        with suppress(Unavailable):
            self._stores_here().sessions.take(digest)

    def _stores_here(self) -> Stores:
        if self._stores is None:
            self._stores = self._open()
        return self._stores

    def _read_sessions(self, stores: Stores) -> None:
        with suppress(Unavailable):  # browsers log in again
            found = stores.sessions.all()
            self._sessions = {s.digest: s for s in found if not s.is_link}
