"""The command line as a whole: endpoints, kedge.toml, errors and help, over every command that there is."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from kedge.cli import main
from kedge.cli.context import Context
from kedge.cli.endpoint import EndpointArgument, EndpointOption
from kedge.cli.pages import COMMANDS as LISTED
from kedge.cli.pages import GROUPS, PAGES
from kedge.cli.root import ALIASES, MEANT, walk
from kedge.cli.topics import find_topic, list_topics
from kedge.config import locate
from kedge.config.load import load
from kedge.core.errors import BadConfig
from kedge.operations.setup import apply_policies, create_workplace
from kedge.workspace import Workplace, actor, user_name

COMMANDS = dict(walk(main))
CREATES = {"init"}
"""Commands whose ENDPOINT is a new name."""
FILES = (
    "model.onnx",
    "model.skops",
    "train.csv",
    "rows.json",
    "features.py",
    "labels.csv",
    "spine.parquet",
)
"""What the examples name."""
TWO = "[endpoints.churn]\n[endpoints.risk]\n"


@pytest.fixture(autouse=True)
def _same_priority(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the priority of this process: `diagnose` lowers it for good, and other tests run here."""
    monkeypatch.setattr(os, "nice", lambda by: by)


def first_line(command: click.Command) -> str:
    """What a command does, by its own help."""
    return (command.help or "").strip().partition("\n")[0]


def takers() -> dict[str, click.Command]:
    """Every command with a parameter that is called endpoint."""
    return {
        path: command
        for path, command in COMMANDS.items()
        if path not in CREATES and any(p.name == "endpoint" for p in command.params)
    }


@contextlib.contextmanager
def within(folder: Path, **environ: str | None) -> Iterator[None]:
    """Work in a directory, with variables set or removed; the umask that a command sets is put back."""
    before, mask = dict(os.environ), os.umask(0o022)
    os.umask(mask)
    try:
        for name, value in {"KEDGE_CONFIG": None, **environ}.items():
            os.environ.pop(name, None)
            os.environ.update({name: value} if value is not None else {})
        with contextlib.chdir(folder):
            yield
    finally:
        os.environ.clear()
        os.environ.update(before)
        os.umask(mask)


def run(folder: Path, *words: str, **environ: str | None) -> Result:
    """Run one command in this process; for what never comes to the command itself."""
    with within(folder, **environ):
        return CliRunner().invoke(main, list(words), prog_name="kedge")


def site(folder: Path, config: str) -> Path:
    """A directory with kedge.toml, and a ledger in which its endpoints are in force."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "kedge.toml").write_text(config)
    create_workplace(folder / ".kedge")
    apply_policies(Workplace(folder / ".kedge"), load(folder / "kedge.toml"))
    for name in FILES:
        (folder / name).touch()
    return folder


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site(tmp_path_factory.mktemp("two"), TWO)


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return site(tmp_path_factory.mktemp("one"), "[endpoints.churn]\n")


def contents(folder: Path) -> Any:
    """Everything that a command could create: the ledger's rows, and the files beside it."""
    ledger = Workplace(folder / ".kedge").ledger
    book = ledger.read()
    entries = {name: len(ledger.history(name, 100)) for name in [*book.states, "nope", "chrun"]}
    files = {str(f.relative_to(folder)) for f in folder.rglob("*") if ".db" not in f.name}
    return sorted(book.states), entries, files


def value_of(parameter: click.Parameter) -> str:
    """A word that a parameter takes."""
    if isinstance(parameter.type, click.Path):
        return "rows.json"
    return (
        "1"
        if isinstance(parameter.type, click.types.FloatParamType | click.types.IntParamType)
        else "v1"
    )


def line_of(path: str, endpoint: str) -> list[str]:
    """A command line for a command, with an endpoint and whatever else it requires."""
    words = path.split()
    for parameter in COMMANDS[path].params:
        if isinstance(parameter, EndpointOption):
            words += ["--endpoint", endpoint]
        elif isinstance(parameter, EndpointArgument):
            words.append(endpoint)
        elif isinstance(parameter, click.Argument) and parameter.required:
            words.append(value_of(parameter))
        elif parameter.required:
            words += [parameter.opts[0], value_of(parameter)]
    return words


