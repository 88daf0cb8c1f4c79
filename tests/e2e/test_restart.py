"""Production answers while its processes are stopped, started and replaced."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import kedge
from e2e.place import KEDGE, Site, free_port
from kedge.runtime.paths import RUN_DIR

pytestmark = pytest.mark.e2e

TWO = """
[endpoints.other]
audience = "internal"
"""


class Strangers:
    """Callers that open a connection for each request, as fast as they are answered."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.ok = 0
        self.failures: list[str] = []
        self.ending = threading.Event()
        self.threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(2)]

    def _ask(self) -> None:
        raw = json.dumps(
            {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [1.0]}]}
        ).encode()
        while not self.ending.wait(0.02):
            try:
                status, _, _ = self.site.request("POST", "/v2/models/flights/infer", raw)
                if status == 200:
                    self.ok += 1
                else:
                    self.failures.append(f"HTTP {status}")
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def strangers(site: Site) -> Iterator[Strangers]:
    asking = Strangers(site)
    for thread in asking.threads:
        thread.start()
    try:
        yield asking
    finally:
        asking.ending.set()
        for thread in asking.threads:
            thread.join(10)


def folders(site: Site) -> list[Path]:
    return [path for path in (site.root / ".kedge" / RUN_DIR).iterdir() if path.is_dir()]


def test_one_endpoint_that_cannot_be_loaded_makes_no_other_unready(
    make_site: Callable[..., Site],
) -> None:
    """A load balancer that asks for readiness leaves the host in, and no caller waits for the load."""
    site = make_site(policy=TWO)
    site.start(patrol=False)
    site.release()
    site.run("register", "other", site.model("third", scale=5.0))
    site.run("promote", "other", "v1")
    digest = site.data("versions", "other")[0]["digest"].removeprefix("sha256:")
    assert site.stop() == 0
    for path in (site.root / ".kedge/artifacts" / digest / "files").iterdir():
        path.chmod(0o600)
        path.write_bytes(b"{}")
    began = time.monotonic()
    site.start(patrol=False)
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    assert time.monotonic() - began < 20
    assert site.request("GET", "/v2/health/ready")[0] == 200
    assert site.request("GET", "/v2/models/flights/ready")[0] == 200
    assert site.request("GET", "/v2/models/other/ready")[0] == 404


def test_a_restart_fails_no_request_and_keeps_the_process(site: Site) -> None:
    """Several in a row, with a canary under way, callers on kept and on new connections."""
    assert site.up is not None
    site.run("canary", "flights", "v2", "--weight", "20")
    pid = site.up.pid
    began = Path(f"/proc/{pid}/stat").read_text().split()[21]
    with site.load(rate=200) as kept, strangers(site) as new:
        for _ in range(3):
            workers = set(site.processes("gateway-worker"))
            done = site.data("restart")
            assert (done["pid"], done["workers"]) == (pid, 2)
            assert len(set(site.processes("gateway-worker")) - workers) == 2
    assert (kept.failures, new.failures) == ([], [])
    assert kept.ok > 200
    assert new.ok > 200
    assert kept.releases["r2"] > 0
    assert Path(f"/proc/{pid}/stat").read_text().split()[21] == began
    site.until(lambda: len(site.processes("gateway-worker")) == 2, "those before them to end", 60)
    site.until(lambda: len(folders(site)) == 1, "their folders to go", 30)
    assert site.stop() == 0
    assert site.processes("kedge") == []


def own_code(site: Site) -> Path:
    """Run this site from a copy of the source, which can become a new version of it."""
    code = site.root / "code"
    shutil.copytree(Path(kedge.__file__).parent, code / "kedge")
    site.env["PYTHONPATH"] = f"{code}{os.pathsep}{site.env['PYTHONPATH']}"
    return code / "kedge"


def test_new_code_answers_after_a_restart_and_broken_code_never_does(
    make_site: Callable[..., Site],
) -> None:
    """What the trial finds is refused; what it cannot find leaves the old workers serving."""
    site = make_site()
    code = own_code(site)
    site.start(patrol=False)
    site.release()
    assert site.up is not None
    workers = site.processes("gateway-worker")
    app, running = code / "gateway/http/app.py", code / "runtime/supervisor.py"
    good = running.read_text()
    with site.load(rate=50) as load:
        running.write_text("def broken(:\n")
        refused = site.data("restart", check=False)["error"]
        assert refused["code"] == "restart_refused"
        assert "SyntaxError" in refused["message"]
        assert site.processes("gateway-worker") == workers

        running.write_text(
            f"{good}\n\ndef run_supervisor(*_, **__):\n    raise OSError('not today')\n"
        )
        failed = site.run("restart", check=False)
        assert failed.returncode == 3
        assert "not today" in failed.stderr
        assert site.processes("gateway-worker") == workers
        assert site.up.poll() is None

        running.write_text(good)
        app.write_text(app.read_text().replace('"name": "kedge"', '"name": "kedge, newer"'))
        done = site.until(lambda: site.run("restart", check=False).returncode == 0, "it to recover")
        assert done
        site.until(lambda: b"newer" in site.request("GET", "/v2")[2], "new code to answer")
    assert load.failures == []
    assert site.stop() == 0
    assert site.processes("kedge") == []


