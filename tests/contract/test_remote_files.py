"""The remote command line with files: uploaded, continued, and printed as the local command prints."""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from contract.test_records import HOUR, given, own, row
from contract.test_remote import Host, host, kedge
from kedge.adapters.artifacts.quarantine import Quarantine
from kedge.cli import uploads
from kedge.cli.remote import Remote
from kedge.cli.uploads import NamedFiles, send_files
from kedge.core.errors import Unavailable
from kedge.core.evidence.records import HOUR_S
from kedge.core.time.instants import iso
from kedge.core.uploads import UploadRequest
from kedge.workspace import Workplace
from models import install, misbehaving

__all__ = ["host"]


class Wire:
    """The uploads of the client under test: what it sends, and what a test lets happen."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent = 0
        """Bytes of files."""
        self.on_part: Callable[[], None] = lambda: None
        """Called after each part."""
        send = Remote.send

        def watched(remote: Remote, method: str, *more: Any) -> bytes:
            found = send(remote, method, *more)
            if method == "PATCH":
                self.sent += len(more[1])
                self.on_part()
            return found

        monkeypatch.setattr(Remote, "send", watched)
        monkeypatch.setattr(uploads, "CHUNK", 4096)


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    return Wire(monkeypatch)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of 10 kB in a folder, with golden rows beside it."""
    monkeypatch.setenv("PYTHONPATH", install(tmp_path / "plugin"))
    monkeypatch.syspath_prepend(str(tmp_path / "plugin"))
    made = misbehaving(tmp_path / "elsewhere" / "model")
    (made / "weights.bin").write_bytes(bytes(range(250)) * 40)
    rows = '{"inputs": {"x": [1.0, 2.0], "word": ["a", "b"]}}'
    (made.parent / "golden.json").write_text(rows)
    return made


