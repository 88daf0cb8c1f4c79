"""The state directory: a command in a wrong place, one that was deleted, and one that comes back."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from e2e.place import Site

pytestmark = pytest.mark.e2e

COMMANDS = (
    ("status",),
    ("rollback", "flights"),
    ("rollback", "flights", "--local"),
    ("history", "flights"),
    ("versions", "flights"),
    ("evidence", "flights"),
    ("alerts",),
    ("freeze", "flights"),
    ("restart",),
    ("unpin", "flights"),
    ("features", "list"),
)


def test_a_command_in_a_wrong_directory_says_so_and_makes_nothing(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    (site.root / "kedge.toml").unlink()
    for words in COMMANDS:
        done = site.run(*words, check=False)
        assert done.returncode == 2, words
        said = f"error: no kedge.toml in {site.root} or above\n"
        assert done.stderr.startswith(said), words
        assert "kedge --config FILE" in done.stderr
        assert "gone" not in done.stderr
    found = site.run("doctor", check=False)
    assert "BAD  state directory: no kedge.toml in " in found.stdout
    assert not (site.root / ".kedge").exists()


def test_a_command_before_the_first_start_says_that_nothing_is_served_yet(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    for words in COMMANDS:
        done = site.run(*words, check=False)
        assert done.returncode == 4, words
        assert "nothing is served from here yet" in done.stderr, words
        assert "kedge up makes one" in done.stderr
    assert not (site.root / ".kedge").exists()
    site.start()
    site.until(lambda: "made a new ledger" in (site.root / "up.log").read_text(), "the words")
    assert "nothing is served yet" in (site.root / "up.log").read_text()


def deletion(site: Site, command: str) -> str:
    """What a command says of the deletion, or nothing."""
    done = site.run(command, check=False)
    said = done.stdout + done.stderr
    return said if f"the state directory {site.root}/.kedge was deleted" in said else ""


def test_a_deleted_state_directory_is_reported_while_production_is_served_until_it_is_back(
    site: Site, tmp_path: Path
) -> None:
    state, kept = site.root / ".kedge", tmp_path / "kept"
    up = site.up
    assert up is not None
    with site.load(rate=50) as load:
        # Copied and deleted, as a backup and an accident are: nothing that is open comes back.
        shutil.copytree(state, kept, ignore=shutil.ignore_patterns("run", "*.sock", "*.handoff"))
        shutil.rmtree(state, ignore_errors=True)
        for command in ("status", "doctor"):
            shown = site.until(partial(deletion, site, command), f"{command} to say it")
            assert all(str(pid) in shown for pid in site.processes("gateway-worker"))
        log = site.root / "up.log"
        site.until(lambda: "state_directory" in log.read_text(), "the supervisor to say it")
        assert "deleted while this process runs" in log.read_text()
        refused = lambda: "already runs" in site.run("up", check=False).stderr  # noqa: E731
        site.until(refused, "a second kedge up to be refused")
        assert up.poll() is None
        for path in kept.iterdir():
            shutil.rmtree(state / path.name, ignore_errors=True)
            (shutil.copytree if path.is_dir() else shutil.copy)(path, state / path.name)
        site.until(lambda: site.run("status", check=False).returncode == 0, "status to be back")
        site.until(
            lambda: (
                not any(
                    fault["standing"] and "state_directory" in fault["place"]
                    for process in site.data("status", "flights")["processes"]
                    for fault in process["faults"]
                )
            ),
            "the fault to end",
        )
        site.until(lambda: load.ok > 50, "answers enough to count")
    assert load.failures == []
    site.run("promote", "flights", "v2", "--override", "a test")
    site.until(lambda: site.served() == "r2", "v2 to answer")
