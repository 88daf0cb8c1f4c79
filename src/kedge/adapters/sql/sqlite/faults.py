"""Faults of SQLite, in words that state what the caller can do."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from kedge.core.errors import Unavailable
from kedge.system.reserve import NO_SPACE, get_free

_BUSY, _LOCKED, _NOMEM, _READONLY, _IOERR, _FULL, _CANTOPEN = 5, 6, 7, 8, 10, 13, 14


def gone(name: str, path: Path) -> Unavailable:
    """Return the fault of a database that is missing, or is another file than before."""
    if (path.parent / "CREATED").exists():
        hint = f"restore {path} from a backup; kedge never makes a new one over a lost one"
    else:
        hint = "restore it from a backup; kedge init makes one where there never was one"
    return Unavailable(f"the {name} is gone: {path}", code=f"{name}_gone", hint=hint)


def full(path: Path) -> Unavailable:
    """Return the fault of a full disk."""
    return Unavailable(
        f"the disk is full: {path.parent}",
        code="disk_full",
        hint="free some space; gateways keep serving",
    )


def explain(error: Exception, *, name: str, path: Path, patience_s: float) -> Unavailable:
    """Turn a driver's error into the matching fault of this database."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    code = getattr(cause, "sqlite_errorcode", None) or 0
    primary = code & 0xFF
    if primary in (_BUSY, _LOCKED):
        return Unavailable(
            f"the {name} has been locked by another process for {patience_s:g} s: {path}",
            code=f"{name}_locked",
            hint=f"try again; fuser {path} names the process that holds it",
        )
    if not path.exists():
        return gone(name, path)
    if primary == _FULL or (primary in (_IOERR, _CANTOPEN) and get_free(path.parent) < NO_SPACE):
        return full(path)
    if primary == _READONLY or (primary == _CANTOPEN and not os.access(path.parent, os.W_OK)):
        return Unavailable(
            f"the {name} is read-only: {path}",
            code=f"{name}_read_only",
            hint="its directory, too, must be writable by the user that runs kedge",
        )
    usable = path.is_file() and os.access(path, os.R_OK | os.W_OK)
    if primary in (_NOMEM, _CANTOPEN) and usable:
        return Unavailable(
            f"the {name} cannot be opened: {path}: {cause}",
            code=f"{name}_unreadable",
            hint="the process may have no memory or no descriptors left; it tries again",
        )
    return Unavailable(
        f"the {name} cannot be read: {path}: {cause}",
        code=f"{name}_damaged",
        hint="kedge doctor shows what is wrong with it; restore it from a backup",
    )
