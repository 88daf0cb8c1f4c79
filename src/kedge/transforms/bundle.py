"""Bundles: transformations loaded from verified directories, several beside each other.

A bundle is a flat directory of Python files and its `transform.json`. Its modules live in their own
namespace and not in `sys.modules`. Two versions with a `dates.py` each run side by side in one
process, and an import inside a function also finds the bundle's own file.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kedge.columns import check_answer
from kedge.core.errors import ModelFailure, UnfitModel
from kedge.core.features.schema import Feature, Spec
from kedge.core.values import Signature
from kedge.transforms.authoring import spec_of
from kedge.transforms.lookup import Lookup

if TYPE_CHECKING:
    from kedge.ports import Model
    from kedge.typing import Columns


class Namespace:
    """The modules of one bundle."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._local = {path.stem: path for path in root.glob("*.py")}
        self._modules: dict[str, ModuleType] = {}
        self._builtins = {**vars(builtins), "__import__": self._import}

    def module(self, name: str) -> ModuleType:
        """Run one of the bundle's files, once."""
        if name not in self._modules:
            path = self._local[name]
            module = ModuleType(name)
            module.__file__ = str(path)
            module.__dict__["__builtins__"] = self._builtins
            self._modules[name] = module
            try:
                code = compile(path.read_bytes(), str(path), "exec")
                # The bundle is verified: running it is its purpose.
                exec(code, module.__dict__)  # noqa: S102
            except BaseException:
                del self._modules[name]
                raise
        return self._modules[name]

    def _import(
        self,
        name: str,
        given: Mapping[str, Any] | None = None,
        local: Mapping[str, Any] | None = None,
        wanted: tuple[str, ...] | None = (),
        level: int = 0,
    ) -> ModuleType:
        if level == 0 and name in self._local:
            return self.module(name)
        if level == 1 and not name:
            return _Siblings(
                {each: self.module(each) for each in wanted or () if each in self._local}
            )
        if level == 1 and name in self._local:
            return self.module(name)
        return builtins.__import__(name, given, local, wanted or (), level)


class _Siblings(ModuleType):
    def __init__(self, modules: Mapping[str, ModuleType]) -> None:
        super().__init__("siblings")
        self.__dict__.update(modules)


Lookups = Callable[[Spec], Sequence[Lookup]]
"""Opener of the lookups that a transformation reads by key."""


class Transform:
    """Implementation of a schema: raw columns in, features out. Each answer is checked."""

    def __init__(
        self,
        root: Path,
        lookups: Lookups | None = None,
        function: Callable[..., Columns] | None = None,
    ) -> None:
        """Load it from a verified directory.

        Args:
            root: the directory.
            lookups: opens the schemas that it reads by key. None: only `applied` can be called.
            function: its function in another process. None: it is loaded into this process,
                which must be a model, probe or features process: its code may do anything there.

        Raises:
            CorruptArtifact: it has no spec.
            UnfitModel: `transform_broken`: its source cannot be run, or the function is
                missing.
        """
        self.spec = spec_of(root)
        self.signature: Signature = self.spec.signature
        self._function = function if function is not None else _loaded(root, self.spec)
        self.checks = Checks(self.spec.schema.fields)
        self._told: dict[str, int] = {}
        self.marks: NDArray[np.bool_] | None = None
        """Rows of the last answer that broke the schema's promise; None when none did."""
        self._lookups = lookups(self.spec) if lookups is not None else ()

    def predict(self, columns: Columns) -> Columns:
        """Return the features of these rows. The given columns are read-only.

        Raises:
            ModelFailure: `transform_nonsense`: the answer breaks the promise of its schema;
                `features_...`: a value that is read by key is missing, and the rule refuses.
        """
        given = {field.name: columns[field.name] for field in self.spec.raw}
        if not self._lookups:
            return self.applied(given, ())
        found = self.applied(given, [lookup.columns(given) for lookup in self._lookups])
        for lookup in self._lookups:
            self.marks = marked(self.marks, lookup.marks)
        return found

    def violations(self) -> dict[str, int]:
        """Return the cumulative counts: out of range, unseen, or missing in a lookup."""
        found = dict(self.checks.violations)
        for lookup in self._lookups:
            found.update(lookup.counts)
        return found

    def fresh(self) -> dict[str, int]:
        """Return the counts since the last call."""
        if not self.checks.violations and not self._lookups:
            return {}
        now = self.violations()
        found = {name: count - self._told.get(name, 0) for name, count in now.items()}
        self._told = now
        return {name: count for name, count in found.items() if count}

    def stands_alone(self, alone: bool) -> None:
        """Set whether no other process can answer the next questions."""
        for lookup in self._lookups:
            lookup.alone = alone

    def applied(self, given: Columns, looked: Sequence[Columns]) -> Columns:
        """Return the features of raw columns and of the columns of each schema that it reads.

        Raises:
            ModelFailure: `transform_nonsense`: the answer breaks the promise of its schema.
        """
        for columns in (given, *looked):
            for column in columns.values():
                column.flags.writeable = False
        rows = len(next(iter(given.values()), ()))
        found = self._function(given, *looked)
        fault = check_answer(found, self.signature, rows, nan_allowed=True)
        if fault is None:
            fault = self.checks.look(found, rows)
        if fault is not None:
            raise ModelFailure(f"{self.spec.schema.name}: {fault}", code="transform_nonsense")
        self.marks = self.checks.marks
        return found


