"""Docs that run: each page is typed unchanged, on one directory, and works."""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import models
from docs.snippets import Block, Command, blocks, commands
from docs.test_snippets import NOT_RUN, ONE_BY_ONE, typed
from e2e.place import KEDGE, free_port, zygote
from support.waiting import wait_until

pytestmark = [pytest.mark.e2e, pytest.mark.soak, pytest.mark.timeout(600)]

ROOT = Path(__file__).parents[2]
FETCHES = {"git", "uv", "source", "ls", "pip"}
"""What the environment of the tests has already."""
SHORTER = {"callers.py": 3.0}
"""Seconds of traffic instead of those of a reader, who looks at it meanwhile."""


class Reader:
    """A reader who types a page, in an empty directory and on free ports."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kedge-docs-"))
        self.port, self.control_port = free_port(), free_port()
        self.env = {**models.environment(), "KEDGE_ACTOR": "ada"}
        self.up: subprocess.Popen[bytes] | None = None
        self.traffic: subprocess.Popen[bytes] | None = None

    def here(self, text: str) -> str:
        return text.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}").replace(
            "localhost:8080", f"127.0.0.1:{self.port}"
        )

    def configure(self, block: Block | None = None) -> None:
        """Edit kedge.toml as the page says: a line replaces the one of its key, a table stands at the end."""
        path = self.root / "kedge.toml"
        text = path.read_text()
        if block is None:
            text = text.replace(
                "port = 8080",
                f"port = {self.port}\ncontrol_port = {self.control_port}\nworkers = 1",
                1,
            )
        elif block.text.startswith("["):
            head = block.text.splitlines()[0]
            before, _, after = text.partition(f"{head}\n")
            rest = after.split("\n[", 1)
            text = before + block.text + ("\n[" + rest[1] if len(rest) > 1 else "")
        else:
            table = "[endpoints.wine]\n"
            for line in block.text.splitlines():
                key = line.partition(" = ")[0]
                text = (
                    "\n".join(old for old in text.splitlines() if not old.startswith(f"{key} = "))
                    + "\n"
                )
                text = text.replace(table, f"{table}{line}\n", 1)
        path.write_text(text)

    def page(self, page: str) -> None:
        """Type a whole page."""
        for block in blocks(ROOT / "docs" / page):
            if block.language == "python":
                (self.root / block.file).write_text(self.here(block.text))
                if block.file == "ask.py":  # "let it run in a third terminal"
                    self.traffic = subprocess.Popen(
                        [sys.executable, "ask.py", "300"],
                        cwd=self.root,
                        env=self.env,
                        stdout=subprocess.DEVNULL,
                    )
            elif block.language == "toml":
                self.configure(block)
            elif block.language == "console":
                for command in commands(block):
                    self.type(command)

    def type(self, command: Command) -> None:
        words = shlex.split(self.here(command.line))
        if words[0] in FETCHES:
            return
        if words == ["kedge", "up"]:
            self.start()
            return
        if words[0] == "python" and words[1] in SHORTER:
            words[2] = str(SHORTER[words[1]])
        if words[0] == "curl" and not shutil.which("curl"):
            return
        if words[:2] == ["kedge", "outcomes"]:
            self.until_recorded()
        done = self.run(words[: words.index("&&")] if "&&" in words else words)
        said = f"$ {command.line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, said
        assert done.returncode == (1 if command.refused else 0), said
        if command.refused:
            assert done.stderr.startswith(command.shown.splitlines()[0]), said
        if words[:2] == ["kedge", "init"]:
            self.configure()
        if words[0] == "curl":
            assert '"outputs"' in done.stdout, said
        if words[1] in ("shadow", "canary") and not command.refused:
            time.sleep(1.0)  # "wait some seconds": some requests have to be asked

    def run(self, words: list[str]) -> subprocess.CompletedProcess[str]:
        if words[0] == "kedge":
            return zygote().run(words[1:], cwd=self.root, env=self.env, timeout=300)
        words[0] = sys.executable if words[0] == "python" else words[0]
        return subprocess.run(
            words,
            cwd=self.root,
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    def start(self) -> None:
        if self.up is not None:
            return
        with (self.root / "up.log").open("ab") as log:
            self.up = subprocess.Popen(
                [*KEDGE, "up"],
                cwd=self.root,
                env=self.env,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        wait_until(
            lambda: self.answers("/v2/health/live"),
            lambda: f"an answer\n{(self.root / 'up.log').read_text()}",
            60,
            every_s=0.05,
        )

    def answers(self, path: str) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def until_recorded(self) -> None:
        """Outcomes of a moment ago find their predictions once these are written, within seconds."""
        spool = self.root / ".kedge" / "records"
        wait_until(lambda: any(spool.rglob("*.db")), "records", 15, every_s=0.1)

    def close(self) -> None:
        for process in (self.traffic, self.up):
            if process is not None:
                process.send_signal(signal.SIGINT)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(20)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                process.wait()
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            with contextlib.suppress(OSError, ValueError):
                if str(self.root).encode() in path.read_bytes():
                    os.kill(int(path.parent.name), signal.SIGKILL)
        shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    made = Reader()
    yield made
    made.close()


def test_the_tutorial_runs_and_so_does_part_two(reader: Reader) -> None:
    reader.page("tutorial.md")
    assert reader.traffic is not None
    reader.traffic.kill()
    reader.page("tutorial-part-two.md")


def test_features_from_nothing_run() -> None:
    made = Reader()
    try:
        for block in blocks(ROOT / "docs" / "howto" / "features-from-nothing.md"):
            if block.language == "python":
                (made.root / block.file).write_text(block.text)
            for command in commands(block) if block.language == "console" else ():
                if command.line.startswith("kedge promote"):
                    made.start()  # "in another terminal"
                made.type(command)
    finally:
        made.close()


def endpoints(words: list[str]) -> list[str]:
    """A command of another page, about the tutorial's endpoint."""
    return ["wine" if word in ("flights", "grapes", "churn") else word for word in words]


@pytest.mark.soak
def test_each_command_of_the_other_pages_is_understood_on_a_real_site(reader: Reader) -> None:
    """After the tutorials. A command may be refused, as the story is another one: in words, and never as a usage."""
    pages = [ROOT / page for page, why in NOT_RUN.items() if why == ONE_BY_ONE]
    lines = dict.fromkeys(
        one.line for page in pages for one in typed(page) if one.line.startswith("kedge ")
    )
    for line in lines:
        words = endpoints(shlex.split(line))
        if words[1:2] == ["up"] or "--watch" in words or any(Path(word).suffix for word in words):
            continue
        done = reader.run(words)
        said = f"$ {shlex.join(words)}\n{done.stdout}{done.stderr}"
        assert done.returncode in (0, 1, 3, 4), said
        assert "Traceback" not in done.stderr, said
