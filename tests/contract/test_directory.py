"""The artifact store: the same bytes once, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kedge.adapters.artifacts import directory
from kedge.adapters.artifacts.directory import (
    MOST_BYTES,
    DirectoryArtifacts,
)
from kedge.core.errors import CorruptArtifact, Refused, Unavailable
from kedge.core.values import MOST_DEPTH, MOST_FILES, Proof
from kedge.system.reserve import RESERVE, get_free
from support.waiting import wait_until

PROOF = Proof({"x": [1.0]}, {"y": [2.0]})


@pytest.fixture
def source(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "model.bin").write_bytes(b"weights" * 1000)
    (source / "deep" / "more.bin").write_bytes(b"more")
    return source


@pytest.fixture
def store(tmp_path: Path) -> DirectoryArtifacts:
    return DirectoryArtifacts(tmp_path / "store")


def test_a_stored_artifact_is_found_under_its_digest_with_every_byte(
    store: DirectoryArtifacts, source: Path
) -> None:
    digest, files = store.put(source)
    path = store.verify(digest)
    assert [entry.path for entry in files] == ["deep/more.bin", "model.bin"]
    assert (path / "model.bin").read_bytes() == b"weights" * 1000
    assert (path / "deep" / "more.bin").stat().st_mode & 0o222 == 0
    assert (path / "model.bin").stat().st_mode & 0o222 == 0


def test_the_digest_depends_only_on_names_and_bytes(
    store: DirectoryArtifacts, source: Path, tmp_path: Path
) -> None:
    digest, _ = store.put(source)
    copy = tmp_path / "elsewhere"
    shutil.copytree(source, copy)
    os.utime(copy / "model.bin", (1, 1))
    (copy / ".hidden").write_bytes(b"x")
    (copy / "__pycache__").mkdir()
    (copy / "__pycache__" / "m.pyc").write_bytes(b"x")
    assert store.put(copy)[0] == digest
    (copy / "model.bin").rename(copy / "renamed.bin")
    assert store.put(copy)[0] != digest


def test_a_single_file_keeps_its_name(store: DirectoryArtifacts, source: Path) -> None:
    digest, files = store.put(source / "model.bin")
    assert [entry.path for entry in files] == ["model.bin"]
    assert (store.path(digest) / "model.bin").exists()


def test_putting_the_same_bytes_again_leaves_the_stored_ones_alone(
    store: DirectoryArtifacts, source: Path
) -> None:
    digest, _ = store.put(source)
    store.write_proof(digest, PROOF)
    inode = (store.path(digest) / "model.bin").stat().st_ino
    store.put(source)
    assert (store.path(digest) / "model.bin").stat().st_ino == inode
    assert store.proof(digest) == PROOF


def damage_change(files: Path) -> str:
    (files / "model.bin").chmod(0o644)
    with (files / "model.bin").open("r+b") as file:
        file.write(b"W")
    return "model.bin was changed"


def damage_truncate(files: Path) -> str:
    (files / "model.bin").chmod(0o644)
    os.truncate(files / "model.bin", 10)
    return "model.bin was changed"


def damage_remove(files: Path) -> str:
    (files / "deep" / "more.bin").unlink()
    return "deep/more.bin is missing"


def damage_add(files: Path) -> str:
    (files / "deep" / "evil.py").write_text("boo")
    return "deep/evil.py was added"


def damage_link(files: Path) -> str:
    twin = files.parent / "twin"
    shutil.copy(files / "model.bin", twin)
    (files / "model.bin").unlink()
    (files / "model.bin").symlink_to(twin)
    return "model.bin was changed"


def damage_manifest(files: Path) -> str:
    manifest = files.parent / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b"model.bin", b"other.bin"))
    return "manifest.json was changed"


DAMAGES = [
    damage_change,
    damage_truncate,
    damage_remove,
    damage_add,
    damage_link,
    damage_manifest,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_fixed_by_registering_again(
    store: DirectoryArtifacts, source: Path, damage
) -> None:
    digest, _ = store.put(source)
    store.write_proof(digest, PROOF)
    fault = damage(store.path(digest))
    with pytest.raises(CorruptArtifact) as caught:
        store.verify(digest)
    assert fault in str(caught.value)
    assert store.put(source)[0] == digest
    store.verify(digest)
    assert store.proof(digest) == PROOF


@pytest.mark.parametrize("digest", ["sha256:" + "0" * 64, "sha256:../../etc", "", "md5:1"])
def test_an_unknown_or_malformed_digest_is_not_there(
    store: DirectoryArtifacts, digest: str
) -> None:
    for ask in (store.path, store.verify, store.proof):
        with pytest.raises(CorruptArtifact):
            ask(digest)


def test_golden_rows_that_are_missing_or_torn_are_corrupt(
    store: DirectoryArtifacts, source: Path
) -> None:
    digest, _ = store.put(source)
    with pytest.raises(CorruptArtifact, match="golden rows"):
        store.proof(digest)
    store.write_proof(digest, PROOF)
    proof = store.path(digest).parent / "proof.json"
    os.truncate(proof, 5)
    with pytest.raises(CorruptArtifact, match="golden rows"):
        store.proof(digest)


def make_link(source: Path) -> None:
    (source / "link").symlink_to("/etc/passwd")


def make_linked_directory(source: Path) -> None:
    (source / "link").symlink_to(source / "deep", target_is_directory=True)


def make_pipe(source: Path) -> None:
    os.mkfifo(source / "pipe")


def make_empty(source: Path) -> None:
    shutil.rmtree(source)
    (source / "empty" / "dir").mkdir(parents=True)


def make_missing(source: Path) -> None:
    shutil.rmtree(source)


@pytest.mark.parametrize(
    "make", [make_link, make_linked_directory, make_pipe, make_empty, make_missing]
)
def test_links_special_files_and_nothing_are_refused_and_nothing_is_kept(
    store: DirectoryArtifacts, source: Path, tmp_path: Path, make
) -> None:
    make(source)
    with pytest.raises(Refused):
        store.put(source)
    kept = list((tmp_path / "store").iterdir()) if (tmp_path / "store").exists() else []
    assert kept == []


def test_a_disk_that_cannot_be_written_is_unavailable_and_leaves_nothing(
    source: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(Unavailable):
        DirectoryArtifacts(tmp_path / "file" / "store").put(source)


PUT = """
import pathlib, sys
from kedge.adapters.artifacts.directory import DirectoryArtifacts
DirectoryArtifacts(pathlib.Path(sys.argv[1])).put(pathlib.Path(sys.argv[2]))
"""


def left_by_a_killed_copy(root: Path, tmp_path: Path, number: int) -> Path:
    """Kill a process while it copies, and return what it leaves."""
    large = tmp_path / "large"
    large.mkdir()
    (large / "small.bin").write_bytes(b"x")
    os.truncate(large / "small.bin", 2)
    (large / "holes.bin").touch()
    os.truncate(large / "holes.bin", 4 << 30)
    copying = subprocess.Popen([sys.executable, "-c", PUT, str(root), str(large)])
    wait_until(
        lambda: any(path.stat().st_size > 1 << 20 for path in root.glob(".tmp-*/*/files/*")),
        "a part of the copy",
        30,
    )
    assert copying.poll() is None
    (left,) = root.glob(".tmp-*")
    DirectoryArtifacts(root).put(large / "small.bin")
    assert left.exists(), "the copy of a process that lives is not touched"
    copying.send_signal(number)
    assert copying.wait(10) == -number
    return left


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_copy_that_was_killed_half_way_is_never_visible_and_swept_by_the_next(
    source: Path, tmp_path: Path, number: signal.Signals
) -> None:
    root = tmp_path / "store"
    left = left_by_a_killed_copy(root, tmp_path, number)
    assert left.exists()
    store = DirectoryArtifacts(root)
    assert len([path for path in root.iterdir() if not path.name.startswith(".")]) == 1
    store.verify(store.put(source)[0])
    assert list(root.glob(".tmp-*")) == []


def test_a_sweep_removes_what_was_left_and_nothing_of_a_living_process(tmp_path: Path) -> None:
    root = tmp_path / "store"
    left = left_by_a_killed_copy(root, tmp_path, signal.SIGKILL)
    empty = root / ".tmp-empty"
    empty.mkdir()
    old, young = root / ".tmp-old", root / ".tmp-young"
    for path in (old, young):  # of an earlier kedge: there is no lock
        (path / "files").mkdir(parents=True)
    past = time.time() - 2 * 86_400
    os.utime(old, (past, past))
    DirectoryArtifacts(root).sweep()
    assert [path.exists() for path in (left, empty, old, young)] == [False, False, False, True]


def make_deep(source: Path) -> str:
    handle = os.open(source, os.O_RDONLY)
    for _ in range(1_500):
        os.mkdir("d", dir_fd=handle)
        inner = os.open("d", os.O_RDONLY, dir_fd=handle)
        os.close(handle)
        handle = inner
    os.close(handle)
    return "artifact_too_deep"


def make_many(source: Path) -> str:
    for number in range(MOST_FILES):
        (source / f"f{number}").touch()
    return "artifact_too_many_files"


def make_large(source: Path) -> str:
    for number in range(MOST_BYTES // (10 << 40) + 2):
        (source / f"holes{number}").touch()
        os.truncate(source / f"holes{number}", min(MOST_BYTES, 10 << 40))
    return "artifact_too_large"


def make_long(source: Path) -> str:
    folder = source.joinpath(*["d" * 200] * 5)
    folder.mkdir(parents=True)
    (folder / "file").touch()
    return "bad_file_name"


@pytest.mark.parametrize("make", [make_deep, make_many, make_large, make_long])
def test_a_tree_beyond_a_bound_is_refused_within_seconds_and_nothing_is_written(
    store: DirectoryArtifacts, source: Path, tmp_path: Path, make
) -> None:
    code = make(source)
    began = time.monotonic()
    with pytest.raises(Refused) as caught:
        store.put(source)
    assert caught.value.code == code
    assert time.monotonic() - began < 5
    assert not (tmp_path / "store").exists()
    subprocess.run(["rm", "-rf", str(source)], check=True)  # shutil recurses


def test_the_deepest_tree_and_the_most_files_are_taken(
    store: DirectoryArtifacts, source: Path
) -> None:
    folder = source.joinpath(*["d"] * MOST_DEPTH)
    folder.mkdir(parents=True)
    for number in range(MOST_FILES - 2):
        (folder / f"f{number}").write_bytes(b"some bytes")
    began = time.monotonic()
    digest, files = store.put(source)
    took = time.monotonic() - began
    assert len(files) == MOST_FILES
    store.verify(digest)
    assert took < 20, "one after the other, they would wait for the disk 10,000 times"


def test_a_copy_that_would_take_the_ledgers_reserve_is_refused_before_it_begins(
    store: DirectoryArtifacts, source: Path, tmp_path: Path
) -> None:
    store.put(source)
    free = get_free(tmp_path)
    holes = source / "holes.bin"
    holes.touch()
    try:
        os.truncate(holes, free - RESERVE // 2)
    except OSError:
        pytest.skip("the file system has more space than its largest file may have")
    with pytest.raises((Refused, Unavailable)) as caught:
        store.put(source)
    assert caught.value.code == ("no_room" if free < MOST_BYTES else "artifact_too_large")
    assert list((tmp_path / "store").glob(".tmp-*")) == []


def test_a_file_that_grows_while_it_is_copied_is_refused(
    store: DirectoryArtifacts, source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = directory._read

    def growing(found: directory.FoundFile) -> Iterator[bytes]:
        for chunk in read(found):
            yield chunk
            os.truncate(source / "model.bin", size + 1)

    size = 3 * directory._CHUNK
    os.truncate(source / "model.bin", size)
    monkeypatch.setattr(directory, "_read", growing)
    with pytest.raises(Refused, match=r"model\.bin grew while it was copied") as caught:
        store.put(source)
    assert caught.value.code == "source_changed"
    assert list((tmp_path / "store").glob("*")) == []


def test_a_file_of_the_kernel_that_has_no_size_is_refused(store: DirectoryArtifacts) -> None:
    with pytest.raises(Refused) as caught:
        store.put(Path("/proc/self/maps"))
    assert caught.value.code == "source_changed"


def test_a_file_that_cannot_be_read_is_named_and_the_store_is_not_blamed(
    store: DirectoryArtifacts,
) -> None:
    with pytest.raises(Refused, match="/proc/self/mem cannot be read") as caught:
        store.put(Path("/proc/self/mem"))
    assert caught.value.code == "source_unreadable"


def put_again(root: Path, source: Path) -> str:
    return DirectoryArtifacts(root).put(source)[0]


def test_many_processes_may_put_the_same_bytes_at_once(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        digests = set(pool.starmap(put_again, [(root, source)] * 12))
    assert len(digests) == 1
    DirectoryArtifacts(root).verify(digests.pop())
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []


def test_a_copy_reports_every_byte_of_the_model_and_of_the_files_beside_it(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(b"w" * (2_500_000))
    (tmp_path / "signature.json").write_bytes(b"{}")
    told: list[tuple[int, int]] = []
    store = DirectoryArtifacts(tmp_path / "store", lambda *part: told.append(part))
    _, files = store.put(tmp_path / "model", [tmp_path / "signature.json"])
    assert sum(count for count, _ in told) == sum(one.size for one in files) == 2_500_002
    assert {total for _, total in told} == {2_500_002}
    assert max(count for count, _ in told) <= 1 << 20, "often enough for a bar"
