"""DoWhy's own attribution of a rise of the loss: run as `python attribute.py FILE.npz`, prints JSON.

The file has two windows of inputs (n, k), scores, outcomes and losses. The graph is what a user who
logs a model would draw: inputs give a score, inputs give an outcome, both give the loss. What each
node's mechanism adds to the mean loss is `gcm.distribution_change` (Budhathoki and others, 2021).
"""

import json
import sys

import networkx as nx  # type: ignore[import-untyped, import-not-found, unused-ignore]
import numpy as np
import pandas as pd  # type: ignore[import-untyped, import-not-found, unused-ignore]
from dowhy import gcm  # type: ignore[import-untyped, import-not-found, unused-ignore]


def table(data: dict[str, np.ndarray], window: str) -> pd.DataFrame:
    """One window, a column a node."""
    x = data[f"{window}_x"]
    # It takes no null; the middle of the older window is what a pipeline would put there.
    x = np.where(np.isnan(x), np.nanmedian(data["old_x"], axis=0), x)
    found = pd.DataFrame(x, columns=[f"x{n}" for n in range(x.shape[1])])
    return found.assign(
        score=data[f"{window}_score"], y=data[f"{window}_y"], loss=data[f"{window}_loss"]
    )


def main() -> None:
    """What each node adds."""
    data = dict(np.load(sys.argv[1]))
    old, new = table(data, "old"), table(data, "new")
    inputs = [name for name in old.columns if name.startswith("x")]
    edges = [(name, node) for name in inputs for node in ("score", "y")]
    graph = nx.DiGraph([*edges, ("score", "loss"), ("y", "loss")])
    gcm.config.disable_progress_bars()
    model = gcm.ProbabilisticCausalModel(graph)
    for name in inputs:
        model.set_causal_mechanism(name, gcm.EmpiricalDistribution())
    for name in ("score", "y", "loss"):
        regressor = gcm.ml.create_hist_gradient_boost_regressor()
        model.set_causal_mechanism(name, gcm.AdditiveNoiseModel(regressor))
    found = gcm.distribution_change(
        model,
        old,
        new,
        "loss",
        num_samples=2_000,
        difference_estimation_func=lambda a, b: float(np.mean(b) - np.mean(a)),
    )
    json.dump({name: float(value) for name, value in found.items()}, sys.stdout)


main()
