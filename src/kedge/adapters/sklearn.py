"""scikit-learn models, stored by skops: never a pickle.

skops names every type that a file would bring to life. Those of scikit-learn that it does not
know, but that ordinary models need, are listed here with the reason; anything else is refused
until somebody trusts it by name.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import sklearn
import skops.io
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from kedge.core import codec
from kedge.core.errors import UnfitModel
from kedge.core.values import Dtype, Field, Plainness, Signature
from kedge.flavours import SklearnFlavour, visible
from kedge.walk.objects import attributes, judge, reachable, refusal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Columns, Model

    Array = NDArray[Any]
    Head = Callable[[Any], tuple[Array, ...]]
    """From the model's input to its outputs, in the signature's order."""

OWNED = {
    "sklearn.tree._tree.Tree": "every tree and forest; `walk.trees` follows its indices once restored",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor":
        "every histogram gradient boosting model; plain attributes, whose indices `walk.trees` follows",
    "sklearn._loss.loss.HalfTweedieLossIdentity": "TweedieRegressor; a loss without state",
    "sklearn.calibration._CalibratedClassifier": "CalibratedClassifierCV; plain attributes",
    "sklearn.calibration._SigmoidCalibration": "CalibratedClassifierCV; two floats",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": "MLP*; plain attributes",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer": "MLP*; plain attributes",
    "sklearn.utils._bunch.Bunch": "VotingClassifier, StackingClassifier; a dict",
    "sklearn.utils.validation.check_array": "histogram boosting with categories; only checks",
    "functools.partial": "the same; restoring it calls nothing, and what it wraps is judged alone",
    "numpy.dtype": "OneHotEncoder, OrdinalEncoder; a name",
}  # fmt: skip
"""Types that skops does not trust by default, and why they are harmless to restore."""


class SklearnLoader(SklearnFlavour):
    """Loads what its flavour claims."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load it, trusting what scikit-learn owns and what the caller names, nothing else.

        Raises:
            UnfitModel: it holds other types (`untrusted_types`), or is no model.
        """
        files = visible(path, "*.skops")
        if len(files) != 1:
            raise UnfitModel(f"{path} does not hold {self.looks_for}")
        estimator = _restore(files[0], trusted)
        fault = refusal(estimator)
        if fault is not None:
            raise UnfitModel(
                f"{files[0].name}: {fault}",
                code="unsafe_model",
                hint="a fitted model holds nothing of the kind: ask the author of this file",
            )
        if not hasattr(estimator, "predict"):
            raise UnfitModel(f"{type(estimator).__name__} has no predict: it is no model")
        _single_threaded(estimator)
        found = judge(estimator, trusted)
        declared = _declared(path / "signature.json")
        return SklearnModel(estimator, declared, found)


def _restore(file: Path, trusted: Sequence[str]) -> Any:
    try:
        found = skops.io.get_untrusted_types(file=file)
        unknown = sorted(name for name in found if name not in OWNED and name not in trusted)
        if not unknown:
            return skops.io.load(file, trusted=found)
    except Exception as error:  # a damaged or hostile file can raise anything in there
        raise UnfitModel(
            f"{file.name} cannot be loaded: {type(error).__name__}: {error}",
            hint=_remedy(error, trained_with(file)),
        ) from error
    raise UnfitModel(
        f"{file.name} holds types that are not trusted: {', '.join(unknown)}",
        code="untrusted_types",
        hint=_other_version(unknown, trained_with(file))
        or "look at them, then: " + " ".join(f"--trust {name}" for name in unknown),
        details={"types": unknown},
    )


def _remedy(error: Exception, trained: str | None) -> str:
    """What makes a file load that raised: the library that it needs, or the version of scikit-learn."""
    missing = (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else ""
    library = missing.partition(".")[0]
    if library and not library.startswith("_") and library != "sklearn":
        return f"pip install {library}, where kedge runs"
    return _other_version(["_"], trained) or (
        "write it with skops.io.dump, under the scikit-learn that is installed here"
    )


def _other_version(unknown: Sequence[str], trained: str | None) -> str:
    """What to say of types that another scikit-learn calls otherwise; "" when that is not why."""
    private = any(name.startswith("_") for name in unknown)  # a compiled module by its bare name
    if not private or trained is None or trained == sklearn.__version__:
        return ""
    return (
        f"it was trained with scikit-learn {trained}, and {sklearn.__version__} is installed here: "
        f"pip install scikit-learn=={trained}, or train it again"
    )


def trained_with(file: Path) -> str | None:
    """The version of scikit-learn that wrote the estimators of a file, where it says so."""
    try:
        with zipfile.ZipFile(file) as archive, archive.open("schema.json") as schema:
            text = schema.read(SCHEMA_BYTES)
    except (
        OSError,
        EOFError,
        KeyError,
        zipfile.BadZipFile,
        zlib.error,
        NotImplementedError,
        RuntimeError,
    ):
        return None  # it only makes a hint better
    found = _VERSION.search(text)
    return found[1].decode() if found else None


SCHEMA_BYTES = 32 << 20
"""Of a file's own description: that of a large forest has some megabytes."""
_VERSION = re.compile(rb'"_sklearn_version":\s*\{[^{}]*"content":\s*"\\"([0-9A-Za-z.+]{1,40})\\""')


