"""House rules about words: names of modules, banned words, lengths of lines, sentences and subjects."""

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src" / "kedge"
FILES = sorted(SOURCE.rglob("*.py"))
TEXTS = {path: path.read_text("utf-8") for path in FILES}
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(
            path
            for path in (ROOT / "examples").rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        ),
    ]
)

TESTED = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])

BANNED = re.compile(
    r"\b(somebody|nobody|anybody|whoever|mend|mends|mended|all the same|comes again)\b",
    re.IGNORECASE,
)
STORED = {
    "core/values/policy.py": {
        "Nobody",
        "nobody",
    },  # the owner that `kedge init` stored in old policies
    "core/readiness.py": {"mend"},  # the field of `kedge check --json` that names the command
    "cli/screen/check.py": {"mend"},  # reads that field
    "cli/text/check.py": {"mend"},  # reads that field
    "web/dashboard/pages/ready.py": {"mend"},  # reads that field
}
"""Banned words that are stored or in JSON, by the file that spells them."""
STORED_ON_PAGES = {"docs/reference/json.md": {"mend"}}
"""The same, by the page that names them."""

UNTYPED = 10
"""Uses of `dict[str, Any]` at most: what has a known shape is a struct."""

GERUNDS = {
    "serving",
    "recording",
    "routing",
    "testing",
    "typing",
    "authoring",
    "alerting",
    "joining",
}
"""The glossary's nouns in -ing: the only modules that may end so."""

TOP_FILES = 8
CODE_COLUMNS = 100
SENTENCE_WORDS = 30
PARTS = re.compile(r"\n\s*\n|\n\s*(?=[*\-] |\d+\. |[\w`]+:\s)")
"""Between two paragraphs, items of a list or arguments."""
LISTING = re.compile(r"\S {2,}\S|─")
"""A line of a table or a tree: columns are aligned by blanks."""
PRAGMA = re.compile(r"\s+# (?:noqa: [A-Z0-9, ]+|type: ignore\[[a-z-]+\])$")
SKIPS = 20
SUBJECT = 72
RECORDED = "3e2a2362c3c9000d384caef88730e5db1eebc0b5"
"""Commits after this one have short subjects; those before it were made without the rule."""


