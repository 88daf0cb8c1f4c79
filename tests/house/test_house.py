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

from support.source import FILES, SOURCE, get_tree, get_trees

ROOT = Path(__file__).parents[2]

FILE_LINES = 700
FUNCTION_LINES = 70

IMPORTS_INSIDE = {
    "__main__.py": "signals first",
    "cli/completion.py": "every command imports it for its parameters, and reads no names",
    "cli/context.py": "`kedge help` works on every system, and `kedge up` reads it before all else",
    "cli/demo.py": "the demo's code needs the extra `demo`; without it the command says so",
    "cli/endpoint.py": "a remote command does not look for the endpoint",
    "cli/hold.py": "a remote command needs only its receipt",
    "cli/rollback.py": "a remote rollback needs only its receipt",
    "cli/serve.py": "an image of `kedge up` that cannot be imported keeps its workers",
    "cli/submit.py": "a remote command submits nothing",
    "operations/commands.py": "values by key are looked up by few endpoints; rollbacks of others do not wait",
    "workspace.py": "a rollback needs no NumPy, and a remote command no database library",
}
"""Which files import something of kedge within a function, and why. All others do so at the top."""

ANYTHING = "a model or a loader may raise anything; it becomes one named failure"
BROAD_EXCEPT = {
    "cli/completion.py": "a message would be written into the line that is typed",
    "adapters/models/sklearn/pickles.py": "an allowed pickle runs code, which may raise anything",
    "core/formats.py": "a damaged pickle may make its reader raise anything; what was found stands",
    "adapters/channels/apprise.py": "a plug-in of Apprise may raise anything; it becomes one failed attempt",
    "adapters/models/onnx.py": ANYTHING,
    "adapters/process/__main__.py": ANYTHING,
    "adapters/process/client.py": "one asker's fault must not cost the others their answer",
    "adapters/process/host.py": ANYTHING,
    "adapters/models/sklearn/loader.py": ANYTHING,
    "adapters/models/sklearn/outputs.py": ANYTHING,
    "adapters/process/features_child.py": "a features file may raise anything; it becomes one answer",
    "transforms/bundle.py": "a transformation may raise anything when it is loaded; it becomes one refusal",
    "cli/serve.py": "an image that cannot start keeps the process, whatever its code raises",
    "inspection/independence.py": ANYTHING,
    "engine/recording/custom.py": "an operator's own comparison may raise anything; it becomes a pair that is not compared",
    "engine/serving/pool.py": ANYTHING,
    "engine/process_faults.py": "the net of every loop: the fault is published and logged",
    "engine/serving/serving.py": ANYTHING,
    "web/app.py": "the caller gets an answer whatever happens; status shows the fault",
    "gateway/http/app.py": "a caller gets an answer whatever happens; the log gets the trace",
    "gateway/http/decoder_child.py": "a fault costs its body; the child stays for those of other callers",
    "runtime/logs.py": "a value may raise anything when it is rendered; its event is logged without it",
    "columns.py": ANYTHING,
    "testing/checks.py": "a loader may raise anything; it becomes one failed check",
}
"""Where everything is caught, and why. What only cleans up and raises again need not be here."""

PROSE = {
    "advice",
    "answer",
    "by",
    "detail",
    "fault",
    "faults",
    "headline",
    "hint",
    "message",
    "reason",
    "resolved",
    "said",
    "sentence",
    "statement",
    "summary",
    "title",
    "why",
    "words",
}
"""What holds words for people, or a name that a user may choose: never what a branch needs."""
IDENTITIES = {"key", "label"}
"""What is made of fields to be one word: those fields stand beside it."""
CUTS = {
    "casefold",
    "count",
    "endswith",
    "find",
    "fullmatch",
    "index",
    "lower",
    "match",
    "partition",
    "removeprefix",
    "removesuffix",
    "rfind",
    "rindex",
    "rpartition",
    "rsplit",
    "search",
    "split",
    "startswith",
    "upper",
}
PATTERNS = {"findall", "finditer", "fullmatch", "match", "search", "split"}
READS_PROSE = {
    "adapters/channels/mail.py": "the subject of a mail is one line",
    "core/stored/upcast.py": "an entry from before the field has nothing else",
    "demo/flights.py": "a flight's label is whether it was late",
    "tabular/statistics.py": "the cells of a CSV file",
    "config/load.py": "msgspec's words are shown, in lower case",
}
"""Where text is taken apart that one of these names holds, and why."""

