"""A model process that dies, hangs or eats: the asker gets a word for it, soon."""

from __future__ import annotations

import asyncio
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.process_world import (
    Home,
    Told,
    columns,
    connect,
    failure,
    home,
    reach,
    run,
)
from kedge.adapters.artifacts.directory import DirectoryArtifacts
from kedge.adapters.process import ProcessModel
from models import SIGNATURE
from support.waiting import wait_until

__all__ = ["home"]  # a fixture

# ---------------------------------------------------------------- dying


@pytest.mark.parametrize("kind", ["kill", "exit"])
def test_when_the_process_dies_everything_under_way_fails_at_once(home: Home, kind: str) -> None:
    process = home.start("exit" if kind == "exit" else "hang", trigger="now")

    async def story() -> None:
        model = await reach(home)
        told = Told()
        asked = asyncio.gather(*(failure(model, columns(1.0, word="now"), 60) for _ in range(5)))
        assert model.submit(columns(1.0, word="now"), told, 60)
        await asyncio.sleep(0.1)
        if kind == "kill":
            process.kill()
        started = time.monotonic()
        assert set(await asked) == {"model_died"}
        assert time.monotonic() - started < 2
        assert told.codes == {"model_died"}
        assert not model.ready
        assert await failure(model, columns(1.0)) == "model_down"
        assert not model.submit(columns(1.0), told, 5)
        home.start()
        assert await model.wait_ready(15)  # the same model, without being told
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())


def test_a_model_that_would_end_its_process_fails_that_answer_alone(home: Home) -> None:
    """A library's `sys.exit`."""
    process = home.start("quit", trigger="now")

    async def story() -> None:
        model = await reach(home)
        assert await failure(model, columns(1.0, word="now")) == "model_raised"
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())
    assert process.poll() is None


def test_a_loader_that_would_end_the_process_is_said_to_have_failed(home: Home) -> None:
    process = home.start("load_quit")
    assert process.wait(20) == 1
    assert "SystemExit" in home.says()["detail"]


def test_a_model_that_prints_answers_although_nothing_reads_its_log(home: Home) -> None:
    line = home.command(home.put("print"))
    process = home.run(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()

    async def story() -> None:
        model = await reach(home)
        for _ in range(3):
            assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())


def test_a_caller_that_waits_in_the_socket_is_answered_by_the_next_process(home: Home) -> None:
    first = home.start()

    async def story() -> None:
        await reach(home)
        first.kill()
        first.wait()
        model = connect(home)
        assert not await model.wait_ready(0.3)
        home.start()
        assert await model.wait_ready(15)
        await model.predict(columns(1.0), 5)

    run(story())


def test_a_deleted_socket_is_made_again_and_handed_over(home: Home) -> None:
    """The process itself may make none; its directory may be gone with it."""
    home.socket = home.root / "run" / "1" / "m.sock"
    home.socket.parent.mkdir(parents=True, mode=0o700)
    home.start()
    door = home.doors[home.socket]

    async def story() -> None:
        model = await reach(home)
        for _ in range(3):
            shutil.rmtree(home.socket.parent)
            door.tend()
            door.tend()
            fresh = connect(home)
            assert await fresh.wait_ready(5)
            await fresh.predict(columns(1.0), 5)
            await model.predict(columns(1.0), 5)
            wait_until(lambda: home.says().get("state") == "ready", "a ready model")

    run(story())
    door.close()
    assert list(home.socket.parent.iterdir()) == []


def test_a_host_that_gets_a_stop_finishes_its_requests_and_ends(home: Home) -> None:
    process = home.start(sleep_s=0.1)

    async def story() -> None:
        model = await reach(home)
        told = Told()
        assert all(
            model.submit(columns(*range(200)), told, 9) for _ in range(16)
        )  # as many batches
        await asyncio.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        await told.all(16)
        assert told.codes == {None}

    run(story())
    assert process.wait(10) == 0


