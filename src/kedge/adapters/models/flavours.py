"""Flavours of kedge's own model files, without the libraries that load them.

scikit-learn takes seconds to import, and a file's name gives its flavour. So registration asks
these flavours, by the entry point `kedge.flavours`, and only the process that tries the model
imports a loader. A flavour without this entry point is asked through its loader. `libraries` names
a loader's imports, so that `kedge doctor` can look for them without importing any.
"""

from __future__ import annotations

from pathlib import Path

from kedge.core.inputs import SIGNATURE_FILE


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


def visible(path: Path, pattern: str) -> list[Path]:
    """Return a directory's files that match a pattern, without hidden ones."""
    return [file for file in path.glob(pattern) if not file.name.startswith(".")]
