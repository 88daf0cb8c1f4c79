"""A disk without space: callers are answered, a rollback is written and acknowledged, nothing dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from e2e.place import Site

MEGABYTES = 100


@contextmanager
def disk(kind: str) -> Iterator[Path]:
    """A file system of 100 MB; ext4 makes blocks of 1 kB on one so small."""
    with TemporaryDirectory(prefix="kedge-disk-") as above:
        at = Path(above) / "disk"
        at.mkdir()
        if kind == "tmpfs":
            line = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(at)]
        else:
            image = Path(above) / "image"
            with image.open("wb") as file:
                file.truncate(MEGABYTES << 20)
            subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], check=True, capture_output=True)
            line = ["mount", "-o", "loop", str(image), str(at)]
        mounted = subprocess.run(line, capture_output=True, text=True, check=False)
        if mounted.returncode:
            pytest.skip(f"cannot mount {kind}: {mounted.stderr.strip()}")
        try:
            yield at
        finally:
            subprocess.run(["umount", "-l", str(at)], check=True)


def fill(at: Path) -> Path:
    """Take every byte, as another program does that does not stop."""
    filler = at / "filler"
    with filler.open("ab", buffering=0) as file:
        for block in (1 << 16, 1 << 9):
            try:
                while file.write(os.urandom(block)) == block:
                    pass
            except OSError:
                continue
    return filler


def standing(site: Site) -> list[str]:
    """The processes whose reserve is reached, as `kedge status` has it."""
    return [
        process["kind"]
        for process in site.data("status")[0]["processes"]
        for fault in process["faults"]
        if fault["place"] == "disk.reserve" and fault["standing"]
    ]


def limited(site: Site) -> int:
    return sum(
        process["limited"].get("disk_reserve", 0) for process in site.data("status")[0]["processes"]
    )


def receipt(site: Site) -> dict[str, float]:
    entries = site.data("history", site.endpoint, "--limit", "20")
    bodies = [e["event"]["body"] for e in entries if e["event"].get("kind") == "receipt"]
    return next(body for body in bodies if body["command"] == "rollback")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("kind", [pytest.param("tmpfs", marks=pytest.mark.soak), "ext4"])
def test_a_rollback_is_written_and_acknowledged_on_a_full_disk(kind: str) -> None:
    with disk(kind) as at:
        site = Site(at, policy="[endpoints.flights.log]\nsample = 100")
        try:
            _fill_and_roll_back(site, at)
        finally:
            site.end()


def _fill_and_roll_back(site: Site, at: Path) -> None:
    site.start()
    site.release()
    site.run("canary", "flights", "v2", "--weight", "20")
    with site.load(rate=100) as load:
        site.until(lambda: load.releases.get("r2"), "an answer of the candidate")
        time.sleep(3)
        before = {kind: site.processes(kind) for kind in ("control", "gateway-worker")}
        filler = fill(at)
        site.until(lambda: len(standing(site)) == 4, "every process to say that the disk is full")
        site.until(lambda: limited(site) > 0, "predictions that are not recorded to be counted")
        logs = {p: p.stat().st_size for p in (at / ".kedge/logs").iterdir()}
        site.run("rollback", "flights")
        found = receipt(site)
        assert len(found["acks"]) == 2  # type: ignore[arg-type]
        assert found["silent"] == []  # type: ignore[comparison-overlap]
        assert found["last_ack_ms"] < 5_000  # some 100 ms on a machine that does nothing else
        load.releases.clear()
        time.sleep(1)
        assert set(load.releases) == {"r1"}
        assert {kind: site.processes(kind) for kind in before} == before, "something died"

        worker = before["gateway-worker"][0]
        os.kill(worker, signal.SIGKILL)
        site.until(
            lambda: len(serving(site) - {worker}) == 2, "another worker to start on the full disk"
        )
        assert {p: p.stat().st_size for p in (at / ".kedge/logs").iterdir() if p in logs} == logs
        killed = list(load.failures)
        filler.unlink()
        site.until(lambda: not standing(site), "the reserve to be free again")
        spool = at / ".kedge/records/spool"
        site.until(lambda: any(f.stat().st_size for f in spool.iterdir()), "recording to go on")
    assert len(killed) <= 4, killed  # what the killed worker had under way
    assert load.failures == killed
    doctor = site.run("doctor", check=False)
    assert "ok   ledger chain" in doctor.stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
@pytest.mark.parametrize("kind", ["tmpfs", pytest.param("ext4", marks=pytest.mark.soak)])
def test_a_kedge_started_on_a_full_disk_serves_and_rolls_back(kind: str) -> None:
    """After a reboot, say: nothing is open, and the ballast is all that there is."""
    with disk(kind) as at:
        site = Site(at)
        try:
            site.start()
            site.release()
            site.run("promote", "flights", "v2", "--full", "--override", "a test")
            site.end()
            fill(at)
            site.start()
            site.until(lambda: site.infer()[0] == 200, "an answer on a full disk")
            site.until(lambda: len(serving(site)) == 2, "both workers to follow")
            site.run("rollback", "flights")
            assert len(receipt(site)["acks"]) == 2  # type: ignore[arg-type]
            assert site.served() == "r1"
        finally:
            site.end()


def serving(site: Site) -> set[int]:
    """The workers that say that they serve the row as it is."""
    found = json.loads(site.run("status", "--json").stdout)[0]
    return {r["pid"] for r in found["replicas"] if r["epoch"] == found["epoch"] and not r["silent"]}