# ---------------------------------------------------------------- an endpoint that there is not


@pytest.mark.parametrize("path", takers())
def test_every_command_with_an_endpoint_checks_it(path: str) -> None:
    """A new command cannot miss it: `@endpoint()` or `endpoint_option` is the way to take one."""
    (taken,) = (p for p in COMMANDS[path].params if p.name == "endpoint")
    assert isinstance(taken, EndpointArgument | EndpointOption)
    assert taken.is_eager


def test_an_endpoint_goes_by_no_other_name() -> None:
    named = {
        path: p.name
        for path, command in COMMANDS.items()
        for p in command.params
        if "endpoint" in (p.metavar or p.name or "").lower() and p.name != "endpoint"
    }
    assert named == {}


@pytest.mark.parametrize("path", takers())
def test_an_unknown_endpoint_is_one_refusal_and_creates_nothing(path: str, two: Path) -> None:
    before = contents(two)
    done = run(two, *line_of(path, "chrun"))
    assert done.stderr.splitlines() == [
        "error: no endpoint chrun",
        "hint: did you mean churn? known are: churn, risk; kedge init NAME adds another one",
    ], path
    assert (done.exit_code, done.stdout) == (1, "")
    told = json.loads(run(two, *line_of(path, "nope"), "--json").stdout)["error"]
    assert (told["code"], told["message"]) == ("unknown_endpoint", "no endpoint nope")
    assert told["known"] == ["churn", "risk"]
    assert contents(two) == before


@pytest.mark.parametrize(
    "line",
    [
        "register nope ./nothing-here",
        "outcomes nope --file nothing-here",
        "set-weight nope much",
        "canary nope v2 --weight much",
        "diagnose nope --since never",
        "rollback nope --to v1",
        "register nope model.onnx --golden nothing-here",
    ],
)
def test_an_unknown_endpoint_comes_before_every_other_fault(line: str, two: Path) -> None:
    assert run(two, *line.split()).stderr.startswith("error: no endpoint nope\n")


def test_help_is_shown_whatever_endpoint_was_typed(tmp_path: Path) -> None:
    done = run(tmp_path, "rollback", "nope", "--help")
    assert done.exit_code == 0
    assert "kedge rollback churn --to r3" in done.stdout


def test_a_name_that_cannot_be_one_is_refused_too(two: Path) -> None:
    for name in ("../w0", "my model", "a" * 100, "churn/../../x"):
        done = run(two, "rollback", name)
        assert done.stderr.startswith(f"error: no endpoint {name[:80]}\n")


def test_an_endpoint_that_kedge_toml_no_longer_names_is_still_there(two: Path) -> None:
    left = two / "left.toml"
    left.write_text("[endpoints.risk]\n")
    done = run(two, "--config", str(left), "rollback", "churn")
    assert done.stderr.startswith("error: churn has no earlier good release to go back to\n")
    done = run(two, "--config", str(left), "history", "churn")
    assert done.exit_code == 0


def test_a_damaged_kedge_toml_hides_no_endpoint(two: Path) -> None:
    damaged = two / "damaged.toml"
    damaged.write_text("[[[")
    done = run(two, "--config", str(damaged), "rollback", "churn")
    warning, error, _ = done.stderr.splitlines()
    assert warning.startswith(f"warning: {damaged}: ")
    assert warning.endswith(f"default settings, and the state directory {two}/.kedge")
    assert error == "error: churn has no earlier good release to go back to"
    assert run(two, "--config", str(damaged), "rollback", "nope").exit_code == 1
    # Whether register may take it is said by kedge.toml, which cannot be read.
    assert run(two, "--config", str(damaged), "register", "new", "model.onnx").exit_code == 2


def test_an_endpoint_without_a_feature_schema_follows_no_head(two: Path) -> None:
    done = run(two, "features", "follow", "churn")
    assert (done.exit_code, done.stderr.splitlines()[0]) == (
        1,
        "error: churn has no feature schema, so there is no head to follow",
    )
    declared = two / "declared.toml"
    declared.write_text(TWO.replace("churn]", 'churn.features]\nschema = "flight/1"'))
    apply_policies(Workplace(two / ".kedge"), load(declared))
    assert run(two, "features", "follow", "churn").exit_code == 0


