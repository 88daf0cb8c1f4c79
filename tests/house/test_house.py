"""The house rules that no linter knows, checked by reading the source."""

import ast
import io
import json
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "kedge"
FILES = sorted(SOURCE.rglob("*.py"))
TREES = {path: ast.parse(path.read_text("utf-8")) for path in FILES}

FILE_LINES = 600
FUNCTION_LINES = 70

IMPORTS_INSIDE = {
    "checking.py",
    "cli.py",
    "console.py",
    "explaining.py",
    "paging.py",
    "practising.py",
    "transforming.py",
    "watching.py",
}
"""Start-up time: `kedge rollback` must not pay for the imports of `kedge up`."""

ANYTHING = "a model or a loader may raise anything; it becomes one named failure"
BROAD_EXCEPT = {
    "adapters/channels.py": "a plug-in of Apprise may raise anything; it becomes one failed attempt",
    "adapters/onnx.py": ANYTHING,
    "adapters/process/__main__.py": ANYTHING,
    "adapters/process/client.py": "one asker's fault must not cost the others their answer",
    "adapters/process/host.py": ANYTHING,
    "adapters/sklearn.py": ANYTHING,
    "bundles.py": "a transformation may raise anything when it is loaded; it becomes one refusal",
    "contrasting.py": "a transformation may raise anything at work; it becomes one refusal",
    "datasets.py": "a transformation may raise anything at work; it becomes one refusal",
    "featuring.py": "somebody's features file may raise anything; it becomes one refusal",
    "independence.py": ANYTHING,
    "engine/custom.py": "somebody's own comparison may raise anything; it becomes a disagreement",
    "engine/models.py": ANYTHING,
    "engine/readiness.py": "the supervisor of a thread: the fault is logged, and control goes on",
    "engine/recording.py": "the supervisor of a thread: the fault is published and logged",
    "engine/replica.py": "the supervisor of a thread: the fault is published and logged",
    "engine/serving.py": ANYTHING,
    "materialising.py": "somebody's view may raise anything; it becomes one refusal",
    "gateway/app.py": "a caller gets an answer whatever happens; the log gets the trace",
    "tensors.py": ANYTHING,
}
"""Where everything is caught, and why. What only cleans up and raises again need not be here."""

NO_UNIT_TEST = {"__init__", "values", "errors"}
"""Nouns without behaviour."""

BANNED = {
    "primary", "incumbent", "baseline", "stable", "challenger", "champion", "manager", "handler",
    "helper", "helpers", "util", "utils",
}  # fmt: skip
"""Synonyms: docs/glossary.md owns one noun a concept."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def words(identifier: str) -> set[str]:
    """`SetWeight` and `set_weight` are both set and weight."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier)}


def body_lines(function: Function) -> int:
    """From the first statement after the docstring to the last."""
    first = function.body[0]
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    start = (first.end_lineno or 0) + 1 if documented else first.lineno
    return (function.end_lineno or 0) - start + 1


def is_internal(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom):
        return node.level > 0 or (node.module or "").split(".")[0] == "kedge"
    return isinstance(node, ast.Import) and any(a.name.split(".")[0] == "kedge" for a in node.names)


def broad(tree: ast.AST) -> list[int]:
    """The lines of those handlers that catch everything and do not raise it again."""
    handlers = [node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler)]
    return [h.lineno for h in handlers if catches_all(h) and not raises_again(h)]


def catches_all(handler: ast.ExceptHandler) -> bool:
    kind = handler.type
    caught = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    every = {"Exception", "BaseException"}
    return any(c is None or (isinstance(c, ast.Name) and c.id in every) for c in caught)


def raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_function_fits_on_a_page(path: Path) -> None:
    long = {f.name: n for f in functions(TREES[path]) if (n := body_lines(f)) > FUNCTION_LINES}
    assert not long


@pytest.mark.parametrize("path", FILES, ids=name)
def test_what_a_file_imports_of_ours_stands_at_its_top(path: Path) -> None:
    inside = {f.name for f in functions(TREES[path]) if any(is_internal(n) for n in ast.walk(f))}
    assert not inside or name(path) in IMPORTS_INSIDE


@pytest.mark.parametrize("path", FILES, ids=name)
def test_exceptions_are_caught_narrowly(path: Path) -> None:
    assert not broad(TREES[path]) or name(path) in BROAD_EXCEPT


def test_the_allow_list_holds_no_file_that_does_not_need_it() -> None:
    assert set(BROAD_EXCEPT) <= {name(path) for path, tree in TREES.items() if broad(tree)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_left_to_do_in_a_comment(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    comments = [t.string for t in tokens if t.type in (tokenize.COMMENT, tokenize.STRING)]
    assert not [c for c in comments if re.search(r"\b(TODO|FIXME|XXX)\b", c)]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_one_noun_a_concept(path: Path) -> None:
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [n.name for n in ast.walk(TREES[path]) if isinstance(n, defined)]
    assert not [n for n in (*names, path.stem) if words(n) & BANNED]


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.parent.name == "core" and p.stem not in NO_UNIT_TEST], ids=name
)
def test_every_module_of_the_core_has_its_unit_tests(path: Path) -> None:
    assert (ROOT / "tests" / "unit" / f"test_{path.stem}.py").is_file()


def test_the_core_is_tested_without_mocks() -> None:
    tests = [p for tier in ("unit", "property") for p in (ROOT / "tests" / tier).glob("*.py")]
    mocked = [p.name for p in tests if re.search(r"\bmock\b|monkeypatch", p.read_text("utf-8"))]
    assert not mocked


def test_importing_kedge_is_light() -> None:
    script = "import json, sys, kedge; print(json.dumps([*sys.modules]))"
    run = [sys.executable, "-c", script]
    loaded = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout)
    foreign = {m for m in loaded if m.split(".")[0] not in sys.stdlib_module_names | {"kedge"}}
    assert not foreign & {"numpy", "sqlalchemy"}
    assert len(foreign) < 60
