"""A release that becomes production in a process has its second one loaded before the flip."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.place import Load, Site
from support.waiting import wait_until

pytestmark = pytest.mark.e2e

LOAD_S = 1.5
"""How long a model takes to load here: a second process that was started at the flip would be
missing for as long."""


def slow(site: Site) -> None:
    """Start it, with r1 in production and r2 registered, both in processes and slow to load."""
    site.start(patrol=False)
    for name, scale in (("one", 1.0), ("two", 3.0)):
        site.run("register", "flights", site.model(name, scale=scale, sleep_load_s=LOAD_S))
    site.run("promote", "flights", "v1")


@pytest.fixture
def place(copy_site: Callable[..., Site]) -> Site:
    """A site in whose production r1 answers, by both processes."""
    site = copy_site(slow, policy='runtime = "process"')
    site.start(patrol=False)
    site.until(lambda: both(site, "r1"), "both processes")
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    return site


def first_of(site: Site, release: str) -> list[int]:
    return site.processes(f"flights-{release}-0.sock")


def flipped_and_killed(site: Site, load: Load, release: str, *words: str) -> Any:
    """Run a command, and kill the release's first process once it has answered a caller."""
    before = load.releases.get(release, 0)
    done: list[Any] = []
    command = threading.Thread(target=lambda: done.append(site.data(*words)))
    command.start()
    wait_until(
        lambda: load.releases.get(release, 0) > before, f"an answer of {release}", 60, every_s=0.002
    )
    (victim,) = first_of(site, release)
    os.kill(victim, signal.SIGKILL)
    command.join(60)
    (found,) = done
    site.until(lambda: first_of(site, release) not in ([], [victim]), "another first process")
    time.sleep(LOAD_S)
    return found


def both(site: Site, release: str) -> bool:
    """Whether every worker is connected to both processes of a release."""
    replicas = site.data("status", "flights")["replicas"]
    holds = [[h for h in replica["holds"] if h["release"] == release] for replica in replicas]
    return bool(holds) and all(hold and hold[0]["processes"] == 2 for hold in holds)


def test_the_first_process_is_killed_at_once_after_a_promotion_and_a_rollback(place: Site) -> None:
    """No request fails: the second was there before the flip, and the way back has both as well."""
    with place.load(rate=200) as load:
        flipped_and_killed(place, load, "r2", "promote", "flights", "v2", "--override", "test")
        place.until(lambda: both(place, "r1"), "both processes of the way back")
        done = flipped_and_killed(place, load, "r1", "rollback", "flights")
    assert load.failures == []
    assert min(load.releases["r1"], load.releases["r2"]) > 100
    assert done["receipt"]["cold"] == {}
    assert done["receipt"]["prepare_ms"] < 1000 * LOAD_S / 3


def test_a_candidate_gets_its_second_process_before_it_is_promoted(place: Site) -> None:
    """Its one process answered callers already; that is not enough for production."""
    with place.load(rate=200) as load:
        place.run("canary", "flights", "v2", "--weight", "10")
        assert place.processes("flights-r2-1.sock") == []
        words = ("promote", "flights", "--full", "--override", "test")
        before = threading.Thread(target=place.data, args=words)
        before.start()
        place.until(
            lambda: place.data("status", "flights")["production"]["release"] == "r2", "the flip"
        )
        (victim,) = first_of(place, "r2")
        os.kill(victim, signal.SIGKILL)
        before.join(60)
        time.sleep(LOAD_S)
    assert load.failures == []
    assert load.releases["r2"] > 100


def test_a_rollback_waits_for_no_second_process_where_the_first_is_warm(place: Site) -> None:
    """It died just before: production may be wrong now, and one process answers."""
    place.run("promote", "flights", "v2", "--override", "test")
    place.until(lambda: both(place, "r1"), "both processes of the way back")
    (second,) = place.processes("flights-r1-1.sock")
    os.kill(second, signal.SIGKILL)
    wait_until(lambda: not both(place, "r1"), "the workers to notice")
    done = place.run("rollback", "flights")
    assert "does not wait for a second process" in done.stderr
    assert place.served() == "r1"
    place.until(lambda: both(place, "r1"), "the second to come again")


def test_a_second_process_that_does_not_fit_refuses_the_promotion(place: Site) -> None:
    """Production would be one death away from an outage; the reason is said, and nothing moved."""
    place.run("register", "flights", place.model("three", "load_second", scale=5.0))
    refused = place.data("promote", "flights", "v3", "--override", "test", check=False)["error"]
    assert refused["code"] == "not_prepared"
    assert "1 of 2 processes ready, failed:" in refused["message"]
    assert place.served() == "r1"


@pytest.mark.parametrize("apart_s", [0.2, 1.0])
def test_requests_wait_when_both_processes_of_production_are_killed(
    place: Site, apart_s: float
) -> None:
    """The second is killed while the first is being loaded again.

    Not at the same instant: what both died under may be what they died of, and is not asked again.
    """
    place.until(lambda: both(place, "r1"), "both processes")
    with place.load(rate=40, within_s=30) as load:
        time.sleep(0.5)
        for victim in (place.processes("flights-r1-0.sock"), place.processes("flights-r1-1.sock")):
            os.kill(victim[0], signal.SIGKILL)
            time.sleep(apart_s)
        place.until(lambda: both(place, "r1"), "both processes again", within_s=60)
        time.sleep(0.5)
    assert load.failures == []
    assert load.ok > 40
