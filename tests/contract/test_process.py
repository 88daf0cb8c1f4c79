"""A model in its own process: many ask, each gets the answers to its own rows."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np
import pytest

from contract.process_world import (
    PROOF,
    Home,
    Told,
    columns,
    connect,
    failure,
    home,
    reach,
    run,
)
from kedge.adapters.process import ProcessModel
from kedge.core.errors import BadRequest, KedgeError, ModelFailure
from kedge.core.evidence.records import JoinRow
from kedge.core.values import Placement, Release, RowsMark
from kedge.operations.replay.model import INCOMPLETE, answered, batches
from models import SIGNATURE

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


def test_callers_wait_in_the_socket_until_a_proven_model_stands_behind_it(home: Home) -> None:
    home.start(sleep_load_s=0.4)
    assert home.socket.exists()

    async def story() -> None:
        model = connect(home)
        while home.says().get("state") != "ready":
            assert not model.ready
            await asyncio.sleep(0.001)
        assert await model.wait_ready(5)
        assert (await model.predict(columns(1.0), 5))[0]["score"].tolist() == [2.0]

    run(story())
    assert home.says()["load_s"] >= 0.4


def test_many_clients_get_each_their_own_answers(home: Home) -> None:
    home.start(sleep_s=0.002, log="/calls")

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
    calls = home.calls()[1:]
    assert sum(calls) == 8 * 30 * 2
    assert len(calls) < 8 * 30  # waiting requests were answered together


@pytest.mark.parametrize("mark", ["dependent", "unknown"])
def test_a_model_whose_rows_depend_on_each_other_is_asked_request_by_request(
    home: Home, mark: RowsMark
) -> None:
    """Each answer is less the mean of the rows of its own request; also where that is only found here."""
    proof = msgspec.structs.replace(
        PROOF, outputs={**PROOF.outputs, "score": [3.5, -3.5]}, rows=mark
    )
    home.start("centred", proof=proof, sleep_s=0.002)

    async def ask(model: ProcessModel, number: int) -> None:
        for i in range(20):
            value = 10.0**number
            answer, *_ = await model.predict(columns(value, 3 * value), 5)
            assert answer["score"].tolist() == [-2 * value, 2 * value], i
            (one, *_) = await model.predict(columns(value), 5)
            assert one["score"].tolist() == [0.0]

    async def story() -> None:
        model = await reach(home)
        told = Told()
        assert all(model.submit(columns(1.0, 5.0), told, 10) for _ in range(20))
        await asyncio.gather(*(ask(model, number) for number in range(8)))
        await told.all(20)
        assert {tuple(answer["score"].tolist()) for answer, _, _ in told.answers} == {(-4.0, 4.0)}

    run(story())


def test_a_model_of_an_older_kedge_is_tested_when_it_is_loaded(home: Home) -> None:
    home.start(proof=msgspec.structs.replace(PROOF, rows="unknown"), sleep_s=0.02, log="/calls")

    async def story() -> None:
        model = await reach(home)
        told = Told()
        assert all(model.submit(columns(1.0), told, 10) for _ in range(40))
        await told.all(40)

    run(story())
    assert max(home.calls()) > 10


def test_logged_rows_are_asked_as_they_were_sent(home: Home) -> None:
    """Whatever order the log has them in; a request of which rows are missing is no failure."""
    proof = msgspec.structs.replace(
        PROOF, outputs={**PROOF.outputs, "score": [3.5, -3.5]}, rows="dependent"
    )
    home.start("centred", proof=proof)
    release = Release(
        endpoint="flights",
        number=1,
        digest="",
        model="flights",
        version=1,
        model_digest="",
        flavour="test",
        signature=SIGNATURE,
        placement=Placement.PROCESS,
    )

    def row(name: str, x: float) -> JoinRow:
        inputs = msgspec.msgpack.encode({"x": x, "word": "a"})
        return JoinRow(
            id=name,
            at=0.0,
            unit="",
            endpoint="flights",
            production=1,
            candidate=None,
            salt="",
            weight=0,
            arm="production",
            failed=False,
            segments=(),
            score=None,
            decision=None,
            inputs=inputs,
        )

    rows = [
        row("a/0", 1.0),
        *(row(f"b/{n}", float(n)) for n in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)),
        row("c/1", 5.0),
        row("a/1", 3.0),
    ]

    async def story() -> None:
        model = await reach(home)
        found = await answered(model, release, rows, as_sent=True)
        scores = [
            one.code if isinstance(one, KedgeError) else float(one[0]["score"][one[1]])
            for one in found
        ]
        assert scores[0] == -2.0
        assert scores[1:12] == [2.0 * (n - 5) for n in (0, 1, 10, 2, 3, 4, 5, 6, 7, 8, 9)]
        assert scores[12:] == [INCOMPLETE, 2.0]

    run(story())
    assert [len(part) for part in batches(rows[:12], 3)] == [12]
    assert [len(part) for part in batches(rows[:1] * 3 + rows[12:], 3)] == [3, 2]


def test_nan_is_an_answer_of_production_and_a_failure_of_a_candidate(home: Home) -> None:
    """As it is inline: production moves between the two, and callers get null from both."""
    home.start("nan", trigger="gap")

    async def story() -> None:
        model = await reach(home)
        answer, *_ = await model.predict(columns(1.0, word="gap"), 5, alone=True)
        assert np.isnan(answer["score"]).all()
        assert await failure(model, columns(1.0, word="gap")) == "model_nonsense"

    run(story())


def test_a_batch_ends_at_256_rows(home: Home) -> None:
    home.start(sleep_s=0.05, log="/calls")

    async def story() -> None:
        model = await reach(home, in_flight=1000)
        told = Told()
        assert all(model.submit(columns(*range(10)), told, 10) for _ in range(100))
        await told.all(100)
        assert told.codes == {None}

    run(story())
    assert max(home.calls()) in range(200, 257)


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
