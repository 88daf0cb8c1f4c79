"""The remote command line: commands on a server's state directory, over real sockets."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from contract.sql_world import World, world
from kedge.adapters.clock import SystemClock
from kedge.cli import wait
from kedge.cli.main import main
from kedge.cli.remote import HERE, Remote
from kedge.cli.root import walk
from kedge.core.errors import Usage
from kedge.core.release.commands import Abort, Canary, Freeze, Promote, Thaw
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.catalogue import BY_NAME, Lane, Operation
from kedge.operations.parameters import MOST_ENTRIES
from kedge.web import server
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from models import environment
from support.access import Open
from support.api import api_of


class Host:
    """Control's API on a port, over a state directory with two releases of flights."""

    def __init__(self, root: Path) -> None:
        self.world: World = world(root)
        for number in (1, 2):
            self.world.do(Promote(release=self.world.release(number).number, override="a test"))
        (root / "kedge.toml").write_text('[endpoints.flights]\naudience = "internal"\n')
        self.port = 0
        self._start()

    def _start(self) -> None:
        faults = ProcessFaults(SystemClock())
        readers = Readers(partial(Workplace, self.world.state_dir))
        earlier = Admin(lambda _: [], lambda _: None, None)  # type: ignore[arg-type]
        api = api_of(readers, Streams(readers, faults), self.world.state_dir)
        listener = server.listen(self.port)
        self.port = int(listener.getsockname()[1])
        self.server = server.make_server(Front(earlier, api.routes(), faults, gate=Open()), faults)
        run = partial(self.server.run, sockets=[listener])
        self.thread = threading.Thread(target=run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """End the server."""
        self.server.should_exit = True
        self.thread.join(10)

    def restart(self) -> None:
        """End the server, and start another one on its port."""
        self.stop()
        self._start()


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    (tmp_path / ".kedge").symlink_to(tmp_path / "state")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    made = Host(tmp_path)
    token = tmp_path / "token"
    token.write_text("kedge_test\n")
    token.chmod(0o600)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)  # there is no kedge.toml here or above
    (tmp_path / "kedge.toml").rename(tmp_path / "theirs.toml")
    monkeypatch.setenv("KEDGE_SERVER", f"http://127.0.0.1:{made.port}")
    monkeypatch.setenv("KEDGE_TOKEN_FILE", str(token))
    yield made
    made.stop()


def kedge(*words: str) -> int:
    """Run a command in this process; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        main(list(words), "kedge")
    return int(ended.value.code or 0)


def test_a_remote_rollback_prints_its_receipt(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kedge("rollback", "--reason", "late flights up") == 0
    assert "flights epoch" in capsys.readouterr().out
    assert host.world.row().production == 1
    assert kedge("history", "flights", "--limit", "3") == 0
    assert "late flights up" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("status",), ("list",), ("versions",), ("speed",), ("alerts",)])
def test_a_remote_view_prints_what_the_local_command_prints(
    host: Host,
    words: tuple[str, ...],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = (*words, "flights") if words != ("list",) else words
    for line in (named, (*named, "--json")):
        assert kedge(*line) == 0
        there = capsys.readouterr().out
        with monkeypatch.context() as local:
            local.delenv("KEDGE_SERVER")
            local.setenv("KEDGE_CONFIG", str(host.world.state_dir.parent / "kedge.toml"))
            (host.world.state_dir.parent / "theirs.toml").rename(
                host.world.state_dir.parent / "kedge.toml"
            )
            assert kedge(*line) == 0
            (host.world.state_dir.parent / "kedge.toml").rename(
                host.world.state_dir.parent / "theirs.toml"
            )
        here = capsys.readouterr().out
        assert without_times(there) == without_times(here)


def without_times(text: str) -> Any:
    """A document without the ages that change between two looks."""
    try:
        found = json.loads(text)
    except ValueError:
        return len(text.splitlines())
    return sorted(found) if isinstance(found, dict) else [sorted(one) for one in found]


def test_a_lost_race_changes_nothing_and_names_the_winner(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Remote._ask

    def ask(self: Remote, method: str, *more: Any) -> Any:
        reply = asked(self, method, *more)
        if method == "GET":
            host.world.do(Freeze(), by="bob", reason="a storm")  # after the epoch was read
        return reply

    monkeypatch.setattr(Remote, "_ask", ask)
    assert kedge("rollback", "flights", "--json") == 1
    error = json.loads(capsys.readouterr().out)["error"]
    assert (error["code"], error["by"], error["reason"]) == ("stale", "bob", "a storm")
    assert host.world.row().production == 2
    assert kedge("rollback", "flights", "--again") == 0
    assert host.world.row().production == 1


def test_again_goes_back_on_the_host_itself_too(
    host: Host, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = host.world.state_dir.parent
    (root / "theirs.toml").rename(root / "kedge.toml")
    monkeypatch.delenv("KEDGE_SERVER")
    monkeypatch.setenv("KEDGE_CONFIG", str(root / "kedge.toml"))
    seen = str(host.world.row().epoch)
    host.world.do(Freeze(), by="bob", reason="a storm")
    assert kedge("--expect", seen, "rollback", "flights") == 1
    assert host.world.row().production == 2
    assert kedge("--expect", seen, "rollback", "flights", "--again") == 0
    assert host.world.row().production == 1


@pytest.mark.parametrize(
    "words",
    [
        ("up",),
        ("init", "flights"),
        ("backup", "somewhere"),
        ("unpin", "flights"),
        ("rollback", "flights", "--local"),
    ],
)
def test_what_is_local_only_says_so(
    host: Host, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    before = len(host.world.ledger.later(0, 1000))
    assert kedge(*words) == 1
    assert "works only on the host" in capsys.readouterr().err
    assert len(host.world.ledger.later(0, 1000)) == before
    assert kedge("help", "--json") == 0


@pytest.fixture(params=["remote", "local"])
def where(request: pytest.FixtureRequest, host: Host, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where the commands of a test work: on the server, or on its host itself."""
    if request.param == "local":
        root = host.world.state_dir.parent
        (root / "theirs.toml").rename(root / "kedge.toml")
        monkeypatch.delenv("KEDGE_SERVER")
        monkeypatch.setenv("KEDGE_CONFIG", str(root / "kedge.toml"))
    return str(request.param)


