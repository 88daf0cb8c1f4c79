"""A rollback works, from every state and whatever dies meanwhile; callers notice nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from e2e.place import KEDGE, Site, zygote
from kedge.core.diagnosis.findings import Act, Cause
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.stored.ledger import Note
from kedge.workspace import Workplace

pytestmark = pytest.mark.e2e


def test_a_canary_is_rolled_back_under_load_without_a_failed_request(site: Site) -> None:
    """The candidate gets its share, goes to zero, and every replica says so."""
    site.run("canary", "flights", "v2", "--weight", "50")
    with site.load(rate=200) as load:
        site.until(lambda: load.releases.get("r2", 0) > 20, "the canary to answer")
        done = site.data("rollback", "flights")
        before = load.releases["r2"]
        time.sleep(0.3)
        assert load.releases["r2"] - before <= 4  # one may be under way on each connection
    assert load.failures == []
    assert done["event"] == "candidate_rolled_back"
    assert len(done["receipt"]["acks"]) == 2
    assert done["receipt"]["first_old_answer_ms"] is not None
    status = site.data("status", "flights")
    assert status["condemned"] == ["r2"]
    assert {replica["epoch"] for replica in status["replicas"]} == {done["epoch"]}


def test_production_goes_back_to_a_warm_release_and_the_receipt_is_in_the_ledger(
    site: Site,
) -> None:
    """Promote, roll back under load: nothing fails, nothing has to load, the parts are stored."""
    site.run("promote", "flights", "v2", "--override", "test")
    assert site.served() == "r2"
    assert site.data("status", "flights")["back"]["cold"] == {}
    with site.load(rate=200) as load:
        time.sleep(0.3)
        done = site.data("rollback", "flights", "--reason", "it is worse")
        time.sleep(0.3)
    assert load.failures == []
    assert site.served() == "r1"
    assert done["receipt"]["cold"] == {}
    entries = site.data("history", "flights", "--limit", "6")
    # Control may open an alert at any moment.
    entries = [one for one in entries if "alert" not in one["event"].get("kind", "")]
    runbook, newest, event = entries[:3]
    assert runbook["event"]["kind"] == "runbook"
    assert newest["event"]["kind"] == "receipt"
    assert newest["event"]["body"]["last_ack_ms"] == done["receipt"]["last_ack_ms"]
    assert event["reason"] == "it is worse"


def test_two_rollbacks_in_a_row_never_bounce(site: Site) -> None:
    """The second one has nowhere to go, and says so with exit code 1."""
    site.run("promote", "flights", "v2", "--override", "test")
    site.run("rollback", "flights")
    again = site.run("rollback", "flights", check=False)
    assert again.returncode == 1
    assert "hint:" in again.stderr
    assert site.served() == "r1"


def test_a_rollback_without_traffic_sends_a_marked_probe(site: Site) -> None:
    """The first old answer is seen although no caller asked; the probe is not counted as a request."""
    time.sleep(2.2)  # both workers have told what they had counted by now
    before = site.data("status", "flights")["counts"]["requests"]
    site.run("promote", "flights", "v2", "--override", "test")
    done = site.data("rollback", "flights")
    assert done["receipt"]["first_old_answer_ms"] is not None
    time.sleep(2.2)
    assert site.data("status", "flights")["counts"]["requests"] == before


def test_counts_only_grow_when_a_comparison_comes_back(site: Site) -> None:
    """After a canary and its rollback the settled endpoint has all that it ever counted."""

    def counted() -> int:
        return int(site.data("status", "flights")["counts"]["requests"].get("production", 0))

    site.until(lambda: counted() > 0, "the requests that waited for the first answer")
    time.sleep(2.2)  # both workers have told what they had counted by now
    before = counted()
    for _ in range(10):
        site.infer()
    site.until(lambda: counted() == before + 10, "ten more")
    site.run("canary", "flights", "v2", "--weight", "1")
    site.run("rollback", "flights")
    for _ in range(5):
        site.infer()
    site.until(lambda: counted() == before + 15, "all of them")


def test_a_silent_replica_is_named_and_the_exit_code_is_3(site: Site) -> None:
    """A stopped worker does not acknowledge; the rollback is still written, and the known acks are reported."""
    site.run("promote", "flights", "v2", "--override", "test")
    diagnosed(site, Cause.MODEL)
    stopped = site.processes("gateway-worker")[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        done = site.run("rollback", "flights", "--json", check=False)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert done.returncode == 3
    error = json.loads(done.stdout)["error"]
    assert [name.rpartition(".")[2] for name in error["silent"]] == [str(stopped)]
    assert (error["event"], error["release"], error["left"]) == ("rolled_back", "r1", "r2")
    assert len(error["receipt"]["acks"]) == 1
    assert (error["finding"]["headline"], error["finding"]["against"]) == ("it is the model", False)
    site.until(lambda: not site.data("status", "flights")["faults"], "the worker to catch up")
    assert site.served() == "r1"

    site.run("promote", "flights", "v2", "--override", "test")
    diagnosed(site, Cause.WORLD)
    os.kill(stopped, signal.SIGSTOP)
    try:
        done = site.run("rollback", "flights", check=False)
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert done.returncode == 3
    assert "production went back from r2 to r1" in done.stdout
    assert done.stdout.count("  ack ") == 1
    assert "  finding  0 min ago: world: it is the world" in done.stdout
    assert "AGAINST  the diagnosis speaks against this rollback: go on" in done.stdout
    assert done.stderr.startswith("error: epoch ")
    assert f".{stopped}; acknowledged by" in done.stderr
    assert "hint: kedge status" in done.stderr


def diagnosed(site: Site, cause: Cause) -> None:
    """File a diagnosis of r2, as `kedge diagnose` and control do."""
    now = time.time()
    found = DiagnosisSummary(
        at=now,
        since=now - 3600,
        until=now,
        requests=500,
        labelled=400,
        new=2,
        old=1,
        metric="brier",
        headline=f"it is the {cause}",
        causes=(cause,),
        harms=(None,),
        action=Act.ROLL_BACK,
        advice="go on",
    )
    place = Workplace(site.root / ".kedge")
    place.ledger.note(
        "flights",
        Note(kind="finding", body=msgspec.to_builtins(found)),
        by="test",
        reason="",
        at=place.clock.now(),
    )


def test_of_two_operators_at_once_one_wins_and_the_other_gets_the_name(site: Site) -> None:
    """Started together: exactly one change each time, and a loser that came second learns of it.

    Whether both had read the row before one wrote is chance: they are started until they had.
    """
    told = rounds = 0
    while rounds < 10 or (not told and rounds < 60):
        rounds += 1
        weight = rounds
        line = ["canary", "flights", "v2", "--weight", str(weight), "--json"]

        def type_it(who: str, line: list[str] = line) -> subprocess.CompletedProcess[str]:
            env = {**site.env, "KEDGE_ACTOR": who}
            return zygote().run(line, cwd=site.root, env=env, timeout=30)

        with ThreadPoolExecutor(2) as operators:
            rivals = list(operators.map(type_it, ("ada", "bob")))
        answers = [json.loads(rival.stdout) for rival in rivals]
        assert sorted(rival.returncode for rival in rivals) == [0, 1]
        (lost,) = [answer["error"] for answer in answers if "error" in answer]
        assert lost["code"] in ("stale", "unchanged")
        told += lost["code"] == "stale" and lost["by"] in ("ada", "bob")
    entries = site.data("history", "flights", "--limit", "200")
    changes = [e for e in entries if e["event"]["event"] in ("canary_started", "weight_set")]
    assert len(changes) == rounds
    assert told >= 1


def test_a_command_killed_in_the_middle_leaves_all_of_it_or_nothing(site: Site) -> None:
    """Kill -9 at random points of a flip: the row, the ledger and the replicas always agree."""
    seeded = random.Random(7)
    with site.load(rate=100) as load:
        for number in range(12):
            weight = 10 + number
            command = subprocess.Popen(
                [*KEDGE, "canary", "flights", "v2", "--weight", str(weight)],
                cwd=site.root,
                env=site.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(seeded.uniform(0.1, 0.5))
            command.kill()
            command.wait()
        site.until(lambda: not site.data("status", "flights")["faults"], "the replicas to agree")
        site.run("rollback", "flights", check=site.data("status", "flights")["stage"] == "canary")
    assert load.failures == []
    assert site.served() == "r1"
    assert all(finding["ok"] for finding in site.data("doctor")["findings"])


@pytest.mark.soak
def test_a_cold_way_back_is_said_first_and_still_works(make_site: Callable[..., Site]) -> None:
    """After the window nothing is kept loaded: the rollback loads, then flips; no caller waits."""
    site = make_site(policy='back_window = "1s"')
    site.start()
    site.release()
    site.run("promote", "flights", "v2", "--override", "test")
    site.until(lambda: site.data("status", "flights")["back"]["cold"], "the window to end", 20)
    site.until(
        lambda: all(
            hold["release"] != "r1"
            for replica in site.data("status", "flights")["replicas"]
            for hold in replica["holds"]
        ),
        "r1 to be dropped",
        90,
    )
    with site.load(rate=100) as load:
        done = site.run("rollback", "flights")
    assert "cold: r1 is not loaded" in done.stderr
    assert load.failures == []
    assert site.served() == "r1"
