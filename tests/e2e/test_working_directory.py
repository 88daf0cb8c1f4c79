"""Files in the working directory are never run, however a process of kedge is started."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.place import Site
from kedge.adapters import process
from kedge.system.interpreter import kedge_command, module_command, safe_environment

NAMES = ("numpy", "random", "msgspec", "calendar", "statistics", "uvloop", "structlog", "secrets")
"""Libraries that kedge imports, and everyday names of a project's own files."""
KEDGE = str(Path(sys.executable).with_name("kedge"))


def plant(folder: Path) -> Path:
    """Make a folder whose files leave a mark when they are run; the mark's path."""
    folder.mkdir()
    mark = folder / "mark"
    for name in NAMES:
        (folder / f"{name}.py").write_text(
            f"open({str(mark)!r}, 'a').write('{name} ')\nraise SystemExit(3)\n"
        )
    return mark


@pytest.fixture
def careless() -> dict[str, str]:
    """An environment with an empty entry in PYTHONPATH: the working directory."""
    return {**os.environ, "PYTHONPATH": f"{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}


CHILDREN = [kedge_command("--version"), module_command("kedge.adapters.process", "--help")]
BY_HAND = [
    [KEDGE, "--version"],
    [sys.executable, "-m", "kedge", "--version"],
    [sys.executable, "-m", "kedge.adapters.process", "--help"],
]


@pytest.mark.parametrize("line", CHILDREN, ids=["kedge", "model process"])
def test_a_child_runs_none_of_them(
    tmp_path: Path, careless: dict[str, str], line: list[str]
) -> None:
    assert _runs_none(plant(tmp_path / "downloaded"), line, safe_environment(careless))


@pytest.mark.parametrize("line", BY_HAND, ids=["console script", "python -m", "model process"])
@pytest.mark.parametrize("empty", [True, False], ids=["empty entry", "no entry"])
def test_a_person_who_starts_it_runs_none_of_them(
    tmp_path: Path, careless: dict[str, str], line: list[str], empty: bool
) -> None:
    mark = plant(tmp_path / "downloaded")
    assert _runs_none(mark, line, careless if empty else {**os.environ})


def _runs_none(mark: Path, line: list[str], environment: dict[str, str]) -> bool:
    done = subprocess.run(
        line, check=False, cwd=mark.parent, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return not mark.exists()


def test_a_folder_that_the_search_path_names_stays_on_it(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("print('mine')\n")
    named = safe_environment({**os.environ, "PYTHONPATH": f":{tmp_path}:"})
    line = module_command("mine")
    done = subprocess.run(line, check=False, cwd="/", env=named, capture_output=True, text=True)
    assert done.stdout == "mine\n"
    assert named["PYTHONSAFEPATH"] == "1"


def test_a_rollout_from_such_a_folder_runs_none_of_them(
    tmp_path: Path, make_site: Callable[..., Site]
) -> None:
    site = make_site()
    mark = plant(tmp_path / "downloaded")
    environment = {**site.env, "PYTHONPATH": f"{os.pathsep}{site.env['PYTHONPATH']}"}

    def kedge(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [KEDGE, "--config", str(site.root / "kedge.toml"), *words],
            check=False,
            cwd=mark.parent,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, (words, done.stdout, done.stderr)
        return done

    with (site.root / "up.log").open("ab") as log:
        site.up = subprocess.Popen(
            [KEDGE, "--config", str(site.root / "kedge.toml"), "up"],
            cwd=mark.parent,
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    site.until(lambda: site.answers("/v2/health/live"), "the gateway to answer")
    kedge("register", site.endpoint, site.model("one"))
    kedge("register", site.endpoint, site.model("two", scale=3.0))
    kedge("promote", site.endpoint, "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    kedge("shadow", site.endpoint, "v2")
    kedge("check", site.endpoint, code=1)  # no owner is named
    kedge("abort", site.endpoint)
    assert site.infer()[0] == 200
    assert not mark.exists(), mark.read_text()
    assert process.environment()["PYTHONSAFEPATH"] == "1"
