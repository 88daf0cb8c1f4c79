"""Large bodies are decoded in a process of their own: the same answers, and other threads run meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest

from kedge.core.errors import BadRequest, KedgeError, Overloaded
from kedge.core.values import Field
from kedge.gateway.contract import Contract
from kedge.gateway.http import decoder_child
from kedge.gateway.http.decoder import Decoder, decode_here
from kedge.gateway.http.decoder_child import DecodeAnswer, DecodeRequest

ROWS = 4096
FIELDS = (
    Field("x", "float32", (3,)),
    Field("n", "int64", (), nullable=True),
    Field("flag", "bool"),
    Field("word", "string", nullable=True),
    Field("gap", "float64", nullable=True),
    Field("wide", "float32", (1024,), nullable=True),
)
CONTRACT = Contract(FIELDS, rows=ROWS, entity="word")


@pytest.fixture
def decoder() -> Iterator[Decoder]:
    made = Decoder()
    yield made
    made.close()


def tensor(name: str, datatype: str, shape: list[int], data: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "data": data}


def whole(rows: int, **more: Any) -> bytes:
    words = [None if n % 7 == 0 else f"wörd {n}" for n in range(rows)]
    return json.dumps(
        {
            "inputs": [
                tensor("x", "FP32", [rows, 3], [[n / 3, n, -n] for n in range(rows)]),
                tensor("n", "INT64", [rows], [None if n % 5 == 0 else n for n in range(rows)]),
                tensor("flag", "BOOL", [rows], [n % 2 == 0 for n in range(rows)]),
                tensor("word", "BYTES", [rows, 1], words),
                tensor(
                    "gap", "FP64", [rows], [None if n % 3 == 0 else n * 1e300 for n in range(rows)]
                ),
            ],
            **more,
        }
    ).encode()


@pytest.mark.parametrize("rows", [1, 3, ROWS])
def test_columns_are_those_of_this_process(decoder: Decoder, rows: int) -> None:
    body = whole(rows, id="an id", outputs=[{"name": "score"}])
    here, own, count = decode_here(CONTRACT, body, None)
    there, columns, found = decoder.decode(CONTRACT, body, None)
    assert (there.id, there.outputs, found) == (here.id, here.outputs, count)
    assert list(columns) == list(own)
    for name, column in own.items():
        assert columns[name].dtype == column.dtype
        assert columns[name].shape == column.shape
        assert columns[name].tolist() == column.tolist() or np.array_equal(
            columns[name], column, equal_nan=True
        )
        assert columns[name].flags.writeable
    assert CONTRACT.entity(columns, found) == CONTRACT.entity(own, count)


@pytest.mark.parametrize(
    "body",
    [
        b"nonsense",
        b"\xff" * 100,
        b'{"inputs": []}',
        whole(5).replace(b"BOOL", b"FP64"),
        whole(5).replace(b'"gap"', b'"gaps"'),
        whole(ROWS + 1),
        json.dumps({"inputs": [tensor("x", "FP32", [2, 3], [[[1]] * 3] * 2)]}).encode(),
        json.dumps({"inputs": [tensor("x", "FP32", [2, 3], [1, 2])]}).encode(),
        b'{"inputs":[{"name":"word","datatype":"BYTES","shape":[1],"data":["\xff"]}]}',
        b'{"inputs":' + b"[" * 100_000,
    ],
)
def test_a_fault_is_reported_as_in_this_process(decoder: Decoder, body: bytes) -> None:
    with pytest.raises(BadRequest) as here:
        decode_here(CONTRACT, body, None)
    with pytest.raises(BadRequest) as there:
        decoder.decode(CONTRACT, body, None)
    for what in ("code", "hint", "details"):
        assert getattr(there.value, what) == getattr(here.value, what)
    assert str(there.value) == str(here.value)
    assert decoder.decode(CONTRACT, whole(2), None)[2] == 2


def test_a_fault_of_the_decoding_itself_costs_its_body_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is kedge's fault, and only the log has it."""

    def broken(contract: Contract, request: object, binary: object) -> None:
        raise ZeroDivisionError("of this test")

    monkeypatch.setattr(Contract, "columns", broken)
    body = whole(2)
    said = msgspec.msgpack.decode(
        decoder_child.decode(DecodeRequest(CONTRACT.encoded, None, len(body)), body),
        type=DecodeAnswer,
    )
    assert (said.code, said.fault) == ("internal", "ZeroDivisionError('of this test')")


