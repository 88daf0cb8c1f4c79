"""Types that annotations share; only type checkers import NumPy for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[np.generic]]
    """The inputs of one request, or the outputs of one answer: name to array, first axis = rows.
    Strings are object arrays of str (None for null); a null float is NaN."""
