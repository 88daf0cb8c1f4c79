"""Statements of the files beside a model about its inputs and the names of its outputs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from kedge.adapters.models import mlmodel
from kedge.core.inputs import SIGNATURE_FILE, DeclaredName, read_declared
from kedge.core.values import Field


class Stated(NamedTuple):
    """Statements of the files beside a model."""

    file: str = ""
    """File that states the inputs."""
    inputs: tuple[Field, ...] | None = None
    outputs: Sequence[DeclaredName] | None = None


def read_stated(directory: Path) -> Stated:
    """Read a directory's statement about its model: signature.json, else MLmodel.

    Raises:
        UnfitModel: `bad_signature`: the file cannot be read.
    """
    file, names = directory / SIGNATURE_FILE, None
    if file.exists():
        read = read_declared(file.read_bytes())
        if read.inputs is not None:
            fields = tuple(Field(f.name, f.dtype, f.shape, f.nullable) for f in read.inputs)
            return Stated(SIGNATURE_FILE, fields, read.outputs)
        names = read.outputs
    if (directory / mlmodel.NAME).exists():
        fields_of_mlflow = mlmodel.read_inputs(directory / mlmodel.NAME)
        if fields_of_mlflow is not None:
            return Stated(mlmodel.NAME, fields_of_mlflow, names)
    return Stated(outputs=names)
