"""The floor: the leanest app that answers the same request with the same model.

No checks, no choice, no counts: bytes, msgspec, NumPy, the model, bytes. Served by uvicorn as
raw ASGI, by granian as raw RSGI and as ASGI. What kedge adds is what it costs above this.

FLOOR_MODEL is a model.onnx or a model.skops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

Answerer = Callable[[bytes], bytes]
App = Callable[[Any, Any, Any], Coroutine[Any, Any, None]]


class Given(msgspec.Struct):
    """One input."""

    name: str
    shape: list[int]
    data: list[float]


class Question(msgspec.Struct):
    """A request of the Open Inference Protocol."""

    inputs: list[Given]


class Output(msgspec.Struct):
    """One output."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class Reply(msgspec.Struct):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    outputs: list[Output]


def answerer(file: Path) -> Answerer:
    """From a request's bytes to an answer's."""
    return _onnx(file) if file.suffix == ".onnx" else _sklearn(file)


def onnx_session(file: Path) -> Any:
    """One thread, as kedge runs it."""
    import onnxruntime  # noqa: PLC0415 - only the ONNX floor pays for it

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])


def _onnx(file: Path) -> Answerer:
    run = onnx_session(file).run
    decode = msgspec.json.Decoder(Question).decode
    encode = msgspec.json.Encoder().encode
    names = ["label", "probabilities"]

    def answer(body: bytes) -> bytes:
        given = decode(body).inputs[0]
        rows = np.asarray(given.data, np.float32).reshape(given.shape)
        label, chances = run(names, {"X": rows})
        return encode(
            Reply(
                "flights",
                "r1",
                [
                    Output("label", "INT64", list(label.shape), label.tolist()),
                    Output("probabilities", "FP32", list(chances.shape), chances.ravel().tolist()),
                ],
            )
        )

    return answer


def _sklearn(file: Path) -> Answerer:
    import skops.io  # noqa: PLC0415 - only the scikit-learn floor pays for it

    model = skops.io.load(file, trusted=skops.io.get_untrusted_types(file=file))
    chances_of, classes = model.predict_proba, model.classes_
    decode = msgspec.json.Decoder(Question).decode
    encode = msgspec.json.Encoder().encode

    def answer(body: bytes) -> bytes:
        given = decode(body).inputs[0]
        rows = np.asarray(given.data, np.float64).reshape(given.shape)
        chances = chances_of(rows)
        score, label = chances[:, 1], classes.take(chances.argmax(axis=1))
        return encode(
            Reply(
                "claims",
                "r1",
                [
                    Output("score", "FP64", list(score.shape), score.tolist()),
                    Output("label", "INT64", list(label.shape), label.tolist()),
                ],
            )
        )

    return answer


def asgi_of(answer: Answerer) -> App:
    """As an ASGI app."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        del scope
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        payload = answer(body)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [
                    (b"content-type", b"application/json"),
                    (b"content-length", b"%d" % len(payload)),
                ],
            }
        )
        await send({"type": "http.response.body", "body": payload})

    return app


def asgi() -> Any:
    """For uvicorn --factory and granian --factory --interface asginl."""
    return asgi_of(answerer(Path(os.environ["FLOOR_MODEL"])))


def rsgi() -> Any:
    """For granian --factory --interface rsgi."""
    answer = answerer(Path(os.environ["FLOOR_MODEL"]))
    head = [("content-type", "application/json")]

    async def app(scope: Any, protocol: Any) -> None:
        del scope
        protocol.response_bytes(200, head, answer(await protocol()))

    return app
