"""The model as a BentoML service. BENCH_MODEL is a joblib file."""

import os

import bentoml  # type: ignore[import-not-found, unused-ignore]
import joblib  # type: ignore[import-untyped, unused-ignore]
import numpy as np


@bentoml.service(name="peer", workers=1)
class Peer:
    """One method, one model."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    @bentoml.api  # type: ignore[untyped-decorator, unused-ignore]
    async def predict(self, instances: list[list[float]]) -> list[int]:
        """Answer the rows."""
        answers: list[int] = self.model.predict(np.asarray(instances)).tolist()
        return answers
