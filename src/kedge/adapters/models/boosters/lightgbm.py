"""LightGBM models: text files, as `Booster.save_model` writes them.

The text states columns, objective, the categories of a frame, and for each split how a missing
value is answered.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightgbm

from kedge.adapters.models.boosters.inputs import BoosterColumn, settle_inputs
from kedge.adapters.models.boosters.model import BoosterModel
from kedge.adapters.models.boosters.outputs import BoosterAnswer, head_of
from kedge.adapters.models.flavours import LightgbmFlavour
from kedge.adapters.models.stated import read_stated
from kedge.core.errors import UnfitModel

if TYPE_CHECKING:
    from kedge.ports import Model

ENDS = ("\nend of trees\n", "\nend of parameters\n")
"""The last lines of both parts of a file."""
_UNNAMED = re.compile(r"Column_\d+")
_REPLACED = re.compile(r'[\s",:\[\]{}]')
"""Characters of a column's name that LightGBM writes as _."""
_SPLITS = re.compile(r"^split_feature=(.*)$(?:\n.*)*?\ndecision_type=(.*)$", re.MULTILINE)
_MISSING, _IS_CATEGORY = 0b1100, 0b1
"""Bits of a split: how it answers a missing value (0: as the number 0), and of categories."""


class LightgbmLoader(LightgbmFlavour):
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
        try:
            text = file.read_text("utf-8")
            if not all(end in text for end in ENDS):  # LightGBM would end this process
                raise ValueError("its end is missing")
            booster = lightgbm.Booster(model_str=text)
        except (lightgbm.basic.LightGBMError, ValueError) as error:
            raise UnfitModel(
                f"{file.name} cannot be loaded: {str(error).splitlines()[0][:300]}",
                hint="save it again with booster.save_model: it is incomplete, or needs a newer"
                f" LightGBM than {lightgbm.__version__}",
            ) from error
        stated = read_stated(path)
        names = booster.feature_name()
        is_named = not all(_UNNAMED.fullmatch(name) for name in names)
        columns = _columns(booster, text, names)
        inputs = settle_inputs(columns, stated, is_named=is_named, spell=_spell)
        answer, width = _answer(booster)

        def predict(matrix: Any) -> Any:
            return booster.predict(matrix, num_threads=1)

        return BoosterModel(predict, inputs, head_of(answer, width), stated, library="LightGBM")


def _spell(name: str) -> str:
    return _REPLACED.sub("_", name)


def _columns(booster: lightgbm.Booster, text: str, names: Sequence[str]) -> list[BoosterColumn]:
    listed = str(booster.params.get("categorical_feature", ""))
    places = sorted({*map(int, re.findall(r"\d+", listed))} & {*range(len(names))})
    frame: list[list[Any]] = booster.pandas_categorical or []
    of_frame = dict(zip(places, frame, strict=True)) if len(places) == len(frame) else {}
    asks = _never_missing(text)
    found = []
    for place, name in enumerate(names):
        known, nullable = of_frame.get(place), place not in asks
        if known is None:
            found.append(BoosterColumn(name, nullable=nullable))
        elif all(isinstance(one, str) for one in known):
            found.append(BoosterColumn(name, "string", nullable=nullable, words=tuple(known)))
        elif all(isinstance(one, bool) for one in known):
            found.append(BoosterColumn(name, "bool", nullable=nullable, numbers=tuple(known)))
        else:
            found.append(BoosterColumn(name, nullable=nullable, numbers=tuple(known)))
    return found


def _never_missing(text: str) -> set[int]:
    """Return the columns with a split by a number that takes a missing value for 0.

    LightGBM makes such splits of columns without missing values in the training set.
    """
    found: set[int] = set()
    for columns, kinds in _SPLITS.findall(text):
        for place, kind in zip(columns.split(), kinds.split(), strict=False):
            if not int(kind) & (_MISSING | _IS_CATEGORY):
                found.add(int(place))
    return found


def _answer(booster: lightgbm.Booster) -> tuple[BoosterAnswer, int]:
    """Return what the model predicts, and the number of classes or of numbers of a row."""
    objective, width = booster.params.get("objective"), booster.num_model_per_iteration()
    if objective == "binary":
        return BoosterAnswer.PROBABILITY, 2
    if objective in ("multiclass", "multiclassova"):
        return BoosterAnswer.PROBABILITIES, width
    return BoosterAnswer.NUMBER, width
