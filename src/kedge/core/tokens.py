"""Tokens: their spelling, their stored form, and which of them count at an instant.

A token is `kedge_`, 256 random bits in 43 digits of base 62, and the CRC32 of both in 6 digits. The
prefix and the checksum let a scanner of secrets find a leaked token without asking kedge. Only a
digest is stored: 256 random bits cannot be guessed, so a slow hash would protect nothing more.
"""

from __future__ import annotations

import re
import zlib
from hashlib import sha256

from kedge.core.access import Access, AccessKind, Role, Scope, expired
from kedge.core.errors import Denied
from kedge.core.values import Value

PREFIX = "kedge_"
SECRET_BYTES = 32
"""256 bits."""
_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_DIGITS = 43
"""62^43 is just above 2^256."""
_CHECK_DIGITS = 6
"""62^6 is above 2^32."""
SPELLING = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_DIGITS + _CHECK_DIGITS}}}")
"""The pattern to give to a scanner of secrets."""


class Token(Value, frozen=True):
    """A stored token, without its secret."""

    number: int
    name: str
    digest: str
    """SHA-256 of the spelling, in hexadecimal."""
    role: Role | None = None
    scopes: tuple[Scope, ...] = ()
    endpoints: tuple[str, ...] | None = None
    """None: all endpoints."""
    created_at: float = 0.0
    """Unix time, as every instant here."""
    created_by: str = ""
    expires_at: float | None = None
    revoked_at: float | None = None
    revoked_by: str = ""

    def is_valid(self, now: float) -> bool:
        """Return whether the token counts at an instant."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)

    def access(self) -> Access:
        """Return what the holder of this token may do."""
        return Access(
            name=self.name,
            kind=AccessKind.TOKEN,
            role=self.role,
            scopes=self.scopes,
            endpoints=self.endpoints,
            expires_at=self.expires_at,
            token=self.number,
        )


def spell(secret: bytes) -> str:
    """Return the spelling of a token with these 32 random bytes."""
    assert len(secret) == SECRET_BYTES, "a token has 256 bits"
    begins = PREFIX + _digits(int.from_bytes(secret), _SECRET_DIGITS)
    return begins + _checksum(begins)


def is_spelled_well(text: str) -> bool:
    """Return whether a text has the form of a token, with the right checksum."""
    if SPELLING.fullmatch(text) is None:
        return False
    return _checksum(text[:-_CHECK_DIGITS]) == text[-_CHECK_DIGITS:]


def digest_of(text: str) -> str:
    """Return the digest under which a token is stored.

    Raises:
        Denied: `token_malformed`.
    """
    if not is_spelled_well(text):
        raise Denied(
            f"a token is {PREFIX} and {_SECRET_DIGITS + _CHECK_DIGITS} letters and digits,"
            " of which the last six are a checksum",
            code="token_malformed",
            hint="copy the whole token, without spaces",
        )
    return sha256(text.encode("ascii")).hexdigest()


def refuse_token(token: Token, now: float) -> Denied | None:
    """Return the refusal of a token that does not count any more, or None."""
    if token.revoked_at is not None:
        return Denied(
            f"token {token.name} was revoked by {token.revoked_by}",
            code="token_revoked",
            hint="ask an admin for a new one: kedge token create",
        )
    return None if token.is_valid(now) else expired(AccessKind.TOKEN, token.name)


def _digits(number: int, length: int) -> str:
    found = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        found.append(_ALPHABET[digit])
    assert number == 0, "the number has more digits"
    return "".join(reversed(found))


def _checksum(text: str) -> str:
    return _digits(zlib.crc32(text.encode("ascii")), _CHECK_DIGITS)
