"""Failure of a command: the error with its hint, on a terminal or as JSON, and the exit code.

Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 written but not acknowledged,
4 a required system is unreachable.
"""

from __future__ import annotations

import contextlib

from kedge.core.codec import encode
from kedge.core.errors import BadConfig, BadRequest, KedgeError, NotAcknowledged, Unavailable, Usage
from kedge.system.terminal import indented, show, show_json

REFUSED, USAGE, NOT_ACKNOWLEDGED, UNAVAILABLE = 1, 2, 3, 4
CODES: tuple[tuple[type[KedgeError], int], ...] = (
    (BadConfig, USAGE),
    (BadRequest, USAGE),
    (Usage, USAGE),
    (NotAcknowledged, NOT_ACKNOWLEDGED),
    (Unavailable, UNAVAILABLE),
)
"""Exit codes by kind of error; every other error is a refusal."""


def fail(error: KedgeError, *, as_json: bool) -> int:
    """Print an error with its hint, and return the exit code, even if the terminal is closed."""
    with contextlib.suppress(OSError):
        if as_json:
            told = {
                "code": error.code,
                "message": str(error),
                "hint": error.hint,
                **error.details,
            }
            show_json(encode({"error": told}))
        else:
            show(f"error: {indented(str(error))}", err=True)
        if error.hint:
            show(f"hint: {error.hint}", err=True)
    return next((code for kind, code in CODES if isinstance(error, kind)), REFUSED)
