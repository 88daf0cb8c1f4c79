"""Columns of a fitted estimator: the known dtype, categories and missing value of each.

An encoder stores the categories that it was fitted on, an imputer the form of a missing value. So a
walk from the first step on finds for most columns what a caller can send, without the frame that it
was fitted on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isnan
from typing import Any

import numpy as np
from sklearn.base import OneToOneFeatureMixin
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import get_tags

from kedge.core.errors import UnfitModel
from kedge.core.values import Dtype

NAN = float("nan")
WORDS_TAKEN = 200
"""Maximum number of categories of a column that are kept for made rows: a few dozen rows are
made."""
INSIDE = (
    "best_estimator_",
    "estimator_",
    "regressor_",
    "classifier_",
    "estimators_",
    "calibrated_classifiers_",
    "estimator",
)
"""Attributes in which wrapping estimators store the fitted ones, which get the same columns."""

At = Sequence["InputColumn | None"]
"""Columns that a step gets, in order; None: a column that an earlier step made."""


class InputColumn:
    """Knowledge of one input column."""

    def __init__(self) -> None:
        self.dtype: Dtype | None = None
        self.words: tuple[str, ...] = ()
        self.numbers: tuple[float, ...] = ()
        self.missing: Any = NAN
        """Value that marks a missing one: NaN, None, pandas' NA, or a value such as "" or -1."""
        self.nullable = False
        """Whether it was fitted on missing values, or the model can handle them."""
        self.reads_blank = False
        """Whether "" is a separate word to the model, not a missing value."""
        self.is_tolerant = False
        """Whether the model answers NaN here, although nothing states that it was fitted on missing
        values."""
        self._decided = False

    def is_number(self) -> None:
        """Record that a step computes with it."""
        self.dtype = self.dtype or "float64"

    def is_text(self) -> None:
        """Record that a step splits it into words: no value is missing, and none is a category."""
        self.dtype, self.reads_blank = "string", True

    def decide(self, missing: Any, *, nullable: bool) -> None:
        """Record a missing value, as the first step that recognises one defines it."""
        if not self._decided:
            self.missing, self.nullable, self._decided = missing, nullable, True

    def is_imputed(self, value: Any) -> None:
        """Record the value that an imputer puts in the place of a missing one."""
        if isinstance(value, str):
            self.dtype = "string"
        elif isinstance(value, bool | np.bool_):
            self.dtype = self.dtype or "bool"
        elif not _is_missing(value):
            self.is_number()

    def has(self, categories: Iterable[Any]) -> None:
        """Record the categories that an encoder was fitted on."""
        values = list(categories)
        gone = [value for value in values if _is_missing(value)]
        there = [value for value in values if not _is_missing(value)]
        words = tuple(value for value in there if isinstance(value, str))
        if words:
            self.dtype, self.words = "string", words[:WORDS_TAKEN]
            self.reads_blank = self.reads_blank or "" in words
        elif there and all(isinstance(value, bool | np.bool_) for value in there):
            self.dtype = self.dtype or "bool"
        elif there:
            self.is_number()
            self.numbers = tuple(float(value) for value in there[:WORDS_TAKEN])
        if gone:
            # NaN is first: every file reader turns a missing value into it.
            self.decide(next(filter(_is_nan, gone), gone[0]), nullable=True)
        elif "" in words:
            self.decide("", nullable=True)


def columns_of_estimator(
    estimator: Any, count: int, names: Sequence[str] = ()
) -> list[InputColumn]:
    """Return an estimator's knowledge of its `count` columns; `names` are their names."""
    columns = [InputColumn() for _ in range(count)]
    try:
        _Walk(dict(zip(names, columns, strict=False))).step(estimator, columns)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):
        # Its parts do not match, or another version of scikit-learn wrote them. The earlier
        # findings stay, and golden rows show whether the model can be asked.
        return columns
    return columns


