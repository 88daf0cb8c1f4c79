"""Outputs of an estimator, and the function from its input to them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.base import is_classifier, is_clusterer, is_outlier_detector, is_regressor
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline

from kedge.core.errors import UnfitModel
from kedge.core.values import Dtype, Field

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.typing import Columns

    Array = NDArray[Any]
    Head = Callable[[Any], tuple[Array, ...]]
    """Function from the model's input to its outputs, in the signature's order."""


def head_of(
    estimator: Any, arrange: Callable[[Columns], Any], trial: Columns
) -> tuple[Head, tuple[Field, ...]]:
    """Return the function from an estimator's input to its outputs, and these.

    Args:
        estimator: a fitted estimator.
        arrange: function from columns by name to the estimator's input.
        trial: a row; a regressor's answer to it shows the shape of all answers.

    Raises:
        UnfitModel: no output of it can be sent by kedge.
    """
    predict = estimator.predict
    if is_classifier(estimator):
        return _classifier(estimator)
    if is_regressor(estimator):
        shape = _trial_shape(lambda: predict(arrange(trial)))
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
        raise UnfitModel(
            "a classifier with several labels a row is not supported",
            hint="register one model for each label, or write it as ONNX with one output for each",
        )
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
    """Return how `predict` follows from `predict_proba`, if known; it halves the work.

    In other estimators (a tuned threshold, an SVC) the two may disagree by design, so both are
    asked. A tie is resolved as in each estimator's own `predict`.
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
        "b": ("bool", np.bool_),
        "i": ("int64", np.int64),
        "u": ("int64", np.int64),
        "f": ("float64", np.float64),
        "U": ("string", np.object_),
        "O": ("string", np.object_),
    }
    if classes.dtype.kind not in kinds or (
        classes.dtype.kind == "O" and not all(isinstance(name, str) for name in classes)
    ):
        raise UnfitModel(f"labels of dtype {classes.dtype} are not supported")
    return kinds[classes.dtype.kind]


def _trial_shape(ask: Callable[[], Array]) -> tuple[int, ...]:
    """Return the shape of a row of a regressor's answer; a scalar if it fails the trial.

    A wrong guess is always detected: the golden rows are checked against the signature.
    """
    try:
        shape = np.shape(ask())[1:]
    except Exception:  # noqa: BLE001 - an unknown category, say; it is only a trial
        return ()
    return () if shape == (1,) else tuple(shape)


def _scalars(answer: Array, shape: tuple[int, ...]) -> Array:
    return answer.reshape(-1) if not shape and answer.ndim == 2 else answer