@pytest.mark.usefixtures("where")
def test_the_pages_of_a_history_follow_each_other(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    def page(*words: str) -> tuple[list[int], str]:
        assert kedge("history", "flights", "--json", *words) == 0
        said = capsys.readouterr()
        return [entry["seq"] for entry in json.loads(said.out)], said.err

    whole, err = page("--limit", str(MOST_ENTRIES))
    assert err == ""  # nothing is said under a page that is not full
    for order in (Freeze(), Thaw(), Freeze())[: 2 + len(whole) % 2]:  # the last page is full, too
        host.world.do(order, reason="a storm")
    whole, _ = page("--limit", str(MOST_ENTRIES))
    assert len(whole) % 2 == 0
    seen: list[int] = []
    cursor: list[str] = []
    while len(seen) < len(whole):
        part, err = page("--limit", "2", *cursor)
        assert len(part) == 2
        assert err.startswith("older entries, if any: --cursor ")
        cursor = err.split()[-2:]
        seen += part
    assert seen == whole
    assert page("--limit", "2", *cursor) == ([], "")
    assert kedge("history", "flights", *cursor) == 0
    assert capsys.readouterr().out == "flights has no older entries\n"


@pytest.mark.usefixtures("where")
@pytest.mark.parametrize("cursor", ["xx", "é", "MS4y.", "-1"])
def test_a_bad_cursor_is_an_error_of_usage(
    host: Host, cursor: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kedge("history", "flights", "--json", f"--cursor={cursor}") == 2
    assert json.loads(capsys.readouterr().out)["error"]["code"] == "bad_cursor"


LOCAL = {"init", "up", "gateway", "control", "restart", "backup", "restore", "unpin", "login"}
WORDS = {"version": "v1", "weight": "5", "number": "1", "old": "a/1@1", "new": "a/1@2"}
NEEDED = {
    "features impact": ["a/1@1"],
    "accept": ["--reason=x"],
    "token create": ["--name=x", "--role=viewer"],
}


def test_every_command_works_on_a_server_or_is_on_the_short_list() -> None:
    single = {
        name for name, command in walk(main) if getattr(command, "commands", None) is None
    } | {"alerts"}
    assert {name for name, one in BY_NAME.items() if one.lane is Lane.LOCAL} == LOCAL
    assert single - {*BY_NAME} - HERE == {"grafana"}  # which reads nothing


def test_a_restart_of_control_within_a_command_is_waited_for(host: Host) -> None:
    host.stop()
    problem = b'{"code": "in_progress", "detail": "the first request is under way"}'
    answers = [
        b"",  # the connection is lost
        b"HTTP/1.1 409 Conflict\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
        % (len(problem), problem),
    ]

    listener = socket.create_server(("127.0.0.1", host.port))

    def lose_some() -> None:
        with listener:
            for answer in answers:
                with listener.accept()[0] as caller:
                    caller.recv(65_536)
                    caller.sendall(answer)
        host._start()

    thread = threading.Thread(target=lose_some)
    thread.start()
    assert kedge("pause", "flights") == 1  # there is no rollout: the restarted control says so
    thread.join()
    assert kedge("rollback", "flights", "--reason", "late flights up") == 0
    assert host.world.row().production == 1


class Asked(Exception):
    """The server was asked."""


def moves_files(operation: Operation) -> bool:
    """Whether it reads or writes files here (test_remote_files.py)."""
    return bool(operation.files or operation.result)


@pytest.mark.parametrize(
    "name",
    sorted(n for n, one in BY_NAME.items() if one.lane is not Lane.LOCAL and not moves_files(one)),
)
def test_a_command_asks_the_server_and_reads_nothing_here(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = BY_NAME[name]
    token = tmp_path / "token"
    token.write_text("kedge_test\n")
    token.chmod(0o600)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KEDGE_SERVER", "http://127.0.0.1:9")
    monkeypatch.setenv("KEDGE_TOKEN_FILE", str(token))

    def run(*_: Any) -> None:
        raise Asked

    monkeypatch.setattr(Remote, "run", run)
    words = ["flights"] if operation.has_endpoint else []
    words += ["7"] if "{number}" in operation.path else []
    words += [WORDS.get(word, "x") for word in operation.words]
    with pytest.raises(Asked):
        main([*name.split(), *words, *NEEDED.get(name, [])], "kedge")
    assert {path.name for path in tmp_path.iterdir()} == {"token"}


def test_tokens_are_made_listed_and_revoked_on_the_server(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kedge("token", "create", "--name", "ci", "--scope", "register", "--expires", "1d") == 0
    assert capsys.readouterr().out.startswith("kedge_")
    assert kedge("token", "list") == 0
    assert "register" in capsys.readouterr().out
    assert kedge("token", "revoke", "ci") == 0
    place = Workplace(host.world.state_dir)
    assert [one.name for one in place.tokens.all() if one.revoked_at] == ["ci"]


@pytest.mark.parametrize(
    ("server_", "code"),
    [("http://kedge.internal:8081", "plain_http"), ("ftp://x", "bad_server"), ("//", "bad_server")],
)
def test_a_token_is_not_sent_in_plain_text_to_another_host(server_: str, code: str) -> None:
    with pytest.raises(Usage) as told:
        Remote(server_, "token")
    assert told.value.code == code
    Remote("http://kedge.internal:8081", "token", insecure=True)


def test_a_token_that_others_may_read_is_refused(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "token").chmod(0o644)
    assert kedge("status") == 2
    assert "other users may read it" in capsys.readouterr().err


def test_a_server_that_is_gone_is_unavailable(
    host: Host, capsys: pytest.CaptureFixture[str]
) -> None:
    host.stop()
    assert kedge("status") == 4
    assert "cannot be reached" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("then", "code", "word"),
    [(Promote(full=True, override="a test"), 0, "promoted"), (Abort(), 1, "otherwise")],
)
def test_a_wait_ends_with_the_rollout(
    host: Host,
    then: Any,
    code: int,
    word: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert kedge("wait", "flights") == 1  # there is no rollout
    release = host.world.release(3).number
    host.world.do(Canary(release=release, weight=500, override="a test"))
    assert kedge("wait", "flights", "--timeout", "0s") == 3
    capsys.readouterr()
    monkeypatch.setattr(wait, "pause", lambda _: host.world.do(then))
    assert kedge("wait", "flights") == code
    assert word in capsys.readouterr().out
    assert kedge("wait", "flights", "--for", "settled") == 0
    assert kedge("wait", "flights", "--for", "rolled-back", "--timeout", "0s") == 3
    assert kedge("rollback", "flights", "--reason", "late flights up") == 0


def test_a_wait_without_a_rollout_follows_production(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    back = ("rollback", "flights", "--reason", "late flights up")
    monkeypatch.setattr(wait, "pause", lambda _: kedge(*back))
    assert kedge("wait", "flights", "--for", "rolled-back") == 0
    assert "r2 is rolled-back" in capsys.readouterr().out
