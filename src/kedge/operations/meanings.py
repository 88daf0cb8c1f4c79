"""Meanings of fields: the docstrings under the fields of a struct, for the generated pages."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from itertools import pairwise

import msgspec


def meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring under each field of a struct and its parents."""
    found: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if kind.__module__.partition(".")[0] != "kedge":
            continue
        found |= _below(_classes(kind.__module__)[kind.__name__])
    return found


@functools.cache
def _classes(module: str) -> dict[str, ast.ClassDef]:
    """Return the classes of a module by name. It is parsed once, not once for each class."""
    body = ast.parse(inspect.getsource(sys.modules[module])).body
    return {one.name: one for one in body if isinstance(one, ast.ClassDef)}


def _below(kind: ast.ClassDef) -> dict[str, str]:
    """Return the text under each field of a class."""
    found: dict[str, str] = {}
    for field, text in pairwise(kind.body):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(text, ast.Expr)
            and isinstance(text.value, ast.Constant)
            and isinstance(text.value.value, str)
        ):
            found[field.target.id] = " ".join(text.value.value.split())
    return found
