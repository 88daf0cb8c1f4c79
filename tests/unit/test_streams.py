"""Standard streams that never raise, and log files that stay bounded."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from kedge.system.streams import LogFile

PROGRAM = """
    import sys
    import structlog
    from kedge.runtime.logs import log_to_stderr
    from kedge.system.streams import lost

    class Rude:
        def __repr__(self):
            raise RuntimeError("no text")

    log_to_stderr()
    log = structlog.get_logger("test")
    for number in range(400):
        log.warning("line", number=number, filling="x" * 500)
        print("a library prints", number)
    log.warning("rude", value=Rude())
    try:
        1 / 0
    except ZeroDivisionError as error:
        log.error("fault", exc_info=error)
    sys.stdout.flush()
    open(sys.argv[1], "w").write(str(lost()))
"""


def talk(tmp_path: Path, **streams: object) -> int:
    """Run a process that writes much; returns how many writes it lost."""
    told = tmp_path / "told"
    program = [sys.executable, "-c", textwrap.dedent(PROGRAM), str(told)]
    ended = subprocess.Popen(program, **streams)  # type: ignore[call-overload]
    assert ended.wait(30) == 0
    return int(told.read_text())


def test_log_lines_that_can_be_written_are_written(tmp_path: Path) -> None:
    with (tmp_path / "log").open("ab") as out:
        assert talk(tmp_path, stdout=out, stderr=out) == 0
    said = (tmp_path / "log").read_text()
    assert said.count('"event": "line"') == said.count("a library prints") == 400
    assert "unloggable" in said
    assert "ZeroDivisionError" in said


def test_a_full_disk_ends_no_process(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        assert talk(tmp_path, stdout=full, stderr=full) > 700


def test_a_pipe_without_a_reader_ends_no_process(tmp_path: Path) -> None:
    ear, mouth = os.pipe()
    os.close(ear)
    assert talk(tmp_path, stdout=mouth, stderr=mouth) > 700
    os.close(mouth)


def test_a_reader_that_stopped_blocks_no_process(tmp_path: Path) -> None:
    ear, mouth = os.pipe()
    began = time.monotonic()
    assert talk(tmp_path, stdout=mouth, stderr=mouth) > 300
    assert time.monotonic() - began < 20
    os.close(ear)
    os.close(mouth)


def test_closed_streams_give_their_numbers_to_no_file(tmp_path: Path) -> None:
    """A file that is opened first must not become what the interpreter writes its messages to."""
    program = """
        import os, sys
        os.close(0); os.close(1); os.close(2)
        from kedge.runtime.logs import log_to_stderr
        log_to_stderr()
        print("out"); print("err", file=sys.stderr)
        opened = os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY)
        os.write(opened, str(opened).encode())
    """
    done = tmp_path / "done"
    subprocess.run([sys.executable, "-c", textwrap.dedent(program), str(done)], check=True)
    assert int(done.read_text()) > 2


def test_a_log_is_rotated_while_its_process_writes(tmp_path: Path) -> None:
    """By size and count; the newest lines are there, and what native code writes is bounded too."""
    log = LogFile(tmp_path / "logs" / "w0.log", limit=100_000, count=2)
    out, fault = log.descriptor()
    assert fault is None
    program = (
        "import os, time\nfor n in range(20000): os.write(2, b'%099d\\n' % n)\n"
        # What is written between the last read of the copy and the cut is lost: not this line.
        "time.sleep(0.5); os.write(2, b'%099d\\n' % 20000)"
    )
    child = subprocess.Popen([sys.executable, "-c", program], stdout=out, stderr=out)
    while child.poll() is None:
        log.bound()
        time.sleep(0.005)
    log.bound()
    log.close()
    files = {path.name: path for path in (tmp_path / "logs").iterdir()}
    assert set(files) == {"w0.log", "w0.log.1", "w0.log.2"}
    assert files["w0.log.1"].stat().st_size <= 200_000
    assert files["w0.log.2"].stat().st_size <= 200_000
    kept = (files["w0.log.2"].read_text() + files["w0.log.1"].read_text()).split()
    numbers = [int(line) for line in kept + files["w0.log"].read_text().split() if len(line) == 99]
    assert numbers[-1] == 20000
    assert numbers == sorted(set(numbers))


def test_a_log_that_cannot_be_opened_again_continues_in_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "w0.log"
    log = LogFile(path)
    before, fault = log.descriptor()
    assert fault is None
    path.unlink()
    path.mkdir()
    again, fault = log.descriptor()
    assert again == before
    assert isinstance(fault, IsADirectoryError)
    path.rmdir()
    after, fault = log.descriptor()
    assert fault is None
    os.write(after, b"back\n")
    assert path.read_text() == "back\n"
    log.close()


@pytest.mark.parametrize("kind", ["directory", "device", "dangling"])
def test_without_any_file_output_is_dropped_and_the_fault_is_reported(
    tmp_path: Path, kind: str
) -> None:
    path = tmp_path / "w0.log"
    if kind == "directory":
        path.mkdir()
    else:
        path.symlink_to("/dev/full" if kind == "device" else tmp_path / "no" / "where")
    out, fault = LogFile(path).descriptor()
    assert out == subprocess.DEVNULL
    assert isinstance(fault, OSError)


def test_a_copy_that_fails_still_cuts_the_file(tmp_path: Path) -> None:
    """A full disk must not let a log grow."""
    log = LogFile(tmp_path / "w0.log", limit=1000)
    out, _ = log.descriptor()
    os.write(out, b"x" * 5000)
    (tmp_path / "w0.log.part").mkdir()
    with pytest.raises(OSError, match="directory"):
        log.bound()
    assert os.fstat(out).st_size == 0
    log.close()
