"""Which directories hold one pickle of a model, and where it may be read."""

from __future__ import annotations

import pickle
from pathlib import Path

import joblib
import pytest

from kedge.adapters.models.flavours import PickleFlavour
from kedge.adapters.models.sklearn.pickles import PickleLoader
from kedge.core.errors import UnfitModel

RAW = pickle.dumps({"a": 1})


@pytest.mark.parametrize(
    ("files", "is_claimed"),
    [
        ({"model.pkl": RAW}, True),
        ({"model": RAW}, True),
        ({"model.pkl": RAW, "MLmodel": b"", "conda.yaml": b"", "requirements.txt": b""}, True),
        ({"model.pkl": RAW, "signature.json": b"{}"}, True),
        ({"a.pkl": RAW, "b.pkl": RAW}, False),
        ({"model.pkl": RAW, "model.onnx": b""}, False),
        ({"model.pkl": RAW, "model.skops": b""}, False),
        ({"scaler.pkl": RAW, "model.cbm": b"CBM1"}, False),
        ({"model.txt": b"hello"}, False),
        ({}, False),
    ],
)
def test_one_pickle_alone_is_claimed(
    tmp_path: Path, files: dict[str, bytes], *, is_claimed: bool
) -> None:
    for name, raw in files.items():
        (tmp_path / name).write_bytes(raw)
    assert PickleFlavour().claims(tmp_path) is is_claimed


@pytest.mark.parametrize("compress", [0, 3, ("gzip", 3), ("bz2", 3), ("xz", 3)])
def test_a_compressed_pickle_is_claimed(tmp_path: Path, compress: object) -> None:
    joblib.dump({"a": 1}, tmp_path / "model", compress=compress)
    assert PickleFlavour().claims(tmp_path)


def test_no_pickle_is_read_outside_a_models_process(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(RAW)
    with pytest.raises(UnfitModel) as caught:
        PickleLoader().load(tmp_path)
    assert caught.value.code == "not_apart"
