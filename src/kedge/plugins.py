"""Plug-ins: the public names for a loader, a flavour or an online store in another package.

With `kedge.__all__` and `kedge.testing.checks` these are all stable names. A plug-in that imports
nothing else of kedge continues to work when modules move.
"""

from typing import TYPE_CHECKING

from kedge.core.errors import KedgeError, Unavailable, UnfitModel
from kedge.core.golden import Known
from kedge.core.inputs import Described
from kedge.core.values import Dtype, Field, Signature
from kedge.ports import Flavour, Loader, Model, OnlineStore

if TYPE_CHECKING:
    from kedge.typing import Columns
else:  # the same without NumPy, which a flavour need not import
    from kedge.transforms.authoring import Columns

__all__ = [
    "Columns",
    "Described",
    "Dtype",
    "Field",
    "Flavour",
    "KedgeError",
    "Known",
    "Loader",
    "Model",
    "OnlineStore",
    "Signature",
    "Unavailable",
    "UnfitModel",
]
