"""Every snippet of the docs is run by a test, or read as its own language, with a reason why it is not run."""

from __future__ import annotations

import ast
import configparser
import json
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
import yaml

from docs.snippets import Command, blocks, commands
from kedge.cli import main
from kedge.cli.context import Context
from kedge.core.errors import KedgeError

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        ROOT / "README.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "howto").glob("*.md"),
        *(ROOT / "docs" / "concepts").glob("*.md"),
    ]
)
RUN = {"docs/tutorial.md", "docs/tutorial-part-two.md", "docs/howto/features-from-nothing.md"}
"""Pages whose every command and file is run, in order: `tests/e2e/test_docs_run.py`."""
NO_LIBRARY = "needs a library that is not installed for the tests; tried by hand with the versions that it names"
ONE_BY_ONE = "each command alone is run by `make soak`; its output is of another endpoint's story"
NOT_RUN = {
    "README.md": "the tutorial in short",
    "docs/howto/access.md": "tests/contract/test_control_access.py and test_trusted_proxy.py do it",
    "docs/howto/alerts.md": ONE_BY_ONE,
    "docs/howto/backup.md": "tests/e2e/test_backup.py backs up and restores",
    "docs/howto/behind-a-proxy.md": "needs nginx, Envoy or Traefik",
    "docs/howto/break-glass.md": "the ledger has to be lost first: tests/e2e/test_rollback.py loses it",
    "docs/howto/call-with-tritonclient.md": "tests/e2e/test_data_plane.py calls with tritonclient",
    "docs/howto/ci.md": "needs GitHub",
    "docs/howto/completion.md": "tests/contract/test_completion.py completes in three shells",
    "docs/howto/config.md": ONE_BY_ONE,
    "docs/howto/container.md": "needs Docker; tests/docs/test_container.py compares its files with the code",
    "docs/howto/diagnose.md": ONE_BY_ONE,
    "docs/howto/drill.md": ONE_BY_ONE,
    "docs/howto/golden-rows.md": ONE_BY_ONE,
    "docs/howto/hugging-face.md": NO_LIBRARY,
    "docs/howto/opentelemetry.md": "needs a collector; tests/contract/test_traces.py has one",
    "docs/howto/prometheus-and-grafana.md": "tests/contract/test_metrics.py runs both programs",
    "docs/howto/pytorch.md": NO_LIBRARY,
    "docs/howto/readiness.md": ONE_BY_ONE,
    "docs/howto/remote.md": "tests/contract/test_remote.py runs commands on a server",
    "docs/howto/register-a-model.md": NO_LIBRARY,
    "docs/howto/repair.md": "something has to be broken first: tests/e2e breaks each",
    "docs/howto/roll-back.md": ONE_BY_ONE,
    "docs/howto/run-under-systemd.md": "needs systemd",
    "docs/howto/runbook.md": ONE_BY_ONE,
    "docs/howto/upgrade.md": "needs another version; tests/e2e/test_restart.py restarts",
    "docs/howto/xgboost.md": "tests/e2e/test_boosters_serve.py runs its script and registers the model",
    "docs/concepts/features.md": ONE_BY_ONE,
    "docs/concepts/routing.md": ONE_BY_ONE,
    "docs/concepts/runtimes.md": ONE_BY_ONE,
    "docs/concepts/shadow-and-canary.md": ONE_BY_ONE,
    "docs/concepts/why-a-ledger.md": ONE_BY_ONE,
}
"""Pages with snippets that are not run as they stand, and why."""
PROGRAMS = {
    "umask": "makes files that only the user can read",
    "kedge": "parsed here, and run where the page is",
    "python": "runs what the page has in a file",
    "curl": "asks the gateway",
    "git": "fetches",
    "uv": "installs",
    "pip": "installs",
    "source": "of a shell",
    "make": "a target of this repository",
    "promtool": "of Prometheus",
    "docker": "is not on this project's machines",
    "systemctl": "needs systemd",
    "optimum-cli": NO_LIBRARY,
    "mlflow": NO_LIBRARY,
    "mkdir": "of a shell",
    "sqlite3": "of the system",
    "cp": "of a shell",
    "mv": "of a shell",
    "rm": "of a shell",
    "kill": "of a shell",
    "cd": "of a shell",
    "chmod": "of a shell",
    "ls": "of a shell",
    "export": "of a shell",
}
"""What a reader is told to type, and why it may be more than kedge."""


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def braces(text: str) -> None:
    """nginx has no parser here: its blocks are closed."""
    assert text.count("{") == text.count("}")


