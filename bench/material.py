"""The served models: one small classifier in several versions and formats, and its request.

Twenty floats in, a label out. A version is told from another by its answer: `flip` turns the
labels inverted, so the answer itself shows which one answered.
"""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import skops.io
from sklearn.linear_model import LogisticRegression

if TYPE_CHECKING:
    from numpy.typing import NDArray

FEATURES = 20
FLIPPED = b'"data":[1]'
"""Stands in the answer to `ROW` when the labels are turned round, and only then."""
TRIAL = 20_000
"""Elements of ballast with which their price is found."""


def training() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """4,000 rows whose classes a straight line separates."""
    dice = np.random.default_rng(7)
    rows = dice.normal(size=(4000, FEATURES))
    return rows, (rows @ dice.normal(size=FEATURES) > 0).astype(np.int64)


def classifier(*, flip: bool, variant: int = 0) -> LogisticRegression:
    """The model. Variants answer alike and differ in their bytes."""
    rows, labels = training()
    return LogisticRegression(C=1.0 + variant).fit(rows, 1 - labels if flip else labels)


def row() -> list[float]:
    """A row of class 0, far from the line."""
    rows, _ = training()
    sure = classifier(flip=False).predict_proba(rows)[:, 0].argmax()
    return [round(float(value), 6) for value in rows[sure]]


def body(datatype: str) -> bytes:
    """The request: one row, as the Open Inference Protocol writes it."""
    tensor = {"name": "X", "shape": [1, FEATURES], "datatype": datatype, "data": row()}
    return json.dumps({"inputs": [tensor]}, separators=(",", ":")).encode()


def write_onnx(folder: Path, *, flip: bool, variant: int = 0) -> Path:
    """The model as ONNX; takes X as FP32."""
    from skl2onnx import to_onnx  # noqa: PLC0415 - takes a second, and only some need it

    folder.mkdir(parents=True)
    sample = np.zeros((1, FEATURES), np.float32)
    made = to_onnx(classifier(flip=flip, variant=variant), sample, options={"zipmap": False})
    (folder / "model.onnx").write_bytes(made.SerializeToString())
    write_golden(folder, {"label": [int(flip)]})
    return folder


def write_graph(
    folder: Path, *, word: bool = False, wide: int = 0, expand: int = 0, scale: float = 1.0
) -> Path:
    """A line as ONNX, with a word that comes back, or `wide` values, or `expand` times its one."""
    import onnx  # noqa: PLC0415 - as above
    from onnx import TensorProto, helper  # noqa: PLC0415

    folder.mkdir(parents=True)
    width = wide or 1
    weights = np.full((FEATURES, width), scale, np.float32)
    nodes = [helper.make_node("MatMul", ["X", "w"], ["y"])]
    constants = [helper.make_tensor("w", TensorProto.FLOAT, weights.shape, weights.ravel())]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, width])]
    if word:
        nodes.append(helper.make_node("Identity", ["word"], ["said"]))
        inputs.append(helper.make_tensor_value_info("word", TensorProto.STRING, [None]))
        outputs.append(helper.make_tensor_value_info("said", TensorProto.STRING, [None]))
    if expand:
        constants.append(helper.make_tensor("n", TensorProto.INT64, [2], [1, expand]))
        nodes.append(helper.make_node("Expand", ["y", "n"], ["fat"]))
        outputs.append(helper.make_tensor_value_info("fat", TensorProto.FLOAT, [None, expand]))
    graph = helper.make_graph(nodes, "line", inputs, outputs, constants)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, folder / "model.onnx")
    return folder


def write_sklearn(folder: Path, *, flip: bool, variant: int = 0, ballast: int = 0) -> Path:
    """The model as scikit-learn; takes X as FP64. `ballast` is dead weight, loaded item by item."""
    folder.mkdir(parents=True)
    model = classifier(flip=flip, variant=variant)
    if ballast:
        model.ballast_ = [float(number) for number in range(ballast)]
    skops.io.dump(model, folder / "model.skops", compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    write_golden(folder, {"label": [int(flip)]})
    return folder


def write_layers(folder: Path, widths: tuple[int, ...]) -> Path:
    """Fully connected layers as ONNX; takes X as FP32."""
    import onnx  # noqa: PLC0415 - as above
    from onnx import TensorProto, helper  # noqa: PLC0415

    folder.mkdir(parents=True)
    dice = np.random.default_rng(7)
    nodes, constants, before, name = [], [], FEATURES, "X"
    for number, width in enumerate((*widths, 1)):
        weights = (dice.normal(size=(before, width)) / np.sqrt(before)).astype(np.float32)
        constants.append(
            helper.make_tensor(
                f"w{number}", TensorProto.FLOAT, weights.shape, weights.tobytes(), raw=True
            )
        )
        last = number == len(widths)
        made = "y" if last else f"m{number}"
        nodes.append(helper.make_node("MatMul", [name, f"w{number}"], [made]))
        if not last:
            nodes.append(helper.make_node("Relu", [made], [f"r{number}"]))
        before, name = width, f"r{number}"
    graph = helper.make_graph(
        nodes,
        "layers",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder


def write_forest(folder: Path, trees: int) -> Path:
    """Trees as scikit-learn; takes X as FP64."""
    from sklearn.ensemble import RandomForestClassifier  # noqa: PLC0415 - only some need it

    folder.mkdir(parents=True)
    rows, labels = training()
    model = RandomForestClassifier(n_estimators=trees, max_depth=8, random_state=7)
    skops.io.dump(model.fit(rows, labels), folder / "model.skops")
    return folder


def write_golden(folder: Path, outputs: dict[str, list[Any]]) -> None:
    """The row that the model must answer before it serves."""
    golden = {"inputs": {"X": [row()]}, "outputs": outputs}
    (folder / "golden.json").write_text(json.dumps(golden), encoding="utf-8")


def ballast_for(seconds: float, folder: Path) -> int:
    """How many items take so many seconds of CPU to load here: tried out, not assumed.

    skops writes a list item by item and builds it up again item by item, in Python: the load
    holds the interpreter as a big forest's or a vocabulary's does.
    """
    path = write_sklearn(folder, flip=False, ballast=TRIAL) / "model.skops"
    _load_s(path)  # also pays for what is imported on the way
    return int(TRIAL * seconds / _load_s(path))


def _load_s(path: Path) -> float:
    begun = time.process_time()
    unknown = skops.io.get_untrusted_types(file=path)
    skops.io.load(path, trusted=unknown)
    return time.process_time() - begun
