"""Signature of an estimator's inputs: from a signature.json or MLmodel file, or the estimator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from sklearn.exceptions import NotFittedError
from sklearn.utils.validation import check_is_fitted

from kedge.adapters.models import mlmodel
from kedge.adapters.models.sklearn.columns import INSIDE, InputColumn, columns_of_estimator
from kedge.adapters.models.stated import Stated
from kedge.core.errors import UnfitModel
from kedge.core.golden import Known
from kedge.core.inputs import SIGNATURE_FILE
from kedge.core.values import Field

TEXT = "text"
"""Name of the only input of a model that takes texts."""


class EstimatorInputs(NamedTuple):
    """Inputs of an estimator."""

    fields: tuple[Field, ...]
    columns: tuple[InputColumn, ...]
    """Knowledge of the estimator's columns: one for each field, or for each place of the only
    tensor."""
    frame: tuple[str, ...] | None
    """Columns of the frame that it was fitted on, in order; None: it was fitted on an array."""
    is_text: bool = False
    """Whether it takes a list of texts, not a table."""
    assumed: tuple[str, ...] = ()
    tolerant: tuple[str, ...] = ()
    """Fields in which NaN is answered, although nothing states that the model was fitted on it."""
    computed: tuple[str, ...] = ()
    """Fields that its steps compute with: they read a truth value as a number."""
    unnamed: int = 0


def inputs_of(estimator: Any, stated: Stated) -> EstimatorInputs:
    """Return an estimator's inputs: as stated, else from its names, encoders and imputers.

    Raises:
        UnfitModel: `bad_signature`: the statement does not fit the estimator, or the inputs are
            unknown.
    """
    names = _names(estimator)
    text = names is None and _takes_text(estimator)
    count = len(names) if names is not None else _count(estimator)
    if text:
        count = 1
    if stated.inputs is not None:
        _check_stated(stated, names, count)
        fields = stated.inputs
        wide = len(fields) == 1 and fields[0].shape
        order = [field.name for field in fields] if names is None else names
        known = columns_of_estimator(estimator, (count or 0) if wide else len(order), order)
        columns = tuple(known if wide else _in_order(fields, dict(zip(order, known, strict=True))))
        return EstimatorInputs(fields, columns, _frame(names), text)
    if text:
        one = InputColumn()
        one.is_text()
        return EstimatorInputs((Field(TEXT, "string"),), (one,), None, is_text=True)
    if not count:
        _check_fitted(estimator)
        raise UnfitModel(
            f"{type(estimator).__name__} does not say how many features it takes",
            code="bad_signature",
            hint=(
                f"put a {SIGNATURE_FILE} beside it, with every input in the order in which it was"
                ' fitted: {"inputs": [{"name": "age"}, {"name": "town", "dtype": "string",'
                ' "nullable": true}]}'
            ),
        )
    known = columns_of_estimator(estimator, count, names or ())
    if names is None and not any(column.dtype in ("string", "bool") for column in known):
        gaps = all(column.nullable for column in known)
        tensor = Field(mlmodel.TENSOR, "float64", (count,), nullable=gaps)
        return EstimatorInputs((tensor,), tuple(known), None, unnamed=count)
    called = names if names is not None else [f"x{n}" for n in range(count)]
    fields = tuple(
        Field(name, column.dtype or "float64", nullable=column.nullable)
        for name, column in zip(called, known, strict=True)
    )
    both = list(zip(called, known, strict=True))
    return EstimatorInputs(
        fields,
        tuple(known),
        _frame(names),
        assumed=tuple(name for name, column in both if column.dtype is None),
        tolerant=tuple(name for name, column in both if column.is_tolerant and not column.nullable),
        computed=tuple(
            name for name, column in both if column.dtype == "float64" and not column.numbers
        ),
        unnamed=count if names is None else 0,
    )


def known_of(inputs: EstimatorInputs) -> dict[str, Known]:
    """Return the words and numbers that encoders know, by field: made rows use them."""
    if any(field.shape for field in inputs.fields):
        return {}
    return {
        field.name: Known(words=column.words, numbers=column.numbers)
        for field, column in zip(inputs.fields, inputs.columns, strict=True)
        if column.words or column.numbers
    }


def _frame(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return tuple(names) if names is not None else None


def _in_order(fields: Sequence[Field], known: Mapping[str, InputColumn]) -> list[InputColumn]:
    return [known[field.name] for field in fields]


def _names(estimator: Any) -> list[str] | None:
    """Return the columns of the frame that it was fitted on."""
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:  # of CatBoost; numbers if it was fitted on an array
        names = getattr(estimator, "feature_names_", None)
        names = None if all(str(name).isdecimal() for name in names or ()) else names
    return [str(name) for name in names] if names is not None else None


def _count(estimator: Any) -> int | None:
    """Return how many columns it takes."""
    count: int | None = getattr(estimator, "n_features_in_", None)
    return count or len(getattr(estimator, "feature_names_", None) or ()) or None


def _takes_text(one: Any) -> bool:
    """Return whether the first step splits texts into words, so that a row is one text."""
    while True:
        steps = getattr(one, "steps", None) or getattr(one, "transformer_list", None)
        inside = next(
            (part for name in INSIDE if (part := getattr(one, name, None)) is not None), None
        )
        if steps:
            one = steps[0][1]
        elif inside is not None and not isinstance(inside, list | tuple):
            one = inside
        else:
            return type(one).__module__.startswith("sklearn.feature_extraction.text")


def _check_stated(stated: Stated, names: Sequence[str] | None, count: int | None) -> None:
    """Raise if the statement cannot be true for the estimator."""
    inputs = stated.inputs or ()
    told = [field.name for field in inputs]
    tensor = len(inputs) == 1 and len(inputs[0].shape) == 1
    if not inputs or not (tensor or all(field.shape == () for field in inputs)):
        raise UnfitModel(
            f"{stated.file} must name scalars, or one tensor of one dimension", code="bad_signature"
        )
    if names is not None and (tensor or set(told) != set(names) or len(told) != len(names)):
        raise UnfitModel(
            f"{stated.file} names {told}, but the model was fitted on {list(names)}",
            code="bad_signature",
            hint=(
                f"a {SIGNATURE_FILE} beside the model goes before {mlmodel.NAME}"
                if stated.file == mlmodel.NAME
                else ""
            ),
        )
    stands_for = inputs[0].shape[0] if tensor else len(inputs)
    if count and stands_for not in (count, -1):
        raise UnfitModel(
            f"{stated.file} names {stands_for} columns, but the model was fitted on {count}",
            code="bad_signature",
            hint="name all of them, in the order in which the model was fitted",
        )


def _check_fitted(estimator: Any) -> None:
    try:
        check_is_fitted(estimator)
    except NotFittedError as error:
        raise UnfitModel(
            f"{type(estimator).__name__} is not fitted",
            hint="fit it, then write it with skops.io.dump(model, 'model.skops')",
        ) from error
    except TypeError:  # it is no estimator, and nothing says what it is
        return
