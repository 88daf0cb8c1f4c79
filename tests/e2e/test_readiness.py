"""A release that could not be rolled back does not become production, unless an operator gives a reason."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.receivers import Web
from e2e.place import Site
from kedge.core.stored.ledger import Note
from kedge.core.values import State
from kedge.operations.readiness.check import check_of
from kedge.operations.readiness.deployable import FOLDER
from kedge.workspace import Workplace

pytestmark = pytest.mark.e2e

PEOPLE = ["owner", "escalation", "guardrails", "notification"]


def failing(site: Site) -> list[str]:
    """The checks that fail, as `kedge check --no-proof` would say; without its start."""
    place = Workplace(site.root / ".kedge")
    return list(check_of(place, "flights", by="test", again=False).failed)


def fix(site: Site, line: str) -> None:
    config = site.root / "kedge.toml"
    config.write_text(f"{config.read_text()}{line}\n")
    site.run("apply")


def row(site: Site) -> State:
    return Workplace(site.root / ".kedge").ledger.read().states["flights"]


def notes(site: Site, kind: str) -> list[Any]:
    entries = Workplace(site.root / ".kedge").ledger.entries("flights", kind, limit=50)
    return [entry.event for entry in entries if isinstance(entry.event, Note)]


def artifact(site: Site, release: int) -> Path:
    digest = row(site).releases[release].model_digest.removeprefix("sha256:")
    return site.root / ".kedge" / "artifacts" / digest / "files" / "behave.json"


def test_a_release_that_cannot_be_rolled_back_is_not_promoted_until_fixed_or_overridden(
    make_site: Callable[..., Site],
) -> None:
    """One story, because a site takes time: from an endpoint without an owner to one that is ready, and back."""
    web = Web()
    ada, ben = (f"http://127.0.0.1:{web.port}/{name}" for name in ("ada", "ben"))
    site = make_site(policy='readiness = "refuse"\n', workers=1)
    site.start()
    site.release(promote=False, sleep_load_s=0.5)
    checked = site.run("check", "flights", "--no-proof", check=False)
    assert (checked.returncode, len(checked.stdout.splitlines())) == (1, 11)
    assert failing(site) == ["owner", "escalation", "guardrails", "notification"]
    refused = site.run("promote", "flights", "v1", check=False)
    assert (refused.returncode, row(site).production) == (1, None)
    assert "owner: no owner is named" in refused.stderr

    fix(site, f'owner = {{name = "Ada Lovelace", contact = "{ada}"}}')
    assert failing(site) == ["escalation", "guardrails", "notification"]
    fix(site, f'escalation = [{{after = "0s", to = ["owner"]}}, {{after = "9m", to = ["{ben}"]}}]')
    assert failing(site) == ["notification"]
    site.run("alerts", "test", "flights")
    site.run("promote", "flights", "v1")
    assert failing(site) == []

    site.run("canary", "flights", "v2", "--weight", "20")
    assert failing(site) == ["deployable"]
    site.run("promote", "flights", "--full")
    (proven,) = notes(site, "proven")
    assert (proven.body.release, proven.body.ok, proven.body.rows) == (1, True, 9)
    assert failing(site) == ["drill"]
    site.run("drill", "flights", "--for", "2s")
    fix(site, 'back_window = "9d"')
    assert failing(site) == ["runbook"]
    site.run("runbook", "flights")
    assert site.data("check", "flights")["ready"]
    assert len(notes(site, "proven")) == 2
    assert "readiness   ready" in site.run("status", "flights").stdout

    site.run("canary", "flights", "v1", "--weight", "20")
    sound = artifact(site, 2).read_bytes()
    artifact(site, 2).chmod(0o644)
    artifact(site, 2).write_bytes(sound.replace(b"3.0", b"3.1"))
    checked = site.run("check", "flights", check=False)
    assert (checked.returncode, "verify: " in checked.stdout) == (1, True)
    assert "behave.json was changed" in checked.stdout
    refused = site.run("promote", "flights", "--full", check=False)
    assert (refused.returncode, row(site).candidate) == (1, 1)
    assert "behave.json was changed" in refused.stderr
    assert notes(site, "override") == []
    site.run("promote", "flights", "--full", "--override", "r2 is worse")
    assert site.served() == "r1"
    (override,) = notes(site, "override")
    assert (override.body.promoting, override.body.failed) == ("r1", ("deployable",))
    alerts = Workplace(site.root / ".kedge").alerts
    site.until(lambda: [a for a in alerts.live() if a.key == "override:r1"], "an alert")

    artifact(site, 2).write_bytes(sound)
    folder = site.root / ".kedge" / FOLDER
    checking = site.spawn("check", "flights")
    site.until(lambda: list(folder.rglob("behave.json")), "a proof under way")
    os.kill(checking.pid, signal.SIGKILL)
    checking.wait()
    site.until(
        lambda: not site.processes("\0prove") and [*folder.iterdir()] == [folder / "lock"],
        "what it began to be gone",
    )
    assert failing(site) == ["deployable"]
    site.run("rollback", "flights")
    assert site.served() == "r2"
    web.close()
