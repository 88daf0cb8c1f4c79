"""A storm: whatever dies, at whatever moment, the ledger, the row and the replicas agree after it."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable

import pytest

from e2e.place import KEDGE, Site

pytestmark = [pytest.mark.e2e, pytest.mark.soak]


def kill_a_worker(site: Site, dice: random.Random) -> int:
    """Each connection that the dead worker had open is cut once: that many requests may fail."""
    workers = site.processes("gateway-worker")
    if len(workers) < 2:
        return 0
    os.kill(dice.choice(workers), signal.SIGKILL)
    return 4


def kill_a_model(site: Site, dice: random.Random) -> int:
    """Production is inline; whichever model process dies, no request may fail."""
    for victim in site.processes("adapters.process")[:1]:
        os.kill(victim, signal.SIGKILL)
    return 0


def kill_the_supervisor(site: Site, dice: random.Random) -> int:
    """The workers serve on; the next supervisor takes over."""
    assert site.up is not None
    site.up.kill()
    site.up.wait()
    time.sleep(dice.uniform(0, 0.5))
    site.start(wait=False)
    return 0


def lock_the_ledger(site: Site, dice: random.Random) -> int:
    """Another process holds the write lock for a while."""
    lock = sqlite3.connect(site.root / ".kedge/ledger/ledger.db", isolation_level=None, timeout=5)
    lock.execute("BEGIN IMMEDIATE")
    time.sleep(dice.uniform(0.1, 2))
    lock.execute("ROLLBACK")
    lock.close()
    return 0


FAULTS: tuple[Callable[[Site, random.Random], int], ...] = (
    kill_a_worker,
    kill_a_model,
    kill_the_supervisor,
    lock_the_ledger,
)
COMMANDS = (
    ["canary", "flights", "v2", "--weight", "30", "--override", "storm"],
    ["shadow", "flights", "v2"],
    ["rollback", "flights"],
    ["abort", "flights"],
    ["promote", "flights", "v2", "--full", "--override", "storm"],
    ["promote", "flights", "--full"],
)


CALM_S = 60.0


def unrest(site: Site) -> list[str]:
    """What is still wrong after the storm."""
    found: list[str] = list(site.data("status", "flights")["faults"])
    workers = len(site.processes("gateway-worker"))
    return found if workers == 2 else [*found, f"{workers} workers"]


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_storm_of_faults_in_the_middle_of_flips_loses_nothing(
    make_site: Callable[..., Site], seed: int
) -> None:
    """Commands are killed too, at random points; production fails no request but those cut."""
    dice = random.Random(seed)
    site = make_site()
    site.start()
    site.release()
    allowed = 0
    with site.load(rate=50, connections=4) as load:
        for _ in range(40):
            command = subprocess.Popen(
                [*KEDGE, *dice.choice(COMMANDS)],
                cwd=site.root,
                env=site.env,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            time.sleep(dice.uniform(0.2, 0.8))
            allowed += dice.choice(FAULTS)(site, dice)
            if dice.random() < 0.3:
                command.kill()
            command.wait(60)
        end = time.monotonic() + CALM_S
        while (wrong := unrest(site)) and time.monotonic() < end:
            time.sleep(0.2)
        assert not wrong
    assert len(load.failures) <= allowed, load.failures
    assert all("HTTP" not in failure for failure in load.failures), load.failures
    assert site.data("doctor")["ok"]
    status = site.data("status", "flights")
    assert site.served() == status["production"]["release"] or status["stage"] == "canary"


@pytest.mark.timeout(1800)
def test_two_hundred_rollbacks_under_load_fail_no_request(site: Site) -> None:
    """Promote and roll back again and again: every ack arrives, no request fails."""
    with site.load(rate=200) as load:
        for _ in range(200):
            site.run("promote", "flights", "v2", "--override", "again")
            assert len(site.data("rollback", "flights")["receipt"]["acks"]) == 2
    assert load.failures == []
    assert site.data("doctor")["ok"]