DAMAGE = {
    "it is not UTF-8": "# caf\xe9\n".encode("latin-1"),
    "unknown setting": b"[server]\nprot = 1\n",
    "state_dir": b"[server]\nstate_dir = 3\n[endpoints.churn]\n",
}


@pytest.mark.parametrize("fault", DAMAGE)
@pytest.mark.parametrize("line", ["status", "list", "rollback", "doctor", "check", "apply", "up"])
def test_a_damaged_kedge_toml_is_named_where_nothing_is_known_without_it(
    tmp_path: Path, fault: str, line: str
) -> None:
    """It could name a state directory and endpoints: there are none is no answer then."""
    site(tmp_path, "")
    (tmp_path / "kedge.toml").write_bytes(DAMAGE[fault])
    for state in ("without an endpoint", "elsewhere"):
        done = run(tmp_path, line)
        told = done.stdout + done.stderr
        assert fault in told, state
        assert "no endpoint" not in told, state
        assert done.exit_code == (1 if line == "doctor" else 2), state
        if state != "elsewhere":
            (tmp_path / ".kedge").rename(tmp_path / "elsewhere")


def test_an_endpoint_that_is_not_in_force_says_how_it_comes_into_force(two: Path) -> None:
    more = two / "more.toml"
    more.write_text(TWO + "[endpoints.image]\n")
    done = run(two, "--config", str(more), "freeze", "image")
    assert done.stderr.splitlines() == [
        "error: no endpoint image",
        "hint: kedge.toml names it: kedge apply brings it into force",
    ]
    done = run(two, "--config", str(more), "register", "image", "./nothing-here")
    assert "nothing-here does not exist" in done.stderr  # it is known to register


def test_a_ledger_that_cannot_be_read_is_named_and_no_endpoint_is_unknown_for_it(
    tmp_path: Path,
) -> None:
    place = site(tmp_path / "site", "[endpoints.churn]\n")
    for file in (place / ".kedge/ledger").glob("ledger.db*"):
        file.write_bytes(b"no database at all, and long enough to be read as one" * 100)
    assert run(place, "promote", "churn").exit_code == 4
    assert run(place, "promote", "nope").stderr.startswith("error: no endpoint nope\n")


def test_an_empty_name_is_no_endpoint(one: Path) -> None:
    """As a variable leaves it that a script did not set: neither the only one nor all of them are meant."""
    for words in (["rollback", ""], ["abort", ""], ["log", "forget", "u1", "--endpoint", ""]):
        done = run(one, *words)
        assert done.stderr.startswith("error: no endpoint ''\nhint: known are: churn"), words
        assert done.exit_code == 1
    assert run(one, "alerts").stdout == "no alert is open\n"


# ---------------------------------------------------------------- the only endpoint


def test_the_only_endpoint_need_not_be_typed(one: Path) -> None:
    assert run(one, "rollback").stderr.startswith("error: churn has no earlier good release")
    assert run(one, "undo").stderr.startswith("error: churn has no earlier good release")
    assert run(one, "history").stdout.endswith("policy in force — kedge apply\n")
    assert run(one, "versions").stdout == "no version of churn is registered\n"
    assert run(one, "status").stdout == run(one, "list").stdout


def test_with_several_they_are_listed(two: Path) -> None:
    done = run(two, "rollback")
    assert done.stderr.splitlines() == [
        "error: kedge rollback needs the name of an endpoint: there are 2: churn, risk",
        "hint: kedge rollback churn",
    ]
    told = json.loads(run(two, "features", "hold", "--json").stdout)["error"]
    assert (told["code"], told["endpoints"]) == ("endpoint_needed", ["churn", "risk"])
    assert done.exit_code == 2
    lines = run(two, "status").stdout.splitlines()
    assert lines == run(two, "list").stdout.splitlines()
    assert lines == [
        "churn  nothing  empty  owner -, on call -  no replica is known: is kedge up running?",
        "risk   nothing  empty  owner -, on call -  no replica is known: is kedge up running?",
    ]


