"""Models that misbehave on request, and the loader that loads them.

A directory with a `behave.json` is one of them. They run in real processes, so this module
must be importable there: start them with `--loader models:TestLoader` and `ENVIRONMENT`.
"""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from kedge.plugins import Columns, Field, Signature, UnfitModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

LOADER = "models:TestLoader"
"""What `serve` and `probe` take as `--loader`."""

SIGNATURE = Signature(
    inputs=(Field("x", "float64"), Field("word", "string", nullable=True)),
    outputs=(Field("score", "float64"), Field("label", "string")),
)


def environment() -> dict[str, str]:
    """The environment in which a process can import this module."""
    here = str(Path(__file__).parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([here, os.environ.get("PYTHONPATH", "")])}


def install(plugin: Path) -> str:
    """Make a directory that, on the path, has `TestLoader` installed; return PYTHONPATH with it."""
    info = plugin / "kedge_test_loader-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kedge-test-loader\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[kedge.loaders]\ntest = models:TestLoader\n")
    return os.pathsep.join([environment()["PYTHONPATH"], str(plugin)])


class Behaviour(msgspec.Struct):
    """What a model does.

    On load: `sleep_load_s`, then `kind`s starting with "load_". On predict, when `trigger` is
    None or one of the words of the request is `trigger`: `kind`. Else it answers
    score = scale * x, label = word (or "none").
    """

    kind: str = "good"
    """good | raise | exit | quit (raises SystemExit) | hang | grip (holds the interpreter) | spin | nan | inf | wrong_shape | wrong_name | wrong_dtype |
    centred | filled | running | needs_two | one_only | seldom_random | wrong_rows | no_dict | eat | leak | grab | random | print | scribble | load_raise | load_exit | load_quit | load_hang | load_eat |
    load_scribble | load_second | any.
    "any" does what the first word of the request says."""
    trigger: str | None = None
    sleep_load_s: float = 0.0
    sleep_s: float = 0.0
    row_s: float = 0.0
    """For each row."""
    scale: float = 2.0
    tried: str = ""
    """What a model of kind "try" does, as a Python expression: its labels are then "done", "refused", or the name of
    what was raised."""
    log: str | None = None
    """A file that gets one line a call: the number of rows."""


def misbehaving(directory: Path, kind: str = "good", **more: Any) -> Path:
    """Write such a model; returns the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    raw = msgspec.json.encode(Behaviour(kind=kind, **more))
    (directory / "behave.json").write_bytes(raw)
    return directory


class TestLoader:
    """Loads what `misbehaving` wrote."""

    __test__ = False
    flavour = "test"
    stalls = True
    looks_for = "a behave.json"

    def claims(self, path: Path) -> bool:
        return (path / "behave.json").is_file()

    def load(self, path: Path, trusted: Sequence[str] = ()) -> TestModel:
        try:
            raw = (path / "behave.json").read_bytes()
            behaviour = msgspec.json.decode(raw, type=Behaviour)
        except (OSError, msgspec.DecodeError) as error:
            raise UnfitModel(f"{path}: {error}") from error
        time.sleep(behaviour.sleep_load_s)
        match behaviour.kind:
            case "load_raise":
                raise UnfitModel("this model cannot be loaded", code="no_such_thing")
            case "load_exit":
                os._exit(3)
            case "load_quit":
                sys.exit("a library ends the process")
            case "load_hang":
                time.sleep(3600)
            case "load_eat":
                _eat()
            case "load_scribble":
                _scribble()
            case "load_second" if any(word.endswith("-1.sock") for word in sys.argv):
                raise UnfitModel("a second one does not fit", code="no_such_thing")
        return TestModel(behaviour)


class TestModel:
    """Answers score = scale * x, label = word; unless it misbehaves."""

    __test__ = False

    def __init__(self, behaviour: Behaviour) -> None:
        self.signature = SIGNATURE
        self._behaviour = behaviour

    def predict(self, columns: Columns) -> Columns:
        x: NDArray[Any] = columns["x"]
        words: NDArray[Any] = columns["word"]
        if self._behaviour.log is not None:
            _note(Path(self._behaviour.log), len(x))
        time.sleep(self._behaviour.sleep_s + self._behaviour.row_s * len(x))
        label = np.array(["none" if word is None else word for word in words], dtype=object)
        answer: dict[str, Any] = {"score": x * self._behaviour.scale, "label": label}
        trigger = self._behaviour.trigger
        if trigger is not None and trigger not in words:
            return answer
        kind = words[0] if self._behaviour.kind == "any" else self._behaviour.kind
        if kind == "try":
            return {**answer, "label": np.array([_try(self._behaviour.tried)] * len(x), object)}
        if kind not in _FAULTS:
            return answer
        given: Columns = _FAULTS[kind](answer)
        return given


def _try(tried: str) -> str:
    """Do it, with what such a model would import."""
    import ctypes
    import fcntl
    import signal
    import socket
    import subprocess
    import threading

    names = {
        "ctypes": ctypes,
        "fcntl": fcntl,
        "libc": ctypes.CDLL(None),
        "os": os,
        "signal": signal,
        "socket": socket,
        "subprocess": subprocess,
        "threading": threading,
    }
    try:
        eval(tried, names)
    except PermissionError:
        return "refused"
    except (OSError, ValueError) as error:
        return type(error).__name__
    return "done"


def _note(log: Path, rows: int) -> None:
    """Write a line; behind the fence, into a file of this name in the process's own directory."""
    with suppress(PermissionError), log.open("a", encoding="ascii") as file:
        file.write(f"{rows}\n")
        return
    with (Path(os.environ["TMPDIR"]) / log.name).open("a", encoding="ascii") as file:
        file.write(f"{rows}\n")


