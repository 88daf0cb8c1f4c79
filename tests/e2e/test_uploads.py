"""Uploads to a running `kedge up`: control is killed in the middle, and the disk becomes full."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.place import KEDGE, Site
from e2e.test_full_disk import disk, fill

pytestmark = pytest.mark.soak


class Client:
    """The command line of another machine, with a token of CI."""

    def __init__(self, site: Site, folder: Path) -> None:
        self.site = site
        self.folder = folder
        folder.mkdir(parents=True)
        token = folder / "ci.token"
        made = site.data("token", "create", "--scope", "register", "--name", "ci")
        token.write_text(made["token"])
        token.chmod(0o600)
        server = f"http://127.0.0.1:{site.control_port}"
        self.env = {**site.env, "KEDGE_SERVER": server, "KEDGE_TOKEN_FILE": str(token)}

    def model(self, megabytes: int) -> None:
        """Write a model with weights of this size."""
        made = self.folder / "model"
        made.mkdir(exist_ok=True)
        (made / "behave.json").write_text('{"kind": "good"}')
        with (made / "weights.bin").open("wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(1 << 20))

    def start(self) -> subprocess.Popen[str]:
        """Register the model, and do not wait for it."""
        return subprocess.Popen(
            [*KEDGE, "register", "flights", "model", "--json"],
            cwd=self.folder,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def register(self, code: int = 0) -> Any:
        """Register the model; return what it printed."""
        process = self.start()
        shown, told = process.communicate(timeout=120)
        assert process.returncode == code, told
        return json.loads(shown)

    def roll_back(self) -> None:
        """Roll back over the API, as an operator elsewhere does."""
        token = self.site.root / ".kedge/admin-token"
        env = {**self.env, "KEDGE_TOKEN_FILE": str(token)}
        line = [*KEDGE, "rollback", "flights"]
        done = subprocess.run(line, cwd=self.folder, env=env, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def stored(site: Site) -> int:
    """Bytes of uploads that have arrived and are not complete."""
    parts = (site.root / ".kedge/uploads").glob("*/parts/*")
    return sum(part.stat().st_size for part in parts)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    root = tmp_path / "site"
    root.mkdir()
    made = Site(root)
    made.start()
    made.until(made.controlled, "control to serve")
    yield made
    made.end()


def test_control_and_the_client_are_killed_and_no_byte_is_lost(site: Site, tmp_path: Path) -> None:
    site.release()
    client = Client(site, tmp_path / "elsewhere")
    client.model(200)
    sending = client.start()
    site.until(lambda: stored(site) > 8 << 20, "the first bytes")
    (control,) = site.processes("\0control\0")
    os.kill(control, signal.SIGKILL)
    before = stored(site)
    assert 0 < before < 200 << 20
    site.until(lambda: stored(site) > before + (8 << 20), "the client to continue by itself")
    sending.kill()
    sending.wait()
    left = stored(site)
    found = client.register()
    assert left > before
    assert (found["version"], found["new"], found["flavour"]) == ("v3", True, "test")
    assert site.infer()[0] == 200
    assert client.register()["new"] is False


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_an_upload_that_fills_the_disk_is_refused_and_a_rollback_works(tmp_path: Path) -> None:
    with disk("ext4") as at:
        site = Site(at)
        try:
            site.start()
            site.release()
            site.run("promote", "flights", "v2", "--full", "--override", "a test")
            site.until(site.controlled, "control to serve")
            client = Client(site, tmp_path / "elsewhere")
            client.model(20)
            sending = client.start()
            site.until(lambda: stored(site) > 0, "the first bytes")
            sending.send_signal(signal.SIGSTOP)
            filler = fill(at)
            sending.send_signal(signal.SIGCONT)
            told = json.loads(sending.communicate(timeout=120)[0])
            assert (sending.returncode, told["error"]["code"]) == (4, "no_room")
            client.roll_back()
            filler.unlink()
            assert client.register()["version"] == "v3"
        finally:
            site.end()