def test_without_any_the_way_to_one_is_said(tmp_path: Path) -> None:
    (tmp_path / "kedge.toml").write_text("[endpoints.churn]\n")
    create_workplace(tmp_path / ".kedge")
    assert run(tmp_path, "rollback").stderr.endswith("hint: kedge apply brings churn into force\n")
    (tmp_path / "kedge.toml").write_text("")
    assert run(tmp_path, "rollback").stderr.endswith(
        "hint: kedge init NAME adds one to kedge.toml\n"
    )


# ---------------------------------------------------------------- where kedge.toml is


@pytest.mark.parametrize("below", ["models", "models/2026/may"])
def test_kedge_toml_is_searched_upwards(one: Path, below: str) -> None:
    (one / below).mkdir(parents=True, exist_ok=True)
    done = run(one / below, "status", "churn")
    assert done.stdout.startswith("churn  epoch 1"), done.stderr
    assert not (one / below / ".kedge").exists()


def test_an_endpoint_that_is_added_to_a_file_above_names_that_file(tmp_path: Path) -> None:
    begun = run(tmp_path, "init", "churn", "--port", "9000").stdout
    assert begun.startswith("kedge.toml describes")
    assert "\nask:  curl http://127.0.0.1:9000/v2/models/churn   (what the model takes" in begun
    (tmp_path / "below").mkdir()
    done = run(tmp_path / "below", "init", "risk", "--port", "9001")
    assert done.stdout.startswith(f"{tmp_path}/kedge.toml describes risk")
    assert done.stderr == "warning: --port 9001 has no effect: the file is there, with port 9000\n"
    assert run(tmp_path, "init", "image").stderr == ""


def test_option_and_variable_go_before_what_is_found(one: Path, two: Path) -> None:
    named = str(two / "kedge.toml")
    assert "there are 2" in run(one, "--config", named, "rollback").stderr
    assert "there are 2" in run(one, "rollback", KEDGE_CONFIG=named).stderr
    assert (
        "churn has"
        in run(two, "--config", str(one / "kedge.toml"), "rollback", KEDGE_CONFIG=named).stderr
    )


def test_the_nearest_one_is_taken(one: Path) -> None:
    inner = site(one / "inner", TWO)
    assert "there are 2" in run(inner, "rollback").stderr


@pytest.mark.parametrize("path", sorted({*takers(), "apply", "up", "list", "ack"}))
def test_in_a_directory_without_kedge_every_command_reports_it(path: str, tmp_path: Path) -> None:
    if path == "ack":
        words = ["ack", "1"]
    else:
        words = line_of(path, "churn") if path in takers() else path.split()
    for name in FILES:
        (tmp_path / name).touch()
    before = sorted(tmp_path.iterdir())
    done = run(tmp_path, *words)
    assert done.stderr.splitlines() == [
        f"error: no kedge.toml in {tmp_path} or above",
        f"hint: {locate.no_kedge_here(tmp_path / 'kedge.toml').hint}",
    ]
    assert "kedge init" in done.stderr
    assert done.exit_code == 2
    assert sorted(tmp_path.iterdir()) == before


def test_a_kedge_toml_above_of_another_user_is_not_used(tmp_path: Path) -> None:
    """It says which code is run: in a directory that many may write, it could be planted."""
    (tmp_path / "kedge.toml").write_text("")
    below = tmp_path / "mine"
    below.mkdir()
    os.chown(tmp_path / "kedge.toml", 12345, -1)
    with within(below, SUDO_UID=None):
        with pytest.raises(BadConfig) as caught:
            locate.find_config()
        assert caught.value.code == "foreign_config"
        assert locate.find_config(tmp_path) == tmp_path / "kedge.toml"  # it is where one works
        os.environ["SUDO_UID"] = "12345"
        assert locate.find_config() == tmp_path / "kedge.toml"


def test_a_working_directory_that_was_deleted_is_said(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    with within(gone):
        gone.rmdir()
        done = CliRunner().invoke(main, ["status"], prog_name="kedge")
        os.chdir(tmp_path)
    assert done.stderr.startswith("error: the working directory does not exist any more\n")


def test_the_state_directory_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "kedge.toml").write_text('[server]\nstate_dir = "state"\n[endpoints.churn]\n')
    create_workplace(tmp_path / "state")
    (tmp_path / "below").mkdir()
    assert run(tmp_path / "below", "apply").stdout.startswith("churn: ")
    assert Workplace(tmp_path / "state").ledger.read().states.keys() == {"churn"}


