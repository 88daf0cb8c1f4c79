"""A drill practises a rollback in production: callers notice nothing, and it always comes to its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from e2e.place import KEDGE, Site
from kedge.core.alerts.alerts import Alert
from kedge.core.release.commands import Rollback
from kedge.core.release.machine import decide
from kedge.core.speed import Speed
from kedge.core.stored.ledger import Note
from kedge.core.values import Refusal, State
from kedge.operations.alerts import acknowledge
from kedge.operations.drills import may_drill, speed_of
from kedge.operations.evidence.read import evidence_of
from kedge.testing.samples import AT
from kedge.workspace import Workplace

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """One for all, since a site takes its time: r2 in production, r1 the way back, until the last test."""
    made = Site(
        Path(tempfile.mkdtemp(prefix="kedge-site-")), policy='canary = {steps = [50], dwell = "1s"}'
    )
    try:
        made.start()
        made.release()
        made.run("promote", "flights", "v2", "--override", "test")
        yield made
    finally:
        made.end()
        shutil.rmtree(made.root, ignore_errors=True)


def drill(site: Site, *words: str) -> subprocess.Popen[str]:
    """Start a drill and wait until it has flipped."""
    started = subprocess.Popen(
        [*KEDGE, "drill", "flights", "--json", *words],
        cwd=site.root,
        env=site.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    site.until(lambda: site.served() == "r1", "the drill")
    return started


def place(site: Site) -> Workplace:
    """Its ledger and evidence, read in this process: a command each time would cost seconds."""
    return Workplace(site.root / ".kedge")


def row(site: Site) -> State:
    return place(site).ledger.read().states["flights"]


def notes(site: Site, kind: str) -> list[dict[str, Any]]:
    """The bodies of notes of a kind, newest first."""
    found = [entry.event for entry in place(site).ledger.history("flights", 200)]
    return [
        json.loads(msgspec.json.encode(note.body))
        for note in found
        if isinstance(note, Note) and note.kind == kind
    ]


def copied(site: Site) -> int:
    """How many requests were compared of production with the release that it left."""
    return int(evidence_of(place(site), "flights").coverage.copied)


def speed(site: Site) -> Speed:
    (found,) = speed_of(place(site), "flights")
    return found


def test_a_drill_under_load_fails_no_request_and_leaves_everything_as_it_was(site: Site) -> None:
    """Ctrl-C ends it at once; receipts and outcome are in the ledger; the comparison goes on."""
    with site.load(rate=100) as load:
        # The process beside production that the copies go to has to be there.
        compared = site.until(lambda: (n := copied(site)) > 20 and n, "requests to be compared")
        before = row(site)
        practised = drill(site, "--for", "30s")
        assert row(site).drill is not None
        said = site.run("drill", "flights", "--json", check=False)
        assert json.loads(said.stdout)["error"]["code"] == "drill_running"
        began = time.monotonic()
        practised.send_signal(signal.SIGINT)
        site.until(lambda: site.served() == "r2", "r2 again")
        assert time.monotonic() - began < 10
        done = json.loads(practised.communicate(timeout=20)[0])
        site.until(lambda: copied(site) > compared, "the comparison to go on")
    assert load.failures == []
    assert practised.returncode == 0
    assert (done["ok"], done["release"], done["left"], done["failed"]) == (True, 1, 2, 0)
    # This test asks too, until it sees a flip.
    assert 0 <= done["answered"] - load.releases["r1"] < 50
    for flip in (done["back"], done["forward"]):
        assert len(flip["acks"]) == 2
        assert flip["first_old_answer_ms"] is not None
    after = row(site)
    assert msgspec.structs.replace(after, epoch=before.epoch) == before
    assert [body["command"] for body in notes(site, "receipt")][:2] == ["return", "drill"]
    assert {**notes(site, "drill")[0], "link": ""} == done
    told = speed(site).drills[-1]
    assert told.back is not None
    assert (told.ok, told.back.first_answer_s) == (True, done["back"]["first_old_answer_ms"] / 1e3)


def test_when_its_process_is_killed_the_patrol_returns_and_files_that_it_failed(
    site: Site,
) -> None:
    """Kill -9; control too, which is started again and takes over."""
    with site.load(rate=100) as load:
        practised = drill(site, "--for", "3s")
        site.until(lambda: notes(site, "receipt")[0]["command"] == "drill", "its receipt")
        practised.kill()
        for pid in site.processes("\0control"):
            os.kill(pid, signal.SIGKILL)
        assert row(site).stage == "drill"
        site.until(lambda: site.served() == "r2", "the patrol to return")
        filed = site.until(lambda: not (n := notes(site, "drill")[0])["ok"] and n, "the outcome")
    assert load.failures == []
    assert practised.wait(5) == -signal.SIGKILL
    practised.communicate()
    assert filed["why"].startswith("its process died")
    assert filed["total_s"] == filed["back"]["total_ms"] / 1e3
    assert filed["lasted_s"] >= 2
    assert (row(site).stage, 2 in row(site).condemned) == ("settled", False)
    assert speed(site).drills[-1].ok is False


def test_a_drill_is_refused_in_a_rollout_and_while_a_page_is_open_and_a_dry_one_flips_nothing(
    site: Site,
) -> None:
    """Until the page has ended."""

    def refused() -> str:
        said = site.run("drill", "flights", "--json", check=False)
        assert said.returncode == 1
        return str(json.loads(said.stdout)["error"]["code"])

    epoch = row(site).epoch
    dry = site.data("drill", "flights", "--dry")
    assert (dry["ok"], dry["dry"], dry["release"]) == (True, True, 1)
    assert dry["back"]["first_old_answer_ms"] is not None
    assert (row(site).epoch, {**notes(site, "drill")[0], "link": ""}) == (epoch, dry)

    site.run("register", "flights", site.model("three", "raise", trigger="boom"))
    site.run("canary", "flights", "v3", "--weight", "50")
    assert refused() == "rollout_running"
    with site.load(rate=100, boom=3):
        site.until(lambda: row(site).stage == "settled", "the patrol's rollback", 60)
        (page,) = site.until(lambda: pages(site), "a page")
    assert refused() == "page_open"
    acknowledge(place(site), page.number, "Ada")
    may_drill(place(site), "flights")
    (incident,) = [one for one in speed(site).incidents if one.release == 3]
    assert (incident.automatic, incident.sign, incident.decide_s) == (True, "patrol", 0)
    assert incident.total_s is not None
    assert incident.detect_s is not None
    assert 0 < incident.detect_s < incident.total_s < 60


def pages(site: Site) -> list[Alert]:
    open_ = place(site).alerts.listed("flights", over=False, limit=20)
    return [alert for alert in open_ if alert.level == "page"]


def test_an_incident_within_a_drill_stays_where_it_is_and_a_second_one_goes_no_further(
    site: Site,
) -> None:
    """The rollback condemns what the drill had left; the drill's own process says that it failed."""
    with site.load(rate=100) as load:
        practised = drill(site, "--for", "30s")
        done = site.data("rollback", "flights")
        told = json.loads(practised.communicate(timeout=20)[0])
    assert load.failures == []
    assert (done["event"], done["release"], done["left"]) == ("rolled_back", "r1", "r2")
    assert practised.returncode == 1
    assert told["why"].startswith("another process ended it")
    assert (site.served(), 2 in row(site).condemned) == ("r1", True)
    assert isinstance(decide(row(site), Rollback(), AT), Refusal)  # there is nothing further back
    incident = speed(site).incidents[-1]
    assert (incident.release, incident.sign) == (2, "command")
    assert incident.machine is not None
    assert incident.machine.first_answer_s is not None
