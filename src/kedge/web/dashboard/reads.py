"""Reads of pages: those that the routes of several pages share."""

from __future__ import annotations

from functools import partial

from msgspec.structs import replace

from kedge.web.dashboard.live import Reading, SharedReads
from kedge.web.dashboard.pages.page import DashboardPage
from kedge.web.dashboard.pages.readings import PageReading
from kedge.web.dashboard.sources import read_endpoint, remember_endpoint


async def read_page(source: SharedReads, endpoint: str) -> tuple[PageReading, Reading]:
    """Return an endpoint as its pages show it, and when it was read.

    Raises:
        Refused: the endpoint is not found.
        Unavailable: it cannot be read, and this host does not remember it.
    """
    found = await source.read(
        ("endpoint", endpoint),
        partial(read_endpoint, endpoint=endpoint),
        partial(remember_endpoint, endpoint=endpoint),
    )
    assert isinstance(found.value, PageReading)
    return found.value, found


def forget_page(source: SharedReads, endpoint: str) -> None:
    """Drop the readings of an endpoint, because a command may have changed it."""
    source.forget(("endpoint", endpoint))
    source.forget("fleet")


def dated(page: DashboardPage, reading: Reading) -> DashboardPage:
    """Return a page with the time of its reading, and why it is not of now."""
    return replace(page, at=reading.at, fault=reading.fault or page.fault)
