"""Version of SQLite in this process, and whether a shared ledger can trust it.

Never open one file through two SQLite libraries in one process, nor open it as a plain file.
Closing either drops every POSIX lock that the process holds on it. A caller that needs the raw
driver takes `dbapi` from here.
"""

from __future__ import annotations

from typing import Any

dbapi: Any
try:
    from pysqlite3 import dbapi2 as _bundled

    dbapi = _bundled
except ImportError:  # no wheel for this platform
    import sqlite3 as _stdlib

    dbapi = _stdlib

FIXED = (3, 51, 3)
"""First SQLite version without a bug that corrupts a WAL database when two processes write and
checkpoint at the same moment."""


def sqlite_version_fault() -> str | None:
    """Return the fault of the SQLite in use; None if there is none."""
    found = tuple(int(part) for part in dbapi.sqlite_version.split("."))
    if found >= FIXED:
        return None
    fixed = ".".join(map(str, FIXED))
    return (
        f"SQLite {dbapi.sqlite_version} can corrupt a ledger that several processes write; "
        f"{fixed} is the first that cannot (pip install 'pysqlite3>=0.6.1' brings one)"
    )
