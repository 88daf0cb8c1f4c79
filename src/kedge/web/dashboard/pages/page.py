"""Page: its title, its template, and the parts of it that are replaced when they change."""

from __future__ import annotations

from kedge.core.values import Value

STALE = "stale"
"""The part of every page that says why its figures are not of now; the first one."""


class Viewer(Value, frozen=True, kw_only=True):
    """The person who looks at a page."""

    name: str
    role: str
    """Shown beside the name."""
    can_operate: bool
    """Whether the commands on a page are for them."""
    endpoints: tuple[str, ...] | None = None
    """The endpoints that they may see; None: all."""

    def sees(self, endpoint: str) -> bool:
        """Return whether they may see an endpoint."""
        return self.endpoints is None or endpoint in self.endpoints


class PagePart(Value, frozen=True):
    """A part of a page with an id of its own, which is sent again when its text changes."""

    id: str
    template: str
    view: object


class DashboardPage(Value, frozen=True, kw_only=True):
    """A page."""

    title: str
    template: str
    """The template that places the parts."""
    parts: tuple[PagePart, ...]
    endpoint: str = ""
    """The endpoint that the page is about; empty: several."""
    tab: str = "fleet"
    """The entry of the navigation that is marked."""
    at: float = 0.0
    """Unix time at which its figures were read."""
    fault: str = ""
    """Why the figures are not of now; empty: they are."""
    live: str = ""
    """The address of its stream below the root of all pages; empty: its own, followed by /live."""
    renews: bool = False
    """Whether a browser without scripts loads it again by itself."""
