"""Completion in real shells: what is offered, how quietly, and that nothing is created."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from kedge.adapters.sql.completion import read_names
from kedge.adapters.sql.sqlite.version import dbapi
from kedge.cli.completion import ARGUMENTS, SHELLS, find_names
from kedge.cli.main import main
from kedge.cli.root import walk
from kedge.config.load import load
from kedge.operations.setup import apply_policies, create_workplace
from kedge.workspace import Workplace


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    (folder / "kedge.toml").write_text("[endpoints.churn]\n[endpoints.risk]\n")
    create_workplace(folder / ".kedge")
    apply_policies(Workplace(folder / ".kedge"), load(folder / "kedge.toml"))
    return folder


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A PATH on which `kedge` is this one."""
    programs = tmp_path_factory.mktemp("bin")
    (programs / "kedge").write_text(
        f"#!{sys.executable}\nfrom kedge.__main__ import run\n\nrun()\n"
    )
    (programs / "kedge").chmod(0o755)
    return f"{programs}:{os.environ['PATH']}"


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


def fill(folder: Path) -> None:
    """Put versions, releases, an alert and a name that means something to a shell into a ledger."""
    connection = dbapi.connect(folder / ".kedge" / "ledger" / "ledger.db")
    connection.executescript(
        """
        PRAGMA foreign_keys = off;
        INSERT INTO model_version (model, number, digest, body) VALUES
          ('churn', 1, 'a', 'x'), ('churn', 2, 'b', 'x'), ('risk', 1, 'c', 'x');
        INSERT INTO release (endpoint, number, digest, model, version, placement, body) VALUES
          ('churn', 1, 'a', 'churn', 1, 'inline', 'x'), ('churn', 2, 'b', 'churn', 2, 'inline', 'x');
        INSERT INTO alert (number, endpoint, key, open, live, body) VALUES
          (3, 'churn', 'k', 0, 0, 'x'), (17, 'risk', 'k', 1, 1, 'x');
        INSERT INTO token (name, digest, revoked, body) VALUES
          ('ci', 'a', 0, 'x'), ('$(reboot)', 'b', 0, 'x'), ('old', 'c', 1, 'x');
        """
    )
    connection.commit()
    connection.close()


