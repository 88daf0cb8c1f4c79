"""CatBoost models: CBM files, as `save_model` writes them.

The file states columns, classes, loss, and which columns hold categories or texts. It stores
hashes of the categories, so that their words are not known.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import catboost
import numpy as np

from kedge.adapters.models.boosters.inputs import BoosterColumn, settle_inputs
from kedge.adapters.models.boosters.model import BoosterModel
from kedge.adapters.models.boosters.outputs import BoosterAnswer, BoosterHead, head_of
from kedge.adapters.models.flavours import CatboostFlavour
from kedge.adapters.models.stated import read_stated
from kedge.core.errors import UnfitModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from kedge.ports import Model

_EXPONENTS = ("Poisson", "Tweedie")
"""Losses whose models predict the logarithm."""


class CatboostLoader(CatboostFlavour):
    """Loader of its flavour's files."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load the model. `trusted` is ignored: the file holds no code.

        Raises:
            UnfitModel: the model cannot be loaded, or takes embeddings.
        """
        del trusted
        file = self.find(path)
        if file is None:
            raise UnfitModel(f"{path} does not hold {self.looks_for}")
        model = catboost.CatBoost()
        try:
            # Not by its path: CatBoost looks for files with a call that the fence forbids.
            model.load_model(blob=file.read_bytes(), format="cbm")
        except catboost.CatBoostError as error:
            raise UnfitModel(
                f"{file.name} cannot be loaded: {str(error).splitlines()[0][:300]}",
                hint="save it again with save_model: it is incomplete, or needs a newer CatBoost"
                f" than {catboost.__version__}",
            ) from error
        if model.get_embedding_feature_indices():
            raise UnfitModel(
                f"{file.name} takes embeddings, which no field supports",
                hint="fit it with a column for each number",
            )
        names = [str(name) for name in model.feature_names_]
        is_named = not all(name.isdecimal() for name in names)
        stated = read_stated(path)
        columns = _columns(model, names, is_named=is_named)
        inputs = settle_inputs(columns, stated, is_named=is_named)
        predict, head = _head(model, [one.is_raw for one in columns])
        return BoosterModel(predict, inputs, head, stated, library="CatBoost")


def _columns(model: Any, names: Sequence[str], *, is_named: bool) -> list[BoosterColumn]:
    words = {*model.get_cat_feature_indices(), *model.get_text_feature_indices()}
    called = names if is_named else [f"x{n}" for n in range(len(names))]
    return [
        BoosterColumn(name, "string", is_raw=True)
        if place in words
        else BoosterColumn(name, nullable=True)  # CatBoost takes NaN for the least or the largest
        for place, name in enumerate(called)
    ]


def _head(
    model: Any, raw: Sequence[bool]
) -> tuple[Callable[[NDArray[Any]], NDArray[Any]], BoosterHead]:
    """Return the function that asks the model, and its outputs."""
    classes: list[Any] = np.asarray(model.classes_).tolist()
    loss = str(model.get_all_params().get("loss_function", "")).partition(":")[0]
    kind = "RawFormulaVal"
    if classes:
        kind = "Probability"
    elif loss in _EXPONENTS:
        kind = "Exponent"

    def predict(matrix: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any] = np.asarray(
            model.predict(matrix, prediction_type=kind, thread_count=1)
        )
        return found[:, 1] if len(classes) == 2 else found

    if len(classes) == 2:
        return predict, head_of(BoosterAnswer.PROBABILITY, 2, classes)
    if classes:
        return predict, head_of(BoosterAnswer.PROBABILITIES, len(classes), classes)
    row = np.array([["" if one else 0.0 for one in raw]], dtype=object if any(raw) else np.float64)
    shape = predict(row).shape
    return predict, head_of(BoosterAnswer.NUMBER, shape[1] if len(shape) == 2 else 1)
