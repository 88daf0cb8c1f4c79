"""scikit-learn models, stored by skops: never a pickle.

skops names every type that a file would bring to life. Those of scikit-learn that it does not
know, but that ordinary models need, are listed in `loader` with the reason. Anything else is refused
until an operator trusts it by name.
"""

from kedge.adapters.models.sklearn.loader import SklearnLoader

__all__ = ["SklearnLoader"]
