"""Labels: outcomes in the body of a request, as JSON lines, CSV, or rows among the parameters."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

from starlette.requests import Request

from kedge.core.encodings import JSON_LINES, is_gzip
from kedge.operations.catalogue import Operation
from kedge.operations.parameters import LabelParameters, NoParameters, OutcomesParameters
from kedge.web.bodies import Bodies
from kedge.web.origin import raw_values_of
from kedge.web.parameters import BODY_BYTES, read_body, read_query, refuse_parameters

Join = Callable[[str, bytes | bytearray, str, str | None], Awaitable[object]]
"""A function that joins JSON lines of an endpoint: endpoint, lines, corrector or empty, format of
times."""

ROWS_BYTES = 1 << 20
"""Maximum bytes of parameters with rows: some thousand outcomes."""
JSON_TYPE = b"application/json"
CSV_TYPES = frozenset({b"text/csv"})
LINE_TYPES = JSON_LINES.names - {JSON_TYPE}
"""Here `application/json` is that of parameters."""


class LabelData(NamedTuple):
    """Outcomes that arrived in the body of a request."""

    raw: bytes | bytearray
    is_csv: bool = False


class Asked(NamedTuple):
    """What a request asks for."""

    given: NoParameters
    raw: bytes | bytearray
    """The body, to which an Idempotency-Key is bound."""
    data: LabelData | None = None


@asynccontextmanager
async def read_asked(
    request: Request, operation: Operation, bodies: Bodies
) -> AsyncIterator[Asked]:
    """Read what a request asks for; outcomes in its body are counted until the context ends.

    Raises:
        As `read_query`, `read_body` and `Bodies.whole`.
    """
    if operation.method == "GET":
        yield Asked(read_query(request, operation.parameters), b"")
        return
    declared = b", ".join(raw_values_of(request.headers.raw, b"content-type"))
    named = declared.partition(b";")[0].strip().lower()
    if not operation.inline or named not in LINE_TYPES | CSV_TYPES:
        most = ROWS_BYTES if operation.inline else BODY_BYTES
        given, raw = await read_body(request, operation.parameters, most)
        if operation.inline and request.query_params:
            raise refuse_parameters("parameters belong into the JSON body, not into the query")
        yield Asked(given, raw, _join_rows(given))
        return
    asked = read_query(request, LabelParameters)
    gzip = is_gzip(b", ".join(raw_values_of(request.headers.raw, b"content-encoding")))
    length = request.headers.get("content-length")
    async with bodies.whole(request.receive, length, gzip=gzip) as body:
        yield Asked(asked, body, LabelData(body, named in CSV_TYPES))


def _join_rows(given: NoParameters) -> LabelData | None:
    """Return rows of parameters as JSON lines, each exactly as it was sent."""
    if not isinstance(given, OutcomesParameters) or given.rows is None:
        return None
    # A line break in JSON is only space between tokens.
    lines = (bytes(row).replace(b"\n", b" ").replace(b"\r", b" ") for row in given.rows)
    return LabelData(b"\n".join(lines))


def get_corrector(given: NoParameters, name: str, holder: str) -> str:
    """Return the name that is stored with each corrected label; empty if none is corrected."""
    is_corrected = isinstance(given, LabelParameters) and given.correct
    return f"{name} ({holder})" if is_corrected else ""


def get_form(given: NoParameters) -> str | None:
    """Return the format of textual times."""
    return given.time_format if isinstance(given, LabelParameters) else None
