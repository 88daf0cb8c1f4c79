"""A pin on the disk: what is flushed, in which order."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from kedge.core.release.commands import Promote, Rollback
from kedge.engine.pins import HostDisk
from kedge.testing.samples import AT, endpoint, release, run

TWO = run(endpoint(release(1), release(2)), Promote(1), Promote(2, override="a test"))


def test_a_pin_is_flushed_with_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a power cut ends a rollback that an operator was told of."""
    disk = HostDisk(tmp_path)
    disk.remember("w0", TWO)
    flushed: dict[str, list[str]] = {}
    flush = os.fsync

    def fsync(handle: int) -> None:
        path = Path(f"/proc/self/fd/{handle}").readlink()
        flushed[path.name] = [one.name for one in path.iterdir()] if path.is_dir() else []
        flush(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    disk.pin("flights", Rollback(), by="ada", reason="it burns", at=AT)
    assert list(flushed) == [f".flights.json.{os.getpid()}", "pins"]
    assert flushed["pins"] == ["flights.json"]
