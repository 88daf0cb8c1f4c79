"""Formats that kedge does not load: each is named, with the command that makes it loadable."""

from __future__ import annotations

import io
import pickle
import zipfile
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import joblib
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from kedge.core.errors import Refused
from kedge.core.formats import HEAD_BYTES, Piece, fetching, recognise
from kedge.engine.registration import claiming, find_source

MLMODEL = """artifact_path: model
flavors:
  python_function:
    env: {conda: conda.yaml}
    loader_module: mlflow.LIBRARY
  LIBRARY:
    code: null
    model_data: model.ubj
mlflow_version: 3.17.0
"""


def archive(*names: str) -> bytes:
    """A zip archive with empty files of these names."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w") as file:
        for name in names:
            file.writestr(name, b"")
    return whole.getvalue()


def scikit_learn() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression()).fit([[0.0], [1.0]], [0, 1])


def written(model: Any, **how: Any) -> bytes:
    whole = io.BytesIO()
    joblib.dump(model, whole, **how)
    return whole.getvalue()


SEEN: dict[str, tuple[dict[str, bytes], str, str]] = {
    "xgboost json": (
        {"m.json": b'{"learner":{"attributes":{},"feature_names":[]'},
        "XGBoost",
        "kedge[xgboost]",
    ),
    "xgboost ubj": (
        {"m.ubj": b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"},
        "XGBoost",
        "kedge[xgboost]",
    ),
    "xgboost of another ending": (
        {"m.model": b"{L\x00\x00\x00\x00\x00\x00\x00\x07learner{L"},
        "XGBoost",
        "kedge[xgboost]",
    ),
    "lightgbm": ({"m.txt": b"tree\nversion=v4\nnum_class=1\n"}, "LightGBM", "kedge[lightgbm]"),
    "catboost cbm": ({"m.cbm": b"CBM1\x10\x02\x00\x00"}, "CatBoost", "kedge[catboost]"),
    "catboost json": (
        {"m.json": b'{\n"catboost_version_info":"1.2"'},
        "CatBoost",
        "kedge[catboost]",
    ),
    "keras": (
        {"m.keras": archive("metadata.json", "config.json", "model.weights.h5")},
        "Keras",
        ".export(",
    ),
    "keras h5": ({"m.h5": b"\x89HDF\r\n\x1a\n"}, "Keras", ".export("),
    "torch.export": (
        {"m.pt2": archive("m/archive_format", "m/models/model.json")},
        "torch.export",
        "torch.onnx",
    ),
    "torchscript": (
        {"m.pt": archive("m/data.pkl", "m/code/x.py", "m/constants.pkl")},
        "TorchScript",
        "torch.onnx",
    ),
    "state dict": (
        {"m.pth": archive("m/data.pkl", "m/version")},
        "PyTorch checkpoint",
        "torch.onnx.export",
    ),
    "hugging face": (
        {"config.json": b'{"model_type": "bert"}', "model.safetensors": b"\x10"},
        "Hugging Face",
        "optimum-cli",
    ),
    "safetensors": ({"model.safetensors": b"\x10\x00"}, "safetensors", "ONNX"),
    "gguf": ({"m.gguf": b"GGUF\x03\x00"}, "GGUF", "tensors"),
    "saved model": ({"saved_model.pb": b"\x08", "variables/x": b""}, "SavedModel", "tf2onnx"),
    "saved model of a server": (
        {"1/saved_model.pb": b"\x08", "1/variables/x": b""},
        "SavedModel",
        "tf2onnx",
    ),
    "mlflow run": (
        {"artifacts/model/MLmodel": MLMODEL.replace("LIBRARY", "xgboost").encode()},
        "MLflow model of the flavour xgboost",
        "#xgboost",
    ),
    "tflite": ({"m.tflite": b"\x1c\x00\x00\x00TFL3"}, "TensorFlow Lite", "tf2onnx"),
    "pmml": ({"m.pmml": b'<?xml version="1.0"?><PMML version="4.4">'}, "PMML", "ONNX"),
    "mlflow xgboost": (
        {"MLmodel": MLMODEL.replace("LIBRARY", "xgboost").encode(), "model.ubj": b"{L"},
        "MLflow model of the flavour xgboost",
        "#xgboost",
    ),
    "mlflow sklearn": (
        {"MLmodel": MLMODEL.replace("LIBRARY", "sklearn").encode(), "model.pkl": b"\x80\x04"},
        "flavour sklearn",
        "serialization_format='skops'",
    ),
    "mlflow pyfunc": (
        {"MLmodel": MLMODEL.replace("LIBRARY", "python_function").encode()},
        "flavour python_function",
        "ONNX",
    ),
    "mlflow prophet": (
        {"MLmodel": MLMODEL.replace("LIBRARY", "prophet").encode()},
        "flavour prophet",
        "loader of your own",
    ),
    "mlflow transformers": (
        {
            "MLmodel": MLMODEL.replace("LIBRARY", "transformers").encode(),
            "model/config.json": b"{}",
        },
        "flavour transformers",
        "optimum-cli",
    ),
    "mlflow others": (
        {"MLmodel": MLMODEL.replace("LIBRARY", "fastai").encode()},
        "flavour fastai",
        "mlflow.onnx.log_model",
    ),
    "pickle": (
        {"m.pkl": pickle.dumps(OrderedDict(a=1))},
        "a pickle: it can run any code",
        "skops.io.dump",
    ),
    "sklearn pickle": (
        {"m.pkl": pickle.dumps(scikit_learn())},
        "a pickle of scikit-learn",
        "skops.io.dump",
    ),
    "old pickle": (
        {"m.pkl": pickle.dumps(scikit_learn(), protocol=0)},
        "a pickle of scikit-learn",
        "skops",
    ),
    "sklearn joblib": (
        {"m.joblib": written(scikit_learn())},
        "a pickle of scikit-learn",
        "skops.io.dump",
    ),
    "compressed": (
        {"m.joblib": written(scikit_learn(), compress=3)},
        "a pickle of scikit-learn",
        "skops.io",
    ),
    "gzip": (
        {"m.joblib": written(scikit_learn(), compress=("gzip", 3))},
        "a pickle of scikit-learn",
        "skops.io",
    ),
    "bz2": (
        {"m.joblib": written(scikit_learn(), compress=("bz2", 3))},
        "a pickle of scikit-learn",
        "skops.io",
    ),
    "lzma": (
        {"m.joblib": written(scikit_learn(), compress=("lzma", 3))},
        "a pickle of scikit-learn",
        "skops.io",
    ),
    "xz": (
        {"model.bin": written(scikit_learn(), compress=("xz", 3))},
        "a pickle of scikit-learn",
        "skops.io",
    ),
    "packed pickle": ({"m.pkl.gz": b"\x1f\x8b"}, "a pickle: it can run any code", "skops.io.dump"),
    "no ending": (
        {"model": pickle.dumps(scikit_learn())},
        "a pickle of scikit-learn",
        "skops.io.dump",
    ),
    "lightgbm json": ({"m.json": b'{"name":"tree","tree_info":[{'}, "LightGBM", "kedge[lightgbm]"),
    "openvino": ({"m.xml": b'<?xml version="1.0"?><net name="m">'}, "OpenVINO", "ONNX"),
    "ort": ({"m.ort": b"\x1c\x00\x00\x00ORTM"}, "ONNX Runtime's own format", "ONNX"),
    "frozen graph": ({"frozen.pb": b"\x0a\x10"}, "TensorFlow graph", "tf2onnx"),
    "torchserve": ({"m.mar": archive("MAR-INF/MANIFEST.json")}, "TorchServe", "torch.onnx"),
    "packed": ({"model.tar.gz": b"\x1f\x8b\x08"}, "a packed file", "unpack it"),
    "packed onnx": ({"model.zip": archive("model.onnx")}, "a packed file", "unpack it"),
    "code": ({"model.py": b"class Model: ..."}, "Python code", "loader of your own"),
    "notebook": ({"model.ipynb": b"{}"}, "Python code", "ONNX"),
    "code and weights": (
        {"model.py": b"", "weights.pth": archive("m/data.pkl", "m/version")},
        "PyTorch checkpoint",
        "torch.onnx.export",
    ),
    "training set": ({"train.parquet": b"PAR1"}, "data, not a model", "--training"),
    "arrays": ({"w.npz": archive("w.npy")}, "arrays of numpy", "ONNX"),
    "statsmodels": (
        {"m.pkl": b"\x80\x04\x8c\x1bstatsmodels.tsa.arima.model\x8c\x05ARIMA\x93"},
        "a pickle of statsmodels",
        "loader of your own",
    ),
}


@pytest.mark.parametrize("case", SEEN)
def test_each_format_is_named_with_the_way_in(tmp_path: Path, case: str) -> None:
    files, what, way = SEEN[case]
    for name, raw in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(raw)
    sources = [tmp_path, *([tmp_path / next(iter(files))] if len(files) == 1 else [])]
    for source in sources:
        with pytest.raises(Refused) as caught:
            claiming(source, {})
        assert what in str(caught.value)
        assert way in caught.value.hint
        assert caught.value.code == ("pickle" if what.startswith("a pickle") else "other_format")


def test_a_source_that_resembles_no_model_is_not_named() -> None:
    for raw in (b"", b"hello", b"PK\x05\x06" + bytes(18), b"\x80", b"{}", b"\x7fELF"):
        assert recognise([Piece("file", raw)]) is None


class Endings:
    """A flavour whose directories have exactly one file of an ending."""

    flavour, stalls, looks_for = "endings", False, "a single *.onnx file"

    def claims(self, path: Path) -> bool:
        return len(list(path.glob("*.onnx"))) == 1


@pytest.mark.parametrize("raw", [b"", b"hello", b"\x7fELF"])
def test_an_unknown_source_gets_a_way_in_too(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "file").write_bytes(raw)
    for source in (tmp_path, tmp_path / "file"):
        with pytest.raises(Refused) as caught:
            claiming(source, {"endings": Endings()})
        assert caught.value.code == "unknown_model"
        assert "write the model as ONNX" in caught.value.hint


@pytest.mark.parametrize(
    "names", [("a/m.onnx",), ("run/x/m.onnx", "run/meta.yaml"), ("a.onnx", "b.onnx")]
)
def test_a_directory_around_models_names_them(tmp_path: Path, names: tuple[str, ...]) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(Refused) as caught:
        claiming(tmp_path, {"endings": Endings()})
    model = next(Path(name) for name in names if name.endswith(".onnx"))
    assert str(tmp_path / (model.parent if model.parent.name else model)) in caught.value.hint
    assert [name in caught.value.hint for name in names if "/" not in name] in ([], [True, True])


def test_a_pointer_of_git_lfs_is_not_taken_for_the_file(tmp_path: Path) -> None:
    """A checkout without LFS has pointers, in the place of the model or of its external data."""
    (tmp_path / "m.onnx").write_bytes(b"graph")
    (tmp_path / "m.onnx.data").write_text(
        "version https://git-lfs.github.com/spec/v1\noid sha256:ab\n"
    )
    for source in (tmp_path, tmp_path / "m.onnx.data"):
        with pytest.raises(Refused, match=r"m\.onnx\.data is a pointer of Git LFS") as caught:
            claiming(source, {"endings": Endings()})
        assert "git lfs pull" in caught.value.hint


def test_nothing_of_a_pickle_is_carried_out(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "trapped",))

    (tmp_path / "m.pkl").write_bytes(pickle.dumps(Trap()))
    with pytest.raises(Refused) as caught:
        claiming(tmp_path / "m.pkl", {})
    assert caught.value.code == "pickle"
    assert not (tmp_path / "trapped").exists()


@given(
    st.binary(max_size=300), st.sampled_from(["m.pkl", "m.json", "m.bin", "MLmodel", "config.json"])
)
def test_no_bytes_raise(raw: bytes, name: str) -> None:
    recognise([Piece(name, raw)])
    recognise([Piece(name, zlib.compress(raw))])
    recognise([Piece(name, b"\x80\x04" + raw)])


def test_a_bomb_is_read_up_to_a_bound() -> None:
    assert recognise([Piece("m.joblib", zlib.compress(bytes(50_000_000))[:HEAD_BYTES])]) is not None


@pytest.mark.parametrize(
    ("source", "command"),
    [
        (
            "models:/churn/1",
            "mlflow artifacts download --artifact-uri 'models:/churn/1' --dst-path model/",
        ),
        (
            "models:/churn@champion",
            "mlflow artifacts download --artifact-uri 'models:/churn@champion' --dst-path model/",
        ),
        ("s3://bucket/churn", "aws s3 cp --recursive 's3://bucket/churn' model/"),
        ("gs://bucket/churn", "gcloud storage cp --recursive 'gs://bucket/churn' model/"),
        (
            "wandb-artifact://team/project/churn:v7",
            "wandb artifact get 'team/project/churn:v7' --root model/",
        ),
        ("hf://org/model", "hf download 'org/model' --local-dir model/"),
        (
            "https://example.com/m.onnx",
            "curl --fail --output model.onnx 'https://example.com/m.onnx'",
        ),
    ],
)
def test_an_address_is_distinguished_from_a_path_and_can_be_fetched(
    source: str, command: str
) -> None:
    assert fetching(source) == command
    with pytest.raises(Refused, match="is not on this machine") as caught:
        find_source(source)
    assert command in caught.value.hint


def test_a_path_is_no_address(tmp_path: Path) -> None:
    assert find_source(str(tmp_path)) == tmp_path
    for text in ("model/", "C:/model", "a:b", "./models:/x", "nothing"):
        assert fetching(text) is None
    with pytest.raises(Refused, match="nothing does not exist"):
        find_source("nothing")