class _Walk:
    def __init__(self, by_name: dict[str, InputColumn]) -> None:
        self._by_name = by_name

    def step(self, one: Any, at: At) -> At | None:
        """Walk a step that gets these columns; return its output columns, None if unknown."""
        if isinstance(one, str) or one is None:
            return at if one == "passthrough" else () if one == "drop" else None
        if isinstance(one, Pipeline):
            return self._pipeline(one, at)
        if isinstance(one, ColumnTransformer):
            return self._transformer(one, at)
        if isinstance(one, FeatureUnion):
            for _, part in one.transformer_list:
                self.step(part, at)
            return None
        if isinstance(one, SimpleImputer):
            return _imputer(one, at)
        if isinstance(one, FunctionTransformer):
            if isinstance(one.func, np.ufunc):
                _all_numbers(at)
            return at if one.func is None or one.feature_names_out == "one-to-one" else None
        categories = getattr(one, "categories_", None)
        if isinstance(categories, list):
            for column, known in zip(at, categories, strict=True):
                if column is not None:
                    if np.asarray(known).dtype.kind in "mM":
                        raise _dates(self._name(column))
                    column.has(np.asarray(known).tolist())
            return None
        if isinstance(one, HistGradientBoostingClassifier | HistGradientBoostingRegressor):
            self._boosted(one, at)
            return None
        return self._other(one, at)

    def _name(self, column: InputColumn) -> str:
        return next((name for name, one in self._by_name.items() if one is column), "a column")

    def _pipeline(self, one: Pipeline, at: At) -> At | None:
        left: At | None = at
        for _, part in one.steps:
            left = self.step(part, self._named(part) if left is None else left)
        return left

    def _named(self, part: Any) -> At:
        """Return the columns after an unknown step: by their names, where these are unchanged."""
        names = getattr(part, "feature_names_in_", None)
        if names is None:
            return [None] * getattr(part, "n_features_in_", 0)
        return [self._by_name.get(str(name)) for name in names]

    def _transformer(self, one: ColumnTransformer, at: At) -> At:
        names = {str(name): n for n, name in enumerate(getattr(one, "feature_names_in_", ()))}
        if len(at) < one.n_features_in_:
            at = [None] * one.n_features_in_
        places: dict[str, slice] = one.output_indices_
        out: list[InputColumn | None] = [None] * max(
            (part.stop for part in places.values()), default=0
        )
        for name, part, which in one.transformers_:
            taken = [at[n] for n in _places(which, names, len(at))]
            given, place = self.step(part, taken), places.get(name)
            if given is not None and place is not None and len(given) == place.stop - place.start:
                out[place] = given
        return out

    def _boosted(self, one: Any, at: At) -> None:
        inside = getattr(one, "_preprocessor", None)
        if inside is not None:
            self.step(inside, at)
        numbers = [each for each in at if each is not None and each.dtype in (None, "float64")]
        _all_numbers(numbers)
        _tolerate(one, numbers)

    def _other(self, one: Any, at: At) -> At | None:
        inside = [part for name in INSIDE for part in _listed(getattr(one, name, None))]
        parts = [part for part in inside if hasattr(part, "predict") or hasattr(part, "estimator")]
        own = type(one).__module__.startswith("sklearn.")
        if isinstance(one, TransformedTargetRegressor) or (parts and own and not _is_forest(one)):
            for part in parts:
                self.step(part, at)
            return None
        if type(one).__module__.startswith("sklearn.feature_extraction.text"):
            for column in at:
                if column is not None:
                    column.is_text()
            return None
        if type(one).__module__.startswith("catboost."):
            words = set(one.get_cat_feature_indices())
            for n, column in enumerate(at):
                if column is not None:
                    column.dtype = "string" if n in words else "float64"
                    column.is_tolerant = n not in words
        if not own:
            return None
        _all_numbers(at)
        if hasattr(one, "missing_values"):  # KNNImputer, IterativeImputer, MissingIndicator
            _decide_all(at, one.missing_values)
        if hasattr(one, "predict"):
            _tolerate(one, at)
        return at if isinstance(one, OneToOneFeatureMixin) else None


def _dates(name: str) -> UnfitModel:
    return UnfitModel(
        f"{name} was fitted on dates (datetime64), which no field supports",
        code="bad_signature",
        hint=(
            "fit the model on a number, such as days since 2020-01-01, or on text such as"
            " 2024-03-01, and let callers send that"
        ),
    )


def _places(which: Any, names: dict[str, int], count: int) -> list[int]:
    """Return the places of a ColumnTransformer's columns: by name, place, mask or slice."""
    if isinstance(which, str):
        return [names[which]]
    if isinstance(which, int | np.integer):
        return [int(which) % count]
    if isinstance(which, slice):
        if isinstance(which.start, str) or isinstance(which.stop, str):
            first = names[which.start] if which.start is not None else 0
            last = names[which.stop] if which.stop is not None else count - 1
            return list(range(first, last + 1))
        return list(range(count))[which]
    listed = list(which)
    if listed and all(isinstance(each, bool | np.bool_) for each in listed):
        return [n for n, each in enumerate(listed) if each]
    return [names[each] if isinstance(each, str) else int(each) % count for each in listed]


def _imputer(one: SimpleImputer, at: At) -> At | None:
    kept: list[InputColumn | None] = []
    for column, value in zip(at, np.asarray(one.statistics_).tolist(), strict=True):
        if column is not None:
            column.is_imputed(value)
        empty = one.strategy != "constant" and not one.keep_empty_features and _is_missing(value)
        if not empty:  # it drops a column with only missing values
            kept.append(column)
    _decide_all(at, one.missing_values)
    added = len(one.indicator_.features_) if one.indicator_ is not None else 0
    return [*kept, *[None] * added]


def _decide_all(at: At, missing: Any) -> None:
    for column in at:
        if column is not None:
            column.decide(missing, nullable=True)


def _all_numbers(at: At) -> None:
    for column in at:
        if column is not None:
            column.is_number()


def _listed(part: Any) -> list[Any]:
    if isinstance(part, list | tuple):
        return [inner for each in part for inner in _listed(each)]
    if isinstance(part, np.ndarray):
        return _listed(part.tolist())
    return [] if part is None or isinstance(part, str) else [part]


def _is_forest(one: Any) -> bool:
    return type(one).__module__.startswith(("sklearn.ensemble._forest", "sklearn.ensemble._gb"))


def _tolerate(one: Any, at: At) -> None:
    """Record that a predictor answers NaN, as trees do even if they were fitted without it."""
    if get_tags(one).input_tags.allow_nan:
        for column in at:
            if column is not None:
                column.is_tolerant = True


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN or pandas' NA."""
    return value is None or type(value).__name__ == "NAType" or _is_nan(value)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and isnan(value)
