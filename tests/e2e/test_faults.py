"""Nothing that dies, disappears or fills up makes production fail a request or loses an event."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from e2e.place import Site
from kedge.engine.pins import HostDisk
from kedge.workspace import Workplace

pytestmark = pytest.mark.e2e


def replaced(site: Site, victim: int) -> bool:
    """Whether two workers run, and the victim is none of them."""
    now = site.processes("gateway-worker")
    return len(now) == 2 and victim not in now


def doctor_is_happy(site: Site) -> bool:
    """Whether the chain, the artifacts and the replicas are as they should be."""
    return bool(site.data("doctor", check=False)["ok"])


def _host_knows(site: Site, production: int) -> bool:
    """Whether a break-glass rollback would start from this production: soon after the swap."""
    known = HostDisk(site.root / ".kedge").remembered().get(site.endpoint)
    return known is not None and known.production == production


def _all_serve(site: Site) -> bool:
    status = site.data("status", "flights")
    return len(status["replicas"]) == 2 and not status["faults"]


def test_a_killed_worker_is_replaced_and_its_requests_are_the_only_ones_lost(site: Site) -> None:
    """The other worker serves on; what was under way in the killed one is cut, nothing else."""
    with site.load(rate=100, connections=4) as load:
        time.sleep(0.5)
        os.kill(site.processes("gateway-worker")[0], signal.SIGKILL)
        site.until(lambda: len(site.processes("gateway-worker")) == 2, "a new worker")
        site.until(lambda: _all_serve(site), "the new worker to serve")
    # A connection belongs to one process: each one that the dead worker had open is cut once.
    assert len(load.failures) <= 4
    assert all("HTTP" not in failure for failure in load.failures)
    assert load.ok > 30
    site.run("canary", "flights", "v2", "--weight", "5")
    assert len(site.data("rollback", "flights")["receipt"]["acks"]) == 2


def test_a_worker_that_died_unseen_is_waited_for_by_no_rollback(site: Site) -> None:
    """Its supervisor was dead too, or the ledger was away when it would have been struck off."""
    place = Workplace(site.root / ".kedge")
    one = next(member for member in place.roster.members() if member.kind == "gateway")
    gone = subprocess.Popen(["true"])
    gone.wait()
    dead = msgspec.structs.replace(one, name="vm/w9.dead", pid=gone.pid, beat_at=one.beat_at - 60)
    place.roster.publish(dead)
    foreign = msgspec.structs.replace(dead, name="vm/w9.other", host="elsewhere")
    place.roster.publish(foreign)
    site.until(
        lambda: (
            {m.name for m in place.roster.members()} & {dead.name, foreign.name} == {foreign.name}
        ),
        "the dead to be struck off, and no replica of another host",
    )
    place.roster.leave(foreign.name)
    site.until(lambda: _all_serve(site), "all to serve")


def test_a_killed_supervisor_is_no_outage_and_the_next_one_takes_over(site: Site) -> None:
    """Workers serve on, rollback still works, a new `up` inherits the socket; nothing fails."""
    site.run("promote", "flights", "v2", "--override", "test")
    with site.load(rate=200) as load:
        assert site.up is not None
        old = site.processes("gateway-worker")
        site.up.kill()
        site.up.wait()
        time.sleep(0.5)
        assert site.data("rollback", "flights")["release"] == "r1"
        site.start(wait=False)
        site.until(
            lambda: len(now := site.processes("gateway-worker")) == 2 and not set(now) & set(old),
            "new workers instead of the old",
        )
        time.sleep(0.5)
    assert load.failures == []
    assert load.releases["r1"] > 0
    assert doctor_is_happy(site)
    assert site.stop() == 0
    # A model process of the supervisor that was killed is an orphan, and ends by itself.
    site.until(lambda: site.processes("kedge") == [], "the orphans to end", within_s=10)


def test_ctrl_c_stops_everything_and_loses_no_request_that_was_accepted(site: Site) -> None:
    """Exit code 0, no process left; a restart serves what was production."""
    assert site.stop() == 0
    assert site.processes("kedge") == []
    site.start()
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    assert site.served() == "r1"


def test_sigterm_drains_a_worker_without_a_failed_request(site: Site) -> None:
    """The one that is told to stop answers on its open connections, then asks to close them."""
    with site.load(rate=200) as load:
        for _ in range(3):
            victim = site.processes("gateway-worker")[0]
            os.kill(victim, signal.SIGTERM)
            site.until(functools.partial(replaced, site, victim), "a new worker")
            site.until(lambda: not site.data("status", "flights")["faults"], "it to serve")
    assert load.failures == []


def test_a_ledger_that_is_locked_for_long_stops_commands_but_no_answer(site: Site) -> None:
    """A command gives up with exit code 4 and a hint; when the lock is gone it works again."""
    lock = sqlite3.connect(site.root / ".kedge/ledger/ledger.db", isolation_level=None)
    with site.load(rate=100) as load:
        lock.execute("BEGIN IMMEDIATE")
        started = time.monotonic()
        refused = site.run("canary", "flights", "v2", "--weight", "1", check=False)
        assert refused.returncode == 4
        assert time.monotonic() - started < 15
        time.sleep(max(0.0, 10 - (time.monotonic() - started)))
        lock.execute("ROLLBACK")
        lock.close()
        site.run("canary", "flights", "v2", "--weight", "1")
    assert load.failures == []
    assert "hint:" in refused.stderr


def test_a_deleted_ledger_is_never_made_again_and_gateways_serve_and_restart_without_it(
    site: Site,
) -> None:
    """Serving goes on, commands exit with 4, `up` serves from the host's own disk; restored, all is back."""
    ledger = site.root / ".kedge/ledger"
    with site.load(rate=100) as load:
        saved = site.root / "saved"
        ledger.rename(saved)
        assert site.run("canary", "flights", "v2", "--weight", "1", check=False).returncode == 4
        time.sleep(0.5)
    assert load.failures == []
    site.stop()
    site.start()
    site.until(lambda: site.infer()[0] == 200, "an answer without a ledger")
    assert not (ledger / "ledger.db").exists()
    assert any("ledger" in fault for fault in site.data("status", "flights")["faults"])
    shutil.rmtree(ledger, ignore_errors=True)
    saved.rename(ledger)
    site.until(lambda: not site.data("status", "flights")["faults"], "the ledger to be found again")
    site.run("canary", "flights", "v2", "--weight", "1")
    site.run("rollback", "flights")
    assert doctor_is_happy(site)


