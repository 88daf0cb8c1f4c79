"""Callers: Triton's own client, unmodified, and everything that a body can be."""

from __future__ import annotations

import gzip
import http.client
import json
import shlex
import shutil
import socket
import struct
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import skops.io
import tritonclient.http as triton
from onnx import TensorProto, helper
from prometheus_client.parser import text_string_to_metric_families as plain_metrics
from sklearn.linear_model import LogisticRegression
from tritonclient.utils import InferenceServerException

from e2e.place import Site
from kedge.core.routing import bucket, key_of
from kedge.operations.tokens import read_admin_token

pytestmark = pytest.mark.e2e

WEIGHTS = np.array([[0.5], [-1.0], [2.0]], np.float32)
RNG = np.random.default_rng(7)
TRAINED: Any = RNG.normal(size=(80, 4))
LABELS: Any = TRAINED[:, 0] - TRAINED[:, 1] > 0

POLICY = """
entity = "word"
fields = {x = {dtype = "float64", nullable = true}, word = {dtype = "string", nullable = true}}

[endpoints.linear]
audience = "internal"

[endpoints.plants]
audience = "internal"
"""


def linear(directory: Path) -> str:
    """A real ONNX model: y = x · w, and a word that it gives back."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 3]),
        helper.make_tensor_value_info("word", TensorProto.STRING, [None]),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1]),
        helper.make_tensor_value_info("said", TensorProto.STRING, [None]),
    ]
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["y"]),
            helper.make_node("Identity", ["word"], ["said"]),
        ],
        "linear",
        inputs,
        outputs,
        [helper.make_tensor("w", TensorProto.FLOAT, WEIGHTS.shape, WEIGHTS.ravel())],
    )
    directory.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, directory / "model.onnx")
    return str(directory)


def plants(directory: Path) -> LogisticRegression:
    """A real scikit-learn model, written with skops."""
    directory.mkdir()
    model = LogisticRegression().fit(TRAINED, LABELS)
    skops.io.dump(model, directory / "model.skops")
    return model


class Plane:
    """Three endpoints that are served: `words` (the tests' own model), `linear`, `plants`."""

    def __init__(self, site: Site) -> None:
        self.site = site
        site.start()
        self.estimator = plants(site.root / "plants-model")
        for endpoint, path in (
            ("words", site.model("one")),
            ("words", site.model("two", scale=3.0)),
            ("linear", linear(site.root / "linear-model")),
            ("plants", str(site.root / "plants-model")),
        ):
            site.run("register", endpoint, path)
        for endpoint in ("words", "linear", "plants"):
            site.run("promote", endpoint, "v1")
        site.until(lambda: site.answers("/v2/models/linear/ready"), "linear")
        self.client = triton.InferenceServerClient(f"127.0.0.1:{site.port}", concurrency=4)

    def post(
        self, raw: bytes, headers: dict[str, str] | None = None, endpoint: str = "words"
    ) -> tuple[int, dict[str, str], Any]:
        status, head, body = self.site.request("POST", f"/v2/models/{endpoint}/infer", raw, headers)
        return status, head, json.loads(body)


@pytest.fixture(scope="module")
def plane() -> Iterator[Plane]:
    site = Site(Path(tempfile.mkdtemp(prefix="kedge-site-")), endpoint="words", policy=POLICY)
    try:
        made = Plane(site)
        yield made
        made.client.close()
        assert site.stop() == 0
    finally:
        site.end()
        shutil.rmtree(site.root, ignore_errors=True)


def body(x: Any = (1.0,), **more: Any) -> bytes:
    tensor = {"name": "x", "datatype": "FP64", "shape": [len(x)], "data": list(x)}
    return json.dumps({"inputs": [{**tensor, **more}]}).encode()


def linear_inputs(
    x: Any, words: list[str], *, binary: bool, datatype: str = "FP32"
) -> list[triton.InferInput]:
    """What Triton's client sends; `binary` is its default."""
    numbers = triton.InferInput("x", list(x.shape), datatype)
    numbers.set_data_from_numpy(x, binary_data=binary)
    texts = triton.InferInput("word", [len(words)], "BYTES")
    texts.set_data_from_numpy(np.array(words, dtype=object), binary_data=binary)
    return [numbers, texts]


# ---------------------------------------------------------------- Triton's client


def test_tritons_client_finds_a_server_that_is_live_and_ready(plane: Plane) -> None:
    """And no model where there is none."""
    assert plane.client.is_server_live()
    assert plane.client.is_server_ready()
    assert plane.client.is_model_ready("linear")
    assert plane.client.is_model_ready("linear", "r1")
    assert not plane.client.is_model_ready("linear", "r9")
    assert not plane.client.is_model_ready("nowhere")


def test_tritons_client_reads_the_metadata(plane: Plane) -> None:
    """Of the server and of a model: names, dtypes, shapes."""
    assert plane.client.get_server_metadata()["name"] == "kedge"
    told = plane.client.get_model_metadata("linear")
    assert told["name"] == "linear"
    assert told["platform"] == "kedge_onnx"
    assert told["inputs"] == [
        {"name": "x", "datatype": "FP32", "shape": [-1, 3]},
        {"name": "word", "datatype": "BYTES", "shape": [-1]},
    ]
    assert [output["name"] for output in told["outputs"]] == ["y", "said"]
    assert plane.client.get_model_metadata("linear", "r1") == told
    assert plane.client.get_model_config("linear")["name"] == "linear"


def test_tritons_client_reads_the_repository_index(plane: Plane) -> None:
    """By POST, as it does."""
    index = plane.client.get_model_repository_index()
    assert {"name": "linear", "version": "r1", "state": "READY", "reason": ""} in index
    assert {entry["name"] for entry in index} == {"words", "linear", "plants"}


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
@pytest.mark.parametrize("rows", [1, 3, 1024])
def test_tritons_client_gets_the_models_own_answer(plane: Plane, rows: int, binary: bool) -> None:
    """With JSON tensors and with its default, binary ones; an id comes back, a release is named."""
    x = RNG.normal(size=(rows, 3)).astype(np.float32)
    words = [f"wörd {number}" for number in range(rows)]
    answer = plane.client.infer(
        "linear", linear_inputs(x, words, binary=binary), request_id="question-7"
    )
    assert np.allclose(answer.as_numpy("y"), (x @ WEIGHTS).ravel(), rtol=1e-5)
    assert answer.as_numpy("said").tolist() == words
    response = answer.get_response()
    assert response["id"] == "question-7"
    assert (response["model_name"], response["model_version"]) == ("linear", "r1")


@pytest.mark.parametrize("binary", [False, True], ids=["json", "binary"])
def test_tritons_client_chooses_an_output_and_a_version(plane: Plane, binary: bool) -> None:
    """One output of two; the versioned path; asynchronously too."""
    x = np.ones((1, 3), np.float32)
    wanted = [triton.InferRequestedOutput("y", binary_data=binary)]
    inputs = linear_inputs(x, ["a"], binary=binary)
    answer = plane.client.infer(
        "linear", inputs, model_version="r1", outputs=wanted, headers=plane.site.tester
    )
    assert answer.as_numpy("y").tolist() == [1.5]
    assert answer.as_numpy("said") is None
    later = plane.client.async_infer("linear", inputs, outputs=wanted)
    assert later.get_result().as_numpy("y").tolist() == [1.5]


def test_tritons_client_may_compress_by_gzip_and_other_encodings_are_refused(plane: Plane) -> None:
    """JSON and binary; deflate would be read as no JSON."""
    ones = np.ones((1, 3), np.float32)
    told = linear_inputs(ones, ["a"], binary=False)
    for inputs in (told, linear_inputs(ones, ["a"], binary=True)):
        answer = plane.client.infer("linear", inputs, request_compression_algorithm="gzip")
        assert answer.as_numpy("y").tolist() == [1.5]
    with pytest.raises(InferenceServerException, match="only gzip") as caught:
        plane.client.infer("linear", told, request_compression_algorithm="deflate")
    assert caught.value.status() == "415"


def test_rows_are_answered_as_tensors_are(plane: Plane) -> None:
    """Small, compressed, and so large that another process reads them; each by its entity."""
    for count, zipped in ((1, False), (1, True), (1000, False), (1000, True)):
        rows = [{"x": [1, n, 0.5], "word": f"w{n}" * 20} for n in range(count)]
        raw = json.dumps({"rows": rows, "id": "mine"}).encode()
        more = {"content-encoding": "gzip"} if zipped else {}
        status, _, said = plane.post(gzip.compress(raw) if zipped else raw, more, "linear")
        assert (status, said["id"]) == (200, "mine")
        assert said["outputs"][0]["data"] == [1.5 - n for n in range(count)]
    status, _, said = plane.post(b'{"rows": [{"x": [1, 2, 3], "word": 7}]}', None, "linear")
    assert (status, said["code"], said["field"], said["row"]) == (400, "wrong_dtype", "word", 0)


def test_the_call_that_register_prints_is_answered(plane: Plane) -> None:
    command = shlex.split(plane.site.data("register", "linear", "linear-model")["example"])
    url = f"http://127.0.0.1:{plane.site.port}/v2/models/linear/infer"
    assert command[:3] == ["curl", url, "-d"]
    told = {"content-type": "application/x-www-form-urlencoded"}
    status, _, said = plane.post(command[3].encode(), told, "linear")
    assert status == 200
    assert len(said["outputs"][0]["data"]) == 1


def test_tritons_client_gets_the_name_of_the_wrong_field(plane: Plane) -> None:
    """In the message that it raises: dtype, shape, name, a missing field, an unknown output."""
    good = np.ones((1, 3), np.float32)

    def refused(inputs: list[triton.InferInput], **more: Any) -> str:
        with pytest.raises(InferenceServerException) as caught:
            plane.client.infer("linear", inputs, **more)
        assert caught.value.status() in {"400", "404", "413"}
        return str(caught.value.message())

    wide = linear_inputs(good.astype(np.float64), ["a"], binary=True, datatype="FP64")
    assert refused(wide) == "x is FP64; declared is FP32"
    assert "x has shape [1, 2]" in refused(linear_inputs(good[:, :2], ["a"], binary=True))
    assert "word has 2 rows where others have 1" in refused(
        linear_inputs(good, ["a", "b"], binary=True)
    )
    assert refused(linear_inputs(good, ["a"], binary=True)[:1]) == "word is missing"
    nan = linear_inputs(good * np.float32(np.nan), ["a"], binary=True)
    assert "x has a value that is not finite" in refused(nan)
    fine = linear_inputs(good, ["a"], binary=True)
    assert "z is not an output" in refused(fine, outputs=[triton.InferRequestedOutput("z")])
    assert "r9 is not live" in refused(fine, model_version="9", headers=plane.site.tester)
    rows = np.ones((1025, 3), np.float32)
    assert "1025 rows; at most 1024" in refused(linear_inputs(rows, ["a"] * 1025, binary=True))


def test_a_scikit_learn_model_answers_as_it_does_in_python(plane: Plane) -> None:
    """Trained here, written with skops, registered, promoted, asked."""
    x = RNG.normal(size=(20, 4))
    tensor = triton.InferInput("X", [20, 4], "FP64")
    tensor.set_data_from_numpy(x)
    answer = plane.client.infer("plants", [tensor])
    assert np.allclose(answer.as_numpy("score"), plane.estimator.predict_proba(x)[:, 1])
    assert answer.as_numpy("label").tolist() == plane.estimator.predict(x).tolist()


# ---------------------------------------------------------------- values


@pytest.mark.parametrize(
    "inputs, score, label",
    [
        ({"x": ("FP64", [2.5]), "word": ("BYTES", ["a"])}, [5.0], ["a"]),
        ({"x": ("FP64", [2.5]), "word": ("BYTES", [None])}, [5.0], ["none"]),
        ({"x": ("FP64", [2.5])}, [5.0], ["none"]),
        ({"x": ("FP64", [None, 1.0]), "word": ("BYTES", ["a", None])}, [None, 2.0], ["a", "none"]),
        ({"word": ("BYTES", ["a"])}, [None], ["a"]),
        ({"x": ("FP64", [1, 2])}, [2.0, 4.0], ["none", "none"]),
    ],
)
def test_null_in_a_nullable_field_is_answered(
    plane: Plane, inputs: Any, score: list[Any], label: list[str]
) -> None:
    """As null or left out; what comes out as NaN is null in the answer."""
    status, _, answer = plane.site.infer(inputs)
    assert status == 200
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs == {"score": score, "label": label}


@pytest.mark.parametrize(
    "raw, status, code, field",
    [
        (b"", 400, "malformed_body", None),
        (b"{", 400, "malformed_body", None),
        (b"\xff\x00", 400, "malformed_body", None),
        (body([float("nan")]), 400, "malformed_body", None),
        (b'{"inputs": []}', 400, "wrong_shape", None),
        (body(["1"]), 400, "wrong_dtype", "x"),
        (body(datatype="BYTES"), 400, "wrong_dtype", "x"),
        (body(shape=[2]), 400, "wrong_shape", "x"),
        (body(shape=[-1]), 400, "wrong_shape", "x"),
        (body(name="y"), 400, "unknown_field", "y"),
        (body(parameters={"binary_data_size": 8}), 400, "wrong_shape", "x"),
        (body([1.0] * 1025), 413, "too_many_rows", None),
        (b'{"inputs": ' + b"[" * 100_000, 400, "malformed_body", None),
    ],
)
def test_a_wrong_body_is_reported_and_production_continues(
    plane: Plane, raw: bytes, status: int, code: str, field: str | None
) -> None:
    """On the same connection too: nothing of the error stays behind."""
    connection = http.client.HTTPConnection("127.0.0.1", plane.site.port, timeout=5)
    path = "/v2/models/words/infer"
    for _ in range(2):
        connection.request("POST", path, raw)
        refused = connection.getresponse()
        told = json.loads(refused.read())
        assert (refused.status, told["code"], told.get("field")) == (status, code, field)
        used = connection.sock
        connection.request("POST", path, body())
        answer = connection.getresponse()
        assert (answer.status, json.loads(answer.read())["model_version"]) == (200, "r1")
        assert used is not None
        assert connection.sock is used
    connection.close()


def test_an_unknown_path_or_method_is_reported(plane: Plane) -> None:
    """As JSON with a code, and by its status."""
    for method, path, status in (
        ("GET", "/v2/models/words/infer", 405),
        ("POST", "/v2/models/nowhere/infer", 404),
        ("GET", "/v2/models/words/versions/r9", 404),
        ("GET", "/", 404),
        ("GET", "/v2/models/%2e%2e/%00", 404),
    ):
        got, head, raw = plane.site.request(method, path)
        assert (got, head["content-type"]) == (status, "application/json")
        assert json.loads(raw)["code"]


# ---------------------------------------------------------------- large, slow and half bodies


@pytest.mark.parametrize("chunked", [False, True])
def test_ten_megabytes_are_too_large_and_delay_no_other_caller(plane: Plane, chunked: bool) -> None:
    """413 arrives although the caller was still sending; its connection can be used again."""
    with plane.site.load(rate=100) as load:
        connection = http.client.HTTPConnection("127.0.0.1", plane.site.port, timeout=10)
        for _ in range(3):
            raw: Any = iter([b" " * 1_000_000] * 10) if chunked else b" " * 10_000_000
            connection.request("POST", "/v2/models/words/infer", raw, encode_chunked=chunked)
            refused = connection.getresponse()
            assert (refused.status, json.loads(refused.read())["code"]) == (413, "body_too_large")
            connection.request("POST", "/v2/models/words/infer", body())
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
        connection.close()
    assert load.failures == []
    assert load.ok > 0


def test_a_body_just_below_the_bound_is_read(plane: Plane) -> None:
    """Blanks are JSON too."""
    assert plane.post(body().ljust(8 * 2**20))[0] == 200
    assert plane.post(body().ljust(8 * 2**20 + 1))[0] == 413


def test_a_hundred_gigabytes_that_are_only_announced_are_refused_unread(plane: Plane) -> None:
    """And the connection is closed."""
    with socket.create_connection(("127.0.0.1", plane.site.port), timeout=5) as line:
        line.sendall(
            b"POST /v2/models/words/infer HTTP/1.1\r\nhost: x\r\ncontent-length: 100000000000\r\n\r\n"
        )
        told = b"".join(iter(lambda: line.recv(65536), b""))
    assert told.startswith(b"HTTP/1.1 413 ")


def test_a_slow_body_is_answered_and_half_a_body_does_no_harm(plane: Plane) -> None:
    """Byte by byte, cut anywhere, or never sent: other callers are served meanwhile."""
    raw = body()
    head = b"POST /v2/models/words/infer HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(
        raw
    )
    lines = [socket.create_connection(("127.0.0.1", plane.site.port)) for _ in range(600)]
    try:
        for number, line in enumerate(lines):
            line.sendall(head if number else head + raw[:-1])
        with plane.site.load(rate=200) as load:
            slow = lines[0]
            slow.settimeout(5)
            for line in lines[1:100]:
                line.sendall(raw[: len(raw) // 2])
                line.close()
            slow.sendall(raw[-1:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200 ")
            plane.site.until(lambda: load.ok > 20, "other callers to be answered")
        assert load.failures == []
    finally:
        for line in lines:
            line.close()


def test_a_binary_body_that_was_cut_is_refused(plane: Plane) -> None:
    """With the field at which it ended."""
    head = body(parameters={"binary_data_size": 8})
    sent = {"inference-header-content-length": str(len(head))}
    assert plane.post(head + struct.pack("<d", 2.0), sent)[0] == 200
    for cut in (b"", b"1234567"):
        status, _, told = plane.post(head + cut, sent)
        assert (status, told["field"]) == (400, "x")
    assert plane.post(head, {"inference-header-content-length": "10000"})[0] == 400
    assert plane.post(head, {"inference-header-content-length": "9" * 5000})[0] == 400


# ---------------------------------------------------------------- many callers


def test_callers_at_the_same_time_each_get_their_own_answer(plane: Plane) -> None:
    """Nothing is mixed up between connections, workers and rows."""
    wrong: list[Any] = []

    def ask(caller: int) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", plane.site.port, timeout=10)
        for number in range(50):
            x = [caller + number / 100.0] * (1 + number % 3)
            connection.request(
                "POST",
                "/v2/models/words/infer",
                json.dumps(
                    {
                        "id": f"{caller}-{number}",
                        "inputs": [
                            {"name": "x", "datatype": "FP64", "shape": [len(x)], "data": x},
                            {
                                "name": "word",
                                "datatype": "BYTES",
                                "shape": [len(x)],
                                "data": [f"w{caller}"] * len(x),
                            },
                        ],
                    }
                ),
            )
            told = json.loads(connection.getresponse().read())
            outputs = {output["name"]: output["data"] for output in told["outputs"]}
            wanted = {"score": [value * 2.0 for value in x], "label": [f"w{caller}"] * len(x)}
            if (told["id"], outputs) != (f"{caller}-{number}", wanted):
                wrong.append(told)
        connection.close()

    callers = [threading.Thread(target=ask, args=(caller,)) for caller in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(60)
    assert wrong == []


def test_the_entity_decides_the_arm_by_header_or_by_field_and_never_changes_it(
    plane: Plane,
) -> None:
    """Both spellings name the same unit; its bucket is the published one."""
    site = plane.site
    site.run("canary", "words", "v2", "--weight", "50")
    entry = next(
        e for e in site.data("history", "words") if e["event"]["event"] == "canary_started"
    )
    key = key_of(entry["event"]["salt"])
    try:
        arms = set()
        for number in range(30):
            entity = f"tail-{number}"
            wanted = "candidate" if bucket(key, entity) < 5000 else "production"
            one = {"x": ("FP64", [1.0])}
            by_header = site.infer(one, headers={"kedge-entity": entity})
            by_field = site.infer({**one, "word": ("BYTES", [entity])})
            wins = site.infer(
                {**one, "word": ("BYTES", ["other"])}, headers={"kedge-entity": entity}
            )
            for status, head, answer in (by_header, by_field, wins):
                assert (status, head["kedge-arm"]) == (200, wanted)
                assert answer["model_version"] == head["kedge-release"]
            arms.add(wanted)
        assert arms == {"candidate", "production"}
        _, head, _ = site.infer(headers={"kedge-release": "r2", **site.tester})
        assert (head["kedge-release"], head["kedge-reason"]) == ("r2", "asked")
        path = "/v2/models/words/versions/r1/infer"
        assert site.infer(path=path, headers=site.tester)[1]["kedge-release"] == "r1"
    finally:
        site.run("abort", "words")


def test_refusals_are_counted_in_status(plane: Plane) -> None:
    """By code, once a second."""
    for _ in range(3):
        plane.post(body(["1"]), endpoint="plants")
    refused = plane.site.until(
        lambda: plane.site.data("status", "plants")["counts"]["refused"], "the counts"
    )
    assert sum(refused.values()) >= 1
    assert set(refused) == {"unknown_field"}


def test_what_callers_got_is_exported_for_prometheus(plane: Plane) -> None:
    """Control begins its counters at zero, and reads on a clock while it is scraped."""

    def answered() -> float:
        where = f"http://127.0.0.1:{plane.site.control_port}/metrics"
        token = read_admin_token(plane.site.root / ".kedge")
        if not token:
            return -1.0
        asked = urllib.request.Request(where, headers={"authorization": f"Bearer {token}"})
        with urllib.request.urlopen(asked, timeout=20) as page:
            found = {
                sample.labels["endpoint"]: sample.value
                for family in plain_metrics(page.read().decode())
                for sample in family.samples
                if sample.name == "kedge_requests_total"
            }
        return found.get("words", 0.0)

    plane.site.until(lambda: answered() >= 0, "control to answer", 20)
    before = answered()
    for _ in range(3):
        assert plane.post(body())[0] == 200
    plane.site.until(lambda: answered() >= before + 3, "the answers to be exported", 30)