def test_a_stop_is_obeyed_by_an_image_that_cannot_start(make_site: Callable[..., Site]) -> None:
    """It has no settings, and still ends its workers in order."""
    site = make_site()
    code = own_code(site)
    site.start(patrol=False)
    site.release()
    running = code / "runtime/supervisor.py"
    running.write_text(
        f"{running.read_text()}\n\ndef run_supervisor(*_, **__):\n    raise OSError('not today')\n"
    )
    assert site.run("restart", check=False).returncode == 3
    assert site.up is not None
    site.up.terminate()
    assert site.up.wait(20) == 1
    site.until(lambda: site.processes("kedge") == [], "nothing to run", 10)


def test_what_kedge_toml_says_applies_or_is_refused_and_never_breaks_what_runs(site: Site) -> None:
    """Workers and policies apply; a socket that would move and a file with faults are refused."""
    config = site.root / "kedge.toml"
    good = config.read_text()
    workers = site.processes("gateway-worker")
    for text, word in (
        (good.replace("workers = 2", "workers = many"), "kedge.toml"),
        (good.replace(f"port = {site.port}\n", f"port = {free_port()}\n", 1), "socket"),
        (f"state_dir = 'other'\n{good}".replace("[server]\n", "[server]\nworkers = 0\n"), ""),
    ):
        config.write_text(text)
        refused = site.run("restart", check=False)
        assert refused.returncode == 1, refused.stderr
        assert word in refused.stderr
        assert site.processes("gateway-worker") == workers
    site.until(
        lambda: "supervisor.restart" in site.run("status", "flights").stdout, "status to say so"
    )
    config.write_text(good.replace("workers = 2", "workers = 3"))
    with site.load(rate=100) as load:
        assert site.data("restart")["workers"] == 3
        assert len(set(site.processes("gateway-worker")) - set(workers)) == 3
    assert load.failures == []


def test_new_workers_that_cannot_load_a_model_relieve_no_old_one(site: Site) -> None:
    """They stay closed, so the old ones answer; once fixed, they take over."""
    digest = site.data("versions", "flights")[0]["digest"].removeprefix("sha256:")
    (path,) = (site.root / ".kedge/artifacts" / digest / "files").iterdir()
    good = path.read_bytes()
    workers = set(site.processes("gateway-worker"))
    path.chmod(0o600)
    with site.load(rate=100) as load:
        path.write_bytes(b"{}")
        unconfirmed = site.run("restart", "--within", "12s", check=False)
        assert unconfirmed.returncode == 3
        assert workers <= set(site.processes("gateway-worker"))
        path.write_bytes(good)
        site.run("restart")
        site.until(
            lambda: len(now := site.processes("gateway-worker")) == 2 and not workers & set(now),
            "those of both images before to end",
            60,
        )
    assert load.failures == []


def test_without_a_running_kedge_up_a_restart_is_refused(make_site: Callable[..., Site]) -> None:
    """And beside a running one `kedge up` is, with the command that was meant."""
    site = make_site()
    site.run("init", "flights")
    assert site.data("restart", check=False)["error"]["code"] == "not_running"
    site.start(patrol=False)
    beside = site.run("up", check=False)
    assert beside.returncode == 1
    assert "kedge restart" in beside.stderr
    assert site.stop() == 0
    assert "kedge restart" in (site.root / "up.log").read_text()
    assert site.data("restart", check=False)["error"]["code"] == "not_running"


