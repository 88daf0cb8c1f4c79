"""One place for each thing that many modules need, and few parameters of each constructor."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "kedge"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}

PLACES = {
    "fcntl.flock": "system/locks.py",
    "fcntl.lockf": "system/locks.py",
    "os.fsync": "system/durable.py",
    "os.fdatasync": "system/durable.py",
    "os.replace": "system/durable.py",
    "os.rename": "system/durable.py",
    "tempfile.NamedTemporaryFile": "system/durable.py",
    "Path.replace": "system/durable.py",
}
"""What is called in one file, and in which."""
ALLOWED = {
    ("Path.replace", "system/files.py"): "a socket takes its place once it listens",
    ("Path.replace", "system/door.py"): "a status file takes its place while it is open",
    (
        "Path.replace",
        "system/streams.py",
    ): "rotated logs move on, and writing to a log raises nothing",
}
"""Other calls, and why they cannot be the function of that file."""


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def calls(tree: ast.AST) -> Iterator[str]:
    """Every call by its module and name; `Path.replace`: of one value, which no text has."""
    of = {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        if isinstance(node.func, ast.Name):
            yield of.get(node.func.id, node.func.id)
        elif isinstance(node.func, ast.Attribute):
            if node.func.attr == "replace" and len(node.args) == 1 and not node.keywords:
                is_os = isinstance(node.func.value, ast.Name) and node.func.value.id == "os"
                yield "os.replace" if is_os else "Path.replace"
            elif isinstance(node.func.value, ast.Name):
                yield f"{node.func.value.id}.{node.func.attr}"


def elsewhere(path: Path) -> set[str]:
    return {one for one in calls(TREES[path]) if PLACES.get(one, name(path)) != name(path)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_locks_flushes_and_atomic_writes_have_one_place(path: Path) -> None:
    assert not {one for one in elsewhere(path) if (one, name(path)) not in ALLOWED}


def test_every_exception_is_needed() -> None:
    assert {(one, name(path)) for path in FILES for one in elsewhere(path)} == set(ALLOWED)


@pytest.mark.parametrize(
    "source, called",
    [
        ("import os\nos.fsync(3)", "os.fsync"),
        ("from os import fsync as f\nf(3)", "os.fsync"),
        ("import os\nos.replace(a, b)", "os.replace"),
        ("path.with_name('x').replace(path)", "Path.replace"),
        ("fcntl.flock(f, how)", "fcntl.flock"),
    ],
)
def test_the_rule_sees_what_it_is_about(source: str, called: str) -> None:
    assert called in set(calls(ast.parse(source)))


def test_the_rule_leaves_texts_and_structs_alone() -> None:
    tree = ast.parse(
        "'a'.replace('a', 'b')\nmsgspec.structs.replace(one, two=3)\nwhen.replace(tzinfo=UTC)"
    )
    assert not set(calls(tree)) & set(PLACES)


PARAMETERS = 8


def constructors(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each class with an `__init__` of its own, and how many parameters that has beside `self`."""
    for owner in (node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)):
        for made in owner.body:
            if isinstance(made, ast.FunctionDef) and made.name == "__init__":
                given = made.args
                yield owner.name, len(given.posonlyargs + given.args + given.kwonlyargs) - 1


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_constructor_takes_a_struct_instead_of_many_parameters(path: Path) -> None:
    assert not {of: n for of, n in constructors(TREES[path]) if n > PARAMETERS}


def test_parameters_are_counted() -> None:
    source = "class One:\n    def __init__(self, a, /, b, *, c, d=1): ..."
    assert list(constructors(ast.parse(source))) == [("One", 4)]