def sections(text: str) -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment]
    parser.read_string(text)


def shell(text: str) -> None:
    """bash reads it, and runs nothing."""
    subprocess.run(["bash", "-n"], input=text, text=True, check=True)


READERS = {
    "sh": shell,
    "bash": shell,
    "python": ast.parse,
    "json": json.loads,
    "toml": tomllib.loads,
    "yaml": yaml.safe_load,
    "ini": sections,
    "nginx": braces,
    "console": lambda text: None,
    "text": lambda text: None,
}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_block_says_its_language_and_is_written_in_it(page: Path) -> None:
    for block in blocks(page):
        assert block.language in READERS, f"{name(page)}:{block.line}"
        READERS[block.language](block.text)


def typed(page: Path) -> list[Command]:
    return [one for block in blocks(page) if block.language == "console" for one in commands(block)]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_command_that_is_shown_is_one_that_the_command_line_takes(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its arguments and options, as click itself reads them; a file need not be there."""
    monkeypatch.chdir(tmp_path)
    for one in typed(page):
        words = shlex.split(re.split(r" [|>] | && ", one.line)[0], comments=True)
        while words and "=" in words[0]:
            words = words[1:]
        program = Path(words[1] if words[0] == "sudo" else words[0]).name
        assert program in PROGRAMS, f"{name(page)}: {one.line}"
        if words[0] == "kedge":
            parse(words[1:], f"{name(page)}: {one.line}")


def parse(words: list[str], where: str) -> None:
    try:
        context = main.make_context(
            "kedge", list(words), obj=Context(Path("kedge.toml").absolute())
        )
        command: click.Command = main
        rest = [*context._protected_args, *context.args]
        while isinstance(command, click.Group) and rest:
            called, found, rest = command.resolve_command(context, rest)
            assert found is not None
            context = found.make_context(called, rest, parent=context)
            command, rest = found, [*context._protected_args, *context.args]
    except click.exceptions.Exit:  # --help, --version
        return
    except KedgeError:  # which endpoint is meant: there is none here
        return
    except click.BadParameter as error:
        if error.param is None or not isinstance(error.param.type, click.Path):
            raise AssertionError(f"{where}: {error.format_message()}") from None
    except click.UsageError as error:
        raise AssertionError(f"{where}: {error.format_message()}") from None


def test_every_page_with_snippets_is_run_or_says_why_not() -> None:
    with_snippets = {
        name(page)
        for page in PAGES
        if any(block.language not in ("json", "toml", "text") for block in blocks(page))
    }
    assert with_snippets == RUN | set(NOT_RUN), (
        "run the page in test_docs_run.py, or say in NOT_RUN why not"
    )
    assert not RUN & set(NOT_RUN)


@pytest.mark.parametrize("page", [ROOT / page for page in sorted(RUN)], ids=name)
def test_every_python_block_of_a_page_that_is_run_has_a_file_that_is_run(page: Path) -> None:
    lines = " ".join(one.line for one in typed(page))
    prose = page.read_text("utf-8")
    for block in blocks(page):
        if block.language == "python":
            assert block.file, f"{name(page)}:{block.line} names no file"
            assert (
                block.file in lines
                or f"`python {block.file}" in prose
                or f"apply {block.file}" in lines
            )
