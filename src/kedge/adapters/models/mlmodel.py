"""Inputs of an MLmodel file, which MLflow writes beside a model, as kedge's fields.

The file is YAML from outside. A loader reads it in the model's process, behind the fence. The
loader makes plain values only, within a limit, and without aliases.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import msgspec
import yaml

from kedge.core.errors import UnfitModel
from kedge.core.inputs import SIGNATURE_FILE
from kedge.core.values import Dtype, Field
from kedge.system.files import read_bounded

NAME = "MLmodel"
MOST_BYTES = 1 << 20
"""Maximum bytes of a file: thousands of columns need a few hundred kilobytes."""
MOST_DEEP = 20
"""Maximum levels of nesting: MLflow writes four."""
TENSOR = "X"
"""Name of a tensor that MLflow did not name."""

_TYPES: dict[str, Dtype] = {
    "boolean": "bool",
    "integer": "int32",
    "long": "int64",
    "float": "float32",
    "double": "float64",
    "string": "string",
}
"""MLflow's column types, with kedge's dtypes."""
_ARRAYS: dict[str, Dtype] = {"object": "string", "str": "string", "string": "string"}
"""NumPy's names in a tensor's signature that differ from kedge's."""


class _Tensor(msgspec.Struct):
    dtype: str
    shape: tuple[int, ...]


class _Spec(msgspec.Struct, rename={"tensor": "tensor-spec"}):
    type: Any
    name: str | None = None
    required: bool | None = None
    optional: bool = False
    """Field that older versions of MLflow write instead of `required`."""
    tensor: _Tensor | None = None


class _Aliasless(yaml.SafeLoader):  # type: ignore[misc]
    """Loader of plain values without aliases: an alias could repeat another value without end."""

    deep = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("it has an alias")
        self.deep += 1
        if self.deep > MOST_DEEP:
            raise yaml.YAMLError(f"it is nested more than {MOST_DEEP} deep")
        node = super().compose_node(parent, index)
        self.deep -= 1
        return node


def read_inputs(file: Path) -> tuple[Field, ...] | None:
    """Return the inputs that an MLmodel file states, in order; None if it states none.

    Raises:
        UnfitModel: `bad_signature`: the file cannot be read, or no field has the type of a
            column.
    """
    try:
        # The loader makes plain values only.
        read = yaml.load(read_bounded(file, MOST_BYTES), Loader=_Aliasless)  # noqa: S506
        text = ((read.get("signature") or {}).get("inputs")) if isinstance(read, dict) else None
        specs = msgspec.json.decode(text, type=list[_Spec]) if text else []
    except (
        OSError,
        yaml.YAMLError,
        msgspec.MsgspecError,
        AttributeError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        raise UnfitModel(f"{NAME}: {error}", code="bad_signature", hint=_HINT) from error
    return tuple(_field(spec, n, len(specs)) for n, spec in enumerate(specs)) or None


_HINT = f"write the model again with MLflow, or put a {SIGNATURE_FILE} beside it, which goes first"


def _field(spec: _Spec, place: int, count: int) -> Field:
    if spec.tensor is not None:
        return _tensor(spec.name or (TENSOR if count == 1 else f"x{place}"), spec.tensor)
    name = spec.name if spec.name is not None else f"x{place}"
    dtype = _TYPES.get(spec.type) if isinstance(spec.type, str) else None
    if dtype is None:
        raise UnfitModel(
            f"{NAME}: column {name} is {spec.type!s:.60}, which no field supports",
            code="bad_signature",
            hint=(
                "give the model numbers, words or truth values; or state its dtype in a"
                f" {SIGNATURE_FILE} beside it"
            ),
        )
    required = not spec.optional if spec.required is None else spec.required
    return Field(name, dtype, nullable=not required)


def _tensor(name: str, spec: _Tensor) -> Field:
    known = re.fullmatch(r"(?:bool|u?int(?:8|16|32|64)|float(?:16|32|64))", spec.dtype)
    dtype = _ARRAYS.get(spec.dtype, spec.dtype if known else None)
    if dtype is None or not spec.shape or spec.shape[0] != -1:
        raise UnfitModel(
            f"{NAME}: {name} is {spec.dtype} of shape {list(spec.shape)}, which no field supports",
            code="bad_signature",
            hint=_HINT,
        )
    return msgspec.convert({"name": name, "dtype": dtype, "shape": spec.shape[1:]}, Field)
