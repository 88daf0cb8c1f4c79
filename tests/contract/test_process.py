"""A model in its own process: whatever it does, the asker gets a word for it, soon."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import uvloop

from kedge.adapters.artifacts import DirectoryArtifacts
from kedge.adapters.process import ProcessModel, command
from kedge.adapters.process import environment as one_thread
from kedge.core.errors import BadRequest, ModelFailure
from kedge.ports import Proof
from models import LOADER, SIGNATURE, environment, misbehaving

PROOF = Proof(
    {"x": [1.0, -2.5], "word": ["a", None]}, {"score": [2.0, -5.0], "label": ["a", "none"]}
)


class Home:
    """A store and the processes of one test."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "m.sock"
        self.store = DirectoryArtifacts(root / "store")
        self.processes: list[subprocess.Popen[bytes]] = []

    def put(self, kind: str = "good", proof: Proof = PROOF, **more: Any) -> str:
        digest, _ = self.store.put(misbehaving(self.root / f"source-{kind}", kind, **more))
        self.store.write_proof(digest, proof)
        return digest

    def command(self, digest: str, memory_mb: int = 0) -> list[str]:
        return command(
            socket=self.socket, artifacts=self.root / "store", digest=digest, flavour="test",
            memory_mb=memory_mb, loader=LOADER,
        )  # fmt: skip

    def start(self, kind: str = "good", memory_mb: int = 0, **more: Any) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            self.command(self.put(kind, **more), memory_mb), env={**one_thread(), **environment()}
        )
        self.processes.append(process)
        return process

    def says(self) -> dict[str, Any]:
        file = self.root / "m.sock.json"
        said: dict[str, Any] = msgspec.json.decode(file.read_bytes()) if file.exists() else {}
        return said

    def ended(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()


@pytest.fixture
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    made = Home(tmp_path_factory.mktemp("p"))  # short: a Unix socket's path has 107 bytes
    yield made
    made.ended()


def columns(*x: float, word: str | None = "w") -> dict[str, Any]:
    words = np.empty(len(x), dtype=object)
    words[:] = word
    return {"x": np.array(x), "word": words}


OPEN: list[ProcessModel] = []


def run(story: Coroutine[Any, Any, None]) -> None:
    """Run a story, then hang up: a loop of uvloop's does not close over an open line."""

    async def whole() -> None:
        try:
            await story
        finally:
            while OPEN:
                OPEN.pop().hang_up()
            await asyncio.sleep(0.05)

    uvloop.run(whole())


def connect(home: Home, **more: Any) -> ProcessModel:
    OPEN.append(ProcessModel(home.socket, more.pop("signature", SIGNATURE), **more))
    return OPEN[-1]


async def reach(home: Home, **more: Any) -> ProcessModel:
    model = connect(home, **more)
    assert await model.wait_ready(15), home.says()
    return model


async def failure(model: ProcessModel, asked: dict[str, Any], deadline_s: float = 5) -> str:
    with pytest.raises(ModelFailure) as caught:
        await model.predict(asked, deadline_s)
    return caught.value.code


def wait_until(true: Callable[[], bool], within_s: float = 10) -> bool:
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        if true():
            return True
        time.sleep(0.02)
    return False


class Told:
    """What `submit` called back."""

    def __init__(self) -> None:
        self.answers: list[tuple[Any, int, str | None]] = []

    def __call__(self, answer: Any, micros: int, code: str | None) -> None:
        self.answers.append((answer, micros, code))

    @property
    def codes(self) -> set[str | None]:
        return {code for _, _, code in self.answers}

    async def all(self, count: int, within_s: float = 5) -> None:
        until = time.monotonic() + within_s
        while len(self.answers) < count:
            assert time.monotonic() < until, f"{len(self.answers)} of {count}"
            await asyncio.sleep(0.005)


# ---------------------------------------------------------------- answering


def test_the_answer_is_the_models_own_with_the_time_spent_in_it(home: Home) -> None:
    home.start(sleep_s=0.02)

    async def story() -> None:
        model = await reach(home)
        answer, micros = await model.predict(columns(1.5, -2.0, word=None), 5)
        assert answer["score"].tolist() == [3.0, -4.0]
        assert answer["label"].tolist() == ["none", "none"]
        assert 20_000 <= micros < 200_000
        told = Told()
        assert model.submit(columns(4.0), told, 5)
        await told.all(1)
        assert told.answers[0][0]["score"].tolist() == [8.0]

    run(story())
    said = home.says()
    assert said["state"] == "ready"
    assert said["pid"] == home.processes[0].pid


def test_the_socket_appears_only_when_a_proven_model_stands_behind_it(home: Home) -> None:
    home.start(sleep_load_s=0.4)
    assert wait_until(lambda: home.says().get("state") == "loading")
    assert not home.socket.exists()
    assert wait_until(home.socket.exists)
    assert wait_until(lambda: home.says()["state"] == "ready")
    assert home.says()["load_s"] >= 0.4


def test_many_clients_get_each_their_own_answers(home: Home) -> None:
    log = home.root / "calls"
    home.start(sleep_s=0.002, log=str(log))

    async def ask(number: int) -> None:
        model = await reach(home)
        for i in range(30):
            value = number * 1000.0 + i
            answer, _ = await model.predict(columns(value, value + 0.5, word=f"{number}-{i}"), 5)
            assert answer["score"].tolist() == [2 * value, 2 * value + 1]
            assert answer["label"].tolist() == [f"{number}-{i}"] * 2
        model.hang_up()

    async def story() -> None:
        await asyncio.gather(*(ask(number) for number in range(8)))

    run(story())
    calls = [int(line) for line in log.read_text().split()[1:]]
    assert sum(calls) == 8 * 30 * 2
    assert len(calls) < 8 * 30  # waiting requests were answered together


def test_a_batch_ends_at_256_rows(home: Home) -> None:
    log = home.root / "calls"
    home.start(sleep_s=0.05, log=str(log))

    async def story() -> None:
        model = await reach(home, in_flight=1000)
        told = Told()
        assert all(model.submit(columns(*range(10)), told, 10) for _ in range(100))
        await told.all(100)
        assert told.codes == {None}

    run(story())
    assert max(int(line) for line in log.read_text().split()) in range(200, 257)


def test_a_poisoned_request_in_a_batch_fails_alone(home: Home) -> None:
    home.start("raise", trigger="poison", sleep_s=0.02)

    async def story() -> None:
        model = await reach(home)
        asked = ["poison" if i == 7 else f"good{i}" for i in range(20)]
        answers = await asyncio.gather(
            *(model.predict(columns(float(i), word=word), 5) for i, word in enumerate(asked)),
            return_exceptions=True,
        )
        for i, answer in enumerate(answers):
            if i == 7:
                assert isinstance(answer, ModelFailure)
                assert answer.code == "model_raised"
                assert "ValueError: this row is poison" in str(answer)
            else:
                assert isinstance(answer, tuple)
                assert answer[0]["score"].tolist() == [2.0 * i]

    run(story())


@pytest.mark.parametrize(
    "kind", ["nan", "inf", "wrong_shape", "wrong_rows", "wrong_name", "wrong_dtype", "no_dict"]
)
def test_nonsense_is_called_nonsense_and_the_next_answer_is_good(home: Home, kind: str) -> None:
    home.start(kind, trigger="bad")

    async def story() -> None:
        model = await reach(home)
        together = [columns(1.0, word="bad"), columns(1.0), columns(2.0)]
        answers = await asyncio.gather(
            *(model.predict(each, 5) for each in together), return_exceptions=True
        )
        assert isinstance(answers[0], ModelFailure)
        assert answers[0].code == "model_nonsense"
        good, _ = await model.predict(columns(1.0), 5)
        assert good["score"].tolist() == [2.0]
        told = Told()
        assert model.submit(columns(1.0, word="bad"), told, 5)
        await told.all(1)
        assert told.answers[0][0] is None
        assert told.codes == {"model_nonsense"}

    run(story())


def test_columns_that_do_not_fit_are_the_askers_fault_and_cost_nothing(home: Home) -> None:
    home.start()

    async def story() -> None:
        model = await reach(home)
        with pytest.raises(BadRequest):
            await model.predict({"x": np.array([1.0])}, 5)
        huge = columns(1.0, word="x" * (65 << 20))
        with pytest.raises(BadRequest):
            await model.predict(huge, 5)
        assert not model.submit(huge, Told(), 5)
        wide = {**columns(1.0), "x": np.array([1], np.int32), "more": np.array([1])}
        assert (await model.predict(wide, 5))[0]["score"].tolist() == [2.0]

    run(story())


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


def test_a_successor_takes_the_name_over_and_the_old_one_leaves_it_alone(home: Home) -> None:
    old = home.start()
    assert wait_until(lambda: home.says().get("state") == "ready")
    new = home.start()
    assert wait_until(lambda: home.says()["pid"] == new.pid and home.says()["state"] == "ready")
    old.send_signal(signal.SIGTERM)
    assert old.wait(10) == 0
    assert home.socket.exists()

    async def story() -> None:
        await (await reach(home)).predict(columns(1.0), 5)

    run(story())


def test_a_told_host_finishes_what_it_has_and_goes(home: Home) -> None:
    process = home.start(sleep_s=0.3)

    async def story() -> None:
        model = await reach(home)
        asked = asyncio.create_task(model.predict(columns(21.0), 5))
        await asyncio.sleep(0.1)
        process.send_signal(signal.SIGTERM)
        assert (await asked)[0]["score"].tolist() == [42.0]

    run(story())
    assert process.wait(10) == 0
    assert not home.socket.exists()


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


def test_an_orphan_serves_its_clients_and_goes_when_it_has_none(home: Home) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ORPHAN, *home.command(home.put())],
        env={**one_thread(), **environment()}, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())

    async def story() -> None:
        model = await reach(home)
        parent.kill()
        parent.wait()
        await asyncio.sleep(6.5)
        await model.predict(columns(1.0), 5)
        model.hang_up()
        await asyncio.sleep(0.1)

    try:
        run(story())
        assert wait_until(lambda: not alive(pid), 8)
    finally:
        if alive(pid):
            os.kill(pid, signal.SIGKILL)
        parent.stdout.close()


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
        answer, _ = await model.predict(columns(5.0), 5)
        assert answer["score"].tolist() == [10.0]
        assert len(told.answers) == 6

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
        assert set(codes) == {"model_late"}
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
        model = await loop.run_in_executor(
            None, lambda: connect(home, loop=loop)
        )
        assert await model.wait_ready(15)
        asked = asyncio.create_task(failure(model, columns(1.0, word="now"), 60))
        await asyncio.sleep(0.05)
        await loop.run_in_executor(None, model.hang_up)
        assert await asked == "model_died"
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
def test_a_model_that_cannot_be_proven_never_gets_a_socket(
    home: Home, kind: str, says: str
) -> None:
    process = home.start(kind)
    assert process.wait(20) == 1
    assert home.says()["state"] == "failed"
    assert says in home.says()["detail"]
    assert not home.socket.exists()


def test_a_changed_byte_is_never_served(home: Home) -> None:
    digest = home.put()
    file = home.store.path(digest) / "behave.json"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes().replace(b"2.0", b"3.0"))
    process = subprocess.Popen(home.command(digest), env={**one_thread(), **environment()})
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


def test_a_socket_path_that_is_too_long_is_said_so(home: Home) -> None:
    home.root = home.root / ("d" * 60) / ("e" * 60)
    home.root.mkdir(parents=True)
    home.socket = home.root / "m.sock"
    home.store = DirectoryArtifacts(home.root / "store")
    process = home.start()
    assert process.wait(20) == 1
    assert home.says()["state"] == "failed"
    assert "path" in home.says()["detail"]


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
