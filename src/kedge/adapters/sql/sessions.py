"""Sessions of browsers, and the last uses of tokens, in a database that may be lost."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, bindparam, select
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.rows import read_all
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core import codec
from kedge.core.sessions import Session

_session, _use = tables.session, tables.token_use

_FIND = select(_session.c.body).where(_session.c.digest == bindparam("which"))
_REMOVE = _session.delete().where(_session.c.digest == bindparam("which"))
_used = insert(_use)
_USED = _used.on_conflict_do_update(index_elements=["token"], set_={"at": _used.excluded.at})


class SqlSessions:
    """Sessions and last uses in a database from `open_access`."""

    def __init__(self, database: Database) -> None:
        """Read from and write to this database."""
        self._database = database

    def save(self, session: Session, *, instead_of: str = "") -> None:
        """Store a session; remove the one with the digest `instead_of` in the same transaction."""

        def work(connection: Connection) -> None:
            connection.execute(_REMOVE, {"which": instead_of})
            row = {"digest": session.digest, "body": codec.encode(session)}
            connection.execute(_session.insert(), row)

        self._database.write(work)

    def take(self, digest: str) -> Session | None:
        """Remove a session or link and return it; None if there is none: a link is used once."""

        def work(connection: Connection) -> Session | None:
            row = connection.execute(_FIND, {"which": digest}).first()
            connection.execute(_REMOVE, {"which": digest})
            return None if row is None else codec.decode(row.body, Session)

        return self._database.write(work)

    def all(self) -> tuple[Session, ...]:
        """Return every session and link; skip rows that cannot be read."""

        def work(connection: Connection) -> tuple[Session, ...]:
            bodies = connection.execute(select(_session.c.body)).scalars()
            return read_all(lambda body: codec.decode(body, Session), bodies)

        return self._database.read(work)

    def note_uses(self, uses: Mapping[int, float]) -> None:
        """Store the last use of tokens, by their number, as Unix time."""
        rows = [{"token": number, "at": at} for number, at in uses.items()]
        if rows:
            self._database.write(lambda connection: connection.execute(_USED, rows))

    def uses(self) -> dict[int, float]:
        """Return the last use of each token that was used."""

        def work(connection: Connection) -> dict[int, float]:
            return {row.token: row.at for row in connection.execute(select(_use))}

        return self._database.read(work)

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        self._database.close()
