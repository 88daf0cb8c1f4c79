"""Every test of this folder gets real processes, and none of them outlives it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site


@pytest.fixture
def make_site() -> Iterator[Callable[..., Site]]:
    """Makes sites; their processes are killed and their files removed at the end.

    Not in tmp_path: its long names would leave no room for what stands behind them.
    """
    made: list[Site] = []

    def make(**settings: Any) -> Site:
        site = Site(Path(tempfile.mkdtemp(prefix="kedge-site-")), **settings)
        made.append(site)
        return site

    yield make
    for site in made:
        site.end()
        shutil.rmtree(site.root, ignore_errors=True)


@pytest.fixture
def site(make_site: Callable[..., Site]) -> Site:
    """A site with `kedge up` running, v1 in production and v2 registered."""
    made = make_site()
    made.start()
    made.release()
    return made
