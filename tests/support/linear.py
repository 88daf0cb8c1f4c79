"""A plug-in as a stranger would write it: a linear model in a JSON file, its flavour and its loader.

It uses public names of kedge only; `tests/contract/test_plugins.py` checks its imports.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kedge.plugins import Columns, Described, Field, Signature, UnfitModel


class LinearFlavour:
    flavour = "linear"
    stalls = False
    looks_for = "a single *.linear file"

    def claims(self, path: Path) -> bool:
        return len(visible(path)) == 1


class LinearLoader(LinearFlavour):
    def load(self, path: Path, trusted: Sequence[str] = ()) -> LinearModel:
        files = visible(path)
        if len(files) != 1:
            raise UnfitModel(f"{path} does not hold {self.looks_for}")
        try:
            return LinearModel(json.loads(files[0].read_text("utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise UnfitModel(f"{files[0].name} cannot be loaded: {error}") from error


class LinearModel:
    def __init__(self, weights: dict[str, float]) -> None:
        self.signature = Signature(
            inputs=tuple(Field(name, "float64") for name in weights),
            outputs=(Field("score", "float64"),),
        )
        self.described = Described(written_with={"linear": "1.0"})
        self._weights = weights

    def predict(self, columns: Columns) -> Columns:
        score: Any = 0.0
        for name, weight in self._weights.items():
            score = score + weight * columns[name].astype(float)
        return {"score": score}


def visible(path: Path) -> list[Path]:
    return [file for file in path.glob("*.linear") if not file.name.startswith(".")]
