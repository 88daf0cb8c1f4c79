"""Make code.tar.xz and state.tar.xz: kedge as it was at a commit, and a state directory that it wrote.

    python tests/stored/make.py COMMIT

The state has one endpoint with two ONNX models and a history: promoted, shadowed, in a canary,
rolled back, labelled, frozen and thawed. Beside it stands what that kedge said of it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
PORT = 18471


def main() -> None:
    """Make both archives."""
    commit = sys.argv[1]
    with tempfile.TemporaryDirectory() as scratch:
        code = Path(scratch) / "code"
        take_code(commit, code)
        pack(HERE / "code.tar.xz", code)
        site = Path(scratch) / "site"
        site.mkdir()
        live(site, code)
        pack(HERE / "state.tar.xz", site)


def take_code(commit: str, code: Path) -> None:
    """Write the package of a commit, and the entry points by which it finds its loaders."""
    code.mkdir()
    packed = subprocess.run(
        ["git", "archive", commit, "src/kedge", "pyproject.toml"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    ).stdout
    subprocess.run(["tar", "x"], cwd=code, input=packed, check=True)
    (code / "src" / "kedge").rename(code / "kedge")
    (code / "src").rmdir()
    shutil.rmtree(code / "kedge" / "demo")
    lines = (code / "pyproject.toml").read_text().splitlines()
    (code / "pyproject.toml").unlink()
    info = code / "kedge-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kedge\nVersion: 0.1.0\n")
    head = '[project.entry-points."'
    points: list[str] = []
    inside = False
    for line in lines:
        if line.startswith("["):
            inside = line.startswith(head)
            if inside:
                points.append(f"[{line.removeprefix(head).removesuffix(chr(34) + ']')}]")
        elif inside and "=" in line:
            points.append(line.replace('"', ""))
    (info / "entry_points.txt").write_text("\n".join(points) + "\n")


def write_model(path: Path, weight: float) -> None:
    """Write an ONNX model: p = sigmoid(weight * x)."""
    graph = helper.make_graph(
        [
            helper.make_node("Mul", ["x", "w"], ["z"]),
            helper.make_node("Sigmoid", ["z"], ["p"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["n"])],
        [helper.make_tensor_value_info("p", TensorProto.DOUBLE, ["n"])],
        [numpy_helper.from_array(np.array(weight, np.float64), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    onnx.save(model, str(path))


def live(site: Path, code: Path) -> None:
    """Live through the history, and write down what is said of it."""
    env = {
        **os.environ,
        "PYTHONPATH": str(code),
        "KEDGE_ACTOR": "ann",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "kedge"]

    def run(*words: str) -> str:
        done = subprocess.run(
            [*command, *words], cwd=site, env=env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise SystemExit(
                f"kedge {' '.join(words)}: {done.returncode}\n{done.stdout}{done.stderr}"
            )
        return done.stdout

    (site / "kedge.toml").write_text(
        f"[server]\nport = {PORT}\ncontrol_port = {PORT + 1}\nworkers = 1\n"
        '[endpoints.flights]\naudience = "internal"\n[endpoints.flights.log]\nretention = "30d"\n'
    )
    write_model(site / "one.onnx", 1.0)
    write_model(site / "two.onnx", 1.1)
    (site / "golden.json").write_text(json.dumps({"inputs": {"x": [x / 10 for x in range(40)]}}))
    up = subprocess.Popen(
        [*command, "up"], cwd=site, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait("/v2/health/live")
        for name in ("one", "two"):
            run("register", "flights", f"{name}.onnx", "--golden", "golden.json")
        run("promote", "flights", "v1")
        wait("/v2/models/flights/ready")
        run("shadow", "flights", "v2")
        asked = [infer(number) for number in range(60)]
        run("canary", "flights", "v2", "--weight", "50")
        asked += [infer(number) for number in range(60)]
        run("rollback", "flights", "--reason", "late flights up")
        labels = "".join(
            json.dumps({"id": asked_id, "outcome": number % 2}) + "\n"
            for number, asked_id in enumerate(asked)
        )
        (site / "labels.jsonl").write_text(labels)
        time.sleep(5)
        run("outcomes", "flights", "--file", "labels.jsonl")
        run("freeze", "flights", "--reason", "a holiday")
        run("thaw", "flights", "--reason", "it is over")
        time.sleep(2)
    finally:
        up.terminate()
        up.wait(30)
    said = {
        words[0]: json.loads(run(*words, "--json"))
        for words in (("history", "flights"), ("versions", "flights"))
    }
    said["outcomes"] = len(asked)
    (site / "said.json").write_text(json.dumps(said, indent=1))
    for name in ("logs", "run"):
        shutil.rmtree(site / ".kedge" / name, ignore_errors=True)


def infer(number: int) -> str:
    """Ask once; returns the id of the prediction."""
    body = json.dumps(
        {"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [number / 10]}]}
    )
    request = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/v2/models/flights/infer",
        body.encode(),
        {"content-type": "application/json", "kedge-entity": f"N{number}"},
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        return str(json.load(answer)["id"])


def wait(path: str) -> None:
    """Wait until a path answers."""
    for _ in range(300):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.2)
    raise SystemExit(f"{path} does not answer")


def pack(to: Path, folder: Path) -> None:
    """Write a folder's files, without owners, times, compiled code and what is made anew."""

    def plain(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
        info.uid = info.gid = 0
        info.uname = info.gname = ""
        info.mtime = 0
        left_out = "__pycache__" in info.name or info.name.endswith(("/ballast", "-shm"))
        return None if left_out else info

    with tarfile.open(to, "w:xz", preset=9) as archive:
        archive.add(folder, arcname=".", filter=plain)


if __name__ == "__main__":
    main()
