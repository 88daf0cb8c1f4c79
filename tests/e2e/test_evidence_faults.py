"""Observing parts may fail or get invalid data: callers notice nothing, and no verdict passes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.place import Site

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'shadow = {window = "2s", min_pairs = 200, min_pairs_per_segment = 50}\n'
    "log = {sample = 100}\n"
)
SMALL_MB = 3


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path], None]]:
    """Puts a file system of a few megabytes at a path; needs to be root."""
    mounted: list[Path] = []

    def mount(path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={SMALL_MB}m", "tmpfs", str(path)],
            capture_output=True,
            check=False,
        )
        if done.returncode:
            pytest.skip(f"no file system can be mounted here: {done.stderr.decode()}")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=False)


def evidence(site: Site) -> Any:
    return site.data("evidence", site.endpoint)


def test_a_full_disk_under_the_evidence_affects_only_the_verdict(
    make_site: Callable[..., Site], small_disk: Callable[[Path], None]
) -> None:
    """Evidence and records lie on a disk of their own, and it is full: production goes on."""
    site = make_site(policy=POLICY)
    parts = [site.root / ".kedge" / name for name in ("evidence", "records")]
    for part in parts:
        small_disk(part)
    site.start()
    site.release(scale=2.001)
    with site.load(rate=200) as load:
        site.run("shadow", "flights", "v2")
        site.until(lambda: evidence(site)["units"][1] > 0, "the first pairs", 30)
        for part in parts:
            _fill(part / "ballast")
        stale = site.until(
            lambda: (e := evidence(site))["decision"]["code"] in ("unread", "unwritten") and e,
            "the evidence to be called broken",
            60,
        )
        assert stale["decision"]["verdict"] == "broken input"
        answered = load.ok
        site.until(lambda: load.ok > answered + 200, "callers to be answered all along", 30)
        for part in parts:
            (part / "ballast").unlink()
        before = stale["units"][1]
        healed = site.until(
            lambda: (
                (e := evidence(site))["units"][1] > before + 50
                and e["decision"]["verdict"] != "broken input"
                and e
            ),
            "evidence to go on, and to be called sound",
            60,
        )
        assert healed["decision"]["code"] not in ("unread", "unwritten")
    assert load.failures == []


def _fill(path: Path) -> None:
    """Every byte that is left."""
    block = b"\0" * 4096
    with path.open("wb", buffering=0) as ballast:
        try:
            while True:
                ballast.write(block)
        except OSError:
            return


@pytest.mark.parametrize(
    "values",
    [100_000, pytest.param(1_000_000, marks=[pytest.mark.soak, pytest.mark.timeout(900)])],
)
def test_a_segment_field_with_a_million_values_grows_nothing(
    make_site: Callable[..., Site], values: int
) -> None:
    """200 values are told apart, the rest is `other`; what comes faster than it can be counted is
    dropped, and told: memory and disk stay where they were."""
    site = make_site(policy=POLICY + 'segments = ["word"]\n', workers=1)
    site.start()
    site.release(scale=2.001)
    site.run("shadow", "flights", "v2")
    (worker,) = _workers(site)
    _ask(site, "warm", 20)
    began = _memory_mb(worker)
    _ask(site, "w", values // 1_000)

    def counted() -> Any:
        """All that was asked is `other`, or was dropped and said to be."""
        found = evidence(site)
        cover = found["coverage"]
        return found if cover["other"] + 1_000 * cover["lost"] >= values // 2 else None

    found = site.until(counted, "counts", 60)
    assert len(found["segments"]) <= 10
    assert _memory_mb(worker) - began < 150
    assert _peak_mb(worker) - began < 250
    store = site.root / ".kedge" / "evidence" / "evidence.db"
    assert store.stat().st_size < 30e6


def _ask(site: Site, word: str, requests: int) -> None:
    for number in range(requests):
        words = [f"{word}{number}-{row}" for row in range(1_000)]
        assert site.infer({"x": ("FP64", [1.0] * 1_000), "word": ("BYTES", words)})[0] == 200


def _workers(site: Site) -> list[int]:
    return [replica["pid"] for replica in site.data("status", "flights")["replicas"]]


def _memory_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _peak_mb(pid: int) -> float:
    """The most memory that the process ever held."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


def test_a_flood_of_batches_does_not_delay_a_rollback(make_site: Callable[..., Site]) -> None:
    """There are seconds of counting to do when the rollback comes. Its acks do not wait for it."""
    site = make_site(policy=POLICY + 'segments = ["word"]\n', workers=1)
    site.start(patrol=False)
    site.release(scale=2.001)
    acks = []
    for flood in range(3):
        # The release that was left is mirrored, so that each row is a pair.
        site.run("promote", "flights", "v2", "--override", "test")
        _ask(site, f"f{flood}-", 100)
        receipt = site.data("rollback", "flights")["receipt"]
        acks.append(receipt["last_ack_ms"])
    # Counting a hundred thousand rows takes a second and more; an ack, hundredths of one.
    assert min(acks) < 300, acks
    assert max(acks) < 1_000, acks


FIVE = {
    "guardrails = {erors = {worse_by = 0.5}}": "guardrails.erors",
    'shadow = {window = "a week"}': "shadow.window",
    "canary = {steps = [5, 1]}": "canary.steps",
    "log = {sample = 200}": "log.sample",
    'audience = "everybody"': "audience",
}


def test_a_policy_with_five_mistakes_names_all_five_and_changes_nothing(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=POLICY)
    site.start(patrol=False)
    site.release()
    running = site.data("status", "flights")["policy"]
    lines = "\n".join(FIVE)
    with site.load() as load:
        (site.root / "kedge.toml").write_text(
            f"[server]\nport = {site.port}\n[endpoints.flights]\n{lines}\n"
        )
        done = site.run("apply", check=False)
        assert done.returncode == 2
        assert [place for place in FIVE.values() if place not in done.stderr] == []
        answered = load.ok
        site.until(lambda: load.ok > answered + 50, "callers to be answered", 30)
        status = site.data("status", "flights")
        assert status["policy"] == running
    assert load.failures == []
