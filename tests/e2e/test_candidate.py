"""Whatever a candidate does, production answers, and it is counted against the candidate."""

from __future__ import annotations

import functools
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site
from kedge.engine.serving.pool import host_status

pytestmark = pytest.mark.e2e


def ask(
    site: Site, number: int, *, word: str = "boom", rows: int = 1
) -> tuple[int, dict[str, str], Any]:
    """Ask as caller `number`, with the word that triggers the candidate's fault."""
    inputs: dict[str, tuple[str, list[Any]]] = {
        "x": ("FP64", [1.0] * rows),
        "word": ("BYTES", [word] * rows),
    }
    return site.infer(inputs, headers={"kedge-entity": f"caller-{number}"})


def counts(site: Site, wanted: Callable[[Any], bool]) -> Any:
    """The status, once the workers have written what the test waits for."""

    def look() -> Any:
        found = site.data("status", "flights")
        return found if wanted(found) else None

    return site.until(look, "the counts to arrive", 15)


def production_only(site: Site) -> None:
    """Start it, with v1 in production."""
    site.start(patrol=False)
    site.run("register", "flights", site.model("one"))
    site.run("promote", "flights", "v1")


@pytest.fixture(scope="module")
def steady(share_site: Callable[..., Site]) -> Site:
    """A site that every test leaves as it was: v1 in production, and no candidate."""
    site = share_site(production_only, policy="memory_mb = 512")
    site.start(patrol=False)
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    return site


def registered(site: Site, kind: str, scale: float) -> str:
    """Register a model that fails so when it is asked for it; returns its version."""
    path = site.model(f"{kind}-{scale}", kind, scale=scale, trigger="boom")
    return str(site.data("register", "flights", path)["version"])


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("raise", "model_raised"),
        ("exit", "model_died"),
        ("hang", "model_late"),
        ("nan", "model_nonsense"),
        ("wrong_shape", "model_nonsense"),
        ("wrong_rows", "model_nonsense"),
        ("eat", None),  # dies of its limit, or raises MemoryError: either is the candidate's
    ],
)
def test_no_caller_sees_a_candidates_failure(steady: Site, kind: str, cause: str | None) -> None:
    """In a canary of 100 % every request is answered by production, and each failure is counted."""
    site = steady
    site.run("canary", "flights", registered(site, kind, 3.0), "--weight", "100")
    assert site.until(
        lambda: ask(site, 0, word="fine")[1]["kedge-arm"] == "candidate", "a healthy answer"
    )
    answers = [ask(site, number) for number in range(12)]
    assert {status for status, _, _ in answers} == {200}
    assert {head["kedge-release"] for _, head, _ in answers} == {"r1"}
    assert {head["kedge-reason"] for _, head, _ in answers} <= {"failover", "breaker_open"}
    found = counts(site, lambda status: status["canary"]["failovers"] >= 12)
    assert found["canary"]["failovers"] == 12
    causes = found["counts"]["failovers_by_cause"]
    if cause is not None:
        assert cause in causes
    site.run("rollback", "flights")
    assert ask(site, 1)[1]["kedge-release"] == "r1"


@pytest.mark.parametrize("kind", ["raise", "exit", "hang", "nan", "eat"])
def test_a_failing_shadow_is_dropped_and_counted_and_production_is_untouched(
    steady: Site, kind: str
) -> None:
    """Coverage falls, production does not notice."""
    site = steady
    site.run("shadow", "flights", registered(site, kind, 5.0))
    with site.load(rate=50) as load:
        for number in range(30):
            assert ask(site, number)[0] == 200
            time.sleep(0.02)
    assert load.failures == []

    def lost(shadow: Any) -> int:
        return int(shadow["dropped"] + shadow["timed_out"] + shadow["failed"])

    def whole(status: Any) -> bool:
        shadow = status["shadow"]
        return bool(
            shadow["requests"] >= 30 + load.ok
            and shadow["answered"] + lost(shadow) == shadow["requests"]
        )

    found = counts(site, whole)
    shadow = found["shadow"]
    assert lost(shadow) >= 3
    assert shadow["coverage"] < 1
    assert found["counts"]["errors"] == {}
    site.run("abort", "flights")


def test_a_shadow_answers_and_its_agreement_is_counted(site: Site) -> None:
    """Two models that disagree everywhere: every pair is seen, none agrees, coverage is whole."""
    site.run("shadow", "flights", "v2")
    for number in range(40):
        assert ask(site, number)[1]["kedge-release"] == "r1"
    found = counts(site, lambda status: status["shadow"]["answered"] >= 40)
    assert found["shadow"]["pairs"] == 40
    assert found["shadow"]["agreeing"] == 0
    assert found["shadow"]["coverage"] == 1.0


def test_a_sampled_shadow_gets_its_share(site: Site) -> None:
    """--sample 50 mirrors about half of the callers."""
    site.run("shadow", "flights", "v2", "--sample", "50")
    for number in range(200):
        ask(site, number)
    found = counts(site, lambda status: status["counts"]["requests"].get("production", 0) >= 200)
    assert 70 <= found["shadow"]["requests"] <= 130


