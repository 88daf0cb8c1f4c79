"""The walk over a loaded scikit-learn estimator: `refusal` for every loader, `judge` for inline.

`refusal` looks for objects that no model may hold in any placement. `judge` finds an estimator
plain only when all its parts are in `estimators.KNOWN`, attribute by attribute.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import numpy as np

from kedge.core.values import Plainness
from kedge.inspection.estimators import (
    ARRAY,
    BUNCH,
    CLASSES,
    COMMON,
    DICE,
    FIGURE,
    KNOWN,
    NOTHING,
    NUMBER,
    OPAQUE,
    PART,
    PARTS,
    PREDICTOR,
    RULE,
    SETTING,
    TREE,
    WORD,
)
from kedge.inspection.trees import predictor_fault, tree_fault

MOST = 500_000
"""Maximum number of values in a walk: a forest of 10,000 trees. Shared parts count each time, as in
answering."""
DEEPEST = 40
LONGEST = 10_000
"""Maximum length of one word in characters."""


class _Unproven(Exception):
    """Unknown part that the walk met."""


def refusal(root: Any) -> str | None:
    """Return why this model must not be loaded anywhere, or None."""
    for looked, one in enumerate(reachable(root)):
        if looked > MOST * 4:
            return f"it holds more than {MOST * 4:,} objects"
        name = full_name(type(one))
        fault = (
            tree_fault(one) if name == TREE else predictor_fault(one) if name == PREDICTOR else None
        )
        if fault is not None:
            return f"{name}: {fault}"
        held = attributes(one)
        fault = _attributes_fault(one, held) if held else None
        if fault is not None:
            return fault
    return None


def reachable(root: Any) -> Iterator[Any]:
    """Yield each object that a file could have made, known or not, once; no words or numbers."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, str | bytes | int | float | type | ModuleType | None):
            continue
        seen.add(id(one))
        yield one
        waiting += attributes(one).values()
        waiting += _inside(one)


def attributes(one: Any) -> dict[Any, Any]:
    """Return an object's attributes by name."""
    if isinstance(one, FunctionType | BuiltinFunctionType | np.ufunc):
        return {}
    held = getattr(one, "__dict__", None)
    return held if type(held) is dict else {}


def _attributes_fault(one: Any, held: dict[Any, Any]) -> str | None:
    kind = type(one)
    for name in held:
        if not isinstance(name, str) or name.startswith("__"):
            return (
                f"{kind.__name__} has the attribute {str(name)[:60]!r}, which Python would act on"
            )
        if kind.__module__.startswith("sklearn.") and inspect.isfunction(getattr(kind, name, None)):
            return f"{kind.__name__}.{name} is a method, and the file puts something in its place"
    if kind.__module__.startswith("sklearn.feature_extraction"):
        source = held.get("input", "content")
        if source != "content":
            return f"{kind.__name__}(input={source!r}) opens files that callers name"
    return None


def _inside(one: Any) -> Iterator[Any]:
    """Yield the contents of a container, a bound partial or an array of objects."""
    if isinstance(one, dict):
        yield from one.keys()
        yield from one.values()
    elif isinstance(one, list | tuple | set | frozenset):
        yield from one
    elif isinstance(one, np.ndarray) and one.dtype.kind == "O":
        yield from one.ravel().tolist()
    elif hasattr(one, "func") and hasattr(one, "keywords"):
        yield from (one.func, one.args, one.keywords)


def judge(root: Any, trusted: Sequence[str] = ()) -> Plainness:
    """Walk an estimator attribute by attribute, and return whether it is plain.

    Args:
        root: the estimator.
        trusted: types that an operator trusts by name: their behaviour is unknown here.
    """
    if trusted:
        return Plainness(proven=False, rule=RULE, why=f"it may load {', '.join(trusted)}")
    walk = _Walk()
    try:
        walk.part(root, type(root).__name__, 0)
    except _Unproven as error:
        return Plainness(proven=False, rule=RULE, why=str(error))
    return Plainness(proven=True, rule=RULE, found=tuple(sorted(walk.found)))