def test_the_runbook_names_host_directory_and_the_whole_command(one: Path) -> None:
    with within(one):
        page = CliRunner().invoke(main, ["runbook"], prog_name="kedge").stdout
    config = one / "kedge.toml"
    assert f"kedge --config {config} rollback churn\n" in page
    assert f"kedge.toml is in {one};" in page
    block = [
        line for part in page.split("```sh\n")[1:] for line in part.split("```")[0].splitlines()
    ]
    assert block
    assert all(line.startswith(f"kedge --config {config} ") for line in block)


# ---------------------------------------------------------------- errors in one style


@pytest.mark.parametrize(
    "line, said, hint",
    [
        ("statsu", "kedge has no command statsu", "did you mean kedge status?"),
        ("deploy", "kedge has no command deploy", "did you mean kedge promote?"),
        ("serve", "kedge has no command serve", "did you mean kedge up?"),
        ("revert", "kedge has no command revert", "did you mean kedge rollback?"),
        ("ls", "kedge has no command ls", "did you mean kedge list?"),
        (
            "promote",
            "missing argument 'ENDPOINT'",
            "usage: kedge promote [OPTIONS] ENDPOINT [VERSION]",
        ),
        ("rollback --colour", "no such option '--colour'", "usage: kedge rollback"),
        ("rollback --too r1", "no such option '--too'", "did you mean --to?"),
        ("rollback churn b", "got unexpected extra argument (b)", "usage: kedge rollback"),
        ("features rol churn 2", "no such command 'rol'", "did you mean roll?"),
        (
            "set-weight churn much",
            "invalid value for 'WEIGHT': 'much' is not a share in per cent; write it as 25 or 0.5",
            "usage: ",
        ),
        ("set-weight churn -1", "a number must not be negative here", "usage: kedge set-weight"),
        (
            "features roll churn -2.5",
            "a number must not be negative here",
            "usage: kedge features roll",
        ),
        ("--quux", "no such option '--quux'", "usage: kedge [OPTIONS] COMMAND"),
    ],
)
def test_a_line_that_cannot_be_understood_is_an_error_and_a_hint(
    one: Path, line: str, said: str, hint: str
) -> None:
    done = run(one, *line.split())
    assert done.exit_code == 2
    first, *_, last = done.stderr.splitlines()
    assert first == f"error: {said}"
    assert last.startswith(f"hint: {hint}")
    told = json.loads(run(one, *line.split(), "--json").stdout)["error"]
    assert told["message"] == said


def test_words_of_other_tools_lead_to_commands() -> None:
    visible = {name for name in LISTED if not COMMANDS[name].hidden}
    assert not set(MEANT) & visible
    assert not set(MEANT) & set(ALIASES)
    assert set(MEANT.values()) <= visible | {"backup", "config"}
    assert set(ALIASES.values()) <= visible


@pytest.mark.parametrize("number", ["²", "٣", "9" * 5_000, "r3", "-1", "x"])
def test_what_is_no_number_of_a_release_is_refused(one: Path, number: str) -> None:
    """Digits that Python takes for some, and more of them than it reads, ended in a traceback."""
    for words, code in (
        (("rollback", "churn", "--to", f"r{number}"), "unknown_release"),
        (("promote", "churn", f"v{number}"), "unknown_release"),
        (("shadow", "churn", f"r{number}"), "unknown_release"),
        (("doctor", "--head", f"{number}:{'a' * 12}"), "bad_head"),
    ):
        told = json.loads(run(one, *words, "--json").stdout)["error"]
        assert told["code"] == code
        assert len(told["message"]) < 200


