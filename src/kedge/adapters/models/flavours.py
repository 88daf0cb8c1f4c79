"""Flavours of kedge's own model files, without the libraries that load them.

scikit-learn takes seconds to import, and a file's name gives its flavour. So registration asks
these flavours, by the entry point `kedge.flavours`, and only the process that tries the model
imports a loader. A flavour without this entry point is asked through its loader. `libraries` names
a loader's imports, so that `kedge doctor` can look for them without importing any.
"""

from __future__ import annotations

from pathlib import Path

from kedge.core.formats import HEAD_BYTES, Piece, is_pickle, kind_of
from kedge.core.inputs import SIGNATURE_FILE

BESIDE = (SIGNATURE_FILE, "MLmodel")
"""Files that state the inputs of a model beside them."""
OTHERS = (".onnx", ".skops")
"""Endings of models beside which a pickle is no model of its own."""


class OnnxFlavour:
    """Directory that holds one ONNX file, with its external data beside it if any."""

    flavour = "onnx"
    stalls = False
    looks_for = "a single *.onnx file"
    companions = (SIGNATURE_FILE,)
    libraries = ("onnxruntime",)

    def claims(self, path: Path) -> bool:
        """Return whether exactly one *.onnx file is in the directory itself."""
        return len(visible(path, "*.onnx")) == 1


class SklearnFlavour:
    """Directory that holds one skops file."""

    flavour = "sklearn"
    stalls = True
    looks_for = "a single *.skops file (skops.io.dump)"
    companions = (SIGNATURE_FILE, "MLmodel")
    libraries = ("sklearn", "skops", "yaml")

    def claims(self, path: Path) -> bool:
        """Return whether exactly one *.skops file is in the directory itself."""
        return len(visible(path, "*.skops")) == 1


class PickleFlavour:
    """Directory that holds one pickle of an estimator, written by joblib, pickle or cloudpickle."""

    flavour = "pickle"
    stalls = True
    looks_for = "a single pickle (.joblib, .pkl), with --allow-code"
    companions = BESIDE
    libraries = ("joblib", "picklescan", "sklearn")
    runs_code = True

    def claims(self, path: Path) -> bool:
        """Return whether one file is a pickle, and no other is a model."""
        return self.find(path) is not None

    def find(self, path: Path) -> Path | None:
        """Return the only pickle of a directory without other models."""
        found = []
        for file in visible(path, "*"):
            piece = _read(file)
            if piece is None:
                continue
            if file.suffix in OTHERS or kind_of(piece):
                return None
            if is_pickle(piece):
                found.append(file)
        return found[0] if len(found) == 1 else None


class _BoosterFlavour:
    """Directory that holds one model of a boosting library, recognised by its first bytes."""

    flavour = ""
    stalls = True
    companions = BESIDE
    libraries: tuple[str, ...] = ()

    def claims(self, path: Path) -> bool:
        """Return whether exactly one file in the directory itself is such a model."""
        return self.find(path) is not None

    def find(self, path: Path) -> Path | None:
        """Return the only file of a directory that is such a model."""
        found = [file for file in visible(path, "*") if self._is_model(file)]
        return found[0] if len(found) == 1 else None

    def _is_model(self, file: Path) -> bool:
        piece = _read(file)
        if piece is None:
            return False
        return kind_of(piece) == self.flavour and self.is_loadable(piece.head)

    def is_loadable(self, head: bytes) -> bool:
        """Return whether the library loads this one of its formats."""
        return bool(head)


class XgboostFlavour(_BoosterFlavour):
    """Directory that holds one model of XGBoost, as JSON or UBJSON."""

    flavour = "xgboost"
    looks_for = "a single XGBoost model (save_model as .json or .ubj)"
    libraries = ("xgboost",)

    def is_loadable(self, head: bytes) -> bool:
        """Return whether it is not of the binary format that XGBoost 3.1 and later do not read."""
        return not head.startswith(b"binf")


class LightgbmFlavour(_BoosterFlavour):
    """Directory that holds one model of LightGBM, as text."""

    flavour = "lightgbm"
    looks_for = "a single LightGBM model (save_model as text)"
    libraries = ("lightgbm",)

    def is_loadable(self, head: bytes) -> bool:
        """Return whether it is the text that LightGBM reads, not its dump as JSON."""
        return head.startswith(b"tree")


class CatboostFlavour(_BoosterFlavour):
    """Directory that holds one model of CatBoost, in its binary format."""

    flavour = "catboost"
    looks_for = "a single CatBoost model (save_model as .cbm)"
    libraries = ("catboost",)

    def is_loadable(self, head: bytes) -> bool:
        """Return whether it is of the binary format, not a dump as JSON."""
        return head.startswith(b"CBM1")


def _read(file: Path) -> Piece | None:
    """Return a file with its first bytes; None if it cannot be read, or is beside a model."""
    if file.name in BESIDE or not file.is_file():
        return None
    try:
        with file.open("rb") as opened:
            return Piece(file.name, opened.read(HEAD_BYTES))
    except OSError:
        return None


def visible(path: Path, pattern: str) -> list[Path]:
    """Return a directory's files that match a pattern, without hidden ones."""
    return [file for file in path.glob(pattern) if not file.name.startswith(".")]
