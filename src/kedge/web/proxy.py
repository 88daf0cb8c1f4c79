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
from kedge.web.origin import values_of

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

    def check(self, scope: Mapping[str, Any]) -> None:
        """Raise if a request must come through the proxy and does not.

        Raises:
            Denied: `proxy_needed`.
        """
        if self._is_needed and not self.is_proven(scope):
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
            Denied: `not_mapped`: no group of the user is mapped.
        """
        users = values_of(scope["headers"], self._headers.user.lower().encode())
        if not users or not self._headers.mapped:
            return None
        if not self.is_proven(scope):
            self._limit("control.unproven_proxy")
            return None
        user = users[0]
        if len(users) != 1 or not user or len(user) > LONGEST_USER or not user.isprintable():
            raise Denied("the proxy must name one user", code="not_mapped")
        shown = values_of(scope["headers"], self._headers.groups.lower().encode())
        groups = [name.strip() for value in shown for name in value.split(",")]
        access = join_groups(user, groups, self._headers.mapped)
        if access is None:
            raise Denied(
                f"no group of {user} has access",
                code="not_mapped",
                hint="[control.proxy] groups in kedge.toml maps groups to roles",
            )
        return access


NO_PROXY = TrustedProxy(ProxyHeaders(), is_needed=False, limit=lambda _: None)
"""No proxy is trusted."""