def test_a_canary_serves_the_same_callers_always_and_more_with_a_larger_weight(site: Site) -> None:
    """Buckets are stable over workers and requests; a larger weight only adds callers."""

    def inside() -> set[int]:
        return {n for n in range(150) if ask(site, n, word="fine")[1]["kedge-arm"] == "candidate"}

    site.run("canary", "flights", "v2", "--weight", "20")
    first = inside()
    assert 10 <= len(first) <= 55
    assert inside() == first
    site.run("set-weight", "flights", "60")
    assert first < inside()


def test_callers_without_an_entity_are_split_at_random_and_counted(site: Site) -> None:
    """Never all to one arm, also when every request carries the same id."""
    site.run("canary", "flights", "v2", "--weight", "50")
    arms = [site.infer(id="same")[1]["kedge-arm"] for _ in range(60)]
    assert 10 <= arms.count("candidate") <= 50
    found = counts(site, lambda status: status["counts"]["keyless"] >= 60)
    assert found["counts"]["keyless"] == 60


def test_a_tester_reaches_the_candidate_by_header_and_by_path(site: Site) -> None:
    """Also in a shadow, where no caller does; a release that is not live is a 404."""
    site.run("shadow", "flights", "v2")
    assert site.infer(headers={"kedge-release": "r2", **site.tester})[1]["kedge-arm"] == "candidate"
    status, head, body = site.infer(path="/v2/models/flights/versions/2/infer", headers=site.tester)
    assert (status, head["kedge-reason"], body["model_version"]) == (200, "asked", "r2")
    assert site.infer(headers={"kedge-release": "r9", **site.tester})[0] == 404


def _two_loaded(site: Site, victim: int = 0) -> bool:
    """Whether two model processes have their model, neither of them the victim."""
    found = site.processes("adapters.process")
    try:
        lines = [Path(f"/proc/{pid}/cmdline").read_text().split("\0") for pid in found]
    except (OSError, ValueError):  # it ended in between
        return False
    started = [line for line in lines if "--socket" in line]  # one is between fork and exec
    told = [host_status(Path(line[line.index("--socket") + 1])) for line in started]
    loaded = {status.pid for status in told if status.state == "ready"}
    return len(found) == 2 and victim not in found and loaded == set(found)


def test_a_killed_model_process_of_production_fails_no_request(
    make_site: Callable[..., Site],
) -> None:
    """Production in a process has a second one beside it; both come back."""
    site = make_site(policy='runtime = "process"')
    site.start(patrol=False)
    site.release()
    site.until(functools.partial(_two_loaded, site), "two that have loaded")
    hosts = site.processes("adapters.process")
    time.sleep(1.5)
    with site.load(rate=200) as load:
        for victim in hosts:
            time.sleep(0.5)
            os.kill(victim, signal.SIGKILL)
            site.until(functools.partial(_two_loaded, site, victim), "a new one that has loaded")
            time.sleep(1.5)  # and both workers to have found it
    assert load.failures == []
    assert load.ok > 200


def test_a_crash_looping_candidate_is_started_ever_more_slowly(
    make_site: Callable[..., Site],
) -> None:
    """A candidate that dies at each request does not keep the host busy with starting it."""
    site = make_site()
    site.start(patrol=False)
    site.release(kind="exit", trigger="boom")
    site.run("canary", "flights", "v2", "--weight", "100")
    for number in range(100):
        assert ask(site, number)[0] == 200
        time.sleep(0.03)
    log = "".join(path.read_text() for path in (site.root / ".kedge/logs").glob("flights-r2*"))
    assert log.count("Traceback") == 0
    died = (site.root / "up.log").read_text().count('"supervisor.died"')
    assert 1 <= died <= 8


def test_a_candidate_that_cannot_be_loaded_is_refused_and_production_keeps_serving(
    make_site: Callable[..., Site],
) -> None:
    """One byte of its artifact changed: shadow is refused with the file's name."""
    site = make_site()
    site.start(patrol=False)
    site.release()
    (changed,) = [
        path
        for path in (site.root / ".kedge/artifacts").glob("*/files/behave.json")
        if b"3.0" in path.read_bytes()
    ]
    changed.chmod(0o644)
    changed.write_bytes(changed.read_bytes().replace(b"3.0", b"3.1"))
    with site.load(rate=100) as load:
        refused = site.data("shadow", "flights", "v2", check=False)["error"]
    assert refused["code"] == "not_prepared"
    assert "behave.json" in refused["message"]
    assert load.failures == []
    assert site.data("status", "flights")["stage"] == "settled"
    bad = [f for f in site.data("doctor", check=False)["findings"] if not f["ok"]]
    assert any("behave.json" in finding["detail"] for finding in bad)
    # An attempt that read the changed file would be the answer to the next command.
    site.until(lambda: not site.processes("flights-r2-"), "no attempt to be under way")
    changed.write_bytes(changed.read_bytes().replace(b"3.1", b"3.0"))
    assert site.data("shadow", "flights", "v2")["event"] == "shadow_started"


@pytest.mark.soak
def test_a_hung_candidate_that_is_no_longer_needed_is_ended(make_site: Callable[..., Site]) -> None:
    """It hears no SIGTERM while it hangs; after its time it is killed, and nothing is left of it."""
    site = make_site()
    site.start(patrol=False)
    site.release(kind="hang", trigger="boom")
    site.run("canary", "flights", "v2", "--weight", "100")
    assert ask(site, 1)[1]["kedge-reason"] == "failover"
    site.run("rollback", "flights")
    site.until(lambda: not site.processes("flights-r2-"), "the hung process to be gone", 45)