def test_a_gateway_cut_off_from_the_ledger_gives_a_candidate_no_share(
    make_site: Callable[..., Site],
) -> None:
    """Cut off while the canary is rolled back elsewhere: after the lease production answers alone."""
    site = make_site(server="lease_s = 2.0")
    site.start()
    site.release()
    site.run("canary", "flights", "v2", "--weight", "100")
    assert site.infer()[1]["kedge-release"] == "r2"
    saved = site.root / "saved"
    with site.load(rate=100) as load:
        (site.root / ".kedge/ledger").rename(saved)
        site.until(
            lambda: {site.infer()[1]["kedge-reason"] for _ in range(12)} == {"lease_expired"},
            "the lease of both workers to end",
            10,
        )
    assert load.failures == []
    assert site.served() == "r1"
    (site.root / ".kedge/ledger").mkdir(exist_ok=True)
    shutil.rmtree(site.root / ".kedge/ledger")
    saved.rename(site.root / ".kedge/ledger")
    site.until(lambda: site.infer()[1]["kedge-release"] == "r2", "the share to come back", 10)


def test_break_glass_pins_a_host_and_hands_the_command_in_when_the_ledger_is_back(
    site: Site,
) -> None:
    """rollback --local works without a ledger; later the ledger has the rollback, with its reason."""
    site.run("promote", "flights", "v2", "--override", "test")
    site.until(lambda: _host_knows(site, 2), "the host to remember it")
    saved = site.root / "saved"
    (site.root / ".kedge/ledger").rename(saved)
    assert site.run("rollback", "flights", check=False).returncode == 4
    pinned = site.data("rollback", "flights", "--local", "--reason", "it burns")
    assert (pinned["serves"], len(pinned["acks"])) == ("r1", 2)
    status, head, _ = site.infer()
    assert (status, head["kedge-release"], head["kedge-reason"]) == (200, "r1", "pinned")
    shutil.rmtree(site.root / ".kedge/ledger", ignore_errors=True)
    saved.rename(site.root / ".kedge/ledger")
    site.until(lambda: site.infer()[1]["kedge-reason"] == "production", "the pin to be handed in")
    assert site.served() == "r1"
    assert any("it burns" in entry["reason"] for entry in site.data("history", "flights"))
    assert site.data("status", "flights")["pin"] is None


