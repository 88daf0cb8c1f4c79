"""The walk over a model that decides whether it may run inside a gateway worker.

A model is code, whatever its format. An attribute of an estimator or an operator of a graph can
read memory, exhaust it, or never return. So `estimators` and `operators` list the reviewed parts
one by one. `objects` and `graphs` walk a model and find it plain only if it holds nothing else;
`trees` follows indices. This package imports no library that is not already imported: it judges a
model by its parts.
"""

from kedge.core.values import Plainness
from kedge.inspection.estimators import RULE

__all__ = ["RULE", "plainness"]


def plainness(model: object) -> Plainness:
    """Return the result of the walk over a loaded model; without a walk nothing is proven."""
    found = getattr(model, "plainness", None)
    if isinstance(found, Plainness):
        return found
    return Plainness(proven=False, rule=RULE, why="its loader does not walk what it loads")
