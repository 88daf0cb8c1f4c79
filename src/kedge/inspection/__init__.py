"""The walk over a model that decides whether it may run inside a gateway worker.

A model is code, whatever its format calls itself: an attribute of an estimator or an operator of a graph can read
memory, take all of it, or never return. So `estimators` and `operators` name what was looked at, one by one.
`objects` and `graphs` walk a model and find it plain only when it holds nothing else; `trees` follows indices.
No library is imported here that is not imported already: a model is judged by what it is made of.
"""

from kedge.core.values import Plainness
from kedge.inspection.estimators import RULE

__all__ = ["RULE", "plainness"]


def plainness(model: object) -> Plainness:
    """Return what the walk over a loaded model found. A loader that walks nothing has proven nothing."""
    found = getattr(model, "plainness", None)
    if isinstance(found, Plainness):
        return found
    return Plainness(proven=False, rule=RULE, why="its loader does not walk what it loads")
