"""The patrol acts by itself, once, and whatever happens to it; a human's word stands above."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from e2e.place import Site
from kedge.engine.recording.segments import AT_ONCE

pytestmark = pytest.mark.e2e

BINARY = 'output = {kind = "score", score = "score", tolerance = 0.5}\n'
QUICK = BINARY + (
    'canary = {steps = [20, 50], dwell = "1s", on_pass = "promote"}\n'
    'shadow = {window = "2s", min_pairs = 200, min_pairs_per_segment = 50, on_pass = "ask"}\n'
)


def told(site: Site, kind: str | None = None) -> list[dict[str, Any]]:
    """What the patrol wrote, oldest first: receipts, and what it warns of, are left out."""
    entries = [
        e for e in site.data("history", site.endpoint, "--limit", "300") if e["actor"] == "patrol"
    ]
    named = [{**e["event"], "kind": e["event"].get("kind") or e["event"]["event"]} for e in entries]
    aside = ("receipt", "readiness", "runbook")
    return [e for e in reversed(named) if e["kind"] not in aside and kind in (None, e["kind"])]


def kinds(site: Site) -> list[str]:
    return [e["kind"] for e in told(site)]


def evidence(site: Site) -> Any:
    return site.data("evidence", site.endpoint)


def stage(site: Site) -> str:
    return str(site.data("status", site.endpoint)["stage"])


def settled(site: Site, within_s: float = 60.0) -> None:
    site.until(lambda: stage(site) == "settled", "the patrol to end the rollout", within_s)


def test_a_canary_that_fails_is_rolled_back_automatically(make_site: Callable[..., Site]) -> None:
    """5 % of its requests fail, which production answers: no caller sees one, and it is gone."""
    site = make_site(policy=QUICK)
    site.start()
    site.release(kind="raise", trigger="boom")
    with site.load(rate=200, boom=20) as load:
        site.run("canary", "flights", "v2", "--weight", "20")
        settled(site)
    assert load.failures == []
    assert kinds(site) == ["candidate_rolled_back"]
    seen = told(site)[0]["evidence"]
    assert (seen["code"], seen["overall"]["verdict"]) == ("guardrail", "fail")
    assert site.served() == "r1"


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_healthy_shadow_is_certified_and_promoted(make_site: Callable[..., Site]) -> None:
    """By 5,300 pairs without a failure: the proof that fewer than one in a thousand fails."""
    site = make_site(policy=QUICK.replace('"ask"', '"promote"'))
    site.start()
    site.release(scale=2.001)
    with site.load(rate=500, connections=8) as load:
        site.run("shadow", "flights", "v2")
        site.until(lambda: evidence(site)["units"][1] > 0, "the first pairs", 30)
        found = evidence(site)
        settled(site, 400)
    assert found["agreement"]["raw"] == 1.0
    assert load.failures == []
    assert kinds(site) == ["shadow_passed", "promoted"]
    assert site.served() == "r2"


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_canary_walks_to_production_by_proof(make_site: Callable[..., Site]) -> None:
    site = make_site(policy=QUICK)
    site.start()
    site.release(scale=2.001)
    with site.load(rate=400, connections=8) as load:
        site.run("canary", "flights", "v2", "--auto")
        settled(site, 400)
    assert load.failures == []
    assert kinds(site) == ["weight_set", "promoted"]
    assert site.served() == "r2"


def test_a_frozen_endpoint_is_only_talked_about_and_a_human_still_acts(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=QUICK)
    site.start()
    site.release(kind="raise", trigger="boom")
    site.run("freeze", "flights", "--reason", "an incident elsewhere")
    with site.load(rate=200, boom=10):
        site.run("canary", "flights", "v2", "--weight", "20")
        noted = site.until(lambda: told(site, "verdict"), "the patrol's note", 60)
        assert noted[0]["body"]["code"] == "frozen"
        assert stage(site) == "canary"
        site.run("rollback", "flights")
    assert stage(site) == "settled"
    site.run("thaw", "flights")


@pytest.mark.soak
def test_a_patrol_killed_at_any_instant_acts_once(make_site: Callable[..., Site]) -> None:
    """Killed every second or so while the candidate fails: one rollback, and it does come."""
    site = make_site(policy=QUICK)
    site.start()
    site.release(kind="raise", trigger="boom")
    with site.load(rate=200, boom=20) as load:
        site.run("canary", "flights", "v2", "--weight", "20")
        end = time.monotonic() + 90
        pause = 0.3
        while stage(site) != "settled":
            assert time.monotonic() < end
            for pid in site.processes("\0control"):
                os.kill(pid, signal.SIGKILL)
            pause += 0.7  # so that every part of its work is hit, and it gets further each time
            time.sleep(pause)
    assert load.failures == []
    assert kinds(site).count("candidate_rolled_back") == 1
    assert site.served() == "r1"


@pytest.mark.soak
def test_a_second_patrol_waits_and_takes_over(make_site: Callable[..., Site]) -> None:
    """The lock is the kernel's: it is free the moment its holder is dead."""
    site = make_site(policy=QUICK)
    site.start(patrol=False)
    site.release(kind="raise", trigger="boom")
    one, two = site.spawn("control", "--port", "0"), site.spawn("control", "--port", "0")
    with site.load(rate=200, boom=20):
        site.until((site.root / ".kedge" / "patrol.lock").exists, "a patrol")
        one.kill()
        one.wait()
        site.run("canary", "flights", "v2", "--weight", "20")
        settled(site)
    two.kill()
    assert kinds(site) == ["candidate_rolled_back"]


