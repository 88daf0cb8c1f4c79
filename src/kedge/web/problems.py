"""Problems: the one table from a code to an HTTP status, and the document of an error (RFC 9457)."""

from __future__ import annotations

import msgspec

from kedge.core.errors import (
    BadConfig,
    BadRequest,
    CorruptArtifact,
    Denied,
    KedgeError,
    ModelFailure,
    NotAcknowledged,
    Overloaded,
    Refused,
    Stale,
    Unavailable,
    UnfitModel,
    Usage,
)

PROBLEM = "application/problem+json"

STATUS = {
    "malformed_body": 400,
    "malformed_head": 400,
    "bad_cursor": 400,
    "bad_parameters": 400,
    "bad_query": 400,
    "bad_offset": 400,
    "bad_upload": 400,
    "inconsistent_length": 400,
    "not_in_upload": 400,
    "bad_event_id": 400,
    "bad_key": 400,
    "bad_match": 400,
    "token_malformed": 401,
    "token_missing": 401,
    "token_unknown": 401,
    "token_expired": 401,
    "token_revoked": 401,
    "session_ended": 401,
    "link_used": 401,
    "foreign_host": 403,
    "foreign_origin": 403,
    "unknown_alert": 404,
    "unknown_endpoint": 404,
    "unknown_path": 404,
    "unknown_upload": 404,
    "no_rollout": 404,
    "wrong_method": 405,
    "body_too_slow": 408,
    "upload_busy": 409,
    "too_large": 413,
    "upload_too_large": 413,
    "too_many_lines": 413,
    "unsupported_encoding": 415,
    "unsupported_type": 415,
    "key_reused": 422,
    "wrong_digest": 422,
    "too_many_attempts": 429,
    "internal": 500,
    "no_room": 507,
}
"""HTTP status by error code."""


class Unmatched(Stale):
    """The endpoint is no longer at the epoch of If-Match."""


KINDS: tuple[tuple[type[KedgeError], int], ...] = (
    (Unmatched, 412),
    (BadRequest, 400),
    (Usage, 400),
    (Denied, 403),
    (Refused, 409),
    (BadConfig, 409),
    (CorruptArtifact, 409),
    (UnfitModel, 409),
    (ModelFailure, 409),
    (Overloaded, 503),
    (Unavailable, 503),
    (NotAcknowledged, 504),
)
"""HTTP status of every other code, by the kind of error."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """An error as control answers it: application/problem+json."""

    title: str
    """The code again, for readers that know only RFC 9457."""
    code: str
    """The stable code of the error."""
    status: int
    """The HTTP status."""
    detail: str
    """The error in words."""
    hint: str = ""
    """A command or an instruction that fixes it."""
    details: dict[str, object] = {}
    """Facts of some codes, such as the epoch of a stale command."""
    retryable: bool = False
    """Whether the same request can succeed later without a change."""


def get_status(error: KedgeError) -> int:
    """Return the HTTP status of an error."""
    by_kind = next((status for kind, status in KINDS if isinstance(error, kind)), 500)
    return STATUS.get(error.code, by_kind)


def describe_problem(error: KedgeError) -> Problem:
    """Return the document of an error."""
    return Problem(
        title=error.code,
        code=error.code,
        status=get_status(error),
        detail=str(error),
        hint=error.hint,
        details=error.details,
        retryable=error.retryable,
    )
