"""Flavours of kedge's own on the disk, told without the libraries that load them.

scikit-learn takes seconds to import, and whose a file is says its name. So registering asks these,
by the entry point `kedge.flavours`, and only the process that tries the model out imports a loader.
A flavour that announces none is asked by its loader. `libraries` names what a loader imports, so that
`kedge doctor` can look for them without importing any.
"""

from __future__ import annotations

from pathlib import Path

from kedge.core.inputs import SIGNATURE_FILE


class OnnxFlavour:
    """A directory that holds one ONNX file, with its external data beside it if any."""

    flavour = "onnx"
    stalls = False
    looks_for = "a single *.onnx file"
    companions = (SIGNATURE_FILE,)
    libraries = ("onnxruntime",)

    def claims(self, path: Path) -> bool:
        """Whether exactly one *.onnx file lies in the directory itself."""
        return len(visible(path, "*.onnx")) == 1


class SklearnFlavour:
    """A directory that holds one skops file."""

    flavour = "sklearn"
    stalls = True
    looks_for = "a single *.skops file (skops.io.dump)"
    companions = (SIGNATURE_FILE, "MLmodel")
    libraries = ("sklearn", "skops", "yaml")

    def claims(self, path: Path) -> bool:
        """Whether exactly one *.skops file lies in the directory itself."""
        return len(visible(path, "*.skops")) == 1


def visible(path: Path, pattern: str) -> list[Path]:
    """The files of a directory that a pattern names, but for those that are hidden."""
    return [file for file in path.glob(pattern) if not file.name.startswith(".")]
