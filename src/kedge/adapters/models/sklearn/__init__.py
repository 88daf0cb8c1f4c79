"""scikit-learn models, stored by skops: never a pickle.

skops lists every type that a file would create. `loader` lists the types of scikit-learn that skops
does not know but ordinary models need, with the reasons. Other types are refused until an operator
trusts them by name.
"""

from kedge.adapters.models.sklearn.loader import SklearnLoader

__all__ = ["SklearnLoader"]
