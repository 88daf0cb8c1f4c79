"""Access of tests: a gatekeeper that lets every caller in, for tests of what is behind it."""

from collections.abc import Mapping
from typing import Any

from kedge.core.access import Access, AccessKind, Role
from kedge.core.errors import Denied

ADMIN = Access(name="api", kind=AccessKind.TOKEN, role=Role.ADMIN)


class Open:
    """A gatekeeper that gives every caller the same access."""

    def __init__(self, access: Access = ADMIN) -> None:
        self.access = access

    async def identify(self, _: Mapping[str, Any]) -> Access:
        return self.access

    def ended(self, _: Access) -> Denied | None:
        return None

    def is_secure(self, _: Mapping[str, Any]) -> bool:
        return False
