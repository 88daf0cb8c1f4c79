"""Loader of skops files: trusted types, and the version of scikit-learn that wrote the file."""

from __future__ import annotations

import re
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import sklearn
import skops.io

from kedge.adapters.models.flavours import SklearnFlavour, visible
from kedge.adapters.models.sklearn.model import SklearnModel
from kedge.adapters.models.sklearn.signature import EstimatorInputs, inputs_of
from kedge.adapters.models.stated import read_stated
from kedge.core.errors import UnfitModel
from kedge.inspection.objects import attributes, judge, reachable, refusal

if TYPE_CHECKING:
    from kedge.ports import Model

OWNED = {
    "sklearn.tree._tree.Tree": (
        "every tree and forest; `inspection.trees` follows its indices once restored"
    ),
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor": (
        "every histogram gradient boosting model; plain attributes, whose indices"
        " `inspection.trees` follows"
    ),
    "sklearn._loss.loss.HalfTweedieLossIdentity": "TweedieRegressor; a loss without state",
    "sklearn.calibration._CalibratedClassifier": "CalibratedClassifierCV; plain attributes",
    "sklearn.calibration._SigmoidCalibration": "CalibratedClassifierCV; two floats",
    "sklearn.neural_network._stochastic_optimizers.AdamOptimizer": "MLP*; plain attributes",
    "sklearn.neural_network._stochastic_optimizers.SGDOptimizer": "MLP*; plain attributes",
    "sklearn.compose._column_transformer.make_column_selector": (
        "ColumnTransformer; a pattern and dtypes, of use only when it is fitted"
    ),
    "sklearn.metrics._scorer._PassthroughScorer": (
        "GridSearchCV; plain attributes, of use only when it is fitted"
    ),
    "sklearn.model_selection._split.KFold": "the same",
    "sklearn.model_selection._split.StratifiedKFold": "the same",
    "sklearn.utils._bunch.Bunch": "VotingClassifier, StackingClassifier; a dict",
    "sklearn.utils.validation.check_array": "histogram boosting with categories; only checks",
    **dict.fromkeys(
        (
            f"sklearn.feature_selection._univariate_selection.{name}"
            for name in ("chi2", "f_classif", "f_regression", "r_regression")
        ),
        "SelectKBest; a function, of use only when it is fitted",
    ),
    "functools.partial": "the same; restoring it calls nothing, and what it wraps is judged alone",
    "numpy.dtype": "OneHotEncoder, OrdinalEncoder; a name",
    **dict.fromkeys(
        (
            "numpy.number",
            "numpy.integer",
            "numpy.signedinteger",
            "numpy.unsignedinteger",
            "numpy.inexact",
            "numpy.floating",
            "numpy.generic",
            "numpy.character",
            "numpy.flexible",
        ),
        "make_column_selector(dtype_include=np.number); an abstract type, which nothing can be"
        " made of",
    ),
    "collections.OrderedDict": "LightGBM; a dict",
}
"""Types that skops does not trust by default, with the reason why restoring them is harmless."""


class SklearnLoader(SklearnFlavour):
    """Loader of its flavour's files."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load the model, trusting only scikit-learn's types and the types that the caller names.

        Raises:
            UnfitModel: the file holds other types (`untrusted_types`), or is not a model.
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
            raise UnfitModel(
                f"{type(estimator).__name__} has no predict: it is not a model",
                hint="write the fitted estimator alone: skops.io.dump(model, 'model.skops'); what"
                " only transforms can be written as ONNX",
            )
        make_single_threaded(estimator)
        found = judge(estimator, trusted)
        stated = read_stated(path)
        inputs = inputs_of(estimator, stated)
        why = _frames(estimator, inputs)
        if why:
            why = f"{why}, and pandas is imported in model processes only"
            found = msgspec.structs.replace(found, proven=False, apart=True, found=(), why=why)
        version = trained_with(files[0])
        written = {"scikit-learn": version} if version is not None else {}
        return SklearnModel(estimator, inputs, stated.outputs, found, written)


def _frames(estimator: Any, inputs: EstimatorInputs) -> str:
    """Return why it needs pandas, which no gateway worker imports; empty if it does not."""
    if inputs.frame is not None:
        return "it was fitted on a DataFrame"
    for one in reachable(estimator):
        config = attributes(one).get("_sklearn_output_config")
        if isinstance(config, dict) and config.get("transform") == "pandas":
            return f"its {type(one).__name__} hands on a DataFrame (set_output)"
    return ""


def _restore(file: Path, trusted: Sequence[str]) -> Any:
    try:
        found = skops.io.get_untrusted_types(file=file)
        unknown = sorted(name for name in found if name not in OWNED and name not in trusted)
        if not unknown:
            return skops.io.load(file, trusted=found)
    except Exception as error:  # a damaged or hostile file can raise any error there
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
    """Return a remedy for a file that failed to load: a library, or a version of scikit-learn."""
    missing = (getattr(error, "name", None) or "") if isinstance(error, ModuleNotFoundError) else ""
    library = missing.partition(".")[0]
    if library and not library.startswith("_") and library != "sklearn":
        return f"pip install {library}, where kedge runs"
    return _other_version(["_"], trained) or (
        "write it with skops.io.dump, under the scikit-learn that is installed here"
    )


def _other_version(unknown: Sequence[str], trained: str | None) -> str:
    """Return a message about types that another scikit-learn names otherwise; "" if none is."""
    private = any(name.startswith("_") for name in unknown)  # a compiled module by its short name
    if not private or trained is None or trained == sklearn.__version__:
        return ""
    return (
        f"it was trained with scikit-learn {trained}, and {sklearn.__version__} is installed here: "
        f"pip install scikit-learn=={trained}, or train it again"
    )


def trained_with(file: Path) -> str | None:
    """Return the version of scikit-learn that wrote a file's estimators, if it is stated."""
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
        return None  # the version only improves a hint
    found = _VERSION.search(text)
    return found[1].decode() if found else None


SCHEMA_BYTES = 32 << 20
"""Maximum bytes of a file's own description: that of a large forest has some megabytes."""
_VERSION = re.compile(rb'"_sklearn_version":\s*\{[^{}]*"content":\s*"\\"([0-9A-Za-z.+]{1,40})\\""')


def make_single_threaded(estimator: Any) -> None:
    """Make it answer on the caller's thread: a pool for each request costs more than it saves."""
    for one in reachable(estimator):
        if attributes(one).get("n_jobs") not in (None, 1):
            one.n_jobs = 1