NO_UNIT_TEST = {"__init__", "values", "errors"}
"""Nouns without behaviour."""

BANNED = {
    "primary",
    "incumbent",
    "baseline",
    "stable",
    "challenger",
    "champion",
    "manager",
    "handler",
    "helper",
    "helpers",
    "util",
    "utils",
}
"""Synonyms: docs/glossary.md owns one noun a concept."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def functions(tree: ast.AST) -> Iterator[Function]:
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def words(identifier: str) -> set[str]:
    """`SetWeight` and `set_weight` are both set and weight."""
    return {word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", identifier)}


def lines_of(function: Function) -> int:
    """From its name to its last line."""
    return (function.end_lineno or 0) - function.lineno + 1


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


def caught(tree: ast.AST) -> set[str]:
    """The names that exceptions are bound to."""
    handlers = (node for node in ast.walk(tree) if isinstance(node, ast.ExceptHandler))
    return {handler.name for handler in handlers if handler.name}


def is_prose(node: ast.expr, errors: set[str]) -> bool:
    """Whether an expression is words for people: by its name, or as what an exception says."""
    match node:
        case ast.Name(id=called):
            return called in PROSE
        case ast.Attribute(attr=called):
            return called in PROSE | IDENTITIES
        case ast.Subscript(slice=ast.Constant(value=called)) if isinstance(called, str):
            return called in PROSE | IDENTITIES
        case ast.Call(func=ast.Name(id="str"), args=[told]) | ast.FormattedValue(value=told):
            return is_prose(told, errors) or is_fault(told, errors)
        case ast.JoinedStr(values=parts):
            return any(
                isinstance(part, ast.FormattedValue) and is_prose(part, errors) for part in parts
            )
        case ast.Call(func=ast.Attribute(value=inner)) | ast.Subscript(value=inner):
            return is_prose(inner, errors) or is_fault(inner, errors)
    return False


def is_fault(node: ast.expr, errors: set[str]) -> bool:
    """Whether it is a caught exception, or what one carries without a type: `orig`, `args`."""
    match node:
        case ast.Name(id=called):
            return called in errors
        case ast.Attribute(value=inner, attr="orig" | "args" | "msg"):
            return is_fault(inner, errors)
    return False


def prose_read(tree: ast.AST) -> list[int]:
    """The lines at which a branch could depend on words: they are cut, searched, or compared."""
    errors, found = caught(tree), []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"), attr=how), args=args):
                reads = how in PATTERNS and any(is_prose(arg, errors) for arg in args)
            case ast.Call(func=ast.Attribute(value=of, attr=how)):
                reads = how in CUTS and is_prose(of, errors)
            case ast.Compare(left=left, ops=[ast.In() | ast.NotIn()], comparators=[right]):
                looked_for = isinstance(left, ast.JoinedStr) or is_words(left)
                reads = looked_for and is_prose(right, errors)
            case ast.Compare(left=left, ops=[ast.Eq() | ast.NotEq()], comparators=[right]):
                sides = (left, right), (right, left)
                reads = any(is_prose(a, errors) and is_words(b) for a, b in sides)
            case _:
                reads = False
        if reads and isinstance(node, ast.expr):
            found.append(node.lineno)
    return found


def is_words(node: ast.expr) -> bool:
    """A literal that is not empty, or a constant of the module."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str) and node.value != ""
    named = node.id if isinstance(node, ast.Name) else getattr(node, "attr", "")
    return named.isupper()


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_function_fits_on_a_page(path: Path) -> None:
    long = {f.name: n for f in functions(get_tree(path)) if (n := lines_of(f)) > FUNCTION_LINES}
    assert not long