def test_a_stale_pin_stays_is_shown_as_drift_and_ends_with_unpin(
    site: Site,
) -> None:
    """The row moved on while the host was pinned: no command is overruled silently."""
    site.run("promote", "flights", "v2", "--override", "test")
    site.until(lambda: _host_knows(site, 2), "the host to remember it")
    ledger, saved = site.root / ".kedge/ledger", site.root / "saved"
    ledger.rename(saved)
    site.run("rollback", "flights", "--local")
    shutil.rmtree(ledger, ignore_errors=True)
    # Elsewhere another process continues: a configuration changes the row before this host is back.
    away = site.root / "away"
    (away / ".kedge").mkdir(parents=True)
    shutil.copy(site.root / "kedge.toml", away / "kedge.toml")
    with (away / "kedge.toml").open("a") as file:
        file.write('\nback_window = "3d"\n')
    shutil.copytree(saved, away / ".kedge/ledger")
    subprocess.run(
        [*site.run.__globals__["KEDGE"], "apply"],
        cwd=away,
        env=site.env,
        check=True,
        capture_output=True,
    )
    shutil.copytree(away / ".kedge/ledger", ledger)
    drift = site.until(
        lambda: (site.data("status", "flights")["pin"] or {}).get("drift"), "the drift"
    )
    assert "epoch" in drift
    assert site.served() == "r1"
    site.run("unpin", "flights")
    site.until(lambda: site.served() == "r2", "the ledger to be followed again")


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of two megabytes that can really be full."""
    place = Path("/tmp") / f"kedge-small-{os.getpid()}"
    place.mkdir(exist_ok=True)
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        place.rmdir()
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)
    with contextlib.suppress(OSError):
        place.rmdir()


def test_a_full_disk_keeps_no_rollback_from_being_written(small_disk: Path) -> None:
    """The ballast makes room for it; production answers all the while, no event is lost."""
    site = Site(small_disk)
    try:
        site.start()
        site.release()
        site.run("canary", "flights", "v2", "--weight", "50")
        with site.load(rate=100) as load:
            with contextlib.suppress(OSError), (small_disk / "filler").open("wb") as filler:
                while True:
                    filler.write(b"x" * 65536)
                    filler.flush()
            done = site.run("rollback", "flights", check=False)
            assert done.returncode in (0, 3), done.stderr
            site.until(lambda: site.served() == "r1" and site.served() == "r1", "the rollback")
            (small_disk / "filler").unlink()
            site.until(lambda: not site.data("status", "flights")["faults"], "everybody to be well")
        assert load.failures == []
        assert doctor_is_happy(site)
        assert site.data("status", "flights")["condemned"] == ["r2"]
    finally:
        site.end()


def test_a_read_only_ledger_stops_commands_but_no_answer(make_site: Callable[..., Site]) -> None:
    """Exit code 4 with the reason; once it can be written again, commands work again.

    No process may open the ledger for writing between the two mounts, as each does when it starts.
    """
    site = make_site()
    site.start()
    site.release()
    ledger = str(site.root / ".kedge/ledger")
    if subprocess.run(
        ["mount", "--bind", ledger, ledger], capture_output=True, check=False
    ).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        with site.load(rate=100) as load:
            subprocess.run(["mount", "-o", "remount,bind,ro", ledger], check=True)
            refused = site.run("canary", "flights", "v2", check=False)
            time.sleep(0.5)
            subprocess.run(["mount", "-o", "remount,bind,rw", ledger], check=True)
            site.run("canary", "flights", "v2", "--weight", "1")
    finally:
        site.end()
        subprocess.run(["umount", "-l", ledger], check=False)
    assert load.failures == []
    assert refused.returncode == 4
    assert "hint:" in refused.stderr
