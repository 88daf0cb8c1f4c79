"""A model in its own process: many ask, each gets the answers to its own rows."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from contract.process_world import (
    Home,
    Told,
    columns,
    home,
    reach,
    run,
    wait_until,
)
from kedge.adapters.process import ProcessModel
from kedge.core.errors import BadRequest, ModelFailure

__all__ = ["home"]  # a fixture

# ---------------------------------------------------------------- answering


def test_the_answer_is_the_models_own_with_the_time_spent_in_it(home: Home) -> None:
    home.start(sleep_s=0.02)

    async def story() -> None:
        model = await reach(home)
        answer, micros, _ = await model.predict(columns(1.5, -2.0, word=None), 5)
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
            answer, *_ = await model.predict(columns(value, value + 0.5, word=f"{number}-{i}"), 5)
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


NONSENSE = ["nan", "inf", "wrong_shape", "wrong_rows", "wrong_name", "wrong_dtype", "no_dict"]


def test_nonsense_is_called_nonsense_and_the_next_answer_is_good(home: Home) -> None:
    home.start("any")

    async def each(model: ProcessModel, kind: str) -> None:
        together = [columns(1.0, word=kind), columns(1.0), columns(2.0)]
        answers = await asyncio.gather(
            *(model.predict(asked, 5) for asked in together), return_exceptions=True
        )
        assert isinstance(answers[0], ModelFailure)
        assert answers[0].code == "model_nonsense"
        good, *_ = await model.predict(columns(1.0), 5)
        assert good["score"].tolist() == [2.0]
        told = Told()
        assert model.submit(columns(1.0, word=kind), told, 5)
        await told.all(1)
        assert told.answers[0][0] is None
        assert told.codes == {"model_nonsense"}

    async def story() -> None:
        model = await reach(home)
        for kind in NONSENSE:
            await each(model, kind)

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
