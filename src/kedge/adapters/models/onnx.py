"""ONNX models and their loader, run by ONNX Runtime in this process.

The session releases the interpreter lock while it loads and while it runs, so a model can be loaded
inline beside a serving loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

from kedge.adapters.models.flavours import OnnxFlavour, visible
from kedge.core.errors import UnfitModel
from kedge.core.formats import GUIDE
from kedge.core.inputs import SIGNATURE_FILE, DeclaredName, read_declared, with_output_names
from kedge.core.values import Dtype, Field, Plainness, Signature
from kedge.inspection.graphs import judge

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Model
    from kedge.typing import Columns

_DTYPES: dict[str, Dtype] = {
    "tensor(bool)": "bool",
    "tensor(string)": "string",
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
}


class OnnxLoader(OnnxFlavour):
    """Loader of its flavour's files."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load the model. `trusted` is ignored: an ONNX file holds no code.

        Raises:
            UnfitModel: the model cannot be loaded, or an input or output is not a tensor.
        """
        del trusted
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        files = visible(path, "*.onnx")
        if len(files) != 1:
            raise UnfitModel(f"{path} does not hold {self.looks_for}")
        try:
            session = ort.InferenceSession(files[0], options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's errors have no base class but Exception
            raise UnfitModel(
                f"{files[0].name} cannot be loaded: {error}",
                hint="export or fetch it again: it is incomplete, its external data is not beside"
                f" it, or it needs a newer ONNX Runtime than {ort.__version__}",
            ) from error
        model = _model(session, _output_names(path))
        model.plainness = judge(files[0])
        return model


def _output_names(path: Path) -> list[DeclaredName] | None:
    """Return a signature.json's names of the outputs. The ONNX file itself states its inputs.

    Raises:
        UnfitModel: `bad_signature`: it cannot be read.
    """
    file = path / SIGNATURE_FILE
    if not file.exists():
        return None
    return read_declared(file.read_bytes()).outputs


class OnnxModel:
    """Session whose inputs take any number of rows."""

    plainness: Plainness | None = None
    """Result of the walk over its file."""

    def __init__(
        self, session: ort.InferenceSession, signature: Signature, called: Sequence[str]
    ) -> None:
        """Hold a session; `called` are the session's names of the outputs."""
        self.signature = signature
        self._run = session.run
        self._called = list(called)
        self._names = [field.name for field in signature.outputs]
        self._inputs = [
            (
                field.name,
                np.dtype(object if field.dtype == "string" else field.dtype),
                # A scalar gets its axis back if the model expects [rows, 1].
                (-1, *arg.shape[1:]) if not field.shape and len(arg.shape) > 1 else None,
            )
            for field, arg in zip(signature.inputs, session.get_inputs(), strict=True)
        ]
        self._flat = [i for i, field in enumerate(signature.outputs) if not field.shape]

    def predict(self, columns: Columns) -> Columns:
        """Answer the rows. A float column of another width is converted."""
        feed: dict[str, NDArray[Any]] = {}
        for name, dtype, shape in self._inputs:
            column: NDArray[Any] = columns[name]
            if column.dtype is not dtype:
                column = column.astype(dtype, copy=False)
            feed[name] = column if shape is None else column.reshape(shape)
        answers = self._run(self._called, feed)
        for i in self._flat:
            # A trailing axis of one is the model's form of a scalar, whatever it declares. Other
            # shapes stay unchanged, so that the caller's check can report them.
            answer = answers[i]
            if answer.ndim > 1 and answer.size == len(answer):
                answers[i] = answer.reshape(-1)
        return dict(zip(self._names, answers, strict=True))


class SingleRowModel:
    """Model exported for one row at a time: it is asked once for each row."""

    plainness: Plainness | None = None

    def __init__(self, inner: OnnxModel) -> None:
        self.signature = inner.signature
        self._inner = inner

    def predict(self, columns: Columns) -> Columns:
        """Answer the rows one by one."""
        rows = len(next(iter(columns.values())))
        answers = [
            self._inner.predict({name: column[i : i + 1] for name, column in columns.items()})
            for i in range(rows)
        ]
        if rows == 1:
            return answers[0]
        return {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}


def _model(
    session: ort.InferenceSession, names: Sequence[DeclaredName] | None = None
) -> OnnxModel | SingleRowModel:
    inputs = session.get_inputs()
    ones = [arg for arg in inputs if arg.shape and arg.shape[0] == 1]
    for arg in inputs:
        if not arg.shape or (isinstance(arg.shape[0], int) and arg.shape[0] != 1):
            raise UnfitModel(
                f"input {arg.name} has shape {arg.shape}: its first axis does not stand for rows",
                code="no_row_axis",
                hint="export the model with a dynamic first axis",
            )
    if ones and len(ones) != len(inputs):
        raise UnfitModel(
            f"only {ones[0].name} takes one row at a time",
            code="no_row_axis",
            hint="export the model with a dynamic first axis for every input",
        )
    takes = tuple(_field(arg, arg.shape, "input") for arg in inputs)
    if not takes:
        raise UnfitModel("the model has no inputs")
    gives = tuple(_output(session, arg, takes) for arg in session.get_outputs())
    called = [field.name for field in gives]
    if names is not None:
        gives = with_output_names(gives, names)
    model = OnnxModel(session, Signature(inputs=takes, outputs=gives), called)
    return SingleRowModel(model) if ones else model


def _field(arg: ort.NodeArg, shape: Sequence[Any], role: str, producer: str = "") -> Field:
    dtype = _DTYPES.get(arg.type)
    if dtype is None:
        maps = "map" in arg.type or "seq" in arg.type
        hint = 'convert it again with options={"zipmap": False}'
        if producer == "CatBoost":  # which lacks this option
            hint = f"remove its last step, ZipMap: {GUIDE}#catboost"
        raise UnfitModel(
            f"{role} {arg.name} is {arg.type}, not a tensor of a known dtype",
            code="not_a_tensor",
            hint=hint if maps else "",
        )
    row = tuple(n if isinstance(n, int) and n >= 0 else -1 for n in shape[1:])
    return Field(name=arg.name, dtype=dtype, shape=() if row == (1,) else row)


def _output(session: ort.InferenceSession, arg: ort.NodeArg, takes: tuple[Field, ...]) -> Field:
    """Describe an output; if its shape is missing, ask the model with one row.

    An output of [rows, 1] is also asked: converters write that for any length, and ONNX Runtime
    runs it.
    """
    stated = bool(arg.shape) or arg.type not in _DTYPES
    doubtful = stated and arg.type in _DTYPES and list(arg.shape[1:]) == [1]
    if stated and not doubtful:
        return _field(arg, arg.shape, "output", session.get_modelmeta().producer_name)
    feed = {
        field.name: np.full(
            [n if isinstance(n, int) and n > 0 else 1 for n in given.shape],
            "" if field.dtype == "string" else 0,
            dtype=object if field.dtype == "string" else field.dtype,
        )
        for field, given in zip(takes, session.get_inputs(), strict=True)
    }
    try:
        answer = session.run([arg.name], feed)[0]
    except Exception as error:  # the runtime's errors have no base class but Exception
        if doubtful:
            return _field(arg, arg.shape, "output")
        raise UnfitModel(
            f"output {arg.name} declares no shape, and the model does not answer a row of zeros: "
            f"{error}"
        ) from error
    if answer.ndim == 0:
        raise UnfitModel(f"output {arg.name} has no row axis", code="no_row_axis")
    return _field(arg, answer.shape, "output")
