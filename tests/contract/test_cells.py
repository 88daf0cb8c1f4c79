"""A diagnosis asks a release that depends on its batch whole requests, as they were sent."""

from __future__ import annotations

import asyncio

import msgspec
import numpy as np

from contract.test_deployable import Home, home
from kedge.core.evidence.records import JoinRow
from kedge.core.values import Output, Policy, Release, RowsMark, State
from kedge.operations.diagnosis.cells import BATCH, Contrasting
from kedge.operations.diagnosis.window import AnswerReading, Logged

__all__ = ["home"]  # a fixture

CENTRED = "def columns(raw):\n    return {'x': raw['n'] - raw['n'].mean(), 'word': raw['w']}\n"
OUTPUT = Output(kind="score", score="score")
NAMES = ("b/1", "a/0", "c/1", "b/0", "d/0")
"""As the log has them: newest first; of request c the first row is missing."""
NUMBERS = (5.0, 7.0, 9.0, 1.0, 4.0)


def contrasting(home: Home) -> Contrasting:
    rows = [
        JoinRow(
            id=name,
            at=0.0,
            unit=name,
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
            inputs=msgspec.msgpack.encode({"n": number, "w": "a"}),
        )
        for name, number in zip(NAMES, NUMBERS, strict=True)
    ]
    state = State(endpoint="flights", policy=Policy(output=OUTPUT))
    today = Logged(0.0, 1.0, rows, [None] * len(rows))
    return Contrasting(home.place, state, today, AnswerReading(OUTPUT), lambda text: None)


def marked(home: Home, source: str, mark: RowsMark) -> Release:
    release = home.behind(source)
    assert release.code is not None
    proof = home.place.artifacts.proof(release.code)
    home.place.artifacts.write_proof(release.code, msgspec.structs.replace(proof, rows=mark))
    return release


def test_features_are_made_request_by_request(home: Home) -> None:
    release = marked(home, CENTRED, "dependent")
    made, spoilt = contrasting(home)._features(release, np.array([0, 1, 2, 4]))
    assert made["x"][[0, 1, 3]].tolist() == [2.0, 0.0, 0.0]
    assert np.isnan(made["x"][2])
    assert np.isnan(spoilt).tolist() == [False, False, True, False]


def test_features_that_do_not_depend_on_it_are_made_in_one_batch(home: Home) -> None:
    source = CENTRED.replace("raw['n'].mean()", "len(raw['n'])")  # shows how many there were
    release = marked(home, source, "independent")
    made, spoilt = contrasting(home)._features(release, np.arange(5))
    assert made["x"].tolist() == [number - 5 for number in NUMBERS]
    assert not spoilt.any()


def test_whole_requests_are_asked_again_and_what_is_not_whole_stays_unknown(home: Home) -> None:
    release = marked(home, CENTRED, "dependent")
    found = contrasting(home)
    got = asyncio.run(found._replay(release, [0, 1, 2]))
    assert got[:2].tolist() == [4.0, 0.0]  # twice the feature, as the model says
    assert np.isnan(got[2])


def test_parts_hold_whole_requests(home: Home) -> None:
    found = contrasting(home)
    assert list(found._parts([0, 1], as_sent=True)) == [[3, 0, 1]]
    assert list(found._parts([0, 1], as_sent=False)) == [[0, 1]]
    assert [len(part) for part in found._parts(range(BATCH + 1), as_sent=False)] == [BATCH, 1]


def test_only_requests_of_one_row_are_divided(home: Home) -> None:
    release = marked(home, CENTRED, "dependent")
    found = contrasting(home)
    assert found._lone([0, 1, 2, 4], release, release) == [1, 4]
    (fault,) = found.found.faults
    assert "divided on 2 of 4 requests" in fault