def _loaded(root: Path, spec: Spec) -> Callable[..., Columns]:
    """Load the bundle's function into this process and return it.

    Raises:
        UnfitModel: `transform_broken`.
    """
    module, _, name = spec.entry.partition(":")
    try:
        found: Callable[..., Columns] = getattr(Namespace(root).module(module), name)
    except BaseException as error:  # its code may even exit; that becomes one refusal
        raise UnfitModel(
            f"{spec.schema.name}: {spec.entry} cannot be loaded: {type(error).__name__}: {error}",
            code="transform_broken",
        ) from error
    return found


class Bare:
    """Transformation without lookups: the columns that it reads by key are among its inputs.

    Golden rows are asked of this one: today's content of a store proves nothing about the code.
    """

    def __init__(self, transform: Transform) -> None:
        self._transform = transform
        self.signature = transform.spec.bare

    def predict(self, columns: Columns) -> Columns:
        """Return the features of these rows. Raises as `Transform.applied` does."""
        spec = self._transform.spec
        looked = [{name: columns[f"{one.name}.{name}"] for name in one.fields} for one in spec.read]
        return self._transform.applied({f.name: columns[f.name] for f in spec.raw}, looked)


_ONE = np.ones(1, bool)


def marked(
    before: NDArray[np.bool_] | None, more: NDArray[np.bool_] | None
) -> NDArray[np.bool_] | None:
    """Return the rows that either argument marks."""
    if before is None or more is None:
        return more if before is None else before
    return before | more


class Checks:
    """Check of features against their schema: nulls refuse, other violations are counted."""

    def __init__(self, fields: Mapping[str, Feature]) -> None:
        self._fields = [
            (name, f.null, f.range, frozenset(f.categories), f.dtype.startswith("float"))
            for name, f in fields.items()
            if f.range is not None or f.categories or not f.null
        ]
        self.rows = 0
        self.marks: NDArray[np.bool_] | None = None
        """Rows of the last check with a counted violation; None when there were none."""
        self.violations: dict[str, int] = {}
        """Cumulative counts by `FEATURE.range` and `FEATURE.category`."""

    def look(self, columns: Columns, rows: int) -> str | None:
        """Count values out of range or unseen; return the fault where a null is not allowed."""
        self.rows += rows
        self.marks = None
        for name, null, range_, categories, floating in self._fields:
            column = columns[name]
            if column.size == 1:
                value = column.item()
                if value != value or value == "":  # noqa: PLR0124 - NaN
                    if not null:
                        return f"{name} is null in row 0, and may not be"
                elif (range_ and not range_[0] <= value <= range_[1]) or (
                    categories and value not in categories
                ):
                    self._count(name, 1, range_)
                    self.marks = _ONE
                continue
            missing = (
                np.isnan(column) if floating else column == "" if column.dtype == object else None
            )
            if missing is not None and not null and missing.any():
                return f"{name} is null in row {int(np.argwhere(missing)[0][0])}, and may not be"
            self._many(name, column, range_, categories)
        return None

    def _many(
        self,
        name: str,
        column: NDArray[Any],
        range_: tuple[float, float] | None,
        categories: frozenset[str],
    ) -> None:
        if range_ is not None:
            wrong = (column < range_[0]) | (column > range_[1])
        elif categories:
            flat = column.ravel().tolist()
            wrong = np.array([bool(v) and v not in categories for v in flat], bool)
        else:
            return
        count = int(wrong.sum())
        if count:
            self._count(name, count, range_)
            self.marks = marked(self.marks, np.asarray(wrong.reshape(len(column), -1).any(axis=1)))

    def _count(self, name: str, by: int, range_: object) -> None:
        if by:
            key = f"{name}.{'range' if range_ is not None else 'category'}"
            self.violations[key] = self.violations.get(key, 0) + by


class Composed:
    """Model behind its transformation: the two answer for a release with features."""

    def __init__(self, transform: Transform, model: Model) -> None:
        self.transform = transform
        self.model = model
        self.signature = Signature(
            inputs=transform.signature.inputs, outputs=model.signature.outputs
        )

    def predict(self, columns: Columns) -> Columns:
        """Answer raw rows. Raises whatever the transformation or the model raises."""
        return self.model.predict(self.transform.predict(columns))
