"""Tokens of control, in the ledger's database: each change is an entry of the ledger too."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace
from sqlalchemy import Connection, Row, bindparam, select

from kedge.adapters.sql import tables
from kedge.adapters.sql.ledger import noted
from kedge.adapters.sql.sqlite.connection import Database
from kedge.adapters.sql.sqlite.revisions import require
from kedge.core import codec
from kedge.core.errors import Refused
from kedge.core.stored.ledger import EVERYWHERE, LOCAL, Author
from kedge.core.stored.notes import TokenCreated, TokenRevoked, build_note
from kedge.core.tokens import Token

_token = tables.token

_ALL = select(_token.c.number, _token.c.body).order_by(_token.c.number)
_CURRENT = select(_token.c.number, _token.c.body).where(
    _token.c.name == bindparam("which"), _token.c.revoked == 0
)
_NEW = _token.insert().returning(_token.c.number)
_CHANGE = _token.update().where(_token.c.number == bindparam("which"))


class SqlTokens:
    """Tokens in a database from `open_ledger`, on its own thread's connection."""

    def __init__(self, database: Database, *, author: Author = LOCAL) -> None:
        """Read from and write to this database; `author` is the component that writes."""
        self._database = database
        self._author = author

    def stamp(self) -> tuple[int, int, int]:
        """Return a value that differs when any process has committed since."""
        return self._database.stamp()

    def all(self) -> tuple[Token, ...]:
        """Return every token that was ever created, oldest first."""
        return self._database.read(
            lambda connection: tuple(_read(row) for row in connection.execute(_ALL))
        )

    def create(self, token: Token, *, at: str) -> Token:
        """Number and store a token, with its entry in the ledger; return it.

        Raises:
            Refused: `token_exists`: another token that was not revoked has this name.
            Unavailable: `ledger_revision`: the ledger is older than tokens.
        """

        def work(connection: Connection) -> Token:
            require(connection, "0008")
            if connection.execute(_CURRENT, {"which": token.name}).first() is not None:
                raise Refused(
                    f"there is a token {token.name} already",
                    code="token_exists",
                    hint=f"choose another name, or kedge token revoke {token.name}",
                )
            body = codec.encode(token)
            row = {"name": token.name, "digest": token.digest, "revoked": 0, "body": body}
            number = connection.execute(_NEW, row).scalar_one()
            note = TokenCreated(
                token=number,
                name=token.name,
                role=token.role,
                scopes=token.scopes,
                endpoints=token.endpoints,
                expires_at=token.expires_at,
            )
            self._note(connection, note, token.created_by, "", at)
            return replace(token, number=number)

        return self._database.write(work)

    def revoke(self, name: str, *, by: str, reason: str, at: str, now: float) -> Token:
        """Revoke the token of this name, with its entry in the ledger; return it.

        Raises:
            Refused: `no_such_token`: no token that was not revoked has this name.
        """

        def work(connection: Connection) -> Token:
            row = connection.execute(_CURRENT, {"which": name}).first()
            if row is None:
                raise Refused(
                    f"there is no token {name}", code="no_such_token", hint="kedge token list"
                )
            token = replace(_read(row), revoked_at=now, revoked_by=by)
            values = {"revoked": 1, "body": codec.encode(token)}
            connection.execute(_CHANGE.values(values), {"which": token.number})
            note = TokenRevoked(token=token.number, name=name)
            self._note(connection, note, by, reason, at)
            return token

        return self._database.write(work)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()

    def _note(
        self,
        connection: Connection,
        body: TokenCreated | TokenRevoked,
        by: str,
        reason: str,
        at: str,
    ) -> None:
        note = build_note(body)
        noted(connection, EVERYWHERE, note, by=by, reason=reason, at=at, author=self._author)


def _read(row: Row[Any, Any]) -> Token:
    return replace(codec.decode(row.body, Token), number=row.number)
