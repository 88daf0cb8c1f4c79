"""The docs agree with the code: every name that a user may meet is read from the code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from kedge.adapters.sql.sqlite.create import ACCESS_DIR, EVIDENCE_DIR, LEDGER_DIR, ROSTER_DIR
from kedge.cli import main
from kedge.cli.pages import COMMANDS
from kedge.cli.root import walk
from kedge.cli.topics import find_topic
from kedge.config.load import parse
from kedge.config.model import (
    CONFIG_NAME,
    STATE_DIR,
    Alerts,
    ControlBind,
    MetricsSettings,
    ProxySettings,
    ServerSettings,
)
from kedge.core import values
from kedge.core.errors import KedgeError
from kedge.core.metrics.definitions import METRICS
from kedge.core.release.commands import Event
from kedge.core.release.refusals import REFUSALS
from kedge.core.routing import Reason
from kedge.core.stored.notes import KINDS
from kedge.engine.recording.recorder import ANSWERED
from kedge.gateway.http.app import STATUS
from support.source import FILES, SOURCE, get_trees

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TEXTS = {page: page.read_text("utf-8") for page in PAGES}


def text_of(page: str) -> str:
    return TEXTS[ROOT / page]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def calls(called: str) -> Iterator[ast.Call]:
    """Calls of a function or method of this name."""
    for tree in get_trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == called:
                yield node


def told(node: ast.AST) -> set[str]:
    """The strings that an expression may be; what a program fills in is left out."""
    if isinstance(node, ast.Constant):
        return {node.value} if isinstance(node.value, str) else set()
    if isinstance(node, ast.IfExp):
        return told(node.body) | told(node.orelse)
    if isinstance(node, ast.JoinedStr):
        return {"".join(str(p.value) for p in node.values if isinstance(p, ast.Constant))}
    return set()


def keyword(call: ast.Call, wanted: str) -> set[str]:
    return {said for k in call.keywords if k.arg == wanted for said in told(k.value)}


def first_cells(page: str, heading: str | None = None) -> list[str]:
    """What stands in backticks in the first column of a page's tables, or of one section's."""
    text = text_of(page)
    if heading is not None:
        text = re.split(r"(?m)^##+ ", text.split(f"## {heading}\n", 1)[1])[0]
    cells = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    return [said for cell in cells for said in re.findall(r"`([^`]+)`", cell)]


# ---------------------------------------------------------------- the command line

NO_CONTEXT = click.Context(main)
VERBS = {path: command for path, command in walk(main) if path in COMMANDS and not command.hidden}


def option_row(option: click.Option) -> str:
    """A row of docs/reference/cli.md."""
    said = ", ".join(f"`{n}`" for n in option.opts)
    if not option.is_flag:
        metavar = option.make_metavar(click.Context(main)).strip("[]").replace("|", " or ")
        said = f"`{option.opts[0]} {metavar}`"
    shown = f" Default: `{option.default}`." if option.show_default else ""
    return f"| {said} | {option.help}{shown} |"


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_is_documented_with_every_option(verb: str) -> None:
    command = VERBS[verb]
    section = text_of("docs/reference/cli.md").split(f"## kedge {verb}\n", 1)[1].split("\n## ")[0]
    arguments = [
        f"{p.name}".upper() if p.required else f"[{p.name}]".upper()
        for p in command.params
        if isinstance(p, click.Argument)
    ]
    assert f"`{' '.join(['kedge', verb, *arguments])}`" in section
    assert command.help is not None
    assert command.help in section
    options = [p for p in command.params if isinstance(p, click.Option) and not p.hidden]
    rows = [option_row(p) for p in options if p.name != "as_json"]
    assert [line for line in section.splitlines() if line.startswith("| `")] == rows


def test_no_verb_is_documented_that_does_not_exist() -> None:
    headings = re.findall(r"(?m)^## kedge (.+)$", text_of("docs/reference/cli.md"))
    assert sorted(headings) == sorted(VERBS)


def commands_in(text: str) -> Iterator[str]:
    """What readers are told to type: console lines, and `kedge ...` within a sentence."""
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        yield from re.findall(r"(?m)^\$ (kedge [a-z].*?)(?: +#.*)?$", block)
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    yield from re.findall(r"(?<!`)`(kedge [a-z][^`]*)`(?!`)", prose)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_command_that_is_shown_can_be_typed(page: Path) -> None:
    for line in commands_in(TEXTS[page]):
        words = shlex.split(line.replace("...", "").replace('"reason"', "reason"))
        verb, rest = words[1], words[2:]
        command = main.get_command(NO_CONTEXT, verb)
        assert command is not None, line
        if (
            isinstance(command, click.Group)
            and rest
            and (rest[0].strip(",") in command.commands or not command.params)
        ):
            command = command.commands[rest[0].strip(",")]
        known = {n for p in command.params for n in p.opts}
        asked = {w.split("=")[0] for w in rest if w.startswith("--")}
        assert asked <= known, line


# ---------------------------------------------------------------- kedge.toml

SECTIONS: dict[str, type[msgspec.Struct]] = {
    "[metrics]": MetricsSettings,
    "[control]": ControlBind,
    "[control.proxy]": ProxySettings,
    "[server]": ServerSettings,
    "[alerts]": Alerts,
    "[endpoints.NAME]": values.Policy,
    "fields": values.Field,
    "output": values.Output,
    "shadow": values.ShadowPolicy,
    "canary": values.CanaryPolicy,
    "cost": values.CostPolicy,
    "limits": values.Limits,
    "owner": values.Contact,
    "escalation": values.Escalation,
    "rota": values.Rota,
    "guardrails": values.Guardrail,
    "after": values.AfterPolicy,
    "drill": values.DrillPolicy,
    "features": values.FeaturePolicy,
    "log": values.LogPolicy,
}


def shown(field: msgspec.structs.FieldInfo) -> str:
    """A default as config.md writes it."""
    default: Any = field.default
    if field.required:
        return "required"
    if isinstance(default, msgspec.Struct):
        return "see below"
    if default in (None, msgspec.UNSET) or default is msgspec.NODEFAULT:
        return "none"
    if isinstance(default, tuple):
        return f"`[{', '.join(f'{item:g}' for item in default)}]`"
    if isinstance(default, bool | str):
        return f"`{json.dumps(default)}`"
    return f"`{int(default) if default == int(default) else default}`"


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_setting_is_documented_with_its_default(heading: str) -> None:
    fields = msgspec.structs.fields(SECTIONS[heading])
    assert first_cells("docs/reference/config.md", heading) == [f.name for f in fields]
    section = text_of("docs/reference/config.md").split(f"## {heading}\n", 1)[1]
    rows = [line.split(" | ") for line in section.split("\n## ")[0].splitlines() if "| `" in line]
    assert {r[0].strip("| `"): shown(f) for r, f in zip(rows, fields, strict=True)} == {
        r[0].strip("| `"): r[2] for r in rows
    }


def test_every_variable_of_the_environment_is_documented() -> None:
    got = [call for call in calls("get") if ast.unparse(call.func) == "os.environ.get"]
    named = {said for call in got for said in told(call.args[0])} - {"USER", "LOGNAME"}
    named |= {said for call in calls("option") for said in keyword(call, "envvar")}
    assert named
    page = text_of("docs/howto/config.md")
    assert not [variable for variable in named if f"`{variable}`" not in page]


# ---------------------------------------------------------------- errors, reasons, events, counts


def codes() -> set[str]:
    """Every error code in the source."""
    found = set(REFUSALS) | set(STATUS)
    for tree in get_trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call):
                found |= keyword(node, "code")
            if isinstance(node, ast.Constant) and re.fullmatch(r"model_(?!v)\w+", str(node.value)):
                found.add(str(node.value))
    faults_of_fields = (*calls("_bad"), *calls("bad"))
    found |= {
        said for call in faults_of_fields if len(call.args) > 2 for said in told(call.args[2])
    }
    kinds: list[type[KedgeError]] = [KedgeError]
    for kind in kinds:
        found.add(kind.code)
        kinds += kind.__subclasses__()
    faults = {code for code in found if code.startswith("_")}
    databases = (LEDGER_DIR, ROSTER_DIR, EVIDENCE_DIR, ACCESS_DIR)
    found |= {f"{database}{fault}" for database in databases for fault in faults}
    return found - faults - {"model_repository", "model_reloads"}


def test_every_error_code_is_documented_and_no_other() -> None:
    text = text_of("docs/reference/errors.md")
    classes = re.findall(r"(?m)^\| `[A-Z]\w+` \| `(\w+)`", text)
    documented = {c for c in first_cells("docs/reference/errors.md") if c.islower()} | {*classes}
    assert documented == codes()


def test_every_exported_metric_is_documented_as_the_table_has_it() -> None:
    rows = [
        f"| `{m.name}` | {m.kind.value} | {', '.join(f'`{label}`' for label in m.labels) or '-'} |"
        f" {m.meaning} |"
        for m in METRICS
    ]
    text = text_of("docs/reference/prometheus.md")
    assert [line for line in text.splitlines() if line.startswith("| `kedge_")] == rows


def test_an_errors_status_is_the_one_that_the_gateway_sends() -> None:
    rows = re.findall(r"(?m)^\| `(\w+)` \| (\d{3}) \|", text_of("docs/reference/errors.md"))
    assert {code: int(status) for code, status in rows if code in STATUS} == STATUS


def test_every_class_of_error_is_documented() -> None:
    cells = set(first_cells("docs/reference/errors.md"))
    assert {kind.__name__ for kind in KedgeError.__subclasses__()} <= cells


def test_every_reason_is_documented_and_no_other() -> None:
    assert first_cells("docs/reference/reasons.md") == [str(reason) for reason in Reason]


def test_every_event_and_every_kind_of_note_is_documented_and_no_other() -> None:
    tags = [str(kind.__struct_config__.tag) for kind in Event.__subclasses__()]
    of_the_ledger = first_cells("docs/reference/events.md", "Of the ledger")
    assert sorted(of_the_ledger) == sorted([*tags, *KINDS])
    assert not [call for call in calls("Note") for said in keyword(call, "kind") if said]


def test_every_kind_of_actor_is_documented_and_no_other() -> None:
    cells = first_cells("docs/reference/events.md", "Who wrote an entry")
    assert cells == [str(kind) for kind in values.ActorKind]


def test_every_event_of_the_logs_is_documented_and_no_other() -> None:
    levels = ("info", "warning", "exception", "error")
    said = {text for level in levels for call in calls(level) for text in told(call.args[0])}
    of_the_logs = first_cells("docs/reference/events.md", "Of the logs")
    assert set(of_the_logs) == {text for text in said if re.fullmatch(r"[a-z]+\.[a-z_]+", text)}


def test_every_count_is_documented_and_no_other() -> None:
    counted = {said for call in calls("count") if call.args for said in told(call.args[0])} | set(
        ANSWERED
    )
    documented = {re.sub("[A-Z]+", "", cell) for cell in first_cells("docs/reference/counts.md")}
    assert documented == {said for said in counted if said}


# ---------------------------------------------------------------- files and ports


def test_every_port_is_documented() -> None:
    server, page = ServerSettings(), text_of("docs/reference/files.md")
    assert f"| {server.port} |" in page
    assert f"| {server.control_port} |" in page


def test_every_file_that_the_source_names_is_documented() -> None:
    page = text_of("docs/reference/files.md")
    named = {
        node.value.rsplit("/", 1)[-1]
        for tree in get_trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[\w./-]*\.(db|json|lock|sock|handoff|toml|log)", node.value)
    }
    named |= {
        CONFIG_NAME,
        STATE_DIR,
        LEDGER_DIR,
        ROSTER_DIR,
        EVIDENCE_DIR,
        ACCESS_DIR,
        "ballast",
        "CREATED",
    }
    assert {"ledger.db", "proof.json", "supervisor.lock", ".handoff"} <= named
    served = {"openapi.json"}  # a path of control's API
    assert not [file for file in named - served if file not in page]


# ---------------------------------------------------------------- the pages themselves


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as they are made for readers of the repository."""
    prose = re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)
    headings = re.findall(r"(?m)^#+ (.+)$", prose)
    return {re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_somewhere(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", prose):
        if link.startswith(("http://", "https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_can_be_reached_from_the_index() -> None:
    index = ROOT / "docs" / "README.md"
    linked = {
        (index.parent / path).resolve() for path in re.findall(r"\]\(([^)#\s]+)", TEXTS[index])
    }
    assert not [
        name(page) for page in PAGES if "docs" in page.parts and page not in {*linked, index}
    ]


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_snippets_are_valid_in_their_language(page: Path) -> None:
    readers: dict[str, Any] = {"python": ast.parse, "json": json.loads, "toml": tomllib.loads}
    for language, block in re.findall(
        r"(?m)^ *```(\w+)\n(.*?)^ *```", TEXTS[page], re.DOTALL | re.MULTILINE
    ):
        if language in readers:
            read = readers[language](block)
            if language == "toml" and "endpoints" in read:
                parse(read)


def test_architecture_is_read_in_one_sitting() -> None:
    assert len(text_of("ARCHITECTURE.md").splitlines()) <= 200


def test_architecture_names_every_module() -> None:
    text = text_of("ARCHITECTURE.md").split("## Code map", 1)[1].split("\n## ")[0]
    named = set(re.findall(r"`([\w/]+)`", text))
    inside = {"demo", "migrations", "testing"}
    modules = [p for p in FILES if not inside & {*p.parts} and not p.stem.startswith("_")]
    missing = [
        p.relative_to(SOURCE).as_posix()
        for p in modules
        if not {p.stem, f"{p.parent.name}/{p.stem}"} & named
    ]
    assert not missing
    assert {"demo/", "testing/", "sql/migrations/"} <= set(re.findall(r"`([\w/]+/)`", text))


def test_the_functions_of_the_two_walks_exist() -> None:
    text = text_of("ARCHITECTURE.md").split("## The walk of a request", 1)[1]
    steps = re.split(r"(?m)^\d\. ", text.split("## Code map")[0])[1:]
    steps = [step for step in steps if step.startswith("`")]
    assert len(steps) == 16
    defined = {
        node.name
        for tree in get_trees().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    for step in steps:
        files = re.findall(r"`(\w+(?:/\w+)+\.py)`", step)
        assert files
        assert all((SOURCE / file).is_file() for file in files)
        functions = re.findall(r"`(?:[A-Z]\w+\.)?(_?[a-z]\w+)`", step)
        assert not [f for f in functions if f not in defined]


WORDS = """ack, agreement, alert, arm, artifact, bucket, canary, candidate, comparison, condemned,
contract, coverage, drift, endpoint, entity, epoch, escalation, event, failover, golden rows, hold, keyless,
lease, ledger, live, model version, page, pair, pin, placement, plan, policy, prediction, previous,
production, receipt, refusal, release, replica, rollback, rollout, roster, rota, row, salt, shadow,
silent, stage, stale, starved, supervisor, tally, warning, way back, weight, wish"""


def test_the_glossary_owns_the_words() -> None:
    owned = {
        word.strip()
        for line in re.findall(r"(?m)^\*\*(.+?)\*\* - ", text_of("docs/glossary.md"))
        for word in line.split(",")
    }
    assert not {word.strip() for word in WORDS.split(",")} - owned


def test_the_glossary_names_the_words_that_the_house_forbids() -> None:
    house = ast.parse((ROOT / "tests" / "house" / "test_house.py").read_text("utf-8"))
    (banned,) = [
        ast.literal_eval(node.value)
        for node in house.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "BANNED"
    ]
    table = text_of("docs/glossary.md").split("## Words we do not use", 1)[1]
    assert not [word for word in banned if word.removesuffix("s") not in table]


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem != "glossary"], ids=name)
def test_no_page_uses_a_second_word_for_one_thing(page: Path) -> None:
    second = r"\b(incumbent|challenger|champion|baseline|revert(s|ed)?)\b"
    assert not re.findall(second, TEXTS[page], re.IGNORECASE)


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_a_target_of_make_that_is_named_exists(page: Path) -> None:
    targets = set(re.findall(r"(?m)^([a-z]+):", (ROOT / "Makefile").read_text("utf-8")))
    code = "\n".join(re.findall(r"`{1,3}[^`]+`{1,3}", TEXTS[page]))
    assert set(re.findall(r"\bmake ([a-z]+)", code)) <= targets


def test_a_decision_fits_on_a_page_and_says_how_it_could_be_wrong() -> None:
    headings = ["Context", "Choice", "Rejected", "Consequence", "How we would know it was wrong"]
    decisions = [page for page in PAGES if page.parent.name == "adr"]
    assert len(decisions) >= 12
    for page in decisions:
        assert re.findall(r"(?m)^## (.+)$", TEXTS[page]) == headings, name(page)
        assert len(TEXTS[page].splitlines()) <= 60, name(page)


def test_the_changelog_knows_the_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"## {project['version']}" in text_of("CHANGELOG.md")


# ---------------------------------------------------------------- what messages name


def literals(tree: ast.AST) -> Iterator[str]:
    """Texts of a module that are no docstrings: the parts of f-strings too."""
    documented = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    statements = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in documented | statements
        ):
            yield node.value


def test_a_message_names_a_topic_that_help_shows_and_no_file() -> None:
    """The repository's folders are not where kedge is installed."""
    found = [text for tree in get_trees().values() for text in literals(tree)]
    assert not [text for text in found if re.search(r"\bdocs/[\w/-]+\.md", text)]
    topics = {one for text in found for one in re.findall(r"kedge help ([a-z][\w/-]*)", text)}
    assert {"repair", "security", "register-a-model", "reference/config"} <= topics
    assert not [topic for topic in topics - {"lists", "not_ready"} if find_topic(topic) is None]
