"""What an older kedge wrote and runs: its state is opened, its supervisor is restarted into this code.

`tests/stored/make.py` made both archives, at the last commit before the layout was rebuilt.
"""

from __future__ import annotations

import json
import os
import sqlite3
import tarfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import kedge
from e2e.place import Site
from kedge.adapters.sql.sqlite.revisions import REVISION

pytestmark = pytest.mark.e2e

STORED = Path(__file__).parent.parent / "stored"
NEW = {"token": ""}
"""What an entry of the history has since then: no token of control wrote these."""


@pytest.fixture
def older(make_site: Callable[..., Site]) -> Site:
    """A site with the state that the older version left."""
    site = make_site(workers=1, policy='[endpoints.flights.log]\nretention = "30d"\n')
    ours = (site.root / "kedge.toml").read_text()
    with tarfile.open(STORED / "state.tar.xz") as archive:
        archive.extractall(site.root, filter="data")
    for path in (site.root / ".kedge", *(site.root / ".kedge").rglob("*")):
        path.chmod(path.stat().st_mode & 0o700)
    (site.root / "kedge.toml").write_text(ours)
    return site


def revision(site: Site) -> str:
    """The revision of its ledger's tables."""
    with closing(sqlite3.connect(site.root / ".kedge" / "ledger" / "ledger.db")) as raw:
        (found,) = raw.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(found)


def said(site: Site, command: str) -> Any:
    """What the older version said of its own state."""
    return json.loads((site.root / "said.json").read_text())[command]


def test_the_state_of_an_older_version_is_read_served_and_changed(older: Site) -> None:
    for entry, before in zip(
        older.data("history", "flights"), said(older, "history"), strict=False
    ):
        assert entry == before | NEW  # before its tables are migrated
    older.start(patrol=False)
    older.until(lambda: older.infer()[0] == 200, "the first answer")
    assert older.served() == "r1"
    history = {entry["seq"]: entry for entry in older.data("history", "flights")}
    for entry in said(older, "history"):
        assert history[entry["seq"]] == entry | NEW
    told = [one | {"allowed": ""} for one in said(older, "versions")]  # since then
    assert older.data("versions", "flights") == told
    assert older.run("doctor").returncode == 0
    older.run("promote", "flights", "v1", check=False)
    older.run("canary", "flights", "v2", "--weight", "20", "--override", "tested elsewhere")
    assert older.data("rollback", "flights", "--reason", "late")["left"] == "r2"
    assert older.served() == "r1"
    before = {entry["seq"]: entry for entry in said(older, "history")}
    after = {entry["seq"]: entry for entry in older.data("history", "flights", "--limit", "200")}
    assert len(after) > len(before)
    assert {seq: after[seq] for seq in before} == {seq: before[seq] | NEW for seq in before}


def test_a_supervisor_of_an_older_version_is_restarted_into_this_one(older: Site) -> None:
    """As after an upgrade in place: the same path on the disk has other code, and callers notice nothing."""
    code = older.root / "code"
    with tarfile.open(STORED / "code.tar.xz") as archive:
        archive.extractall(older.root / "old", filter="data")
    (older.root / "new").mkdir()
    (older.root / "new" / "kedge").symlink_to(Path(kedge.__file__).parent)
    code.symlink_to(older.root / "old")
    older.env["PYTHONPATH"] = os.pathsep.join([str(code), older.env["PYTHONPATH"]])
    older.start()
    assert older.up is not None
    older.until(lambda: older.infer()[0] == 200, "the first answer of the older version")
    older.run("canary", "flights", "v2", "--weight", "20", "--override", "tested elsewhere")
    with older.load(rate=50) as load:
        code.unlink()
        code.symlink_to(older.root / "new")
        # The package is upgraded, its processes are not, and something is wrong now.
        assert older.data("status", "flights")["candidate"]["release"] == "r2"
        older.run("pause", "flights", "--reason", "look first")
        undone = older.data("rollback", "flights", "--reason", "not now")
        assert (undone["left"], undone["receipt"]["silent"]) == ("r2", [])
        assert revision(older) == "0007"
        done = older.data("restart")
    assert revision(older) == REVISION
    assert done["pid"] == older.up.pid
    assert load.failures == []
    assert load.ok > 20
    assert older.served() == "r1"
    older.run("canary", "flights", "v2", "--weight", "20", "--override", "tested elsewhere")
    assert older.data("rollback", "flights", "--reason", "late")["left"] == "r2"
    assert older.served() == "r1"
    assert older.stop() == 0