class _Walk:
    def __init__(self) -> None:
        self.found: set[str] = set()
        self._looked = 0

    def _step(self, place: str, depth: int) -> None:
        self._looked += 1
        if self._looked > MOST or depth > DEEPEST:
            raise _Unproven(f"{place}: it is larger or deeper than the walk goes")

    def part(self, one: Any, place: str, depth: int) -> None:
        """Check a listed object, or lists of them."""
        self._step(place, depth)
        kind = type(one)
        name = full_name(kind)
        if kind in (list, tuple):
            for n, inner in enumerate(one):
                self.part(inner, f"{place}[{n}]", depth + 1)
        elif name == BUNCH or kind is dict:
            for key, inner in one.items():
                self.part(inner, f"{place}.{key}", depth + 1)
            self._setting(getattr(one, "__dict__", {}), place, depth + 1)
        elif kind is np.ndarray and one.dtype.kind == "O":
            self.part(one.tolist(), place, depth + 1)
        elif name == TREE:
            self._tree(one, place)
        elif name in KNOWN and is_itself(kind, name):
            self._estimator(one, name, place, depth)
        elif kind.__module__ in OPAQUE and is_itself(kind, name):
            if getattr(one, "__dict__", None):
                raise _Unproven(f"{place}: a {name} with attributes")
        else:
            self._setting(one, place, depth)

    def _estimator(self, one: Any, name: str, place: str, depth: int) -> None:
        self.found.add(name.rpartition(".")[2])
        fitted, parameters = KNOWN[name], parameters_of(type(one))
        for attribute, value in vars(one).items():
            at = f"{place}.{attribute}"
            kind = fitted.get(attribute) or COMMON.get(attribute)
            if kind is None and attribute in parameters:
                dice = attribute == "random_state" and not is_number(value)
                kind = PART if attribute in PARTS else DICE if dice else SETTING
            if kind is None:
                raise _Unproven(f"{at}: an attribute that a {type(one).__name__} is not known for")
            self._attribute(kind, value, at, depth + 1)
        try:
            fault = _size_fault(one)
        except (AttributeError, TypeError, ValueError, IndexError, KeyError) as error:
            fault = f"its parts do not fit each other: {error}"
        if fault is not None:
            raise _Unproven(f"{place}: {fault}")

    def _attribute(self, kind: str, value: Any, place: str, depth: int) -> None:
        self._step(place, depth)
        match kind:
            case _ if kind == NUMBER:
                good = is_number(value)
            case _ if kind == WORD:
                good = value is None or (type(value) is str and len(value) <= LONGEST)
            case _ if kind == ARRAY:
                good = value is None or is_numbers(value)
            case _ if kind == FIGURE:
                good = is_number(value) or is_numbers(value)
            case _ if kind == CLASSES:
                good = is_numbers(value) or is_words(value)
            case _ if kind == DICE:
                good = value is None or type(value) in (
                    np.random.RandomState,
                    np.random.Generator,
                )
            case _ if kind == NOTHING:
                good = value is None
            case "nodes":
                good = predictor_nodes_plain(value)
            case _ if kind == PART:
                self.part(value, place, depth)
                good = True
            case _:
                self._setting(value, place, depth)
                good = True
        if not good:
            raise _Unproven(f"{place}: a {full_name(type(value))}, which is not known there")

    def _setting(self, value: Any, place: str, depth: int) -> None:
        """Check a plain value, nested in plain containers."""
        self._step(place, depth)
        kind = type(value)
        if kind in (list, tuple, set, frozenset):
            for n, inner in enumerate(value):
                self._setting(inner, f"{place}[{n}]", depth + 1)
        elif kind is dict:
            for key, inner in value.items():
                self._setting(key, f"{place} key", depth + 1)
                self._setting(inner, f"{place}[{str(key)[:40]!r}]", depth + 1)
        elif kind is slice:
            self._setting((value.start, value.stop, value.step), place, depth + 1)
        elif kind is np.ndarray and value.dtype.kind == "O" and not is_words(value):
            self._setting(value.tolist(), place, depth + 1)
        elif not (
            is_number(value)
            or is_numbers(value)
            or is_words(value)
            or isinstance(value, np.dtype)
            or (kind is str and len(value) <= LONGEST)
            or (
                kind is type
                and (issubclass(value, np.generic) or value in (bool, float, int, object, str))
            )
        ):
            raise _Unproven(f"{place}: a {full_name(kind)}, which is not known there")

    def _tree(self, tree: Any, place: str) -> None:
        fault = tree_fault(tree)
        if fault is not None:
            raise _Unproven(f"{place}: {fault}")


# ---------------------------------------------------------------- kinds


def full_name(kind: type) -> str:
    """Return the module and name of a type."""
    return f"{kind.__module__}.{kind.__qualname__}"


def is_itself(kind: type, name: str) -> bool:
    """Return whether a module really has this type under this name, not one that only claims it."""
    module = sys.modules.get(kind.__module__)
    return module is not None and getattr(module, name.rpartition(".")[2], None) is kind


def parameters_of(kind: type) -> frozenset[str]:
    """Return the names of a constructor's parameters, which an estimator holds as settings."""
    if kind in _PARAMETERS:
        return _PARAMETERS[kind]
    found: set[str] = set()
    for parent in kind.__mro__[:-1]:  # a parent's constructor sets its own parameters
        if "__init__" in vars(parent):
            found |= set(inspect.signature(parent.__init__).parameters)  # type: ignore[misc]
    return _PARAMETERS.setdefault(kind, frozenset(found) - {"self", "args", "kwargs"})