def _single_threaded(estimator: Any) -> None:
    """Make it answer on the thread that asks: a pool a request costs more than it gives."""
    for one in reachable(estimator):
        if attributes(one).get("n_jobs") not in (None, 1):
            one.n_jobs = 1


# ---------------------------------------------------------------- signature


class _DeclaredField(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    dtype: Dtype = "float64"
    shape: tuple[int, ...] = ()
    nullable: bool = False
    # Bounds are read of the same file when the version is registered: `engine/bounds.py`.
    range: msgspec.Raw = msgspec.Raw()
    max_length: msgspec.Raw = msgspec.Raw()
    categories: msgspec.Raw = msgspec.Raw()


class _DeclaredName(msgspec.Struct):
    name: str


class _Declared(msgspec.Struct, forbid_unknown_fields=True):
    inputs: list[_DeclaredField]
    outputs: list[_DeclaredName] | None = None


def _declared(file: Path) -> _Declared | None:
    if not file.exists():
        return None
    try:
        return codec.read_written(file.read_bytes(), _Declared)
    except msgspec.DecodeError as error:
        raise UnfitModel(
            f"signature.json: {error}",
            code="bad_signature",
            hint='{"inputs": [{"name": "age", "dtype": "float64"}], "outputs": [{"name": "p"}]}',
        ) from error


class SklearnModel:
    """An estimator with named inputs and outputs."""

    def __init__(self, estimator: Any, declared: _Declared | None, found: Plainness) -> None:
        self.plainness = found
        names = getattr(estimator, "feature_names_in_", None)
        columns = [str(name) for name in names] if names is not None else None
        inputs = _inputs(estimator, declared, columns)
        self._arrange = _arrangement(inputs, columns)
        self._head, outputs = _head(estimator, self._arrange, inputs)
        if declared is not None and declared.outputs is not None:
            outputs = _renamed(outputs, declared.outputs)
        self.signature = Signature(inputs=inputs, outputs=outputs)
        self._names = tuple(field.name for field in outputs)

    def predict(self, columns: Columns) -> Columns:
        """Answer the rows."""
        return dict(zip(self._names, self._head(self._arrange(columns)), strict=True))


def _inputs(
    estimator: Any, declared: _Declared | None, columns: list[str] | None
) -> tuple[Field, ...]:
    if declared is not None:
        inputs = tuple(
            Field(name=f.name, dtype=f.dtype, shape=f.shape, nullable=f.nullable)
            for f in declared.inputs
        )
        if columns is not None and {field.name for field in inputs} != set(columns):
            raise UnfitModel(
                f"signature.json names {[field.name for field in inputs]}, "
                f"but the model was fitted on {columns}",
                code="bad_signature",
            )
        tensor = len(inputs) == 1 and len(inputs[0].shape) == 1
        if not inputs or not (tensor or all(field.shape == () for field in inputs)):
            raise UnfitModel(
                "signature.json must name scalars, or one tensor of one dimension",
                code="bad_signature",
            )
        return inputs
    if columns is not None:
        return tuple(Field(name=name, dtype="float64") for name in columns)
    n: int | None = getattr(estimator, "n_features_in_", None)
    if n is None:
        raise UnfitModel(
            f"{type(estimator).__name__} does not say how many features it takes",
            code="bad_signature",
            hint="put a signature.json beside it",
        )
    return (Field(name="X", dtype="float64", shape=(n,)),)


def _arrangement(inputs: tuple[Field, ...], columns: list[str] | None) -> Callable[[Columns], Any]:
    """Compile the way from named columns to what the estimator was fitted on."""
    names = [field.name for field in inputs]
    if columns is not None:
        try:
            frame = import_module("pandas").DataFrame
        except ImportError as error:
            raise UnfitModel(
                "the model was fitted on a DataFrame and needs pandas, which is not installed",
                code="needs_pandas",
                hint="pip install pandas, or fit the model on a NumPy array",
            ) from error
        return lambda given: frame({name: given[name] for name in columns})
    if inputs[0].shape:
        name = names[0]
        dtype = np.dtype(object if inputs[0].dtype == "string" else "float64")
        return lambda given: np.ascontiguousarray(given[name], dtype)
    mixed = np.dtype(object if any(field.dtype == "string" for field in inputs) else "float64")

    def table(given: Columns) -> Array:
        rows = np.empty((len(given[names[0]]), len(names)), mixed)
        for i, name in enumerate(names):
            rows[:, i] = given[name]
        return rows

    return table


def _renamed(outputs: tuple[Field, ...], names: list[_DeclaredName]) -> tuple[Field, ...]:
    if len(names) != len(outputs):
        raise UnfitModel(
            f"signature.json names {len(names)} outputs; the model gives {len(outputs)}: "
            + ", ".join(field.name for field in outputs),
            code="bad_signature",
        )
    return tuple(
        msgspec.structs.replace(field, name=wanted.name)
        for field, wanted in zip(outputs, names, strict=True)
    )


# ---------------------------------------------------------------- outputs


def _head(
    estimator: Any, arrange: Callable[[Columns], Any], inputs: tuple[Field, ...]
) -> tuple[Head, tuple[Field, ...]]:
    predict = estimator.predict
    if is_classifier(estimator):
        return _classifier(estimator)
    if is_regressor(estimator):
        shape = _trial_shape(lambda: predict(arrange(_zeros(inputs))))
        prediction = Field(name="prediction", dtype="float64", shape=shape)
        return lambda x: (_scalars(np.asarray(predict(x), np.float64), shape),), (prediction,)
    if is_clusterer(estimator) or is_outlier_detector(estimator):
        return (
            lambda x: (np.asarray(predict(x), np.int64),),
            (Field(name="prediction", dtype="int64"),),
        )
    raise UnfitModel(f"{type(estimator).__name__} neither classifies nor predicts a number")


def _classifier(estimator: Any) -> tuple[Head, tuple[Field, ...]]:
    classes = estimator.classes_
    if isinstance(classes, list) or np.ndim(classes) != 1:
        raise UnfitModel("a classifier with several labels a row is not supported")
    dtype, target = _label_dtype(classes)
    known: Array = classes.astype(target)
    label = Field(name="label", dtype=dtype)
    predict = estimator.predict
    if not hasattr(estimator, "predict_proba"):
        return lambda x: (predict(x).astype(target, copy=False),), (label,)
    proba = estimator.predict_proba
    decide = _decision(estimator, len(known))

    def labels(x: Any, p: Array) -> Array:
        if decide is None:
            answer: Array = predict(x).astype(target, copy=False)
            return answer
        return known.take(decide(p))

    if len(known) == 2:

        def binary(x: Any) -> tuple[Array, ...]:
            p = proba(x)
            return p[:, 1].astype(np.float64, copy=False), labels(x, p)

        return binary, (Field(name="score", dtype="float64"), label)

    def several(x: Any) -> tuple[Array, ...]:
        p = proba(x).astype(np.float64, copy=False)
        return p, labels(x, p)

    return several, (Field(name="probabilities", dtype="float64", shape=(len(known),)), label)


def _decision(estimator: Any, classes: int) -> Callable[[Array], Array] | None:
    """How `predict` follows from `predict_proba`, where it is known to; it halves the work.

    Elsewhere (a tuned threshold, an SVC) the two may disagree by design, so both are asked.
    A tie goes where each estimator's own `predict` puts it.
    """
    while isinstance(estimator, Pipeline):
        estimator = estimator.steps[-1][1]
    kind = type(estimator)
    if kind in (RandomForestClassifier, ExtraTreesClassifier, LogisticRegression):
        return lambda p: p.argmax(axis=1)
    if kind in (GradientBoostingClassifier, HistGradientBoostingClassifier):
        if classes == 2:
            return lambda p: (p[:, 1] >= 0.5).astype(np.intp)
        return lambda p: p.argmax(axis=1)
    return None


def _label_dtype(classes: Array) -> tuple[Dtype, type]:
    kinds: dict[str, tuple[Dtype, type]] = {
        "b": ("bool", np.bool_), "i": ("int64", np.int64), "u": ("int64", np.int64),
        "f": ("float64", np.float64), "U": ("string", np.object_), "O": ("string", np.object_),
    }  # fmt: skip
    if classes.dtype.kind not in kinds or (
        classes.dtype.kind == "O" and not all(isinstance(name, str) for name in classes)
    ):
        raise UnfitModel(f"labels of dtype {classes.dtype} are not supported")
    return kinds[classes.dtype.kind]


def _zeros(inputs: tuple[Field, ...]) -> dict[str, Array]:
    return {
        field.name: np.full(
            (1, *(abs(n) for n in field.shape)),
            "" if field.dtype == "string" else 0,
            dtype=object if field.dtype == "string" else field.dtype,
        )
        for field in inputs
    }


def _trial_shape(ask: Callable[[], Array]) -> tuple[int, ...]:
    """Shape of one row of a regressor's answer; a scalar when it does not answer zeros.

    A wrong guess cannot get through: the golden rows are checked against the signature.
    """
    try:
        shape = np.shape(ask())[1:]
    except Exception:  # noqa: BLE001 - an unknown category, say; it is only a trial
        return ()
    return () if shape == (1,) else tuple(shape)


def _scalars(answer: Array, shape: tuple[int, ...]) -> Array:
    return answer.reshape(-1) if not shape and answer.ndim == 2 else answer