def _eat(_: object = None) -> Any:
    taken = []
    while True:
        taken.append(np.ones(1 << 22))


_kept: list[Any] = []


def _leak(answer: object) -> Any:
    """Keep 200 MB more at each call."""
    _kept.append(np.ones(200 << 17))
    return answer


def _grab(answer: object) -> Any:
    """Hold 16 GB for a moment."""
    np.ones(16 << 27)
    return answer


def _scribble(answer: object = None) -> Any:
    """Write into every pipe of the process that takes it, as who keeps a log on a descriptor of its own does."""
    for path in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if path.readlink().name.startswith("pipe:"):
                os.write(int(path.name), b"Loading weights \xff\n")
    return answer


def _print(answer: object) -> Any:
    print("Loading weights", flush=True)  # noqa: T201
    return answer


def _raise(_: object) -> Any:
    raise ValueError("this row is poison")


def _spin(_: object) -> Any:
    while True:
        pass


def _filled(answer: dict[str, Any]) -> Any:
    score = answer["score"]
    gaps = np.isnan(score)
    return {
        **answer,
        "score": np.where(gaps, np.mean(score, where=~gaps) if not gaps.all() else -1.0, score),
    }


def _needs_two(answer: dict[str, Any]) -> Any:
    if len(answer["score"]) < 2:
        raise ValueError("two rows at least")
    return answer


def _one_only(answer: dict[str, Any]) -> Any:
    if len(answer["score"]) > 1:
        raise ValueError("one row at most")
    return answer


_calls = count()


def _seldom_random(answer: dict[str, Any]) -> Any:
    """The same for the first two calls, and another answer each time from then on."""
    return {**answer, "score": answer["score"] + max(next(_calls) - 1, 0)}


_FAULTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "raise": _raise,
    "eat": _eat,
    "grab": _grab,
    "leak": _leak,
    "spin": _spin,
    "scribble": _scribble,
    "print": _print,
    "exit": lambda _: os._exit(4),
    "quit": lambda _: sys.exit("a library ends the process"),
    "hang": lambda _: time.sleep(3600),
    "grip": lambda _: re.match(r"^(a+)+$", "a" * 64 + "!"),
    "nan": lambda answer: {**answer, "score": answer["score"] * np.nan},
    "inf": lambda answer: {**answer, "score": answer["score"] + np.inf},
    "wrong_shape": lambda answer: {**answer, "score": np.zeros((len(answer["score"]), 3))},
    "wrong_rows": lambda answer: {**answer, "score": np.zeros(len(answer["score"]) + 1)},
    "wrong_name": lambda answer: {"points": answer["score"], "label": answer["label"]},
    "wrong_dtype": lambda answer: {**answer, "score": np.zeros(len(answer["score"]), np.int64)},
    "no_dict": lambda _: 42,
    "centred": lambda answer: {
        **answer,
        "score": answer["score"] - np.nanmean(answer["score"])
        if not np.isnan(answer["score"]).all()
        else answer["score"],
    },
    "filled": _filled,
    "long": lambda answer: {
        **answer,
        "label": np.array(["w" * 2**20] * len(answer["score"]), object),
    },
    "running": lambda answer: {**answer, "score": np.cumsum(answer["score"])},
    "needs_two": _needs_two,
    "one_only": _one_only,
    "seldom_random": _seldom_random,
    "random": lambda answer: {
        **answer,
        "score": np.random.default_rng().random(len(answer["score"])),
    },
}


def quantised(path: Path, *, dynamic: bool = True, note: str = "") -> Path:
    """Write an ONNX network of 8 inputs, X, and one output, p; `dynamic`: quantised by ONNX Runtime's tool.

    Its activations are then scaled by the whole batch. `note` makes other bytes of the same network.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    dice = np.random.default_rng(5)
    weights = [
        numpy_helper.from_array(dice.normal(0, 1, shape).astype(np.float32), name)
        for name, shape in (("w1", (8, 16)), ("w2", (16, 1)))
    ]
    nodes = [
        helper.make_node(kind, ins, outs)
        for kind, ins, outs in (
            ("MatMul", ["X", "w1"], ["h"]),
            ("Relu", ["h"], ["r"]),
            ("MatMul", ["r", "w2"], ["z"]),
            ("Sigmoid", ["z"], ["q"]),
            ("Squeeze", ["q", "axis"], ["p"]),
        )
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("p", TensorProto.FLOAT, ["n"])],
        [*weights, numpy_helper.from_array(np.array([1], np.int64), "axis")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 9
    path.parent.mkdir(parents=True, exist_ok=True)
    if dynamic:
        plain = path.with_suffix(".plain")
        onnx.save(model, str(plain))
        quantize_dynamic(str(plain), str(path), weight_type=QuantType.QInt8)
        plain.unlink()
        model = onnx.load(str(path))
    model.doc_string = note
    onnx.save(model, str(path))
    return path
