"""Types that annotations share; NumPy is imported for them only by type checkers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[np.generic]]
    """One request's inputs, or one answer's outputs: name to array, first axis = rows.
    Strings are object arrays of str (None where null); a null float is NaN."""
