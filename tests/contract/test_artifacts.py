"""The artifact store: the same bytes once, whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kedge.adapters.artifacts import DirectoryArtifacts
from kedge.core.errors import CorruptArtifact, Refused, Unavailable
from kedge.ports import Proof

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


def test_what_was_put_is_found_under_its_digest_with_every_byte(
    store: DirectoryArtifacts, source: Path
) -> None:
    digest, files = store.put(source)
    path = store.verify(digest)
    assert [entry.path for entry in files] == ["deep/more.bin", "model.bin"]
    assert (path / "model.bin").read_bytes() == b"weights" * 1000
    assert (path / "deep" / "more.bin").stat().st_mode & 0o222 == 0
    assert (path / "model.bin").stat().st_mode & 0o222 == 0


def test_the_digest_depends_on_names_and_bytes_and_on_nothing_else(
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
    damage_change, damage_truncate, damage_remove, damage_add, damage_link, damage_manifest,
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_found_named_and_mended_by_putting_it_again(
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


COPY = """
import sys, pathlib, kedge.adapters.artifacts as a
real = a._copy
def slow(path, into, name):
    entry = real(path, into, name)
    print("copied", flush=True)
    sys.stdin.read(1) if name == "model.bin" else None
    return entry
a._copy = slow
a.DirectoryArtifacts(pathlib.Path(sys.argv[1])).put(pathlib.Path(sys.argv[2]))
"""


def test_a_copy_that_was_killed_half_way_is_never_visible(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    copying = subprocess.Popen(
        [sys.executable, "-c", COPY, str(root), str(source)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert copying.stdout is not None
    copying.stdout.readline()
    copying.stdout.readline()
    copying.send_signal(signal.SIGKILL)
    copying.communicate()
    left = list(root.iterdir())
    assert [path.name.startswith(".tmp-") for path in left] == [True]
    store = DirectoryArtifacts(root)
    store.verify(store.put(source)[0])
    assert left[0].exists()
    old = time.time() - 2 * 86_400
    os.utime(left[0], (old, old))
    store.put(source)
    assert not left[0].exists()


def put_again(root: Path, source: Path) -> str:
    return DirectoryArtifacts(root).put(source)[0]


def test_many_processes_may_put_the_same_bytes_at_once(source: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    with multiprocessing.get_context("fork").Pool(4) as pool:
        digests = set(pool.starmap(put_again, [(root, source)] * 12))
    assert len(digests) == 1
    DirectoryArtifacts(root).verify(digests.pop())
    assert [path.name for path in root.iterdir() if path.name.startswith(".")] == []
