"""The head of the ledger's chain is kept outside of it: an older copy and a rewritten chain are found."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from e2e.place import Site
from kedge.adapters.sql.rows import hash_of
from kedge.core.codec import GENESIS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]


def ledger_of(site: Site) -> Path:
    return site.root / ".kedge/ledger/ledger.db"


def copy(site: Site, to: Path) -> Path:
    """A consistent copy, as the docs say."""
    with (
        closing(sqlite3.connect(ledger_of(site))) as source,
        closing(sqlite3.connect(to)) as target,
    ):
        source.backup(target)
    return to


def put_back(site: Site, path: Path) -> None:
    """As the docs say."""
    for suffix in ("-wal", "-shm"):
        Path(f"{ledger_of(site)}{suffix}").unlink(missing_ok=True)
    new = ledger_of(site).with_name("ledger.db.new")
    new.write_bytes(path.read_bytes())
    new.rename(ledger_of(site))


def rewrite(path: Path, old: str, new: str) -> int:
    """Another reason, and every later hash made anew with kedge's own code; how many entries."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.row_factory = sqlite3.Row
        triggers = db.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for trigger in triggers:
            db.execute(f"DROP TRIGGER {trigger['name']}")
        previous, changed = GENESIS, 0
        for row in db.execute("SELECT * FROM ledger ORDER BY seq").fetchall():
            entry = dict(row)
            if old in entry["reason"]:
                entry["reason"], changed = new, changed + 1
            entry["previous_hash"] = previous
            entry["hash"] = previous = hash_of(entry)
            db.execute(
                "UPDATE ledger SET reason = ?, previous_hash = ?, hash = ? WHERE seq = ?",
                (entry["reason"], entry["previous_hash"], entry["hash"], entry["seq"]),
            )
        for trigger in triggers:
            db.execute(trigger["sql"])
    return changed


def heads_of(site: Site, *words: str) -> tuple[bool, str]:
    """What doctor says of the chain itself, and of its heads."""
    found = {one["check"]: one for one in site.data("doctor", *words, check=False)["findings"]}
    assert found["ledger chain"]["ok"], found["ledger chain"]
    return found["ledger heads"]["ok"], found["ledger heads"]["detail"]


def follows(site: Site) -> bool:
    """Whether every replica serves the ledger's epoch."""
    status = site.data("status", "flights")
    return all(one["epoch"] == status["epoch"] for one in status["replicas"])


POLICY = 'owner = {name = "Ada L", contact = "mailto:ada@example.org"}\n'


def rolled_back(make_site: Callable[..., Site]) -> tuple[Site, Path]:
    """A site whose production went to r2 and back, and a copy of its ledger from before."""
    site = make_site(policy=POLICY)
    site.start()
    site.release()
    site.until(lambda: follows(site), "every replica to serve r1")
    old = copy(site, site.root / "old.db")
    site.run("promote", "flights", "v2", "--full", "--override", "a test")
    site.run("rollback", "flights", "--reason", "the mail said so")
    site.until(lambda: follows(site) and heads_of(site)[0], "every replica to know the rollback")
    site.until(
        lambda: len(list((site.root / ".kedge/replicas").glob("*/ledger.head"))) == 2,
        "the heads to be on the disk",
    )
    return site, old


def test_an_older_copy_is_found_reported_and_not_followed(make_site: Callable[..., Site]) -> None:
    """Workers keep serving, and follow again when the newest ledger is back."""
    site, old = rolled_back(make_site)
    served = site.infer()[1]
    now = copy(site, site.root / "now.db")
    put_back(site, old)
    fine, told = heads_of(site)
    assert (fine, "the history ends at entry" in told) == (False, True)
    faults = site.until(
        lambda: [f for f in site.data("status", "flights")["faults"] if "not follow" in f],
        "replicas to say so",
    )
    assert len(faults) == 2
    assert (site.infer()[1]["kedge-release"], site.infer()[1]["kedge-epoch"]) == (
        served["kedge-release"],
        served["kedge-epoch"],
    )
    alerts = site.until(
        lambda: [a for a in site.data("alerts", "flights") if a["topic"] == "history"],
        "an alert",
        40,
    )
    assert "is missing entry" in json.dumps(alerts)
    put_back(site, now)
    site.until(lambda: follows(site) and heads_of(site)[0], "the newest ledger to be followed")


@pytest.mark.soak
def test_a_restored_copy_is_followed_once_an_operator_accepts_it(
    make_site: Callable[..., Site],
) -> None:
    """Until then no command on it is acknowledged, and a restart changes nothing."""
    site, old = rolled_back(make_site)
    served = site.infer()[1]["kedge-epoch"]
    put_back(site, old)
    site.until(lambda: not follows(site), "replicas to see the older copy")
    moved = site.run("freeze", "flights", check=False, within_s=90)
    assert moved.returncode == 3, "no replica follows it, so none acknowledges"
    site.stop()
    site.start()
    site.until(lambda: site.infer()[0] == 200, "the first answer after a restart")
    assert site.infer()[1]["kedge-epoch"] == served
    fine, _ = heads_of(site, "--accept-ledger", "the backup of Monday was restored")
    assert fine
    site.until(lambda: follows(site), "the accepted ledger to be followed")
    newest = site.data("history", "flights", "--limit", "50")
    (note,) = [e for e in newest if e["event"].get("kind") == "ledger_accepted"]
    assert (note["reason"], note["by"]) == ("the backup of Monday was restored", "tester")


@pytest.mark.soak
def test_a_rewritten_chain_is_found_by_workers_files_and_an_alerts_head(
    make_site: Callable[..., Site],
) -> None:
    site, _ = rolled_back(make_site)
    head = next(r["head"] for r in site.data("status", "flights")["replicas"])
    served = site.infer()[1]["kedge-epoch"]
    other = copy(site, site.root / "other.db")
    assert rewrite(other, "the mail said so", "nobody ever asked") >= 1
    put_back(site, other)
    fine, told = heads_of(site)
    assert (fine, " is " in told) == (False, True)
    site.until(lambda: not follows(site), "replicas to stop following it")
    assert site.infer()[1]["kedge-epoch"] == served

    site.stop()  # the workers are gone: their files are enough
    assert not heads_of(site)[0]
    for path in (site.root / ".kedge/replicas").glob("*/ledger.head"):
        path.unlink()
    for path in (site.root / ".kedge/roster").glob("*"):
        path.unlink()
    with closing(sqlite3.connect(ledger_of(site))) as db, db:
        db.execute("DELETE FROM alert")
    assert heads_of(site)[0], "everything on this machine was rewritten"
    fine, told = heads_of(site, "--head", head)  # and a mail still has it
    assert (fine, "--head" in told) == (False, True)
    refused = site.data("doctor", "--head", "7:xyz", check=False)
    assert refused["error"]["code"] == "bad_head"
