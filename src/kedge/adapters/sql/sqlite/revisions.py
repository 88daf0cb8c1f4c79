"""Revisions of the ledger that this kedge works on, older and newer than its own.

Theory of operation
-------------------
* A package is upgraded before `kedge restart` migrates the ledger. In between, the commands of the new
  package, and processes that the old supervisor starts again, meet a ledger of an earlier revision.
  From `OLDEST` on they work on it. Temporary views complete it for queries: they belong to one
  connection and change nothing in the file. So the processes of the old package go on as before.
* What needs a newer column or table asks for it with `require`, and is refused before it is written.
* After the migration, processes of the old package still drain. A ledger states in `user_version` the
  earliest revision whose kedge may use it. A revision that only adds tables and columns leaves it as
  it is; one that removes or changes something raises it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, text

from kedge.core.errors import Unavailable

REVISION = "0009"
"""The newest revision in `migrations/`; kept here so that opening need not import Alembic."""
OLDEST = "0007"
"""The earliest revision that the views complete: that of the release before tokens."""

_ADDED: Mapping[str, tuple[str, ...]] = {
    "0008": (
        """CREATE TEMP VIEW ledger AS SELECT seq, endpoint, epoch, at, "by", reason, event,
        previous_hash, hash, actor, NULL AS token FROM main.ledger""",
        """CREATE TEMP VIEW token AS SELECT 0 AS number, '' AS name, '' AS digest, 0 AS revoked,
        '' AS body WHERE 0""",
    ),
    "0009": ("CREATE TEMP VIEW announcement AS SELECT 0 AS seq, 0 AS live, '' AS body WHERE 0",),
}
"""By revision: the views that stand for what it added."""


def check_revision(connection: Connection) -> None:
    """Complete an earlier ledger for this connection; raise if this kedge cannot work on it.

    Raises:
        Unavailable: `ledger_revision`.
    """
    found = read_revision(connection)
    if found == REVISION:
        return
    if found > REVISION:
        earliest = connection.execute(text("PRAGMA user_version")).scalar_one()
        if not 0 < earliest <= int(REVISION):
            raise _refusal(found, REVISION, "a newer kedge wrote it: install that")
        return
    if found < OLDEST:
        raise _refusal(found, REVISION, "kedge restart, or kedge up, brings it up to date")
    connection.execute(text("PRAGMA temp_store = MEMORY"))
    for revision, views in _ADDED.items():
        for view in views if revision > found else ():
            connection.execute(text(view))


def require(connection: Connection, revision: str) -> None:
    """Raise if the ledger is older than the revision that added what is about to be written.

    Raises:
        Unavailable: `ledger_revision`.
    """
    found = read_revision(connection)
    if found < revision:
        raise _refusal(found, revision, "kedge restart brings it up to date")


def is_newest(connection: Connection) -> bool:
    """Return whether a ledger needs no migration; one of a newer kedge needs none of this one."""
    return read_revision(connection) >= REVISION


def read_revision(connection: Connection) -> str:
    """Return the revision of a ledger: four digits; empty if it has none."""
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
    return str(found or "")


def _refusal(found: str, needed: str, hint: str) -> Unavailable:
    return Unavailable(
        f"the ledger is at revision {found or 'none'}, and this needs {needed}",
        code="ledger_revision",
        hint=hint,
    )
