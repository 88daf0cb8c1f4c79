"""Rendering of pages: templates with autoescape, and the parts that changed."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import jinja2
import msgspec
from markupsafe import Markup

from kedge.core import links
from kedge.core.time.instants import iso, read_instant
from kedge.web.auth import PROXIED
from kedge.web.dashboard.assets import Assets
from kedge.web.dashboard.pages.page import STALE, DashboardPage, PagePart, Viewer

TEMPLATES = Path(__file__).parent / "templates"


class PageFrame(NamedTuple):
    """What every page of one request has around its content."""

    viewer: Viewer | None
    """None: the page needs no login."""
    root: str
    """The way from the page's address to the root of all pages: `./` or `../`."""
    live: str
    """The address of the page's stream, below the root; empty: it does not change."""
    csrf: str
    """The token that a write must repeat."""
    now: float
    """Unix time of this server, for the ages that a browser shows."""

    @property
    def has_session(self) -> bool:
        """Whether the viewer logged in here, not at a proxy, and can log out here."""
        return self.csrf != PROXIED


@dataclass(frozen=True, slots=True)
class Rendered:
    """A page as text: whole, and by part."""

    parts: dict[str, str]
    body: str
    """The content between the head and the foot of every page."""
    steps: list[tuple[dict[str, str], bytes]] = field(default_factory=list)
    """By the parts that viewers were sent before: the message that brings them here."""


class Renderer:
    """The templates of pages."""

    def __init__(self, assets: Assets) -> None:
        """Load the templates; scripts and styles have the addresses of `assets`."""
        self._assets = assets
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters["json"] = _json
        self._environment.filters["instant"] = _instant
        self._environment.globals["asset"] = assets.path
        self._environment.globals["paths"] = links

    def parts(self, page: DashboardPage, frame: PageFrame) -> Rendered:
        """Render the parts of a page, and its content.

        The first part of every page says why its figures are not of now, so that a stream sends it
        to a page that is open.
        """
        found = {}
        for part in (PagePart(STALE, "stale.html", page), *page.parts):
            template = self._environment.get_template(part.template)
            found[part.id] = template.render(
                id=part.id, view=part.view, page=page, frame=frame, root=frame.root
            )
        marked = {id_: Markup(text) for id_, text in found.items()}  # noqa: S704 - our templates
        content = self._environment.get_template(page.template)
        body = content.render(parts=marked, page=page, frame=frame, root=frame.root)
        return Rendered(found, found[STALE] + body)

    def page(self, page: DashboardPage, frame: PageFrame) -> str:
        """Render a whole page."""
        body = self.parts(page, frame).body
        return self._environment.get_template("base.html").render(
            body=Markup(body),  # noqa: S704 - our templates made it
            page=page,
            frame=frame,
            root=frame.root,
            missing=self._assets.missing,
        )

    def login(self, fault: str, query: str) -> str:
        """Render the page of a login: why the last one failed, and the query that it keeps."""
        template = self._environment.get_template("login.html")
        return template.render(fault=fault, query=query)


def _json(value: object) -> str:
    """Return a value as JSON for an attribute; the template escapes it."""
    return msgspec.json.encode(value).decode()


def _instant(at: float | str) -> str:
    """Return an instant as RFC 3339 in UTC, to the second."""
    return iso(read_instant(at) if isinstance(at, str) else at)[:19] + "Z"