def test_without_an_evidence_store_callers_notice_nothing_and_no_verdict_passes(
    make_site: Callable[..., Site],
) -> None:
    """Gone under their feet: it is made again, what was known is lost, nothing is proven by that."""
    site = make_site(policy=QUICK)
    site.start()
    site.release(scale=2.001)
    with site.load(rate=200) as load:
        site.run("shadow", "flights", "v2")
        site.until(lambda: evidence(site)["units"][1] > 0, "the first pairs", 30)
        for path in (site.root / ".kedge" / "evidence").glob("evidence.db*"):
            path.unlink()
        again = site.until(
            lambda: (e := evidence(site))["units"][1] > 0 and e, "pairs from the beginning", 60
        )
    assert load.failures == []
    assert again["decision"]["verdict"] in ("inconclusive", "broken input"), (
        "nothing is proven by it"
    )


def test_a_segment_with_a_million_values_costs_nothing(
    make_site: Callable[..., Site],
) -> None:
    """Values beyond the bound are one segment, counted."""
    site = make_site(policy=QUICK + 'segments = ["word"]\n', workers=1)
    site.start()
    site.release(scale=2.001)
    site.run("shadow", "flights", "v2")
    for number in range(20):
        words = [f"w{number}-{row}" for row in range(100)]
        site.infer({"x": ("FP64", [1.0] * 100), "word": ("BYTES", words)})
    beyond = 20 * 100 - AT_ONCE
    found = site.until(
        lambda: (e := evidence(site))["coverage"]["other"] >= beyond and e, "all counts", 15
    )
    assert found["coverage"]["other"] == beyond
    assert len(found["segments"]) <= 10


def test_a_share_of_the_callers_stays_on_the_release_that_was_left(
    make_site: Callable[..., Site],
) -> None:
    """Asked for by policy: seen in the answers, judged by arms, and ended by another policy."""
    site = make_site(policy=QUICK.replace("steps", "holdback = 30, steps"))
    site.start()
    site.release(scale=2.001)
    site.run("promote", "flights", "v2", "--override", "a test")

    def arms() -> set[tuple[str, str]]:
        found = [site.infer(headers={"kedge-entity": f"N{n}"})[1] for n in range(60)]
        return {(f["kedge-arm"], f["kedge-reason"]) for f in found}

    both = {("production", "production"), ("previous", "held_back")}
    site.until(lambda: arms() == both, "both arms", 30)
    with site.load(rate=200) as load:
        found = site.until(lambda: (e := evidence(site))["units"][0] > 50 and e, "units", 30)
        assert (found["paired"], found["holdback"], found["production"]) == (False, 30.0, "r1")
        config = site.root / "kedge.toml"
        config.write_text(config.read_text().replace("holdback = 30", "holdback = 0"))
        site.run("apply")
        site.until(lambda: arms() == {("production", "production")}, "one arm", 30)
    assert load.failures == []


OWN = """
def alike(ours, theirs):
    return [abs(a - b) < 1.0 for a, b in zip(ours["score"], theirs["score"])]
"""


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
def test_cost_noise_and_a_comparison_of_ones_own_are_in_the_evidence(
    make_site: Callable[..., Site],
) -> None:
    """By the real processes: prices by version, production asked twice, a user's function."""
    site = make_site(
        policy=(
            'output = {kind = "custom", function = "own:alike"}\n'
            "cost = {per_call = 0.5, versions = {v2 = {per_call = 2.0}}}\n"
            "guardrails = {cost = {worse_by = 0.1}}\nshadow = {noise = 50}\n"
        )
    )
    site.env["PYTHONPATH"] = f"{site.root}{os.pathsep}{site.env.get('PYTHONPATH', '')}"
    (site.root / "own.py").write_text(OWN)
    site.start()
    site.release(scale=2.001)
    with site.load(rate=200) as load:
        site.run("shadow", "flights", "v2")
        found = site.until(
            lambda: (e := evidence(site))["decision"]["code"] == "guardrail" and e, "a verdict", 60
        )
    assert load.failures == []
    cost = found["cost"]
    assert (cost["currency"], cost["per_inference"]) == ("USD", [0.5, 2.0])
    assert cost["cap"] == 1.1, "twice production's price, dearer by the margin"
    assert cost["at_cap"] == [0, cost["units"][1]]
    assert "dearer" in found["decision"]["reason"]
    assert found["agreement"]["raw"] == 1.0
    noise = found["agreement"]["noise"]
    assert noise["pairs"] > 20
    assert noise["disagreement"] == 0.0


def test_a_comparison_that_cannot_be_imported_is_refused_by_apply(
    make_site: Callable[..., Site],
) -> None:
    """Before it is in force: a policy whose pairs all disagree would be useless."""
    site = make_site()
    site.start(patrol=False)
    config = site.root / "kedge.toml"
    was = config.read_text()
    config.write_text(was + 'output = {kind = "custom", function = "absent:alike"}\n')
    answered = site.data("apply", check=False)
    assert answered["error"]["code"] == "bad_config"
    assert "absent:alike" in answered["error"]["message"]
