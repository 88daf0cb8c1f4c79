"""The preflight: the report of kedge up before it serves, and that it still serves."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.conftest import released
from e2e.place import KEDGE, Site
from kedge.operations.preflight import DIRECTORIES

pytestmark = pytest.mark.e2e


def start(site: Site, *, files: int | None = None, **env: str) -> None:
    """Run `kedge up` in a child with a limit of open files."""
    log = (site.root / "up.log").open("wb")
    site.up = subprocess.Popen(
        [*(("sh", "-c", f'ulimit -n {files} && exec "$@"', "sh") if files else ()), *KEDGE, "up"],
        cwd=site.root,
        env={**site.env, **env},
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def said(site: Site) -> str:
    return (site.root / "up.log").read_text()


@pytest.fixture
def stopped(copy_site: Callable[..., Site]) -> Site:
    """A site that served r1 and was stopped."""
    return copy_site(released)


@pytest.mark.parametrize("name", ["ledger", "roster", "evidence", "records", "pins", "logs"])
def test_a_directory_that_cannot_be_written_is_named_before_serving_and_production_answers(
    stopped: Site, name: str
) -> None:
    folder = stopped.root / ".kedge" / name
    if folder.is_dir():
        shutil.rmtree(folder)
    folder.write_text("")  # what no user can write into, root neither
    start(stopped)
    stopped.until(lambda: stopped.answers("/v2/health/live"), "a worker")
    stopped.until(lambda: stopped.infer()[0] == 200, "production")
    stopped.until(lambda: "serving on" in said(stopped), "the announcement")
    before = said(stopped).split("serving on")[0]
    assert f"warning: {folder} cannot be written: Not a directory; " in before
    assert dict(DIRECTORIES)[name] in before
    found = stopped.run("doctor", check=False)
    assert f"BAD  directories: {folder} cannot be written" in found.stdout


def linked(site: Site) -> Path:
    (site.root / ".kedge").symlink_to(site.root / "not mounted")
    return site.root / ".kedge"


def a_file(site: Site) -> Path:
    (site.root / ".kedge").write_text("")
    return site.root / ".kedge"


def a_lock_that_is_a_directory(site: Site) -> Path:
    (site.root / ".kedge" / "supervisor.lock").mkdir(parents=True)
    return site.root / ".kedge" / "supervisor.lock"


@pytest.mark.parametrize("make", [linked, a_file, a_lock_that_is_a_directory])
def test_a_state_directory_that_cannot_be_used_is_refused_in_words(
    make_site: Callable[..., Site], make: Callable[[Site], Path]
) -> None:
    site = make_site()
    where = make(site)
    start(site)
    assert site.up is not None
    assert site.up.wait(30) == 4
    assert f"error: {where} cannot be written: " in said(site)
    assert "hint: " in said(site)
    assert "Traceback" not in said(site)
    assert "serving on" not in said(site)


def test_too_few_open_files_are_refused_by_name(make_site: Callable[..., Site]) -> None:
    site = make_site()
    start(site, files=40)
    assert site.up is not None
    assert site.up.wait(30) == 4
    assert "error: this process may open 40 files (hard limit), and kedge needs" in said(site)
    assert "LimitNOFILE" in said(site)


def test_few_open_files_are_named_before_serving_and_connections_beyond_them_cost_no_answer(
    stopped: Site,
) -> None:
    start(stopped, files=128)
    stopped.until(
        lambda: stopped.infer()[0] == 200 if stopped.answers("/v2/health/live") else 0, "r1"
    )
    stopped.until(lambda: "serving on" in said(stopped), "the announcement")
    assert "warning: this process may open 128 files" in said(stopped).split("serving on")[0]
    finding = stopped.run("doctor", check=False).stdout
    assert "BAD  open files: this process may open 128 files" in finding
    pids = stopped.processes("gateway-worker")
    held = [socket.create_connection(("127.0.0.1", stopped.port), 5) for _ in range(400)]
    answered = [stopped.infer()[0] for _ in range(20)]
    assert answered == [200] * 20
    shown = lambda: "connections" in stopped.run("status", "flights").stdout  # noqa: E731
    stopped.until(shown, "status to name the bound")
    for each in held:
        each.close()
    assert stopped.infer()[0] == 200
    assert stopped.processes("gateway-worker") == pids


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.2", "[::1]", "0:0:0:0:0:0:0:1", "0.0.0.0", "::"]
)
def test_the_printed_address_answers(make_site: Callable[..., Site], host: str) -> None:
    if ":" in host and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    site = make_site(server=f'host = "{host}"\nplain = true', workers=1)
    start(site)
    site.until(lambda: "serving on" in said(site), "the announcement")
    url = re.search(r"serving on (\S+)", said(site))
    assert url is not None
    with urllib.request.urlopen(f"{url[1]}/v2/health/live", timeout=5) as answer:
        assert answer.status == 200


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.parametrize(
    ("host", "words"), [("nosuch.invalid", "Name or service"), ("192.0.2.1", "assign")]
)
def test_an_address_that_is_not_of_this_machine_is_refused_in_words(
    make_site: Callable[..., Site], host: str, words: str
) -> None:
    site = make_site(server=f'host = "{host}"\nplain = true')
    start(site)
    assert site.up is not None
    assert site.up.wait(30) == 4
    assert f"error: cannot listen on {host}:{site.port}: " in said(site)
    assert words in said(site) or host == "nosuch.invalid"  # its words are the resolver's
    assert "[server] host must be" in said(site)
