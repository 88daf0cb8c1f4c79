"""The wheel as it is given away: the same bytes each time, whole, and at work outside of the repository."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from e2e.place import free_port
from support.waiting import wait_until

ROOT = Path(__file__).parents[2]
UV = os.environ.get("UV") or shutil.which("uv") or str(ROOT / ".tools" / "bin" / "uv")
"""`uv run`, with which make runs the tests, says where it is."""
pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(shutil.which(UV) is None, reason="needs uv, which make fetches"),
]
BARE = {"PATH": "/usr/bin:/bin", "HOME": "/nonexistent", "KEDGE_ACTOR": "tester"}
"""Nothing of this repository's environment: no PYTHONPATH, no virtual environment, no user."""


def uv(*words: str) -> None:
    """Run uv from its cache; from the index where that lacks something."""
    if subprocess.run(
        [UV, *words, "--offline"], cwd=ROOT, capture_output=True, check=False
    ).returncode:
        subprocess.run([UV, *words], cwd=ROOT, check=True)


def build(to: Path) -> Path:
    uv("build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(to))
    (wheel,) = to.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("dist"))


def test_the_wheel_is_whole_and_the_same_each_time(wheel: Path, tmp_path: Path) -> None:
    """Every file of the package that is tracked is in it, the demo's and the migrations' too, and no other."""
    assert build(tmp_path).read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if name.startswith("kedge/")}
    source = ROOT / "src"
    there = {
        path.relative_to(source).as_posix()
        for path in (source / "kedge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert there <= inside
    assert {"kedge/demo/kedge.toml", "kedge/demo/story.py", "kedge/py.typed"} <= inside


def test_an_unpacked_wheel_runs_without_the_repository(wheel: Path, tmp_path: Path) -> None:
    """With the libraries of this environment, and nothing of its working directory."""
    uv(
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--python",
        sys.executable,
        "--target",
        str(tmp_path / "lib"),
        str(wheel),
    )
    libraries = next(p for p in sys.path if p.endswith("site-packages"))
    code = "import kedge, sys; from kedge.__main__ import run; print(kedge.__file__); sys.argv[0] = 'kedge'; run()"
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, "--help"],
        cwd=tmp_path,
        check=True,
        capture_output=True,
        text=True,
        env={**BARE, "PYTHONPATH": f"{tmp_path / 'lib'}:{libraries}"},
    )
    assert done.stdout.startswith(str(tmp_path / "lib" / "kedge"))
    assert "Usage: " in done.stdout


class Installed:
    """A wheel in an environment of its own."""

    def __init__(self, root: Path, wheel: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.work.mkdir()
        venv = root / "venv"
        uv("venv", "--quiet", "--python", sys.executable, str(venv))
        wanted = root / "requirements.txt"
        uv(
            "export",
            "--quiet",
            "--frozen",
            "--no-dev",
            "--no-emit-project",
            "--extra",
            "sklearn",
            "-o",
            str(wanted),
        )
        python = str(venv / "bin" / "python")
        uv("pip", "install", "--quiet", "--python", python, "-r", str(wanted))
        uv("pip", "install", "--quiet", "--no-deps", "--python", python, str(wheel))
        self.python, self.kedge = python, str(venv / "bin" / "kedge")

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [self.kedge, *words],
            cwd=self.work,
            env=BARE,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def data(self, *words: str) -> dict[str, object]:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stderr
        found: dict[str, object] = json.loads(done.stdout)
        return found


@pytest.fixture
def installed(wheel: Path, tmp_path: Path) -> Installed:
    return Installed(tmp_path, wheel)


MODEL = """
import sys
import numpy as np, skops.io
from sklearn.linear_model import LogisticRegression
x = np.arange(40.0).reshape(20, 2)
skops.io.dump(LogisticRegression(C=float(sys.argv[1])).fit(x, np.arange(20) > 9), sys.argv[2])
"""


def get(port: int, path: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_from_init_to_rollback_with_the_wheel_alone(installed: Installed) -> None:
    port, control = free_port(), free_port()
    assert installed.run("init", "wine", "--port", str(port)).returncode == 0
    config = installed.work / "kedge.toml"
    text = config.read_text().replace(
        "[server]\n", f"[server]\ncontrol_port = {control}\nworkers = 1\n", 1
    )
    config.write_text(text.replace('audience = "customer"', 'audience = "internal"'))
    for number in ("1", "2"):
        path = installed.work / f"{number}.skops"
        subprocess.run([installed.python, "-c", MODEL, number, str(path)], env=BARE, check=True)
    with (installed.work / "up.log").open("wb") as log:
        up = subprocess.Popen(
            [installed.kedge, "up"], cwd=installed.work, env=BARE, stdout=log, stderr=log
        )
    try:
        wait_until(
            lambda: up.poll() is not None or get(port, "/v2/health/live") == 200, "an answer", 60
        )
        assert up.poll() is None, (installed.work / "up.log").read_text()
        assert installed.data("register", "wine", "1.skops")["version"] == "v1"
        assert installed.data("promote", "wine", "v1")["release"] == "r1"
        assert get(port, "/v2/models/wine/ready") == 200
        installed.data("register", "wine", "2.skops")
        installed.data("canary", "wine", "v2", "--weight", "50")
        assert installed.data("rollback", "wine")["left"] == "r2"
        assert installed.data("status", "wine")["stage"] == "settled"
        refused = installed.run("demo")
        assert (refused.returncode, "needs the extra demo" in refused.stderr) == (1, True)
        up.send_signal(signal.SIGTERM)
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.wait()
