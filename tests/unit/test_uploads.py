"""The rules of uploads: names that could leave their folder, and room for another one."""

from __future__ import annotations

import pytest

from kedge.core.errors import BadRequest, Overloaded
from kedge.core.uploads import (
    COUNT,
    HOLDER_COUNT,
    HeldUpload,
    UploadRequest,
    check_files,
    check_inside,
    is_upload_name,
    make_room,
    name_upload,
)
from kedge.core.values import MOST_DEPTH, FileEntry

SHA = "0" * 64


def entry(path: str, size: int = 1, sha256: str = SHA) -> FileEntry:
    return FileEntry(path=path, size=size, sha256=sha256)


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/etc/passwd",
        "../x",
        "a/../../x",
        "a/./b",
        "a//b",
        "a/",
        "..",
        ".",
        "a\0b",
        "a\nb",
        "a\\b",
        "..\\x",
        "\x1b[2J",
        "a\u202eb",
        "\ud800",
        "x" * 256,
        "/".join(["d"] * (MOST_DEPTH + 2)),
        "/".join(["d" * 100] * 11),
    ],
)
def test_a_name_that_could_leave_its_folder_is_refused(path: str) -> None:
    with pytest.raises(BadRequest) as told:
        check_files([entry("good"), entry(path)])
    assert told.value.code == "bad_upload"


@pytest.mark.parametrize(
    "files",
    [
        [entry("a"), entry("a")],
        [entry("a"), entry("a/b")],
        [entry("a/b/c"), entry("a/b")],
        [entry("a", size=-1)],
        [entry("a", sha256="A" * 64)],
        [entry("a", sha256="0" * 63)],
    ],
)
def test_a_list_that_fits_no_folder_is_refused(files: list[FileEntry]) -> None:
    with pytest.raises(BadRequest):
        check_files(files)


def test_usual_names_are_accepted() -> None:
    check_files([entry("model/weights of é.onnx"), entry("model/deep/er/x"), entry("...")])


def test_a_command_reads_only_what_was_uploaded() -> None:
    files = [entry("model/a"), entry("golden/g.json")]
    check_inside(["model", "model/a", "golden/g.json"], files)
    for path in ("mod", "model/", "../model/a", "/etc/passwd", "model/../golden/g.json", "."):
        with pytest.raises(BadRequest):
            check_inside([path], files)


def test_the_same_files_of_the_same_caller_have_one_name() -> None:
    wanted = UploadRequest(purpose="register", endpoint="flights", files=(entry("a"),))
    name = name_upload("token ci", wanted)
    assert is_upload_name(name)
    assert name == name_upload("token ci", wanted)
    other = UploadRequest(purpose="register", endpoint="other", files=(entry("a"),))
    assert len({name, name_upload("token ada", wanted), name_upload("token ci", other)}) == 3
    assert not is_upload_name("../" + name[3:])


def held(number: int, holder: str, size: int = 1, *, is_used: bool = False) -> HeldUpload:
    return HeldUpload(f"{number:064}", holder, size, float(number), is_used)


def test_used_uploads_make_room_oldest_first() -> None:
    stored = [held(n, "ci", 10, is_used=n in (3, 5)) for n in range(8)]
    assert make_room(stored, "ci", 10, 400, 9.0) == ()
    assert [one.at for one in make_room(stored, "ci", 10, 160, 9.0)] == [3.0]
    assert [one.at for one in make_room(stored, "ci", 20, 160, 9.0)] == [3.0, 5.0]
    with pytest.raises(Overloaded) as told:
        make_room(stored, "ci", 30, 160, 9.0)
    assert told.value.code == "uploads_full"
    assert make_room(stored, "ada", 30, 160, 9.0) == ()


def test_numbers_and_bytes_are_bounded_by_caller_and_in_total() -> None:
    with pytest.raises(Overloaded) as told:
        make_room([], "ci", 51, 100, 9.0)
    assert told.value.code == "upload_too_large"
    mine = [held(n, "ci") for n in range(HOLDER_COUNT)]
    with pytest.raises(Overloaded):
        make_room(mine, "ci", 1, 1000, 9.0)
    assert make_room(mine, "ada", 1, 1000, 9.0) == ()
    every = [held(n, f"caller {n}") for n in range(COUNT)]
    with pytest.raises(Overloaded):
        make_room(every, "ci", 1, 1000, 9.0)
    assert len(make_room([*every[:-1], held(99, "x", is_used=True)], "ci", 1, 1000, 9.0)) == 1


def test_an_upload_without_new_bytes_makes_room_after_an_hour() -> None:
    mine = [held(n, "ci") for n in range(HOLDER_COUNT)]
    assert [one.at for one in make_room(mine, "ci", 1, 1000, 3600.5)] == [0.0]
    assert make_room(mine, "ada", 1, 1000, 1e9) == ()
