"""Trusted proxy before control: its proof, and the users whom its headers name.

A header is worth something only from a proxy that proved itself: by the Unix socket, by a client
certificate, or by a shared secret. From any other sender it is ignored and counted.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

from kedge.core.access import Access, Group, join_groups
from kedge.core.errors import Denied
from kedge.web.origin import raw_values_of, values_of

SECRET_HEADER = b"kedge-proxy-secret"
PROVEN = "kedge.proven"
"""The key of a request's state under which `web.server` says that the connection is a proxy's."""
LONGEST_USER = 128


class ProxyHeaders(NamedTuple):
    """What the proxy before control sends."""

    secrets: tuple[bytes, ...] = ()
    """Accepted secrets; two while one is replaced."""
    user: str = "x-forwarded-user"
    groups: str = "x-forwarded-groups"
    mapped: Mapping[str, Group] = {}


class TrustedProxy:
    """Reads the headers of a proxy, if it has proved itself."""

    def __init__(
        self, headers: ProxyHeaders, *, is_needed: bool, limit: Callable[[str], None]
    ) -> None:
        """Trust a proxy with these headers.

        Args:
            headers: their names, the secrets and the groups.
            is_needed: whether the port is plain HTTP that other machines reach. Then every request
                must come through the proxy.
            limit: counts headers of senders that are no proxy.
        """
        self._headers = headers
        self._digests = [sha256(secret).digest() for secret in headers.secrets]
        self._is_needed = is_needed
        self._limit = limit
        self._user = headers.user.lower().encode()
        self._groups = headers.groups.lower().encode()
        self._named = (self._user, self._groups, SECRET_HEADER)

    def check(self, scope: Mapping[str, Any]) -> None:
        """Raise if a request must come through the proxy and does not; count headers of others.

        Raises:
            Denied: `proxy_needed`.
        """
        is_proven = self.is_proven(scope)
        if not is_proven and any(raw_values_of(scope["headers"], name) for name in self._named):
            self._limit("control.unproven_proxy")
        if self._is_needed and not is_proven:
            raise Denied(
                "control accepts requests of its proxy only, because the port has no TLS",
                code="proxy_needed",
                hint="ask the proxy, or set [control] certificate and key",
            )

    def is_proven(self, scope: Mapping[str, Any]) -> bool:
        """Return whether a request comes from the proxy."""
        if scope.get("state", {}).get(PROVEN):
            return True
        shown = values_of(scope["headers"], SECRET_HEADER)
        if len(shown) != 1:
            return False
        given = sha256(shown[0].encode("latin-1")).digest()
        known = False
        for digest in self._digests:  # all of them, so that timing shows nothing
            known |= hmac.compare_digest(given, digest)
        return known

    def is_secure(self, scope: Mapping[str, Any]) -> bool:
        """Return whether the browser reached the proxy over TLS."""
        forwarded = values_of(scope["headers"], b"x-forwarded-proto")
        return forwarded == ["https"] and self.is_proven(scope)

    def identify(self, scope: Mapping[str, Any]) -> Access | None:
        """Return the access of the user whom the proxy names; None if it names none.

        Raises:
            Denied: `not_mapped`: no group of the user is mapped, or a header is given twice. Then a
                caller may have sent one of them, which the proxy did not remove.
        """
        users = raw_values_of(scope["headers"], self._user)
        if not users or not self._headers.mapped or not self.is_proven(scope):
            return None
        user = _read_one(users, "user")
        if not user or len(user) > LONGEST_USER or not user.isprintable():
            raise Denied("the proxy must name one user", code="not_mapped")
        shown = _read_one(raw_values_of(scope["headers"], self._groups) or [b""], "groups")
        groups = [name.strip() for name in shown.split(",")]
        access = join_groups(user, groups, self._headers.mapped)
        if access is None:
            raise Denied(
                f"no group of {user} has access",
                code="not_mapped",
                hint="[control.proxy] groups in kedge.toml maps groups to roles",
            )
        return access


def _read_one(values: list[bytes], what: str) -> str:
    """Return the text of a header that is given once, in UTF-8."""
    try:
        (value,) = values
        return value.decode().strip()
    except ValueError:  # another count, or another encoding
        raise Denied(
            f"the proxy must name the {what} once, in UTF-8",
            code="not_mapped",
            hint="let the proxy remove these headers from the requests of its callers",
        ) from None


NO_PROXY = TrustedProxy(ProxyHeaders(), is_needed=False, limit=lambda _: None)
"""No proxy is trusted."""
