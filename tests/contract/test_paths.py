"""The run directory: never through a link, and never of another user."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from kedge.core.errors import Unavailable
from kedge.runtime.paths import (
    choose_folder,
    find_doors,
    get_candidates,
    remove_folder,
    sweep,
)
from kedge.system.door import exceeds
from kedge.system.files import Door, connect_to, keep_folder, listen_at


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state directory, with a temporary directory of its own."""
    (tmp_path / "tmp").mkdir()
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    found = tmp_path / "state"
    found.mkdir()
    return found


def home_of_another(tmp_path: Path) -> list[Path]:
    """Files that nothing may touch: also folders whose name is a number."""
    kept = [
        tmp_path / "home" / where for where in ("documents/thesis", ".ssh/id", "2024/tax", "file")
    ]
    for path in kept:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
    return kept


def test_the_run_directory_is_private_and_within_the_state_directory(state: Path) -> None:
    """Where no other user and no cleanup job comes."""
    folder = choose_folder(state, "123")
    assert folder == state / "run" / "123"
    assert [path.stat().st_mode & 0o777 for path in (folder, folder.parent)] == [0o700, 0o700]
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("where", [0, 1])
def test_a_link_in_its_place_is_not_followed_and_nothing_behind_it_is_removed(
    state: Path, tmp_path: Path, where: int
) -> None:
    """Its author chose its target."""
    kept = home_of_another(tmp_path)
    planted = get_candidates(state)[where]
    planted.symlink_to(tmp_path / "home")
    folder = choose_folder(state, "123")
    sweep(state, keep=folder)
    assert folder.parent == get_candidates(state)[1 - where if where == 0 else 0]
    assert find_doors(state) == []
    assert all(path.read_text() == "mine" for path in kept)
    assert planted.is_symlink()


@pytest.mark.parametrize("kind", ["file", "fifo", "link to nothing", "link in a loop"])
def test_anything_else_in_its_place_is_passed_over(state: Path, kind: str) -> None:
    """The next directory is taken."""
    first = state / "run"
    match kind:
        case "file":
            first.write_text("")
        case "fifo":
            os.mkfifo(first)
        case _:
            first.symlink_to(first if "loop" in kind else state / "nothing")
    assert choose_folder(state, "1").parent == get_candidates(state)[1]


def test_another_users_directory_is_not_used(state: Path) -> None:
    """Needs root, to give a directory away."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    for root in get_candidates(state):
        root.mkdir()
        os.chown(root, 65534, 65534)
    with pytest.raises(Unavailable) as refused:
        choose_folder(state, "1")
    assert refused.value.code == "no_run_dir"
    assert str(refused.value).count("another user") == len(get_candidates(state))
    assert "XDG_RUNTIME_DIR" in refused.value.hint


def test_a_shared_directory_without_the_sticky_bit_is_not_trusted(state: Path) -> None:
    """Everybody could rename what is in it."""
    if os.geteuid() != 0:
        pytest.skip("needs root, to give a directory away")
    (state / "run").write_text("")
    base = get_candidates(state)[1].parent
    os.chown(base, 65534, 65534)
    base.chmod(0o777)
    with pytest.raises(Unavailable, match="sticky"):
        choose_folder(state, "1")
    base.chmod(0o1777)
    assert choose_folder(state, "1").parent.parent == base


def test_a_directory_that_others_may_enter_is_closed(state: Path) -> None:
    """An earlier kedge, or an operator, made it wider."""
    (state / "run").mkdir(mode=0o755)
    choose_folder(state, "1")
    assert (state / "run").stat().st_mode & 0o777 == 0o700


def test_only_sockets_in_folders_of_a_process_are_removed(state: Path, tmp_path: Path) -> None:
    """Also where a folder has a number for a name, and where a link stands among them."""
    kept = home_of_another(tmp_path)
    own = choose_folder(state, "7")
    run = state / "run"
    for name in ("12", "12.2", "2024", "notes", "0"):
        (run / name).mkdir()
    (run / "99").symlink_to(tmp_path / "home")
    for name in ("w0.handoff", "e-r1-0.sock", "e-r1-0.sock.json", "e-r1-0.sock.json.17"):
        (run / "12" / name).write_text("")
    (run / "12" / "e-r1-0.sock.tmp" / "inner").mkdir(parents=True)
    (run / "12" / "e-r1-0.sock.tmp" / "link").symlink_to(kept[0].parent)
    (run / "12.2" / "w0.handoff").symlink_to(kept[0])
    (run / "2024" / "tax").write_text("mine")
    (run / "notes" / "w0.handoff").write_text("")
    sweep(state, keep=own)
    assert sorted(path.name for path in run.iterdir()) == ["0", "2024", "7", "99", "notes"]
    assert (run / "2024" / "tax").read_text() == "mine"
    assert all(path.read_text() == "mine" for path in kept)
    remove_folder(own)
    assert not own.exists()


def test_a_socket_of_a_path_that_is_far_too_long_is_reached(tmp_path: Path) -> None:
    """The kernel takes 107 bytes; a state directory may be deeper."""
    deep = tmp_path.joinpath(*["d" * 60] * 5)
    folder = deep / "run" / "1"
    keep_folder(folder)
    path = folder / "w0.handoff"
    with listen_at(path, 1) as listener, connect_to(path, timeout_s=1.0):
        listener.settimeout(1.0)
        listener.accept()[0].close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_deleted_door_is_created_again_and_a_successors_is_kept(tmp_path: Path) -> None:
    """With the directories around it."""
    path = tmp_path / "run" / "1" / "w0.handoff"
    door = Door(path, 1)
    with door.open():
        assert not door.is_lost
        path.unlink()
        path.parent.rmdir()
        path.parent.parent.rmdir()
        assert door.is_lost
        with door.open(), connect_to(path, timeout_s=1.0):
            assert not door.is_lost
        with listen_at(path, 1):
            door.close()
            assert path.exists()


def test_a_link_that_comes_where_the_run_directory_was_deleted_is_not_followed(
    tmp_path: Path,
) -> None:
    """Between a cleanup and the next step."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "run").symlink_to(elsewhere)
    with pytest.raises(OSError, match="run"):
        keep_folder(tmp_path / "run" / "1")
    assert list(elsewhere.iterdir()) == []


def test_no_directory_of_others_is_closed_by_the_way(tmp_path: Path) -> None:
    """The temporary directory itself stays open to everybody."""
    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o1777)
    (shared / "mine").mkdir(mode=0o700)
    with Door(shared / "mine" / "m.sock", 1).open():
        assert shared.stat().st_mode & 0o7777 == 0o1777


def test_a_full_queue_or_no_listener_is_an_error_and_leaves_no_descriptor(tmp_path: Path) -> None:
    """As `socket.connect` has it."""
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(FileNotFoundError):
        connect_to(tmp_path / "nobody.sock")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "deaf.sock"))
        with pytest.raises(ConnectionRefusedError):
            connect_to(tmp_path / "deaf.sock")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_a_directory_is_measured_only_until_it_exceeds_its_bound(tmp_path: Path) -> None:
    assert not exceeds(tmp_path / "missing", 1, 1)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "file").write_bytes(b"x" * 20_000)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert not exceeds(tmp_path, 1 << 20, 3)
    assert exceeds(tmp_path, 10_000, 3)
    assert exceeds(tmp_path, 1 << 20, 2)
