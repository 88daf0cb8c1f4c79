"""Other model servers with the same model, where they are installed: MLServer, BentoML, Ray Serve.

PEERS_HOME names a folder with a virtual environment each: v-mlserver (mlserver, mlserver-sklearn),
v-bentoml (bentoml), v-ray (ray[serve]), each with scikit-learn and joblib. One worker, one CPU,
each asked in its own protocol for one row of the same model.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO

import material
from common import BENCH, SERVER_CPU, alive, on, talk, tree
from kedge_site import environment, post, until
from speed import EVERY, Target

from kedge.demo.processes import free_port

UP_S = 240.0
STOP_S = 15.0
APPS = BENCH / "peers"
QUIET_ENV = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "DO_NOT_TRACK": "1",
    "BENTOML_DO_NOT_TRACK": "True",
    "RAY_USAGE_STATS_ENABLED": "0",
}


def installed() -> tuple[list[Callable[[], AbstractContextManager[Target]]], dict[str, str]]:
    """How to start each peer that is there; and which are not, and why."""
    home = os.environ.get("PEERS_HOME")
    found: list[Callable[[], AbstractContextManager[Target]]] = []
    absent: dict[str, str] = {}
    for name, start in (("mlserver", mlserver), ("bentoml", bentoml), ("ray", ray)):
        if home is None:
            absent[name] = "PEERS_HOME is not set"
        elif not (Path(home) / f"v-{name}" / "bin" / "python").exists():
            absent[name] = f"PEERS_HOME has no v-{name}"
        else:
            prepared = functools.partial(start, Path(home).absolute() / f"v-{name}" / "bin")
            found.append(functools.update_wrapper(prepared, start))
    return found, absent


@contextmanager
def workroom(bin_dir: Path) -> Iterator[tuple[Path, Path]]:
    """A folder to work in, and the model as this peer's own Python writes it."""
    with tempfile.TemporaryDirectory(prefix="peer-", ignore_cleanup_errors=True) as folder:
        file = Path(folder) / "model.joblib"
        model = material.classifier(flip=False)
        told = {
            "coef": model.coef_.tolist(),
            "intercept": model.intercept_.tolist(),
            "classes": model.classes_.tolist(),
        }
        subprocess.run(
            [bin_dir / "python", APPS / "train.py", file],
            input=json.dumps(told),
            text=True,
            check=True,
        )
        yield Path(folder), file


@contextmanager
def running(
    command: list[str], folder: Path, env: dict[str, str], *, keep_stdin: bool = False
) -> Iterator[subprocess.Popen[bytes]]:
    """A peer's processes, on the server's CPU; all of them are gone afterwards."""
    stdin: int | IO[bytes] = subprocess.PIPE if keep_stdin else subprocess.DEVNULL
    with (folder / "peer.log").open("ab") as log, on({SERVER_CPU}):
        server = subprocess.Popen(
            command,
            cwd=folder,
            env=environment(**QUIET_ENV, **env),
            stdin=stdin,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield server
    finally:
        left = tree(server.pid)
        if server.stdin is not None:
            server.stdin.close()
        server.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            server.wait(STOP_S)
        end = time.monotonic() + 3
        while any(map(alive, left)) and time.monotonic() < end:
            time.sleep(0.05)
        for pid in filter(alive, left):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()


def target(name: str, server: subprocess.Popen[bytes], port: int, path: str, body: bytes) -> Target:
    """It answers: it can be measured."""

    def answers() -> bool:
        if server.poll() is not None:
            raise OSError(f"{name} ended with {server.returncode}")
        return post(port, path, body) == 200

    until(answers, name, UP_S, 0.1)
    talk(f"  {name} is up")
    return Target(name, port, path, body, lambda: tree(server.pid), own=EVERY)


def instances() -> bytes:
    """The row as BentoML and Ray Serve take it."""
    return json.dumps({"instances": [material.row()]}, separators=(",", ":")).encode()


@contextmanager
def mlserver(bin_dir: Path) -> Iterator[Target]:
    """MLServer, without its worker pool: the faster of its two ways for a small model."""
    port = free_port()
    with workroom(bin_dir) as (folder, model):
        (folder / "m").mkdir()
        (folder / "m" / "model-settings.json").write_text(
            json.dumps(
                {
                    "name": "m",
                    "implementation": "mlserver_sklearn.SKLearnModel",
                    "parameters": {"uri": str(model)},
                }
            )
        )
        (folder / "settings.json").write_text(
            json.dumps(
                {
                    "debug": False,
                    "host": "127.0.0.1",
                    "http_port": port,
                    "grpc_port": free_port(),
                    "metrics_port": free_port(),
                    "parallel_workers": 0,
                }
            )
        )
        with running([str(bin_dir / "mlserver"), "start", str(folder)], folder, {}) as server:
            yield target("mlserver", server, port, "/v2/models/m/infer", material.body("FP64"))


@contextmanager
def bentoml(bin_dir: Path) -> Iterator[Target]:
    """BentoML, one worker."""
    port = free_port()
    with workroom(bin_dir) as (folder, model):
        command = [
            str(bin_dir / "bentoml"),
            "serve",
            "bento_app:Peer",
            "--working-dir",
            str(APPS),
            "--host",
            "127.0.0.1",
            "-p",
            str(port),
        ]
        env = {"BENCH_MODEL": str(model), "BENTOML_HOME": str(folder / "home")}
        with running(command, folder, env) as server:
            yield target("bentoml", server, port, "/predict", instances())


@contextmanager
def ray(bin_dir: Path) -> Iterator[Target]:
    """Ray Serve, one replica behind its proxy."""
    port = free_port()
    with workroom(bin_dir) as (folder, model):
        command = [str(bin_dir / "python"), str(APPS / "ray_app.py"), str(port)]
        env = {"BENCH_MODEL": str(model), "PATH": f"{bin_dir}{os.pathsep}{os.environ['PATH']}"}
        with running(command, folder, env, keep_stdin=True) as server:
            yield target("ray", server, port, "/predict", instances())
