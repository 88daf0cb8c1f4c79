"""The preflight: paths that cannot be written, and the number of open files."""

from __future__ import annotations

import socket
import tempfile
from pathlib import Path

import pytest

from kedge.core.errors import Unavailable
from kedge.core.hosts import is_loopback
from kedge.operations import preflight
from kedge.operations.preflight import (
    OpenFiles,
    check_control_port,
    check_state_dir,
    count_open_files,
    find_obstacles,
)
from kedge.runtime.listener import listen, means


def test_a_state_directory_that_is_as_it_should_be_has_no_obstacles(tmp_path: Path) -> None:
    """Nor does one that does not exist yet, and nothing is left behind."""
    state = tmp_path / "deep" / "state"
    check_state_dir(state)
    (state / "logs").mkdir()
    (state / "logs" / "w0.log").touch()
    assert find_obstacles(state) == []
    assert sorted(path.name for path in state.rglob("*")) == ["logs", "w0.log"]


def test_each_obstacle_is_named_with_what_it_costs_and_what_to_do(tmp_path: Path) -> None:
    """A directory, a file in one, a link to nothing, and the temporary directory."""
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "w0.log").mkdir()  # no regular file, but none that is written
    (tmp_path / "evidence").mkdir()
    (tmp_path / "evidence" / "evidence.db").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "pins").write_text("")
    (tmp_path / "records").symlink_to(tmp_path / "not mounted")
    found = {one.path.name: one for one in find_obstacles(tmp_path)}
    assert set(found) == {"pins", "records"}
    assert "rollback --local cannot pin this host" in found["pins"].told()
    assert found["pins"].remedy == "Move away what stands there"
    assert "link to nothing" in found["records"].remedy


def test_a_temporary_directory_that_is_not_there_is_an_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Models are tried out there."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    (one,) = find_obstacles(tmp_path)
    assert one.path == tmp_path / "gone"
    assert "nothing can be registered" in one.told()


def test_a_second_kedge_on_the_machine_names_the_setting_of_controls_port() -> None:
    """Without it, control would end again and again while the gateway reports that it serves."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        fault = check_control_port(port)
        assert fault is not None
        assert f"port {port}" in fault
        assert "[server] control_port" in fault
    assert check_control_port(port) is None


def test_the_effect_of_a_limit_of_open_files_is_stated_only_if_there_is_one() -> None:
    """The number of connections that are left is in it."""
    assert OpenFiles(limit=400, least=44, full=324).fault() is None
    fault = OpenFiles(limit=128, least=44, full=324).fault()
    assert fault is not None
    assert "may open 128 files (hard limit), and a gateway worker needs 324" in fault
    assert "about 84 connections" in fault


def test_each_endpoint_and_each_request_needs_descriptors() -> None:
    """Ten endpoints more, and a hundred requests more."""
    few, more = count_open_files(100, 1), count_open_files(200, 11)
    assert more.least - few.least == 10 * preflight.ENDPOINT_FILES
    assert more.full - few.full == 10 * preflight.ENDPOINT_FILES + 100


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.0.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0:0:0:0:0:0:0:1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("::ffff:127.0.0.1", True),
        ("127.1", False),
        ("2130706433", False),
        ("", False),
        ("localhost.example", False),
    ],
)
def test_only_this_machine_reaches_loopback_however_it_is_spelled(
    host: str, loopback: bool
) -> None:
    """What is not certain counts as reachable."""
    assert is_loopback(host) is loopback


def test_a_name_and_an_address_are_listened_on_and_mean_what_is_bound() -> None:
    """IPv4 goes first: most callers write 127.0.0.1."""
    with listen("localhost", 0) as one:
        assert one.family == socket.AF_INET
        assert means("localhost", one.getsockname()[0])
        assert not means("nosuch.invalid", one.getsockname()[0])
        with pytest.raises(Unavailable) as caught:
            listen("127.0.0.1", one.getsockname()[1])
        assert caught.value.code == "port_taken"
    with pytest.raises(Unavailable) as caught:
        listen("192.0.2.1", 0)
    assert caught.value.code == "cannot_listen"
