"""Creation of a telemetry database: its time, and what was unreadable before it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kedge.core import codec
from kedge.core.values import Beginning
from kedge.system.durable import write_atomically

NAME = "BEGINNING"


def write_beginning(database: Path, beginning: Beginning) -> None:
    """Write a creation record beside a database, whole.

    Raises:
        OSError: it cannot be written.
    """
    write_atomically(database.with_name(NAME), codec.encode(beginning), durable=False)


def read_beginning(database: Path) -> Beginning | None:
    """Return when a database was created; None if it is unknown."""
    try:
        return codec.decode(database.with_name(NAME).read_bytes(), Beginning)
    except (OSError, msgspec.DecodeError):
        return None