@pytest.mark.parametrize(
    "line, code",
    [
        ("features list nope/1", "unknown_schema"),
        ("features materialise nope", "unknown_view"),
        ("evidence --segment nope=1", "unknown_segment"),
        ("diagnose --segment nope=1", "unknown_segment"),
        ("ack 999", "unknown_alert"),
        ("doctor --forget nope", "unknown_replica"),
        ("promote churn v9", "unknown_version"),
        ("replay churn r9", "unknown_release"),
        ("help nope", "unknown_topic"),
        ("log forget nope", "nothing_forgotten"),
    ],
)
def test_what_is_named_and_does_not_exist_is_refused(one: Path, line: str, code: str) -> None:
    before = contents(one)[:2]
    done = run(one, *line.split(), "--json")
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (1, code)
    assert contents(one)[:2] == before


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("path", [p for p, c in COMMANDS.items() if not c.hidden])
def test_a_command_has_a_line_an_example_and_a_page(path: str) -> None:
    command = COMMANDS[path]
    line = first_line(command)
    assert line.endswith("."), path
    assert len(line) <= 60, path
    assert path in PAGES, f"{path} needs an entry in kedge/cli/pages.py"
    page = PAGES[path]
    assert page.group in GROUPS
    assert find_topic(page.topic) is not None
    assert any(example.startswith(f"kedge {path}") for example in page.examples)
    with click.Context(command, info_name=f"kedge {path}") as ctx:
        told = command.get_help(ctx)
    assert f"  {page.examples[0]}\n" in told + "\n"
    assert f"Documentation: kedge help {page.topic}" in told


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_without_an_import_is_what_the_command_says(name: str) -> None:
    listed, command = LISTED[name], COMMANDS[name]
    assert (command.name, first_line(command), command.hidden) == (
        name,
        listed.line,
        listed.hidden,
    )


