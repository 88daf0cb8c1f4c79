"""Write the bench's model as joblib, with the peer's own Python: run as `python train.py FILE`."""

import json
import sys
from pathlib import Path

import joblib  # type: ignore[import-untyped, unused-ignore]
import numpy as np
from sklearn.linear_model import LogisticRegression


def main() -> None:
    """The coefficients come in on stdin: the peer serves exactly the model that kedge serves."""
    given = json.load(sys.stdin)
    model = LogisticRegression()
    model.coef_ = np.array(given["coef"])
    model.intercept_ = np.array(given["intercept"])
    model.classes_ = np.array(given["classes"])
    model.n_features_in_ = model.coef_.shape[1]
    joblib.dump(model, Path(sys.argv[1]))


main()
