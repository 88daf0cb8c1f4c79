"""A rollback from another machine: the command `kedge rollback`, from the start of its process to its exit.

The caller is on the load's CPU, all of kedge on the server's: two workers, which acknowledge, and
control, which carries the command out. Both speak plain http over loopback.
"""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from common import LOAD_CPU, Bench, on, spread
from kedge_site import Site, environment, kedge_command

PAUSE_S = 0.4
WARM = 2
"""Commands that are not counted: they write bytecode and start control's threads."""


def make_token(site: Site) -> Path:
    """A file with a token of an operator."""
    done = site.run("token", "create", "--role", "operator", "--name", "bench")
    file = site.root / "bench.token"
    file.write_text(done["token"] + "\n", "ascii")
    file.chmod(0o600)
    return file


def timed(words: list[str], **more: str) -> tuple[float, str]:
    """Run a command from a folder without a kedge.toml; its milliseconds, and what it printed."""
    began = time.perf_counter()
    with on({LOAD_CPU}):
        done = subprocess.run(
            [*kedge_command(), *words],
            cwd="/",
            env=environment(**more),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    took = (time.perf_counter() - began) * 1e3
    if done.returncode:
        raise RuntimeError(f"kedge {' '.join(words)}: {done.returncode}\n{done.stderr}")
    return took, done.stdout


def receipt_of(text: str) -> dict[str, float]:
    """The milliseconds that a receipt names, by part."""
    found = {}
    for line in text.splitlines()[1:]:
        words = line.split()
        if words[-1:] == ["ms"]:
            found[" ".join(words[:-2])] = float(words[-2])
    return found


def measure_remote(bench: Bench, site: Site, endpoint: str) -> None:
    """Measure `remote_rollback_ms`: the median of the commands."""
    token = make_token(site)
    server = f"http://127.0.0.1:{site.control_port}"
    remote = {"KEDGE_SERVER": server, "KEDGE_TOKEN_FILE": str(token)}
    times, helps, told = [], [], []
    with bench.phase("remote rollback"):
        for turn in range(WARM + bench.rounds(25, 4)):
            site.promote(endpoint, 2)
            time.sleep(PAUSE_S)
            took, text = timed(["rollback", endpoint, "--reason", "a bench"], **remote)
            help_ms, _ = timed(["--help"])
            if turn >= WARM:
                times.append(took)
                helps.append(help_ms)
                told.append(receipt_of(text))
    bench.note("remote_rollback_ms", spread(times)["p50"], 1)
    found: dict[str, Any] = {"ms": spread(times, 1), "help_ms": spread(helps, 1)}
    for part in sorted({part for one in told for part in one if not part.startswith("ack ")}):
        found[part.replace(" ", "_") + "_ms"] = spread(
            [one[part] for one in told if part in one], 1
        )
    bench.detail["remote_rollback"] = found