def imported(*words: str, **environ: str) -> set[str]:
    """The modules that are loaded when a command ends."""
    code = (
        "import json, sys\n"
        "from kedge.__main__ import run\n"
        f"sys.argv = ['kedge', *{list(words)!r}]\n"
        "try:\n"
        "    run()\n"
        "finally:\n"
        "    print(json.dumps([*sys.modules]), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


@pytest.mark.parametrize(
    "words, environ",
    [
        (["--help"], {}),
        (["helm"], {}),
        ([], {"_KEDGE_COMPLETE": "zsh_complete", "COMP_WORDS": "kedge ", "COMP_CWORD": "1"}),
    ],
)
def test_listing_the_commands_imports_none_of_them(
    words: list[str], environ: dict[str, str]
) -> None:
    found = imported(*words, **environ)
    modules = {f"kedge.cli.{listed.module}" for listed in LISTED.values()}
    assert "kedge.cli.root" in found
    assert found & {*modules, "kedge.cli.context", "kedge.workspace", "sqlalchemy"} == set()


def test_a_command_imports_its_own_module_only() -> None:
    found = imported("rollback", "--help")
    modules = {f"kedge.cli.{listed.module}" for listed in LISTED.values()}
    assert found & modules == {"kedge.cli.rollback"}


@pytest.mark.parametrize("collects", [True, False])
def test_importing_a_command_leaves_the_garbage_collector_as_it_was(
    collects: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main, "commands", {})
    before = gc.isenabled()
    (gc.enable if collects else gc.disable)()
    try:
        assert main.get_command(click.Context(main), "rollback") is COMMANDS["rollback"]
        assert gc.isenabled() == collects
    finally:
        (gc.enable if before else gc.disable)()
        gc.unfreeze()


def test_no_page_is_left_of_a_command_that_is_gone() -> None:
    assert set(PAGES) <= {path for path, command in COMMANDS.items() if not command.hidden}


@pytest.mark.parametrize("line", [e for page in PAGES.values() for e in page.examples])
def test_an_example_can_be_typed(line: str, one: Path) -> None:
    """Parsed by click, where its endpoint and its files exist."""
    word, *rest = shlex.split(line)
    assert word == "kedge"
    with within(one):
        ctx = main.make_context("kedge", list(rest))
        ctx.obj = Context()
        command: click.Command = main
        while (
            isinstance(command, click.Group)
            and rest
            and (inner := command.get_command(ctx, rest[0])) is not None
        ):
            name, *rest = rest
            command = inner
            ctx = command.make_context(name, list(rest), parent=ctx)
    assert command is not main


def test_the_whole_help_fits_80_columns_with_every_line_whole(two: Path) -> None:
    told = run(two, "--help", COLUMNS="80").stdout
    assert "..." not in told.split("Options:")[1]
    for name in LISTED:
        if not COMMANDS[name].hidden:
            assert f"  {name} " in told
            assert first_line(COMMANDS[name]) in told, name
    assert [line[:-1] for line in told.splitlines() if line[:-1] in GROUPS] == list(GROUPS)


def test_help_lists_topics_and_shows_each(two: Path) -> None:
    listed = run(two, "help").stdout
    topics = list_topics()
    assert len(topics) > 30
    for topic in topics:
        assert f"  {topic.name} " in listed
        shown = run(two, "help", topic.name)
        assert shown.exit_code == 0
        assert shown.stdout.startswith(f"# {topic.title}\n"), topic.name
        assert ".md)" not in shown.stdout, "links are commands"


def test_help_shows_commands_and_error_codes_too(two: Path) -> None:
    assert run(two, "help", "set-weight").stdout.startswith("Usage: kedge set-weight")
    assert run(two, "help", "features", "roll").stdout.startswith("Usage: kedge features roll")
    assert "kedge check ENDPOINT" in run(two, "help", "not_ready").stdout
    assert run(two, "help", "undo").stdout.startswith("Usage: kedge rollback")
    assert "did you mean kedge help promote?" in run(two, "help", "deploy").stderr
    done = run(two, "help", "rolback")
    assert done.stderr.startswith(
        "error: no topic rolback\nhint: did you mean kedge help rollback?"
    )
    assert done.exit_code == 1


def test_a_history_is_bounded(two: Path) -> None:
    assert run(two, "history", "churn", "--limit", "10000").exit_code == 0
    done = run(two, "history", "churn", "--limit", "10001")
    assert done.exit_code == 2
    assert "10001 entries: must be 1 to 10000" in done.stderr


# ---------------------------------------------------------------- who acts, and completion


@pytest.mark.parametrize(
    "environ, name",
    [
        ({"USER": "ada"}, "ada"),
        ({"USER": None, "LOGNAME": "ben"}, "ben"),
        ({"USER": "", "LOGNAME": None}, None),
    ],
)
def test_the_actor_has_a_name(
    tmp_path: Path, environ: dict[str, str | None], name: str | None
) -> None:
    import pwd

    with within(tmp_path, **{"KEDGE_ACTOR": None, **environ}):
        assert user_name() == (name or pwd.getpwuid(os.getuid()).pw_name)
        assert actor().startswith(f"{user_name()}@")


def test_a_user_without_a_name_is_a_number(tmp_path: Path) -> None:
    """As in a container that runs as any number."""
    child = os.fork()
    if child == 0:
        os.setuid(54321)
        os.environ.pop("USER", None)
        os.environ.pop("LOGNAME", None)
        os._exit(0 if user_name() == "uid54321" else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_endpoints_and_commands_are_completed(two: Path) -> None:
    def completed(*words: str) -> list[str]:
        environ = {
            "_KEDGE_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(["kedge", *words]),
            "COMP_CWORD": str(len(words)),
        }
        told = run(two, **environ).stdout.splitlines()
        return [line.split(",", 1)[1] for line in told]

    assert completed("roll") == ["rollback"]
    shown = {name for name in LISTED if not COMMANDS[name].hidden}
    assert completed("") == sorted(shown)
    assert completed("--") == ["--config", "--insecure", "--version", "--help"]
    assert completed("rollback", "") == ["churn", "risk"]
    assert completed("promote", "r") == ["risk"]
    assert "roll-back" in completed("help", "roll")
    assert "_KEDGE_COMPLETE" in run(two, "completion", "bash").stdout


@pytest.mark.parametrize("command", ["rollback", "pause", "abort", "freeze"])
def test_a_remote_command_of_an_incident_imports_only_its_receipt(
    tmp_path: Path, command: str
) -> None:
    token = tmp_path / "token"
    token.write_text("kedge_test\n")
    token.chmod(0o600)
    found = imported(
        command, "flights", KEDGE_SERVER="http://127.0.0.1:1", KEDGE_TOKEN_FILE=str(token)
    )
    assert "kedge.cli.remote" in found
    slow = {"email", "http.client", "importlib.metadata", "logging", "ssl", "tomllib"}
    ours = {"kedge.config.load", "kedge.engine.submission", "kedge.workspace"}
    assert found & {*slow, *ours, "numpy", "rich", "sqlalchemy"} == set()