def name(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def docstring_nodes(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield every string that stands alone: docstrings, also those of constants and fields."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            yield node.value


def long_lines(text: str) -> list[int]:
    """Return the numbers of code lines over the limit, as Ruff counts: without a bare pragma.

    Docstrings are prose and exempt.
    """
    prose: set[int] = set()
    for node in docstring_nodes(ast.parse(text)):
        prose.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    lines = ((at, PRAGMA.sub("", line)) for at, line in enumerate(text.splitlines(), 1))
    return [at for at, line in lines if len(line) > CODE_COLUMNS and at not in prose]


def sentences(docstring: str) -> Iterator[str]:
    """Yield a docstring's sentences; list items are separate, and aligned tables are no prose."""
    prose = [line if not LISTING.search(line) else "" for line in docstring.split("\n")]
    for part in PARTS.split("\n".join(prose)):
        yield from re.split(r"(?<=[.!?])\s+", part)


def long_sentences(text: str) -> list[str]:
    return [
        f"{node.lineno}: {' '.join(sentence.split())}"
        for node in docstring_nodes(ast.parse(text))
        if isinstance(node.value, str)
        for sentence in sentences(node.value)
        if len(re.findall(r"\S*\w\S*", sentence)) > SENTENCE_WORDS
    ]


def long_subjects(subjects: list[str]) -> list[str]:
    return [subject for subject in subjects if len(subject) > SUBJECT]


def is_gerund(stem: str) -> bool:
    last = stem.rsplit("_", 1)[-1]
    return last.endswith("ing") and len(last) > 5 and stem not in GERUNDS


def git(*words: str) -> str:
    done = subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"git {' '.join(words)}: {done.stderr.strip()}"
    return done.stdout.strip()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_banned_word_is_in_a_page(path: Path) -> None:
    text = re.sub(r"\s+", " ", path.read_text("utf-8"))  # a turn of phrase may be wrapped
    exempt = STORED_ON_PAGES.get(path.relative_to(ROOT).as_posix(), set())
    assert [word for word in BANNED.findall(text) if word not in exempt] == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_banned_word_is_in_the_source(path: Path) -> None:
    exempt = STORED.get(name(path), set())
    found = [
        f"{number}: {hit[0]}"
        for number, line in enumerate(TEXTS[path].splitlines(), 1)
        for hit in BANNED.finditer(line)
        if hit[0] not in exempt
    ]
    assert not found, found


def test_exempt_spellings_are_still_there() -> None:
    for file, spellings in STORED.items():
        text = (SOURCE / file).read_text("utf-8")
        assert all(re.search(rf"\b{word}\b", text) for word in spellings), file
    for page, spellings in STORED_ON_PAGES.items():
        text = (ROOT / page).read_text("utf-8")
        assert all(re.search(rf"\b{word}\b", text) for word in spellings), page


@pytest.mark.parametrize("path", TESTED, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_banned_word_names_a_test_or_is_in_its_prose(path: Path) -> None:
    """The names, docstrings and comments of tests and benchmarks; data may have any word."""
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    prose = [
        node.name.replace("_", " ")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    prose += [str(node.value) for node in docstring_nodes(tree)]
    prose += [
        token.string
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    ]
    assert not [one for one in prose if BANNED.search(one)]


def test_the_makefile_uses_no_banned_word() -> None:
    assert not BANNED.findall((ROOT / "Makefile").read_text("utf-8"))


@pytest.mark.parametrize("text", ["Somebody has it", "it was mended", "is all\tthe same"])
def test_the_pattern_of_banned_words_finds_them(text: str) -> None:
    assert bool(BANNED.search(text)) is ("\t" not in text)
    assert not BANNED.search("recommend, amended, nobodys")


@pytest.mark.parametrize("path", FILES, ids=name)
def test_sentences_of_docstrings_are_short(path: Path) -> None:
    assert long_sentences(TEXTS[path]) == []


def test_long_sentences_are_found() -> None:
    thirty = " ".join(["word"] * 30)
    assert long_sentences(f'"""{thirty}. {thirty}."""') == []
    assert long_sentences(f'"""{thirty} more."""') == [f"1: {thirty} more."]
    assert long_sentences(f'"""{thirty}\n* {thirty}\n\n{thirty}."""') == []
    assert long_sentences(f'"""name  {thirty} more."""') == []


@pytest.mark.parametrize("path", FILES, ids=name)
def test_code_lines_are_short(path: Path) -> None:
    assert long_lines(TEXTS[path]) == []


def test_long_code_lines_are_found_and_docstrings_exempt() -> None:
    assert long_lines(f'"""{"a" * 200}"""\nx = "{"b" * 200}"\n') == [2]
    assert long_lines(f'x = "{"b" * 90}"  # noqa: S608\n') == []
    assert long_lines(f'x = "{"b" * 90}"  # noqa: S608 - with a reason\n') == [1]


def test_the_formatter_is_skipped_rarely() -> None:
    found = [
        f"{name(path)}:{token.start[0]}"
        for path, text in TEXTS.items()
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT and re.search(r"fmt:\s*skip", token.string)
    ]
    assert len(found) <= SKIPS, found


def test_few_files_are_directly_in_the_package() -> None:
    files = [path.name for path in FILES if path.parent == SOURCE]
    assert 0 < len(files) <= TOP_FILES, files


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_module_is_a_gerund(path: Path) -> None:
    assert not is_gerund(path.parent.name if path.stem == "__init__" else path.stem)


def test_gerunds_are_distinguished_from_the_glossarys_nouns() -> None:
    assert is_gerund("quoting")
    assert is_gerund("late_quoting")
    assert not any(is_gerund(noun) for noun in GERUNDS)


def test_few_places_have_objects_without_a_type() -> None:
    found = {
        path.relative_to(SOURCE).as_posix(): count
        for path, text in TEXTS.items()
        if (count := text.count("dict[str, Any]"))
    }
    assert sum(found.values()) <= UNTYPED, found


def test_no_two_public_classes_have_one_name() -> None:
    places: dict[str, list[str]] = {}
    for path, text in TEXTS.items():
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(SOURCE).as_posix())
    assert len(places) > 500
    assert {name: found for name, found in places.items() if len(found) > 1} == {}


def test_commit_subjects_are_short() -> None:
    shallow = git("rev-parse", "--is-shallow-repository") == "true"
    known = subprocess.run(
        ["git", "cat-file", "-e", f"{RECORDED}^{{commit}}"],
        cwd=ROOT,
        capture_output=True,
        check=False,
    )
    assert known.returncode == 0, f"commit {RECORDED} is not in this clone" + (
        ", which is shallow: git fetch --unshallow" if shallow else ""
    )
    subjects = git("log", "--format=%s", f"{RECORDED}..HEAD").splitlines()
    assert not long_subjects(subjects)


def test_long_subjects_are_found() -> None:
    assert long_subjects(["a" * 72, "b" * 73]) == ["b" * 73]
