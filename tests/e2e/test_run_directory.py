"""The run directory: a deletion or an obstacle in its place stops no process."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from e2e.place import Site

pytestmark = pytest.mark.e2e


def run_dir(site: Site) -> Path:
    """Where the sockets of this site are, as its model processes are told."""
    line = Path(f"/proc/{site.processes('kedge.adapters.process')[0]}/cmdline").read_bytes()
    words = line.split(b"\0")
    return Path(words[words.index(b"--socket") + 1].decode()).parent.parent


def answers_again(site: Site) -> None:
    site.until(lambda: all(site.infer()[0] == 200 for _ in range(8)), "all to answer")


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
def test_a_deleted_run_directory_comes_back_with_everything_in_it(
    make_site: Callable[..., Site],
) -> None:
    """A cleanup job or a logout takes it; workers, model processes and the takeover still work."""
    site = make_site(policy='runtime = "process"')
    site.start()
    site.release()
    with site.load(rate=50) as load:
        where = run_dir(site)
        shutil.rmtree(where)
        doors = lambda: {path.suffix for path in where.glob("*/*")} >= {".sock", ".handoff"}  # noqa: E731
        site.until(doors, "the sockets to come back")
        os.kill(site.processes("gateway-worker")[0], signal.SIGKILL)  # the next one finds them
        site.until(lambda: len(site.data("status", "flights")["replicas"]) == 2, "a new worker")
    assert all("HTTP" not in failure for failure in load.failures)
    shutil.rmtree(where)
    for pid in site.processes("kedge.adapters.process"):
        os.kill(pid, signal.SIGKILL)
    answers_again(site)
    shutil.rmtree(where)
    assert site.up is not None
    site.up.kill()
    site.up.wait(5)
    old = site.processes("gateway-worker")
    with site.load(rate=50) as load:
        site.start(wait=False)
        site.until(
            lambda: len(now := site.processes("gateway-worker")) == 2 and not set(now) & set(old),
            "new workers instead of the old",
            60,  # the old ones wait up to 30 s for idle connections
        )
    assert load.failures == []
    site.run("rollback", "flights", check=False)
    answers_again(site)
    assert site.stop() == 0


@pytest.fixture
def deep_site() -> Iterator[Site]:
    """A site whose sockets have paths of more than 300 bytes."""
    top = Path(tempfile.mkdtemp(prefix="kedge-deep-"))
    root = top.joinpath(*["d" * 60] * 4)
    root.mkdir(parents=True)
    site = Site(root, endpoint="e" * 40, policy='runtime = "process"')
    site.env["TMPDIR"] = site.env["XDG_RUNTIME_DIR"] = str(root)
    yield site
    site.end()
    shutil.rmtree(top)


def test_a_path_too_long_for_a_socket_is_still_served(deep_site: Site) -> None:
    """CI, Slurm and nix have such temporary directories."""
    deep_site.start()
    deep_site.release()
    answers_again(deep_site)
    deep_site.run("promote", "e" * 40, "v2", "--override", "test")
    deep_site.run("rollback", "e" * 40)
    assert deep_site.served() == "r1"


def test_serving_is_not_said_while_every_worker_dies(make_site: Callable[..., Site]) -> None:
    """The worker's last line is shown instead."""
    site = make_site()
    broken = site.root / "plugin" / "uvloop.py"
    broken.write_text("raise ImportError('no loop today')\n")
    site.start(wait=False)
    log = site.root / "up.log"
    site.until(lambda: "no loop today" in log.read_text(), "the reason")
    assert "serving on" not in log.read_text()
    broken.unlink()
    site.until(lambda: f"serving on http://127.0.0.1:{site.port} " in log.read_text(), "the rest")