def test_a_caller_hears_nothing_of_a_fault_of_the_decoding(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway answers 500, and the child stays for the next body."""
    decoder.decode(CONTRACT, whole(2), None)
    child = decoder._child
    monkeypatch.setitem(
        CONTRACT.__dict__, "encoded", b'[[{"name": "x", "dtype": "none"}], 4, null]'
    )
    with pytest.raises(KedgeError) as caught:
        decoder.decode(CONTRACT, whole(2), None)
    assert (caught.value.code, "none" in str(caught.value)) == ("internal", False)
    monkeypatch.undo()
    assert decoder.decode(CONTRACT, whole(2), None)[2] == 2
    assert decoder._child is child


def test_the_length_of_the_json_is_kept(decoder: Decoder) -> None:
    head = {"inputs": [{**tensor("flag", "BOOL", [2], []), "parameters": {"binary_data_size": 2}}]}
    del head["inputs"][0]["data"]
    text = json.dumps(head).encode()
    contract = Contract((Field("flag", "bool"),), rows=4, entity=None)
    _, columns, rows = decoder.decode(contract, text + b"\x01\x00", len(text))
    assert (columns["flag"].tolist(), rows) == ([True, False], 2)
    with pytest.raises(BadRequest, match="larger than the body"):
        decoder.decode(contract, text, len(text) + 1)


def test_a_child_that_is_killed_costs_its_body_and_the_next_one_is_started(
    decoder: Decoder,
) -> None:
    decoder.decode(CONTRACT, whole(2), None)
    first = decoder._child
    assert first is not None
    first.send_signal(signal.SIGSTOP)
    threading.Timer(0.3, first.kill).start()
    with pytest.raises(Overloaded) as lost:
        decoder.decode(CONTRACT, whole(2), None)
    assert lost.value.code == "decoder_lost"
    assert decoder.decode(CONTRACT, whole(2), None)[2] == 2
    assert decoder._child is not first


def test_a_body_is_decoded_here_if_no_child_can_be_started(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kedge.gateway.http.decoder.module_command", lambda *_: ["/nowhere/python"])
    assert decoder.decode(CONTRACT, whole(2), None)[2] == 2


def test_other_threads_run_while_a_nested_body_is_decoded(decoder: Decoder) -> None:
    """Eight megabytes that are valid, and as many that are refused: no pause of this process is long."""
    row = "[" + ",".join(["1.5"] * 1024) + "]"
    tail = ",".join([row] * 1900)
    start = '{"inputs":[{"name":"wide","datatype":"FP32","shape":[1900,1024],"data":['
    valid = (start + tail + "]}]}").encode()
    refused = (start + tail[:-2] + "x]]}]}").encode()
    contract = Contract((Field("wide", "float32", (1024,)),), rows=ROWS, entity=None)
    decoder.decode(CONTRACT, whole(2), None)
    priority = os.getpriority(os.PRIO_PROCESS, 0)
    pauses: list[float] = []
    ending = threading.Event()

    def look() -> None:
        last = time.perf_counter()
        while not ending.is_set():
            time.sleep(0.0005)
            now = time.perf_counter()
            pauses.append(now - last)
            last = now

    thread = threading.Thread(target=look)
    thread.start()
    for _ in range(3):
        assert decoder.decode(contract, valid, None)[2] == 1900
        with pytest.raises(BadRequest):
            decoder.decode(contract, refused, None)
    ending.set()
    thread.join()
    began = time.perf_counter()
    decode_here(contract, valid, None)
    alone = time.perf_counter() - began
    # By rank: on a busy machine the kernel itself pauses this process now and then.
    assert sorted(pauses)[-20] < alone / 4
    assert os.getpriority(os.PRIO_PROCESS, 0) == priority
