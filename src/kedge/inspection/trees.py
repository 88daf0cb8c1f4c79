"""Trees: checks of the indices that a compiled loop follows unchecked.

A child that is its own parent never ends, and one outside the array is still read. So each child
must lie after its parent and within the array, and each feature within the width of the rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

LEAF = -1
"""Value that marks a missing left child in scikit-learn's `Tree`."""
_RECORD = ("left", "right", "feature_idx", "is_leaf", "is_categorical", "bitset_idx")
"""Fields of a histogram predictor's node that an answer uses."""


def tree_fault(tree: Any) -> str | None:
    """Return the fault of a `sklearn.tree._tree.Tree`, or None."""
    count = int(tree.node_count)
    if not 1 <= count <= int(tree.capacity):
        return f"a tree says {count} nodes and holds {tree.capacity}"
    nodes = tree.__getstate__()["nodes"]
    left, right = nodes["left_child"], nodes["right_child"]
    return _fault(left, right, nodes["feature"], left == LEAF, int(tree.n_features))


def predictor_fault(predictor: Any) -> str | None:
    """Return the fault of a `TreePredictor` of histogram gradient boosting, or None."""
    nodes = getattr(predictor, "nodes", None)
    if type(nodes) is not np.ndarray or nodes.ndim != 1 or not nodes.size:
        return "a predictor without nodes"
    if any(name not in (nodes.dtype.names or ()) for name in _RECORD):
        return f"a predictor whose nodes are {nodes.dtype}"
    leaf = nodes["is_leaf"] != 0
    fault = _fault(
        nodes["left"].astype(np.int64),
        nodes["right"].astype(np.int64),
        nodes["feature_idx"],
        leaf,
        None,
    )
    sets: Any = getattr(predictor, "raw_left_cat_bitsets", None)
    categorical = nodes["bitset_idx"][~leaf & (nodes["is_categorical"] != 0)]
    if fault is None and categorical.size:
        whole = type(sets) is np.ndarray and sets.dtype == np.uint32 and sets.shape[1:] == (8,)
        if not whole or categorical.max() >= len(sets):
            return "a predictor names a set of categories that it does not hold"
    return fault


def _fault(left: Any, right: Any, feature: Any, leaf: Any, width: int | None) -> str | None:
    inner = np.flatnonzero(~leaf)
    for child in (left[inner], right[inner]):
        wrong = (child <= inner) | (child >= len(left))
        if wrong.any():
            at = int(np.flatnonzero(wrong)[0])
            return f"node {inner[at]} of {len(left)} has child {child[at]}"
    features = feature[inner]
    if features.size and (features.min() < 0 or (width is not None and features.max() >= width)):
        return f"a node asks for feature {features.max()} (or {features.min()}) of {width}"
    return None