_PARAMETERS: dict[type, frozenset[str]] = {}


def is_number(value: Any) -> bool:
    """Return whether the value is a number, a truth value or None."""
    return (
        value is None
        or type(value) in (bool, int, float)
        or (isinstance(value, np.bool_ | np.number) and type(value).__module__ == "numpy")
    )


def is_numbers(value: Any) -> bool:
    """Return whether the value is an array of NumPy's own numbers."""
    return type(value) is np.ndarray and value.dtype.kind in "biuf" and value.ndim <= 4


def is_words(value: Any) -> bool:
    """Return whether the value is an array of words, numbers and missing values."""
    if type(value) is not np.ndarray or value.ndim > 2:
        return False
    if value.dtype.kind == "U":
        return True
    return value.dtype.kind == "O" and all(
        is_number(one) or (type(one) is str and len(one) <= LONGEST)
        for one in value.ravel().tolist()
    )


def predictor_nodes_plain(nodes: Any) -> bool:
    """Return whether a histogram predictor's nodes split by numbers only, not by bit sets."""
    return (
        type(nodes) is np.ndarray
        and "is_categorical" in (nodes.dtype.names or ())
        and not nodes["is_categorical"].any()
    )


# ---------------------------------------------------------------- sizes


def _size_fault(one: Any) -> str | None:
    """Return how the sizes of an estimator's parts disagree: an answer's memory follows them."""
    kind = type(one)
    name = kind.__name__
    if kind.__module__ == "sklearn.tree._classes":
        return _tree_fault(one)
    if kind.__module__ == "sklearn.ensemble._forest":
        return _forest_fault(one)
    if kind.__module__ == "sklearn.ensemble._gb":
        return _boosted_fault(one)
    if name.startswith("HistGradientBoosting"):
        return _histogram_fault(one)
    if name == "OneHotEncoder" and hasattr(one, "categories_"):
        wide = [len(each) for each in one.categories_]
        told = getattr(one, "_n_features_outs", wide)
        if len(told) != len(wide) or any(a > b for a, b in zip(told, wide, strict=True)):
            return "it says more columns than it has categories"
    if name.startswith("Dummy") and getattr(one, "n_outputs_", 1) != 1:
        return "several outputs"
    if name == "_BinMapper" and hasattr(one, "is_categorical_") and np.any(one.is_categorical_):
        return "categorical features"
    return None


def _tree_fault(one: Any) -> str | None:
    tree = getattr(one, "tree_", None)
    if tree is None:
        return None  # unfitted, as it was given to an ensemble
    if tree.n_features != one.n_features_in_ or tree.n_outputs != one.n_outputs_:
        return "its tree is for rows of another width"
    return None


def _widths_fault(one: Any, trees: list[Any]) -> str | None:
    if not trees or any(
        not hasattr(tree, "tree_") or tree.n_features_in_ != one.n_features_in_ for tree in trees
    ):
        return "its trees are for rows of another width"
    return None


def _forest_fault(one: Any) -> str | None:
    if not hasattr(one, "estimators_"):
        return None
    trees = list(one.estimators_)
    if one.n_outputs_ != trees[0].n_outputs_ if trees else False:
        return "its trees give another number of outputs"
    classes = getattr(one, "classes_", None)
    if classes is not None and one.n_classes_ != len(classes):
        return "it says another number of classes than it names"
    return _widths_fault(one, trees)


def _boosted_fault(one: Any) -> str | None:
    if not hasattr(one, "estimators_"):
        return None
    stages, each = one.estimators_, one.n_trees_per_iteration_
    if type(stages) is not np.ndarray or stages.ndim != 2 or stages.shape[1] != each:
        return "its trees are not those of its classes"
    classes = getattr(one, "classes_", None)
    wanted = 1 if classes is None or len(classes) == 2 else len(classes)
    prior = getattr(one.init_, "class_prior_", None)
    if each != wanted or not type(one.init_).__name__.startswith("Dummy"):
        return "it begins with another model, or has trees for other classes"
    if prior is not None and (classes is None or len(prior) != len(classes)):
        return "it begins with other classes"
    return _widths_fault(one, stages.ravel().tolist())


def _histogram_fault(one: Any) -> str | None:
    if not hasattr(one, "_predictors"):
        return None
    each = one.n_trees_per_iteration_
    # The walk has checked the predictors.
    if not one._predictors or any(len(stage) != each for stage in one._predictors):  # noqa: SLF001
        return "its trees are not those of its classes"
    for stage in one._predictors:  # noqa: SLF001 - walked
        for predictor in stage:
            fault = predictor_fault(predictor)
            if fault is not None:
                return fault
            inner = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            if inner.size and inner["feature_idx"].max() >= one.n_features_in_:
                return "its trees are for rows of another width"
    return None