def test_a_model_registered_remotely_prints_what_the_local_command_prints(
    host: Host,
    wire: Wire,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line = ("register", "flights", "model", "--golden", "golden.json")
    assert kedge(*line, "--json") == 0
    there = json.loads(capsys.readouterr().out)
    assert (there["flavour"], there["golden"], there["new"]) == ("test", "given", True)
    once = wire.sent
    assert once > 10_000
    assert kedge(*line) == 0
    remote = capsys.readouterr().out
    assert wire.sent == once  # the server has the bytes
    monkeypatch.delenv("KEDGE_SERVER")
    root = host.world.state_dir.parent
    (root / "theirs.toml").rename(root / "kedge.toml")
    monkeypatch.setenv("KEDGE_CONFIG", str(root / "kedge.toml"))
    assert kedge(*line) == 0
    assert remote == capsys.readouterr().out
    assert there["version"] in remote


def test_a_killed_client_continues_where_it_was(
    host: Host, wire: Wire, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def die() -> None:
        raise KeyboardInterrupt

    wire.on_part = die
    line = ("register", "flights", "model", "--json")
    assert kedge(*line) == 1
    assert wire.sent == 4096
    wire.on_part = lambda: None
    capsys.readouterr()
    assert kedge(*line) == 0
    assert json.loads(capsys.readouterr().out)["new"]
    size = sum(file.stat().st_size for file in model.iterdir())
    assert wire.sent == size


def test_a_restart_of_control_only_delays_an_upload(
    host: Host, wire: Wire, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def restart() -> None:
        wire.on_part = lambda: None
        host.restart()

    wire.on_part = restart
    assert kedge("register", "flights", "model", "--json") == 0
    assert json.loads(capsys.readouterr().out)["new"]


def test_a_file_that_changes_meanwhile_is_refused(
    host: Host, wire: Wire, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = model / "weights.bin"
    size = weights.stat().st_size
    for raw, code in ((b"", "source_changed"), (b"x" * size, "wrong_digest")):
        weights.write_bytes(bytes(size))

        def change(raw: bytes = raw) -> None:
            weights.write_bytes(raw)

        wire.on_part = change
        assert kedge("register", "flights", "model", "--json") == 1
        assert json.loads(capsys.readouterr().out)["error"]["code"] == code


def test_a_server_that_stays_away_ends_the_command(
    host: Host,
    wire: Wire,
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "PATIENCE_S", 0.5)
    wire.on_part = host.stop
    assert kedge("register", "flights", "model", "--json") == 4
    error = json.loads(capsys.readouterr().out)["error"]
    assert error["code"] == "server_unreachable"
    assert Unavailable.code != error["code"]


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda folder: (folder / "link").symlink_to("/etc/passwd"), "symlink"),
        (lambda folder: (folder / "a\nb").write_bytes(b""), "bad_file_name"),
    ],
)
def test_a_model_is_refused_before_a_byte_is_sent(
    host: Host,
    wire: Wire,
    model: Path,
    make: Callable[[Path], object],
    code: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    make(model)
    assert kedge("register", "flights", "model", "--json") == 1
    assert json.loads(capsys.readouterr().out)["error"]["code"] == code
    assert not (host.world.state_dir / "uploads").exists()


def test_a_refusal_of_the_server_reads_like_the_local_one(
    host: Host, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "elsewhere" / "wine.pkl").write_bytes(b"\x80\x04K\x01.")
    assert kedge("register", "flights", "wine.pkl") == 1
    told = capsys.readouterr().err
    assert re.search(r"^error: wine\.pkl is ", told, re.MULTILINE), told
    assert str(tmp_path) not in told


def test_labels_of_a_file_and_of_standard_input_are_joined(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    root = host.world.state_dir.parent
    (root / "theirs.toml").rename(root / "kedge.toml")
    Path("late.csv").write_text("id,value\nx1,1\n,2\n")
    assert kedge("outcomes", "flights", "--file", "late.csv") == 0
    shown = capsys.readouterr()
    assert shown.out == "parked 1, unreadable 1\n"
    assert "warning: late.csv:3: " in shown.err
    lines = b'{"id": "x1", "value": 2}\n{"id": 7}\n'
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(lines)))
    assert kedge("outcomes", "flights", "--file", "-", "--correct", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["corrected"], found["faults"][0].partition(":")[0]) == (1, "line 2")


def test_an_export_is_received_part_by_part(
    host: Host, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 1000)
    root = host.world.state_dir.parent
    (root / "theirs.toml").rename(root / "kedge.toml")
    at = HOUR * HOUR_S + 1.0
    rows = [row(f"{own(number)}/0", at) for number in range(40)]
    given(Workplace(host.world.state_dir).records, *rows, now=at + 60)
    line = ("log", "export", "flights", "--since", iso(at), "--to", "out")
    assert kedge(*line) == 0
    assert capsys.readouterr().out == "40 predictions in 1 files under out/flights\n"
    (file,) = Path("out").rglob("*.parquet")
    assert file.stat().st_size > uploads.CHUNK  # more than one part
    with duckdb.connect() as db:
        assert db.execute(f"SELECT count(*) FROM '{file}'").fetchone() == (40,)
    assert not [path for path in Path("out").rglob("*") if path.name.startswith(".")]


class Near:
    """A server without a network; a proxy before it refuses what is too long."""

    def __init__(self, root: Path, longest: int) -> None:
        self.store = Quarantine(root, lambda: 0.0)
        self.longest = longest
        self.refused = 0

    def send(
        self, method: str, target: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> bytes:
        if len(body) > self.longest:
            self.refused += 1
            raise Unavailable("413, as HTML", code="answer_unreadable")
        name = target.rpartition("/")[2]
        if method == "POST":
            wanted = msgspec.json.decode(body, type=UploadRequest)
            return msgspec.json.encode(self.store.create("ci", wanted))
        if method == "PATCH":
            offset = int((headers or {})["upload-offset"])
            with self.store.appending("ci", name, offset) as appender:
                appender.write(body)
                appender.finish()
        return msgspec.json.encode(self.store.find("ci", name))


def test_a_proxy_that_refuses_long_requests_gets_shorter_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 8000)
    monkeypatch.setattr(uploads, "LEAST_CHUNK", 500)
    monkeypatch.setattr(uploads, "WAITS_S", (0.0,))
    file = tmp_path / "labels.csv"
    file.write_bytes(b"x" * 20_000)
    near = Near(tmp_path, 1500)
    named = {"file": NamedFiles(file)}
    sent = send_files(near, "outcomes", "flights", named, lambda _: None)
    assert near.refused == 3
    with near.store.reading("ci", sent["upload"], "outcomes", "flights") as ready:
        assert (ready.folder / sent["file"]).read_bytes() == file.read_bytes()


def test_files_of_one_name_do_not_meet(tmp_path: Path) -> None:
    """Neither a golden file in a model's folder of that name, nor two files of one name."""
    model, other = tmp_path / "golden", tmp_path / "golden.json"
    model.mkdir()
    (model / "golden.json").write_text("of the model")
    other.write_text("of the command")
    near = Near(tmp_path, 1 << 20)
    named = {"path": NamedFiles(model, is_model=True), "golden": NamedFiles(other)}
    sent = send_files(near, "register", "flights", named, lambda _: None)
    with near.store.reading("ci", sent["upload"], "register", "flights") as ready:
        found = {p.relative_to(ready.folder).as_posix() for p in ready.folder.rglob("*.json")}
        assert found == {"golden/golden.json", sent["golden"]}
        assert (ready.folder / sent["golden"]).read_text() == "of the command"
        assert sent["path"] == "golden"


def test_two_clients_with_the_same_files_send_them_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "CHUNK", 1000)
    monkeypatch.setattr(uploads, "WAITS_S", (0.0,))
    file = tmp_path / "labels.csv"
    file.write_bytes(os.urandom(100_000))
    near = Near(tmp_path, 1 << 20)
    named = {"file": NamedFiles(file)}
    with ThreadPoolExecutor(2) as pool:
        both = [
            pool.submit(send_files, near, "outcomes", "flights", named, lambda _: None)
            for _ in range(2)
        ]
        one, other = (each.result() for each in both)
    assert one == other
    with near.store.reading("ci", one["upload"], "outcomes", "flights") as ready:
        assert (ready.folder / one["file"]).read_bytes() == file.read_bytes()