MANAGER = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:])
signal.signal(signal.SIGTERM, lambda *_: child.terminate())
print(child.pid, flush=True)
code = child.wait()
print("ended with", code, flush=True)
sys.exit(code)
"""


def test_a_process_manager_sees_one_process_that_never_ended(
    make_site: Callable[..., Site],
) -> None:
    """Same process id, same cgroup; its SIGTERM ends everything with code 0."""
    site = make_site()
    manager = subprocess.Popen(
        [
            sys.executable,
            "-c",
            MANAGER,
            *KEDGE,
            "--config",
            str(site.root / "kedge.toml"),
            "gateway",
        ],
        cwd=site.root,
        env=site.env,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert manager.stdout is not None
    pid = int(manager.stdout.readline())
    site.until(lambda: site.answers("/v2/health/live"), "the gateway to answer")
    site.release()
    group = Path(f"/proc/{pid}/cgroup").read_text()
    for _ in range(2):
        assert site.data("restart")["pid"] == pid
    assert Path(f"/proc/{pid}/cgroup").read_text() == group
    assert site.infer()[0] == 200
    manager.terminate()
    assert manager.stdout.readline() == "ended with 0\n"
    assert manager.wait(30) == 0
    site.until(lambda: site.processes("kedge") == [], "nothing to be left", 10)


def inside(pid: int, *words: str, site: Site) -> subprocess.CompletedProcess[str]:
    """Run a command in the process id namespace of another process."""
    return subprocess.run(
        ["nsenter", "--target", str(pid), "--pid", "--mount", "--wd=" + str(site.root), *words],
        check=False,
        env=site.env,
        capture_output=True,
        text=True,
        timeout=60,
    )


def zombies_of(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] == "Z" and int(fields[1]) == pid:
                found.append(int(path.parent.name))
    return found


@pytest.mark.soak
def test_process_1_of_a_namespace_reaps_restarts_and_ends_in_time(
    make_site: Callable[..., Site],
) -> None:
    """As in a container: orphans are waited for, and SIGTERM answers what it was asked."""
    own = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if subprocess.run([*own, "true"], check=False, capture_output=True).returncode:
        pytest.skip("this user may not make process id namespaces")
    site = make_site(workers=1)
    log = (site.root / "up.log").open("ab")
    line = [*own, *KEDGE, "--config", str(site.root / "kedge.toml"), "gateway"]
    site.up = subprocess.Popen(line, cwd=site.root, env=site.env, stdout=log, stderr=log)
    site.until(lambda: site.answers("/v2/health/live"), "the gateway to answer")
    slow = site.model("slow", sleep_s=0.4)
    site.run("register", "flights", slow)
    site.run("promote", "flights", "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    (first,) = (
        int(word)
        for word in Path(f"/proc/{site.up.pid}/task/{site.up.pid}/children").read_text().split()
    )

    assert inside(first, "sh", "-c", "(sleep 0.2 &) ; (exit 3 &)", site=site).returncode == 0
    # From outside its number is another process's, and nothing is sent to that.
    assert site.data("restart", check=False)["error"]["code"] == "not_asked"
    restarted = inside(first, *KEDGE, "restart", "--json", site=site)
    assert restarted.returncode == 0, restarted.stderr
    assert json.loads(restarted.stdout)["pid"] == 1
    site.until(lambda: zombies_of(first) == [], "everything to be reaped", 10)

    with ThreadPoolExecutor(8) as callers:
        asked = [callers.submit(site.infer) for _ in range(8)]
        time.sleep(0.2)
        os.kill(first, signal.SIGTERM)
        began = time.monotonic()
        assert [future.result()[0] for future in asked] == [200] * 8
        assert site.up.wait(30) == 0
    assert time.monotonic() - began < 15


def test_a_stop_in_the_middle_of_a_restart_ends_both_images(site: Site) -> None:
    """However far it has come: nothing is left, and no request was cut off before."""
    assert site.up is not None
    for pause_s in (0.2, 1.5, 3.0):
        asking = site.spawn("restart")
        time.sleep(pause_s)
        site.up.terminate()
        assert site.up.wait(40) == 0
        asking.wait(30)
        site.until(lambda: site.processes("kedge") == [], "nothing to run", 10)
        site.start(patrol=False)
        site.until(lambda: site.answers("/v2/models/flights/ready"), "it to serve")


@pytest.mark.soak  # its time is spent waiting; the suite has a quarter of an hour
def test_an_image_that_was_never_ready_is_not_kept_beside_the_next(site: Site) -> None:
    """Restarts that do not come to an end do not fill the memory with workers."""
    digest = site.data("versions", "flights")[0]["digest"].removeprefix("sha256:")
    (path,) = (site.root / ".kedge/artifacts" / digest / "files").iterdir()
    good = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(b"{}")
    with site.load(rate=50) as load:
        for _ in range(3):
            assert site.run("restart", "--within", "12s", check=False).returncode == 3
        site.until(lambda: len(site.processes("gateway-worker")) == 4, "two images to be left", 20)
        path.write_bytes(good)
        site.run("restart")
    assert load.failures == []