@pytest.fixture(scope="module")
def filled(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("filled") / "site"
    shutil.copytree(folder, copy)
    fill(copy)
    return copy


@pytest.fixture
def here(filled: Path) -> Iterator[Path]:
    before = Path.cwd()
    os.chdir(filled)
    yield filled
    os.chdir(before)


# ---------------------------------------------------------------- names


def test_the_table_of_names_is_that_of_the_commands() -> None:
    found = {}
    for words, command in walk(main):
        kinds = [
            getattr(parameter._custom_shell_complete, "kind", "")
            for parameter in command.params
            if isinstance(parameter, click.Argument)
        ]
        while kinds and not kinds[-1]:
            kinds.pop()
        if kinds and not isinstance(command, click.Group):
            found[words] = tuple(kinds)
    assert found == ARGUMENTS


@pytest.mark.parametrize(
    "kind, begins, endpoint, expected",
    [
        ("endpoint", "", "", ["churn", "risk"]),
        ("endpoint", "ri", "", ["risk"]),
        ("version", "", "churn", ["v2", "v1"]),
        ("version", "", "risk", ["v1"]),
        ("version", "", "", []),
        ("release", "", "churn", ["r2", "r1"]),
        ("alert", "", "", ["17"]),
        ("token", "", "", ["ci"]),
        ("transformation", "", "", []),
        ("schema", "", "", []),
    ],
)
def test_names_are_read_from_the_ledger(
    here: Path, kind: str, begins: str, endpoint: str, expected: list[str]
) -> None:
    before = files(here)
    found = find_names(kind, begins, None, endpoint)  # type: ignore[arg-type]
    assert [item.value for item in found] == expected
    assert files(here) == before, "nothing is created"


def test_a_running_kedge_is_read_and_nothing_is_created(filled: Path) -> None:
    ledger = filled / ".kedge" / "ledger" / "ledger.db"
    writer = dbapi.connect(ledger)
    writer.execute("PRAGMA foreign_keys = off")
    writer.execute("BEGIN IMMEDIATE")
    writer.execute("INSERT INTO alert VALUES (18, 'risk', 'other', 1, 1, 'x')")
    before = files(filled)
    assert [name.text for name in read_names(ledger, "alert")] == ["17"]
    writer.rollback()
    assert files(filled) == before
    writer.close()


# ---------------------------------------------------------------- shells

BASH = """
source <(kedge completion bash)
offer() {
    COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
    _kedge_completion kedge
    printf '%s\\n' "${COMPREPLY[@]}" end
}
"""
ZSH = """
compdef() { }
compadd() { print -l -- ${(P)5} }
_describe() { print -l -- ${(P)3} }
source <(kedge completion zsh)
offer() { words=("$@"); CURRENT=$#; _kedge_completion; print end }
"""
FISH = """
kedge completion fish | source
function offer
    complete --do-complete (string join ' ' -- $argv)
    echo end
end
"""
STARTS = {
    "bash": (BASH, ["--norc", "--noprofile"]),
    "zsh": (ZSH, ["-f"]),
    "fish": (FISH, ["--no-config"]),
}
LINES = ("kedge rollback ", "kedge promote churn ", "kedge rollback churn --to ", "kedge roll")


@pytest.mark.parametrize("shell", SHELLS)
def test_a_shell_offers_endpoints_versions_and_releases(
    filled: Path, path: str, shell: str
) -> None:
    found = shutil.which(shell)
    if found is None:
        pytest.skip(f"{shell} is not installed")
    start, bare = STARTS[shell]
    offers = [f"offer {' '.join(repr(word) for word in line.split(' '))} 2>&1" for line in LINES]
    before = files(filled)
    done = subprocess.run(
        [found, *bare, "-c", "\n".join([start, *offers])],
        cwd=filled,
        env={**os.environ, "PATH": path, "HOME": str(filled.parent)},
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == ""
    offered = [part.split() for part in done.stdout.split("end\n")][:-1]
    names = [sorted(re.split("[:\t]", word)[0] for word in part) for part in offered]
    endpoints, versions, releases, commands = names
    assert endpoints == ["churn", "risk"]
    assert {*versions} >= {"v1", "v2"}
    assert {*releases} >= {"r1", "r2"}
    assert "rollback" in commands
    assert files(filled) == before


@pytest.mark.parametrize(
    "damage, offered",
    [
        ("none", "plain,churn\nplain,risk"),
        ("no ledger", "plain,churn\nplain,risk"),
        ("no directory", "plain,churn\nplain,risk"),
        ("garbage", ""),
    ],
)
@pytest.mark.parametrize("option", ["", " --to"])
def test_completion_is_silent_whatever_fails(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    damage: str,
    offered: str,
    option: str,
) -> None:
    site = tmp_path / "site"
    shutil.copytree(folder, site)
    ledger = site / ".kedge" / "ledger" / "ledger.db"
    if damage == "no ledger":
        ledger.unlink()
    if damage == "garbage":
        ledger.write_bytes(b"SQLite format 3\0" + b"\xff" * 9_000)
        (site / "kedge.toml").write_bytes(b"\xff[[[")
    if damage == "no directory":
        shutil.rmtree(site / ".kedge")
    before = files(site)
    monkeypatch.chdir(site)
    monkeypatch.setenv("COMP_WORDS", f"kedge rollback{option} ")
    monkeypatch.setenv("COMP_CWORD", str(2 + bool(option)))
    bash = SHELLS["bash"](main, {}, "kedge", "_KEDGE_COMPLETE")
    assert bash.complete() == ("" if option else offered)
    monkeypatch.delenv("COMP_WORDS")
    assert bash.complete() == ""
    assert capfd.readouterr().err == ""
    assert files(site) == before


def test_completing_a_name_imports_neither_the_command_nor_sqlalchemy(filled: Path) -> None:
    script = (
        "import sys\nfrom kedge.__main__ import run\nsys.argv = ['kedge']\ntry:\n    run()\nfinally:\n"
        "    print([m for m in ('kedge.workspace', 'sqlalchemy', 'kedge.cli.rollback')"
        " if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=filled,
        env={
            **os.environ,
            "_KEDGE_COMPLETE": "bash_complete",
            "COMP_WORDS": "kedge rollback ",
            "COMP_CWORD": "2",
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr.strip() == "[]"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_drops_messages_of_the_start(shell: str) -> None:
    script = SHELLS[shell](main, {}, "kedge", "_KEDGE_COMPLETE").source()  # type: ignore[index]
    assert script.count("2>/dev/null") == 1
