"""XGBoost models: JSON and UBJSON files, as `save_model` writes them.

The file states columns, objective and, since XGBoost 3.1, the categories that it was fitted on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import xgboost

from kedge.adapters.models.boosters.inputs import BoosterColumn, settle_inputs
from kedge.adapters.models.boosters.model import BoosterModel
from kedge.adapters.models.boosters.outputs import BoosterAnswer, head_of
from kedge.adapters.models.flavours import XgboostFlavour
from kedge.adapters.models.stated import read_stated
from kedge.core.errors import UnfitModel
from kedge.core.values import Dtype

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Model

_DTYPES: Mapping[str, Dtype] = {"i": "bool"}
"""A column of truth values; XGBoost computes with every other one as with numbers."""
_CATEGORY = "c"
_LABELS = ("binary:hinge", "multi:softmax")
_LINEAR = "gblinear"
"""The booster that takes no plain array, and has no rounds."""


class _Categories(msgspec.Struct):
    """The categories of one column: words as offsets into their bytes, or numbers."""

    offsets: list[int] = []
    values: list[float] = []


class _Known(msgspec.Struct):
    enc: list[_Categories] = []


class _Trees(msgspec.Struct):
    cats: _Known = msgspec.field(default_factory=_Known)


class _Booster(msgspec.Struct):
    name: str = ""
    model: _Trees = msgspec.field(default_factory=_Trees)
    gbtree: _Booster | None = None
    """The trees of a booster that drops some of them (dart)."""


class _Objective(msgspec.Struct):
    name: str = ""


class _Learner(msgspec.Struct):
    gradient_booster: _Booster = msgspec.field(default_factory=_Booster)
    learner_model_param: dict[str, str] = {}
    objective: _Objective = msgspec.field(default_factory=_Objective)


class _Saved(msgspec.Struct):
    """The parts of a model, or of its configuration, that are no trees."""

    learner: _Learner = msgspec.field(default_factory=_Learner)


class XgboostLoader(XgboostFlavour):
    """Loader of its flavour's files."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load the model. `trusted` is ignored: the file holds no code.

        Raises:
            UnfitModel: the model cannot be loaded, or its columns are not known.
        """
        del trusted
        file = self.find(path)
        if file is None:
            raise UnfitModel(f"{path} does not hold {self.looks_for}")
        booster = xgboost.Booster({"nthread": 1})
        try:
            if not _is_whole(file):  # XGBoost may end this process while it parses a part
                raise ValueError("its end is missing")
            booster.load_model(str(file))
            booster.set_param({"nthread": 1})
            config = msgspec.json.decode(booster.save_config(), type=_Saved).learner
            kinds = booster.feature_types or []
            known = _categories(booster) if _CATEGORY in kinds else []
        except (xgboost.core.XGBoostError, msgspec.MsgspecError, ValueError) as error:
            raise UnfitModel(
                f"{file.name} cannot be loaded: {str(error).splitlines()[0][:300]}",
                hint="save it again with save_model: it is incomplete, or needs a newer XGBoost"
                f" than {xgboost.__version__}",
            ) from error
        stated = read_stated(path)
        names: Sequence[str] | None = booster.feature_names
        columns = _columns(booster, known, names)
        inputs = settle_inputs(columns, stated, is_named=names is not None)
        answer, width = _answer(config)
        return BoosterModel(
            _predictor(booster, config.gradient_booster.name),
            inputs,
            head_of(answer, width),
            stated,
            library="XGBoost",
        )


def _is_whole(file: Path) -> bool:
    """Return whether a file has the end of an object, in both forms."""
    with file.open("rb") as opened:
        opened.seek(max(file.stat().st_size - 64, 0))
        return opened.read().rstrip().endswith(b"}")


def _predictor(booster: xgboost.Booster, kind: str) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """Return the function that asks it: up to its best round, if training stopped early."""
    best = booster.attr("best_iteration")
    rounds = (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)
    if kind == _LINEAR:
        return lambda matrix: booster.predict(
            xgboost.DMatrix(matrix, nthread=1), validate_features=False
        )
    return lambda matrix: booster.inplace_predict(
        matrix, iteration_range=rounds, validate_features=False
    )


def _categories(booster: xgboost.Booster) -> list[_Categories]:
    whole = msgspec.json.decode(bytes(booster.save_raw("json")), type=_Saved)
    trees = whole.learner.gradient_booster
    return (trees.gbtree or trees).model.cats.enc


def _columns(
    booster: xgboost.Booster, known: Sequence[_Categories], names: Sequence[str] | None
) -> list[BoosterColumn]:
    count = booster.num_features()
    called = names if names is not None else [f"x{n}" for n in range(count)]
    kinds = booster.feature_types or ["q"] * count
    found = []
    for place, (name, kind) in enumerate(zip(called, kinds, strict=True)):
        if kind != _CATEGORY:
            found.append(BoosterColumn(name, _DTYPES.get(kind, "float64"), nullable=True))
        else:
            categories = known[place] if place < len(known) else _Categories()
            found.append(_category(name, categories))
    return found


def _category(name: str, categories: _Categories) -> BoosterColumn:
    if len(categories.offsets) > 1:
        raw, ends = bytes(int(one) & 0xFF for one in categories.values), categories.offsets
        words = tuple(raw[begin:end].decode() for begin, end in pairwise(ends))
        return BoosterColumn(name, "string", nullable=True, words=words)
    if categories.values:
        return BoosterColumn(name, "float64", nullable=True, numbers=tuple(categories.values))
    return BoosterColumn(name, "float64", nullable=True)  # callers send the code of a category


def _answer(config: _Learner) -> tuple[BoosterAnswer, int]:
    """Return what the model predicts, and the number of classes or of numbers of a row."""
    objective, params = config.objective.name, config.learner_model_param
    if objective == "binary:logistic":
        return BoosterAnswer.PROBABILITY, 2
    if objective == "multi:softprob":
        return BoosterAnswer.PROBABILITIES, int(params.get("num_class", 0))
    if objective in _LABELS:
        return BoosterAnswer.LABEL, 1
    return BoosterAnswer.NUMBER, max(int(params.get("num_target", 1)), 1)