def test_ctrl_c_is_for_the_supervisor_alone(home: Home) -> None:
    process = home.start()

    async def story() -> None:
        model = await reach(home)
        process.send_signal(signal.SIGINT)
        await asyncio.sleep(0.2)
        await model.predict(columns(1.0), 5)

    run(story())
    assert process.poll() is None


ORPHAN = """
import subprocess, sys, time
print(subprocess.Popen(sys.argv[1:]).pid, flush=True)
time.sleep(3600)
"""

IMPATIENT = """
import sys
from kedge.adapters.process import host
host.ORPHAN_S, host.HANG_S, host.CPU_S = 1.0, {hang_s}, {cpu_s}
from kedge.adapters.process.__main__ import main
sys.exit(main())
"""


def impatient(command: list[str], *, hang_s: int = 2, cpu_s: float = 10.0) -> list[str]:
    """The same host, with shorter patience, so that a test need not wait for minutes."""
    return [
        sys.executable,
        "-c",
        IMPATIENT.format(hang_s=hang_s, cpu_s=cpu_s),
        *command[command.index("-m") + 2 :],
    ]


def test_an_orphan_serves_its_clients_and_goes_when_it_has_none(home: Home) -> None:
    line = [sys.executable, "-c", ORPHAN, *impatient(home.command(home.put()))]
    parent = home.run(line, stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    async def story() -> None:
        model = await reach(home)
        parent.kill()
        parent.wait()
        await asyncio.sleep(2.3)
        await model.predict(columns(1.0), 5)
        model.hang_up()
        await asyncio.sleep(0.1)

    try:
        run(story())
        wait_until(lambda: not alive(pid), "the end of the orphan", 8)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        parent.stdout.close()


def test_a_host_whose_model_hangs_for_too_long_ends_and_a_busy_one_does_not(home: Home) -> None:
    line = impatient(home.command(home.put("spin", trigger="now", sleep_s=0.01)))
    process = home.run(line)

    async def story() -> None:
        model = await reach(home)
        until = time.monotonic() + 2.3
        while time.monotonic() < until:
            await model.predict(columns(1.0), 5)
        assert await failure(model, columns(1.0, word="now"), 8) == "model_died"

    run(story())
    assert process.wait(5) == -signal.SIGALRM


def test_a_request_that_computes_for_ever_ends_its_process_and_many_in_a_row_do_not(
    home: Home,
) -> None:
    """More processor time than its caller waits: it is late for that one, and no other process is asked it."""
    line = impatient(home.command(home.put("spin", trigger="now")), hang_s=60, cpu_s=0.4)
    process = home.run(line)

    async def story() -> None:
        model = await reach(home)
        until = time.process_time() + 1.0
        while time.process_time() < until:
            await asyncio.gather(
                *(model.predict(columns(*map(float, range(256))), 5) for _ in range(20))
            )
        assert not model.stalled
        asked = time.monotonic()
        assert await failure(model, columns(1.0, word="now"), 0.8) == "model_late"
        assert process.poll() is None
        assert await failure(model, columns(1.0), 20) == "model_died"
        assert time.monotonic() - asked < 20

    run(story())
    assert process.wait(5) == -signal.SIGPROF


def test_a_process_that_says_nothing_is_stalled_until_it_does(home: Home) -> None:
    home.start(sleep_s=1.3)

    async def story() -> None:
        model = await reach(home)
        asked = asyncio.create_task(model.predict(columns(1.0), 5))
        await asyncio.sleep(0.5)
        assert not model.stalled
        await asyncio.sleep(0.6)
        assert model.stalled
        await asked
        assert not model.stalled

    run(story())


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rsplit(")", 1)[1].split()[0] != "Z"


# ---------------------------------------------------------------- hanging


def test_a_hanging_model_is_late_and_bounded_and_its_late_answer_is_dropped(home: Home) -> None:
    process = home.start()

    async def story() -> None:
        model = await reach(home, in_flight=5)
        process.send_signal(signal.SIGSTOP)
        told = Told()
        taken = [model.submit(columns(1.0), told, 0.1) for _ in range(20)]
        assert sum(taken) == 5
        started = time.monotonic()
        assert await failure(model, columns(1.0), 0.1) == "model_late"
        assert time.monotonic() - started < 0.5
        await told.all(5)
        assert told.codes == {"model_late"}
        assert model.submit(columns(1.0), told, 0.1)  # the bound is free again
        await told.all(6)
        process.send_signal(signal.SIGCONT)
        answer, *_ = await model.predict(columns(5.0), 5)
        assert answer["score"].tolist() == [10.0]
        assert len(told.answers) == 6

    run(story())


def test_a_host_does_not_work_on_requests_without_a_waiting_caller(home: Home) -> None:
    process = home.start(log="/calls")

    async def story() -> None:
        model = await reach(home)
        process.send_signal(signal.SIGSTOP)
        told = Told()
        assert all(model.submit(columns(1.0), told, 0.05) for _ in range(20))
        await told.all(20)
        process.send_signal(signal.SIGCONT)
        await model.predict(columns(1.0, 2.0, 3.0), 5)

    run(story())
    assert home.calls() == [2, 3]  # the golden rows, and the one that was waited for


def test_a_late_answer_is_counted_and_its_caller_got_an_answer_in_time(home: Home) -> None:
    """A pause of the process: what it had begun with comes late, the rest was never put to it."""
    process = home.start(sleep_s=0.3)

    async def story() -> None:
        model = await reach(home)
        late = Told()

        async def ask(after_s: float) -> None:
            await asyncio.sleep(after_s)
            started = time.monotonic()
            code = await failure(model, columns(1.0, 2.0), 0.1, patience_s=5, on_late=late)
            assert code == "model_late"
            assert time.monotonic() - started < 0.25

        await asyncio.gather(ask(0.0), ask(0.05), ask(0.05))
        await late.all(3)
        codes = [code for _, _, code in late.answers]
        assert codes == [None, "model_expired", "model_expired"]
        answer, micros, _ = late.answers[0]
        assert answer["score"].tolist() == [2.0, 4.0]
        assert micros > 250_000
        process.send_signal(signal.SIGSTOP)
        assert (
            await failure(model, columns(1.0), 0.05, patience_s=0.3, on_late=late) == "model_late"
        )
        await late.all(4)
        assert late.answers[3][2] == "model_late", "its patience is over"
        process.send_signal(signal.SIGCONT)

    run(story())


def test_late_answers_that_are_waited_for_are_bounded(home: Home) -> None:
    process = home.start()

    async def story() -> None:
        model = await reach(home, in_flight=3)
        process.send_signal(signal.SIGSTOP)
        late = Told()
        await asyncio.gather(
            *(failure(model, columns(1.0), 0.05, patience_s=0.4, on_late=late) for _ in range(8))
        )
        await late.all(8)
        codes = sorted(str(code) for _, _, code in late.answers)
        assert codes == ["model_late"] * 3 + ["model_unasked"] * 5
        process.send_signal(signal.SIGCONT)

    run(story())


def test_a_started_copy_is_awaited_and_one_that_was_not_started_is_dropped(
    home: Home,
) -> None:
    home.start(sleep_s=0.3)

    async def story() -> None:
        model = await reach(home)
        told = Told()
        assert model.submit(columns(1.0, 2.0), told, 0.1, patience_s=5)
        await asyncio.sleep(0.05)
        assert model.submit(columns(1.0, 2.0), told, 0.1, patience_s=5)
        await told.all(2)
        assert [code for _, _, code in told.answers] == [None, "model_expired"]

    run(story())


def test_memory_does_not_grow_before_a_host_that_has_stopped_reading(home: Home) -> None:
    process = home.start()

    async def story() -> None:
        model = await reach(home, in_flight=10_000)
        process.send_signal(signal.SIGSTOP)
        wide = columns(*range(2000))
        told = Told()
        taken = sum(model.submit(wide, told, 30) for _ in range(2000))
        assert taken < 60  # of 32 MB
        codes = await asyncio.gather(*(failure(model, wide, 0.3) for _ in range(3000)))
        assert set(codes) == {"model_late", "model_unasked"}  # the kernel took some of them
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for _ in range(3):
            await asyncio.gather(*(failure(model, wide, 0.05) for _ in range(1000)))
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
        process.kill()
        await told.all(taken)

    run(story())


def test_a_hang_up_from_another_thread_ends_everything(home: Home) -> None:
    home.start("hang", trigger="now")

    async def story() -> None:
        loop = asyncio.get_running_loop()
        model = await loop.run_in_executor(None, lambda: connect(home, loop=loop))
        assert await model.wait_ready(15)
        asked = asyncio.create_task(failure(model, columns(1.0, word="now"), 60))
        await asyncio.sleep(0.05)
        await loop.run_in_executor(None, model.hang_up)
        assert await asked == "model_unasked"
        await asyncio.sleep(0.2)
        assert not model.ready

    run(story())
    ProcessModel.hang_up(object.__new__(_Gone))


class _Gone(ProcessModel):
    """A model whose loop is closed."""

    @property
    def _loop(self) -> Any:  # type: ignore[override]
        loop = asyncio.new_event_loop()
        loop.close()
        return loop


# ---------------------------------------------------------------- never ready


def test_a_memory_bomb_fails_by_itself_and_says_why(home: Home) -> None:
    process = home.start("load_eat", memory_mb=600)
    assert process.wait(20) == 1
    said = home.says()
    assert said["state"] == "failed"
    assert "more than 600 MB" in said["detail"]


def test_a_model_that_eats_memory_while_answering_fails_that_answer_alone(home: Home) -> None:
    home.start("eat", trigger="bomb", memory_mb=600)

    async def story() -> None:
        model = await reach(home)
        assert await failure(model, columns(1.0, word="bomb"), 20) == "model_raised"
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())


