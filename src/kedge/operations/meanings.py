"""Meanings of fields: the docstrings under the fields of a struct, for the generated pages."""

from __future__ import annotations

import ast
import inspect
import textwrap
from itertools import pairwise

import msgspec


def meanings(struct: type[msgspec.Struct]) -> dict[str, str]:
    """Return the docstring under each field of a struct and its parents."""
    found: dict[str, str] = {}
    for kind in reversed(struct.__mro__):
        if kind.__module__.partition(".")[0] != "kedge":
            continue
        (body,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(body, ast.ClassDef)
        found |= _below(body)
    return found


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
