"""Guard of the pages: who looks at them, and what they may do there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from kedge.core.access import Access, Need
from kedge.core.errors import Denied


class Guard(Protocol):
    """Who sends a request, and what it may do."""

    async def allow(self, scope: Mapping[str, Any], need: Need, endpoint: str | None) -> Access:
        """Return the access of a request, or raise why it has none."""

    def ended(self, access: Access) -> Denied | None:
        """Return why a granted access has ended, or None."""

    def csrf(self, scope: Mapping[str, Any]) -> str:
        """Return the token that a write of this session repeats in a header."""
