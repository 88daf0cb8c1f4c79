"""ONNX outputs: named by a signature.json, and as wide as they are whatever a converter declares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.ensemble import RandomForestRegressor

from kedge.adapters.models.onnx import OnnxLoader
from kedge.core.errors import UnfitModel
from kedge.core.values import Field

NAMED = '{"outputs": [{"name": "score"}]}'


def stored(directory: Path, model: Any, names: str = NAMED) -> Path:
    (directory / "signature.json").write_text(names)
    (directory / "model.onnx").write_bytes(model.SerializeToString())
    return directory


def numbered() -> Any:
    """A model whose output is called "23"."""
    made = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["23"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3])],
        [helper.make_tensor_value_info("23", TensorProto.FLOAT, ["n", 1])],
        [onnx.numpy_helper.from_array(np.ones((3, 1), np.float32), "w")],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_an_output_is_called_as_a_file_beside_the_model_says(tmp_path: Path) -> None:
    model = OnnxLoader().load(stored(tmp_path, numbered()))
    assert model.signature.outputs == (Field("score", "float32"),)
    assert model.predict({"x": np.ones((4, 3), np.float32)})["score"].tolist() == [3.0] * 4


def test_names_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    two = '{"outputs": [{"name": "a"}, {"name": "b"}]}'
    with pytest.raises(UnfitModel, match="names 2 outputs; the model gives 1: 23"):
        OnnxLoader().load(stored(tmp_path, numbered(), two))
    with pytest.raises(UnfitModel, match="gives two outputs one name"):
        OnnxLoader().load(stored(tmp_path, numbered(), two.replace('"b"', '"a"')))


def test_several_targets_that_are_declared_as_one_are_taken_as_they_are(tmp_path: Path) -> None:
    """skl2onnx declares [rows, 1] for them, and ONNX Runtime runs it."""
    x = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float32)
    forest = RandomForestRegressor(2, max_depth=2).fit(x, x[:, :2])
    model = OnnxLoader().load(stored(tmp_path, to_onnx(forest, x[:1])))
    assert model.signature.outputs == (Field("score", "float32", (2,)),)
    answer = model.predict({model.signature.inputs[0].name: x})["score"]
    assert np.allclose(answer, forest.predict(x), atol=1e-5)
