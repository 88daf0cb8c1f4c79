"""Origin checks: whether a request comes from this machine, or from a page of another site.

A browser sends any request that a page makes, with the cookie of control's session. A form or
script can send a request to 127.0.0.1, and a page's own host name can be made to resolve to it (DNS
rebinding). The head of such a request shows its origin, which this module checks.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from kedge.core.encodings import JSON_LINES, check_type, is_gzip
from kedge.core.errors import BadRequest
from kedge.core.hosts import is_loopback, split_host

Headers = Sequence[tuple[bytes, bytes]]

OWN_SITES = frozenset({"same-origin", "none"})
"""Accepted values of Sec-Fetch-Site: one of control's own pages, or the address bar."""


def check_origin(
    headers: Headers,
    names: Collection[str] = ("127.0.0.1",),
    *,
    reads: bool = False,
    is_secure: bool = False,
) -> None:
    """Raise if a request is not addressed to control, or comes from a page of another site.

    A link on another site may open a page, since its site cannot read the answer.

    Args:
        headers: the request's headers, with names in lower case.
        names: the names and addresses of control as `spell_host` returns them, besides those of
            loopback.
        reads: whether the request's method changes nothing.
        is_secure: whether the browser uses TLS. Then a page that it got without TLS, which another
            machine of its network may have made, is of another site.

    Raises:
        BadRequest: `malformed_head`, `foreign_host`, `foreign_origin`.
    """
    hosts = values_of(headers, b"host")
    if len(hosts) != 1:
        raise BadRequest(
            f"a request must have one Host header, got {len(hosts)}", code="malformed_head"
        )
    host = hosts[0].lower()
    if not is_own_host(host, names):
        raise BadRequest(
            f"Host must be an address of control, got {host!r}",
            code="foreign_host",
            hint="ask 127.0.0.1, or name the host in [control] hosts",
        )
    origins = [value.lower() for value in values_of(headers, b"origin")]
    if not all(_is_own_origin(origin, host, is_secure=is_secure) for origin in origins):
        raise BadRequest(
            f"Origin must be that of control, got {', '.join(origins)!r}", code="foreign_origin"
        )
    sites = [value.lower() for value in values_of(headers, b"sec-fetch-site")]
    if any(site not in OWN_SITES for site in sites) and not (reads and _opens_page(headers)):
        raise BadRequest(
            f"Sec-Fetch-Site must be same-origin or none, got {', '.join(sites)!r}",
            code="foreign_origin",
        )


def check_content(headers: Headers) -> bool:
    """Raise if a body is not declared as JSON lines; return whether it is compressed by gzip.

    A header that is given twice is not accepted: two readers could take one value each.

    Raises:
        BadRequest: `unsupported_type`, `unsupported_encoding`.
    """
    check_type(b", ".join(raw_values_of(headers, b"content-type")), JSON_LINES)
    return is_gzip(b", ".join(raw_values_of(headers, b"content-encoding")))


def _opens_page(headers: Headers) -> bool:
    """Return whether a browser opens a page by a link, so that it shows the address."""
    return (
        values_of(headers, b"sec-fetch-mode") == ["navigate"]
        and values_of(headers, b"sec-fetch-dest") == ["document"]
        and not values_of(headers, b"origin")
    )


def is_own_host(host: str, names: Collection[str]) -> bool:
    """Return whether the value of a Host header names this machine's loopback, or one of these."""
    try:
        name = split_host(host).host
    except ValueError:
        return False
    return name in names or is_loopback(name)


def _is_own_origin(origin: str, host: str, *, is_secure: bool) -> bool:
    scheme, _, rest = origin.partition("://")
    default = {"https": 443} if is_secure else {"https": 443, "http": 80}
    if scheme not in default:
        return False
    try:
        found, own = split_host(rest), split_host(host)
    except ValueError:
        return False
    port = default[scheme]
    return (found.host, found.port or port) == (own.host, own.port or port)


def values_of(headers: Headers, wanted: bytes) -> list[str]:
    """Return every value of a header."""
    return [value.decode("latin-1").strip() for value in raw_values_of(headers, wanted)]


def raw_values_of(headers: Headers, wanted: bytes) -> list[bytes]:
    """Return every value of a header as bytes, as sent."""
    return [value for name, value in headers if name == wanted]
