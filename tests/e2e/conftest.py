"""Every test of this folder gets real processes, and none of them outlives it."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site

SaveSite = Callable[[Callable[[Site], None], dict[str, Any]], Path]


@contextmanager
def making_sites() -> Iterator[Callable[..., Site]]:
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
def make_site() -> Iterator[Callable[..., Site]]:
    """Makes sites, each for one test."""
    with making_sites() as make:
        yield make


@pytest.fixture(scope="session")
def save_site() -> Iterator[SaveSite]:
    """Returns the directory of a site that was prepared and stopped: once for each way to prepare it."""
    with tempfile.TemporaryDirectory(prefix="kedge-saved-") as folder:
        saved: dict[str, Path] = {}

        def save(prepare: Callable[[Site], None], settings: dict[str, Any]) -> Path:
            name = repr((prepare.__module__, prepare.__name__, settings))
            if name not in saved:
                site = Site(Path(tempfile.mkdtemp(dir=folder)), **settings)
                try:
                    prepare(site)
                    assert site.stop(signal.SIGTERM) == 0
                finally:
                    site.end()
                saved[name] = site.root
            return saved[name]

        yield save


def copying(make: Callable[..., Site], save: SaveSite) -> Callable[..., Site]:
    """Makes sites that have the files of a prepared one, and do not run yet.

    A site that nothing but its preparation has touched is the same each time: a copy of its files
    takes milliseconds, where the commands take seconds.
    """

    def copy(prepare: Callable[[Site], None], **settings: Any) -> Site:
        site = make(**settings)
        site.take_files(save(prepare, settings))
        return site

    return copy


@pytest.fixture
def copy_site(make_site: Callable[..., Site], save_site: SaveSite) -> Callable[..., Site]:
    """Makes copies, each for one test."""
    return copying(make_site, save_site)


@pytest.fixture(scope="module")
def share_site(save_site: SaveSite) -> Iterator[Callable[..., Site]]:
    """Makes copies for the tests of a file that leave a site as it was."""
    with making_sites() as make:
        yield copying(make, save_site)


def released(site: Site) -> None:
    """Start it, with v1 in production and v2 registered."""
    site.start()
    site.release()


@pytest.fixture
def site(copy_site: Callable[..., Site]) -> Site:
    """A site with `kedge up` running, v1 in production and v2 registered."""
    made = copy_site(released)
    made.start()
    made.until(lambda: made.infer()[0] == 200, "the first answer")
    made.until(made.controlled, "control")  # what prepared the site took longer than its start
    return made