@pytest.mark.parametrize(
    "kind, says",
    [
        ("load_raise", "this model cannot be loaded"),
        ("nan", "golden rows: golden row 0: score is nan, expected 2.0"),
        ("raise", "golden rows: the model raised ValueError"),
    ],
)
def test_a_model_that_cannot_be_proven_says_why_and_answers_nothing(
    home: Home, kind: str, says: str
) -> None:
    process = home.start(kind)
    assert process.wait(20) == 1
    assert home.says()["state"] == "failed"
    assert says in home.says()["detail"]


def test_a_changed_byte_is_never_served(home: Home) -> None:
    digest = home.put()
    file = home.store.path(digest) / "behave.json"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"2.0", b"3.0"))
    process = home.run(home.command(digest))
    assert process.wait(20) == 1
    assert "behave.json was changed" in home.says()["detail"]


def test_a_host_of_another_signature_is_not_ours(home: Home) -> None:
    home.start()
    other = msgspec.structs.replace(SIGNATURE, outputs=SIGNATURE.outputs[:1])

    async def story() -> None:
        await reach(home)
        model = connect(home, signature=other)
        assert not await model.wait_ready(0.5)
        assert await failure(model, columns(1.0)) == "model_down"

    run(story())


def test_a_socket_path_longer_than_the_kernel_takes_is_served(home: Home) -> None:
    home.root = home.root / ("d" * 60) / ("e" * 60)
    home.root.mkdir(parents=True)
    home.socket = home.root / "m.sock"
    home.store = DirectoryArtifacts(home.root / "store")
    home.start()

    async def story() -> None:
        model = await reach(home)
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    asyncio.run(story())
    assert len(str(home.socket)) > 107


def test_garbage_on_the_socket_hangs_up_on_its_sender_alone(home: Home) -> None:
    home.start()

    async def story() -> None:
        model = await reach(home)
        for garbage in (b"\xff" * 100, b"\x05\x00\x00\x00hello", b"GET / HTTP/1.1\r\n\r\n" * 9):
            reader, writer = await asyncio.open_unix_connection(str(home.socket))
            writer.write(garbage)
            await asyncio.wait_for(reader.read(), 5)
            writer.close()
            await writer.wait_closed()
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())