@pytest.mark.parametrize("path", FILES, ids=name)
def test_internal_imports_of_a_file_are_at_its_top(path: Path) -> None:
    inside = {f.name for f in functions(get_tree(path)) if any(is_internal(n) for n in ast.walk(f))}
    assert bool(inside) == (name(path) in IMPORTS_INSIDE)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_exceptions_are_caught_narrowly(path: Path) -> None:
    assert not broad(get_tree(path)) or name(path) in BROAD_EXCEPT


def test_the_allow_list_holds_no_file_that_does_not_need_it() -> None:
    assert set(BROAD_EXCEPT) <= {name(path) for path, tree in get_trees().items() if broad(tree)}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_branch_depends_on_words_for_people(path: Path) -> None:
    """What a branch needs is a field, an enum or a code: a message may be reworded at any time."""
    assert not prose_read(get_tree(path)) or name(path) in READS_PROSE


def test_no_file_is_allowed_to_read_words_that_reads_none() -> None:
    assert set(READS_PROSE) <= {
        name(path) for path, tree in get_trees().items() if prose_read(tree)
    }


@pytest.mark.parametrize(
    "source",
    [
        'line.by.startswith("patrol@")',
        'str(line.body["key"]).startswith("failing:r")',
        'what = alert.key.partition(":")[0]',
        'x = "the same holds for" not in f.statement',
        'z = {n for n, why in left.items() if why.startswith("failed")}',
        "z = {n for n, why in cold.items() if why != WINDOW_OVER}",
        'str(entry.body["reason"]).removeprefix("failing:r")',
        'any(fault.startswith(f"{place}.score:") for fault in faults)',
        'dict.fromkeys(words.partition("/")[0] for words in facts.stale)',
        'try:\n    f()\nexcept E as error:\n    code = "no such table" in str(error)',
        'try:\n    f()\nexcept E as error:\n    pin = str(error.orig).startswith("pin")',
        'try:\n    f()\nexcept E as error:\n    busy = error.args[0].startswith("busy")',
        'try:\n    f()\nexcept E as inner:\n    late = re.search("timed out", f"{inner}")',
        'if decision.reason.lower() == "late":\n    go()',
        'if "late" in f"{decision.reason}":\n    go()',
    ],
)
def test_the_rule_about_words_sees_what_it_is_about(source: str) -> None:
    assert prose_read(ast.parse(source))


@pytest.mark.parametrize(
    "source",
    [
        "if decision.reason:\n    say(decision.reason)",
        'if error.code == "not_ready":\n    wait()',
        'if reason == "":\n    go()',
        'words = f"{path.name.partition(chr(46))[0]}"',
        "if known.summary != one.summary:\n    write(one)",
        "try:\n    f()\nexcept E as error:\n    log(fault=str(error))",
    ],
)
def test_the_rule_about_words_leaves_alone_what_is_none_of_it(source: str) -> None:
    assert not prose_read(ast.parse(source))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_nothing_is_left_to_do_in_a_comment(path: Path) -> None:
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    comments = [t.string for t in tokens if t.type in (tokenize.COMMENT, tokenize.STRING)]
    assert not [c for c in comments if re.search(r"\b(TODO|FIXME|XXX)\b", c)]


PRINTS = {
    "system/terminal.py": "the one place that prints: it escapes control characters",
    "testing/diagram.py": "writes a page of the docs; nothing in it comes from outside",
}


def prints(tree: ast.AST) -> list[int]:
    """The lines that write to standard output or error by themselves."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                found.append(node.lineno)
            case ast.Attribute(value=ast.Name(id="click"), attr="echo" | "secho" | "clear"):
                found.append(node.lineno)
            case ast.Attribute(
                value=ast.Attribute(value=ast.Name(id="sys"), attr="stdout" | "stderr"),
                attr="write" | "buffer" | "writelines",
            ):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_one_place_prints(path: Path) -> None:
    """What comes from callers must not control the operator's terminal."""
    assert not prints(get_tree(path)) or name(path) in PRINTS


