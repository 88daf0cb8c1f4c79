"""Creation of a telemetry database: when it was made, and what could not be read before it."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from kedge.core import codec
from kedge.core.values import Beginning

NAME = "BEGINNING"


def write_beginning(database: Path, beginning: Beginning) -> None:
    """Write it beside a database, whole.

    Raises:
        OSError: it cannot be written.
    """
    temporary = database.with_name(f".{NAME}.{os.getpid()}")
    temporary.write_bytes(codec.encode(beginning))
    temporary.replace(database.with_name(NAME))


def read_beginning(database: Path) -> Beginning | None:
    """Return when a database was made; None where that is not known."""
    try:
        return codec.decode(database.with_name(NAME).read_bytes(), Beginning)
    except (OSError, msgspec.DecodeError):
        return None
