"""A backup that is made beside a running kedge is restored elsewhere, and answers as before."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

POLICY = """
owner = {name = "Ada L", contact = "mailto:ada@example.org"}
escalation = [{after = "0s", to = ["owner"]}]
log = {sample = 100}
drill = {every = "1s"}
"""
SECRETS = '\n[alerts]\nsmtp = "smtp://kedge:hunter2@mail.example.org:25"\n'


class Saved:
    """A site that was backed up while callers asked and commands wrote, and what it served then."""

    def __init__(self, site: Site, backup: Path, made: dict[str, Any]) -> None:
        self.site = site
        self.backup = backup
        self.made = made


@pytest.fixture(scope="module")
def saved() -> Iterator[Saved]:
    root = Path(tempfile.mkdtemp(prefix="kedge-site-"))
    site = Site(root, policy=POLICY)
    config = root / "kedge.toml"
    config.write_text(config.read_text() + SECRETS)
    try:
        site.start()
        site.release()
        site.run("promote", "flights", "v2", "--full", "--override", "a test")
        backup = root / "backup"
        writing = threading.Event()

        def write() -> None:
            number = 0
            while not writing.is_set():
                number += 1
                site.run("freeze" if number % 2 else "thaw", "flights", check=False)
                site.run(
                    "register", "flights", site.model(f"more{number}", scale=float(number + 5))
                )

        writer = threading.Thread(target=write)
        with site.load(rate=50):
            writer.start()
            time.sleep(1)
            made = site.data("backup", str(backup))
            writing.set()
            writer.join()
        site.run("thaw", "flights", check=False)
        yield Saved(site, backup, made)
    finally:
        site.end()
        shutil.rmtree(root, ignore_errors=True)


@pytest.fixture
def elsewhere(make_site: Callable[..., Site]) -> Site:
    """A machine with nothing of kedge on it but the loader."""
    site = make_site()
    (site.root / "kedge.toml").unlink()
    return site


def test_a_worker_that_saw_newer_epochs_follows_the_restored_ledger(
    saved: Saved, elsewhere: Site
) -> None:
    """And nothing is restored under a running kedge."""
    site = saved.site
    refused = site.data("restore", str(saved.backup), check=False)
    assert refused["error"]["code"] == "still_running"
    site.run("rollback", "flights")
    assert site.served() == "r1"
    done = elsewhere.data("restore", str(saved.backup))
    ledger = site.root / ".kedge/ledger/ledger.db"
    for suffix in ("-wal", "-shm"):
        Path(f"{ledger}{suffix}").unlink(missing_ok=True)
    shutil.copyfile(elsewhere.root / ".kedge/ledger/ledger.db", f"{ledger}.new")
    Path(f"{ledger}.new").rename(ledger)
    site.until(lambda: site.served() == "r2", "workers to follow it")
    epoch = done["epochs"]["flights"]
    site.until(
        lambda: all(r["epoch"] == epoch for r in site.data("status", "flights")["replicas"]),
        "every worker to follow it",
    )
    faults = site.data("status", "flights")["faults"]
    assert not [fault for fault in faults if "not follow" in fault]


def test_it_is_restored_into_an_empty_place_and_answers_by_the_same_release(
    saved: Saved, elsewhere: Site
) -> None:
    """Rollback works there; nothing acts by itself before a person confirms it."""
    assert (saved.made["production"], saved.made["epochs"]["flights"]) == (
        {"flights": "r2"},
        saved.made["epochs"]["flights"],
    )
    done = elsewhere.data("restore", str(saved.backup), "--reason", "the disk failed")
    assert done["config_written"]
    assert done["epochs"]["flights"] > saved.made["epochs"]["flights"] + 1_000
    text = (elsewhere.root / "kedge.toml").read_text()
    assert "hunter2" not in text
    # A host that remembers what the backup lacks.
    shutil.copytree(saved.site.root / ".kedge/replicas", elsewhere.root / ".kedge/replicas")
    elsewhere.port = saved.site.port
    saved.site.stop()
    elsewhere.start()
    elsewhere.until(lambda: elsewhere.infer()[0] == 200, "the first answer")
    assert elsewhere.served() == "r2"
    status = elsewhere.data("status", "flights")
    assert status["restored"]
    assert any("kedge thaw flights" in fault for fault in status["faults"])
    newest, *_ = [
        e for e in elsewhere.data("history", "flights") if e["event"]["event"] == "restored"
    ]
    assert (newest["reason"], newest["by"]) == ("the disk failed", "tester")
    assert f"{newest['event']['seq']}:{newest['event']['hash']}".startswith(saved.made["head"])
    found = {one["check"]: one for one in elsewhere.data("doctor", check=False)["findings"]}
    assert found["ledger chain"]["ok"], found["ledger chain"]
    assert found["ledger heads"]["ok"], found["ledger heads"]

    elsewhere.run("rollback", "flights")
    assert elsewhere.served() == "r1"
    assert elsewhere.run("thaw", "flights").returncode == 0
    assert elsewhere.data("status", "flights")["restored"] is None