@pytest.mark.parametrize("path", FILES, ids=name)
def test_one_noun_a_concept(path: Path) -> None:
    defined = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = [n.name for n in ast.walk(get_tree(path)) if isinstance(n, defined)]
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


def test_a_rollback_waits_for_no_library_that_it_does_not_need() -> None:
    """Of what it calls only the workspace imports something later."""
    called = "kedge.workspace, kedge.operations.rollback, kedge.operations.probe"
    script = f"import json, sys, kedge.cli.rollback, {called}; print(json.dumps([*sys.modules]))"
    run = [sys.executable, "-c", script]
    loaded = json.loads(subprocess.run(run, check=True, stdout=subprocess.PIPE).stdout)
    unneeded = {"numpy", "duckdb", "uvicorn", "rich", "structlog", "alembic", "sqlalchemy.orm"}
    assert not unneeded & {*loaded}


RUNS_FEATURES = {
    "adapters/process/__main__.py": "a probe or a proof, behind the fence",
    "adapters/process/features_child.py": "the child of a command, behind the fence",
    "adapters/process/host.py": "the process of the release's model",
    "transforms/bundle.py": "defines it",
}
"""Where a features file is loaded into the own process, and which process that is."""


def loads_features(tree: ast.AST) -> list[int]:
    """The lines that execute code or load a transformation without a function of another process."""
    found = []
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id="exec" | "eval" | "Namespace" | "run_path")):
                found.append(node.lineno)
            case ast.Call(func=ast.Name(id="Transform"), args=given, keywords=named):
                if len(given) < 3 and not any(word.arg == "function" for word in named):
                    found.append(node.lineno)
    return found


@pytest.mark.parametrize("path", FILES, ids=name)
def test_features_files_run_in_processes_of_their_own(path: Path) -> None:
    """Their code may do anything: no command, control or worker loads it."""
    assert not loads_features(get_tree(path)) or name(path) in RUNS_FEATURES


def test_nothing_sleeps_by_a_clock_that_may_be_moved() -> None:
    """`time.sleep` raises where a process's clock is moved, and would end the loop that waits."""
    sleeping = [name(path) for path in FILES if "time.sleep(" in path.read_text("utf-8")]
    assert not sleeping


def test_python_is_started_in_one_place() -> None:
    """Each process of kedge's own is started with a path that lacks the working directory."""
    naming = {name(path) for path in FILES if "sys.executable" in path.read_text("utf-8")}
    # A restart executes the supervisor as it was started.
    assert naming == {"system/interpreter.py", "runtime/restart.py"}


PRINTS_ITSELF = {
    "adapters/process/__main__.py": "its standard output is a protocol",
    "system/terminal.py": "the one place that prints",
    "testing/diagram.py": "a picture for the documentation, made by hand",
}
UNCLEANED = {
    "cli/demo.py": 1,
    "cli/help.py": 3,
    "cli/log.py": 2,
    "cli/outcomes.py": 1,
    "cli/rollback.py": 1,
    "cli/serve.py": 1,
    "cli/status.py": 1,
}
"""Calls of `Context.out` and of `Shown` by file whose text has no value of a caller, a model or another user, or one that was cleaned before."""


def test_only_the_terminal_prints() -> None:
    found = set()
    for path, tree in get_trees().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            said = ast.unparse(call.func)
            if said == "print" or said in {
                "click.echo",
                "click.secho",
                "sys.stdout.write",
                "sys.stderr.write",
                "sys.stdout.buffer.write",
            }:
                found.add(name(path))
    assert found <= set(PRINTS_ITSELF)
    assert "system/terminal.py" in found


def test_a_command_cleans_the_values_that_it_prints() -> None:
    counted: dict[str, int] = {}
    for path, tree in get_trees().items():
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
            shows = ast.unparse(call.func) in ("context.out", "Shown")
            if shows and "one_line" not in ast.unparse(call):
                counted[name(path)] = counted.get(name(path), 0) + 1
    assert counted == UNCLEANED, "one_line() what it shows, or count it here"
