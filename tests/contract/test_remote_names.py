"""Completion with KEDGE_SERVER, and the addresses that KEDGE_SERVER may have."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from contract.certificates import Authority
from contract.test_remote import Host, host, kedge
from kedge.cli.completion import SHELLS, find_names
from kedge.cli.main import main
from kedge.cli.remote_names import PATIENCE_S
from kedge.core.errors import KedgeError

__all__ = ["host"]  # the fixture


class Canned:
    """A server of fixed answers, which records the paths that it was asked for."""

    def __init__(self, answers: dict[str, object]) -> None:
        self.asked: list[str] = []
        self.thread: threading.Thread | None = None
        canned = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                canned.asked.append(self.path)
                raw = json.dumps(answers[self.path]).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(raw)))
                self.end_headers()
                self.wfile.write(raw)

            def log_message(self, *_: object) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self.server.server_address[1]

    def start(self) -> None:
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        if self.thread is not None:
            self.server.shutdown()
            self.thread.join()
        self.server.server_close()


@pytest.fixture
def canned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Canned]:
    api = "/models/kedge/api/v1"
    version = {"version": "v2", "releases": ["r2", "r11"], "a_later_field": {}}
    made = Canned(
        {
            f"{api}/endpoints": [{"endpoint": "risk"}, {"endpoint": "churn", "later": 1}],
            f"{api}/endpoints/churn/versions": [version, {"version": "v1", "releases": ["r3"]}],
            f"{api}/alerts": [{"number": 17, "endpoint": "risk"}],
            f"{api}/tokens": [{"name": "ci"}, {"name": "$(reboot)"}],
            f"{api}/features": [{"version": "delays/1#v2"}, {"version": "delays/1#v1"}],
        }
    )
    token = tmp_path / "token"
    token.write_text("kedge_test\n")
    token.chmod(0o600)
    monkeypatch.setenv("KEDGE_SERVER", f"http://127.0.0.1:{made.port}/models/kedge/")
    monkeypatch.setenv("KEDGE_TOKEN_FILE", str(token))
    yield made
    made.stop()


@pytest.mark.parametrize(
    ("kind", "endpoint", "expected"),
    [
        ("endpoint", "", ["churn", "risk"]),
        ("version", "churn", ["v2", "v1"]),
        ("version", "", []),  # two endpoints: it is not known whose
        ("release", "churn", ["r11", "r3", "r2"]),
        ("alert", "", ["17"]),
        ("token", "", ["ci"]),
        ("transformation", "", ["delays/1#v2", "delays/1#v1"]),
        ("schema", "", ["delays/1"]),
    ],
)
def test_names_come_from_the_server_below_its_path(
    canned: Canned, kind: str, endpoint: str, expected: list[str]
) -> None:
    canned.start()
    found = find_names(kind, "", None, endpoint)  # type: ignore[arg-type]
    assert [item.value for item in found] == expected
    assert all(path.startswith("/models/kedge/api/v1/") for path in canned.asked)


def offer(monkeypatch: pytest.MonkeyPatch) -> str:
    """What bash is offered behind `kedge rollback `."""
    monkeypatch.setenv("COMP_WORDS", "kedge rollback ")
    monkeypatch.setenv("COMP_CWORD", "2")
    return SHELLS["bash"](main, {}, "kedge", "_KEDGE_COMPLETE").complete()


def test_a_server_of_kedge_offers_its_endpoints(
    host: Host, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    assert offer(monkeypatch) == "plain,flights"
    assert [item.value for item in find_names("version", "", None, "flights")] == ["v3", "v2", "v1"]
    assert [item.value for item in find_names("release", "", None, "")][-2:] == ["r2", "r1"]
    host.stop()
    assert offer(monkeypatch) == ""
    assert capfd.readouterr().err == ""


def test_a_server_that_answers_nothing_is_given_up_soon(
    canned: Canned, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("KEDGE_SERVER", f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        assert offer(monkeypatch) == ""
        assert time.monotonic() - began < PATIENCE_S + 4  # of the machine
    assert capfd.readouterr().err == ""


def test_completion_without_a_token_is_silent(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEDGE_SERVER", "http://127.0.0.1:9")
    monkeypatch.delenv("KEDGE_TOKEN_FILE", raising=False)
    assert offer(monkeypatch) == ""
    assert capfd.readouterr().err == ""


def test_a_server_of_a_private_authority_is_trusted_by_the_usual_variable(
    canned: Canned, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path / "ca")
    context = authority.signs("DNS:localhost")
    canned.server.socket = context.wrap_socket(canned.server.socket, server_side=True)
    canned.start()
    monkeypatch.setenv("KEDGE_SERVER", f"https://localhost:{canned.port}/models/kedge")
    with pytest.raises(KedgeError, match="certificate verify failed"):
        find_names("endpoint", "")
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    assert [item.value for item in find_names("endpoint", "")] == ["churn", "risk"]


def test_a_command_without_a_token_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KEDGE_SERVER", "https://kedge.internal:8081")
    monkeypatch.delenv("KEDGE_TOKEN_FILE", raising=False)
    assert kedge("status") == 2
    assert "KEDGE_TOKEN_FILE" in capsys.readouterr().err
