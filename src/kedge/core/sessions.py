"""Sessions: what a browser's cookie and a login link stand for, and when they end.

Only digests of their secrets are stored. What a session may do follows from its token whenever it
is asked, so that a revoked token ends its sessions.
"""

from __future__ import annotations

from hashlib import sha256
from hmac import compare_digest

from msgspec.structs import replace

from kedge.core.access import Access, AccessKind
from kedge.core.tokens import Token
from kedge.core.values import Value

LONGEST_S = 12 * 3600.0
"""Maximum seconds of a session: a working day."""
LINK_S = 900.0
"""Seconds for which a login link can be used, once."""


class Session(Value, frozen=True):
    """A browser's session, or a login link that was not used."""

    digest: str
    """SHA-256 of the secret, in hexadecimal."""
    token: int
    """The number of the token that it was made with."""
    created_at: float
    """Unix time."""
    expires_at: float
    is_link: bool = False

    def access(self, token: Token) -> Access:
        """Return what the browser may do: what its token may do, until the earlier end."""
        ends = self.expires_at
        if token.expires_at is not None:
            ends = min(ends, token.expires_at)
        granted = token.access()
        return replace(granted, kind=AccessKind.SESSION, expires_at=ends, session=self.digest)


def digest_secret(secret: str) -> str:
    """Return the digest under which a secret is stored."""
    return sha256(secret.encode()).hexdigest()


def csrf_token(secret: str) -> str:
    """Return the token that a session's pages send with each write.

    It is derived from the cookie, which no script can read. So it needs no storage.
    """
    return sha256(b"csrf " + secret.encode()).hexdigest()


def is_csrf_token(secret: str, given: str) -> bool:
    """Return whether a write comes from a page of this session."""
    return compare_digest(csrf_token(secret).encode(), given.encode())
