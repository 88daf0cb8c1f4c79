"""Access: roles, scopes, and the rule that decides what a caller of control may do.

A caller proves who it is with a token, a browser session, or the headers of a trusted proxy.
`web/auth` turns the proof into an `Access`. `refuse` compares it with what a route needs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from enum import StrEnum

from kedge.core.errors import Denied
from kedge.core.values import Value


class Role(StrEnum):
    """What a person or a system may do. Each role includes the roles before it."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    @property
    def rank(self) -> int:
        """The role's place in the order of roles."""
        return _ROLES.index(self)


_ROLES = tuple(Role)


class Scope(StrEnum):
    """A single permission, for a system that needs no role."""

    REGISTER = "register"
    """Register versions that run no code, as a CI job does."""
    OUTCOMES = "outcomes"
    """Send outcomes, as a label job does."""
    METRICS = "metrics"
    """Read /metrics, as Prometheus does."""


class Need(StrEnum):
    """What a route needs of its caller."""

    READ = "read"
    OPERATE = "operate"
    ADMIN = "admin"
    REGISTER = "register"
    OUTCOMES = "outcomes"
    METRICS = "metrics"

    @property
    def writes(self) -> bool:
        """Whether the route changes something."""
        return self not in (Need.READ, Need.METRICS)


_LEAST: dict[Need, tuple[Role, Scope | None]] = {
    Need.READ: (Role.VIEWER, None),
    Need.OPERATE: (Role.OPERATOR, None),
    Need.ADMIN: (Role.ADMIN, None),
    Need.REGISTER: (Role.OPERATOR, Scope.REGISTER),
    Need.OUTCOMES: (Role.OPERATOR, Scope.OUTCOMES),
    Need.METRICS: (Role.VIEWER, Scope.METRICS),
}
"""The lowest role that meets a need, and the scope that meets it without a role."""


class AccessKind(StrEnum):
    """How a caller proved who it is."""

    TOKEN = "token"
    SESSION = "session"
    """A browser's cookie, from a login with a token."""
    PROXY = "proxy"
    """The user that a trusted proxy names in its headers."""


class Access(Value, frozen=True):
    """What one caller may do, until when."""

    name: str
    """The token's name, or the user that a proxy named."""
    kind: AccessKind
    role: Role | None = None
    scopes: tuple[Scope, ...] = ()
    endpoints: tuple[str, ...] | None = None
    """The endpoints that it may see and change; None: all."""
    expires_at: float | None = None
    """Unix time."""
    token: int | None = None
    """The number of the token; None for the user of a proxy."""
    session: str | None = None
    """The digest of the browser's session; None for other kinds."""

    @property
    def holder(self) -> str:
        """The text that a ledger entry records as its token: for example `token ci`."""
        return f"{self.kind.value} {self.name}"

    def sees(self, endpoint: str) -> bool:
        """Return whether it may see an endpoint. Lists leave out the others."""
        return self.endpoints is None or endpoint in self.endpoints


class Group(Value, frozen=True):
    """What the members of a group of a proxy may do."""

    role: Role
    endpoints: tuple[str, ...] = ()
    """Empty: all endpoints."""


def join_groups(user: str, groups: Collection[str], mapped: Mapping[str, Group]) -> Access | None:
    """Return the access of a proxy's user; None if no group of the user is mapped.

    The highest role counts, for the endpoints of the groups that have it.
    """
    found = [mapped[name] for name in groups if name in mapped]
    if not found:
        return None
    role = max((group.role for group in found), key=lambda one: one.rank)
    best = [group for group in found if group.role is role]
    named = dict.fromkeys(name for group in best for name in group.endpoints)
    endpoints = tuple(named) if all(group.endpoints for group in best) else None
    return Access(user, AccessKind.PROXY, role=role, endpoints=endpoints)


def refuse(access: Access, need: Need, endpoint: str | None, now: float) -> Denied | None:
    """Return the refusal of a route, or None if the caller may use it.

    Args:
        access: what the caller may do.
        need: what the route needs.
        endpoint: the endpoint of the route. None: the route concerns all of them; then a caller of
            certain endpoints may read, and the route leaves out the others.
        now: Unix time.
    """
    if access.expires_at is not None and now >= access.expires_at:
        return expired(access.kind, access.name)
    role, scope = _LEAST[need]
    has_role = access.role is not None and access.role.rank >= role.rank
    if not has_role and scope not in access.scopes:
        return _insufficient(access, role, scope)
    if access.endpoints is None or endpoint in access.endpoints:
        return None
    if endpoint is None and not need.writes:
        return None
    what = "all endpoints" if endpoint is None else endpoint
    return Denied(
        f"{access.holder} has no access to {what}",
        code="endpoint_denied",
        hint="ask an admin for a token of this endpoint: kedge help security",
        details={"endpoint": endpoint, "endpoints": list(access.endpoints)},
    )


def expired(kind: AccessKind, name: str) -> Denied:
    """Return the refusal of a proof that has expired."""
    if kind is AccessKind.SESSION:
        return Denied(
            f"the session of {name} has ended",
            code="session_ended",
            hint="log in again",
        )
    return Denied(
        f"token {name} has expired",
        code="token_expired",
        hint="ask an admin for a new one: kedge token create",
    )


def _insufficient(access: Access, role: Role, scope: Scope | None) -> Denied:
    wanted = f"role {role}" if scope is None else f"role {role} or scope {scope}"
    has = [f"role {access.role}"] if access.role is not None else []
    has += [f"scope {given}" for given in access.scopes]
    return Denied(
        f"this needs {wanted}; {access.holder} has {', '.join(has) or 'neither'}",
        code="role_too_low" if scope is None else "scope_missing",
        hint="ask an admin for such a token: kedge help security",
        details={"role": role.value, "scope": scope.value if scope else None},
    )
