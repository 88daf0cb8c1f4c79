"""The page on the Python API has every public name, with its fields, values and arguments, and no other."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from enum import Enum
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reference" / "api.md"
MODULES = ("kedge", "kedge.plugins", "kedge.testing.checks")


def section(module: str) -> dict[str, str]:
    """What the page says of each name of a module."""
    text = PAGE.read_text("utf-8").split(f"\n## `{module}`\n", 1)[1].split("\n## ")[0]
    parts = re.split(r"(?m)^### ", text)[1:]
    return {found[1]: part for part in parts if (found := re.match(r"`(\w+)`\n", part)) is not None}


def members(public: Any) -> list[str]:
    """The fields of a value, the values of an enumeration, the members of a protocol, in order."""
    if isinstance(public, type) and issubclass(public, Enum):
        return [one.value for one in public]
    if dataclasses.is_dataclass(public):
        return [field.name for field in dataclasses.fields(public)]
    if getattr(public, "_is_protocol", False):
        named = {*vars(public).get("__annotations__", ()), *vars(public)}
        return sorted(name for name in named if not name.startswith("_"))
    return [*getattr(public, "__struct_fields__", getattr(public, "_fields", ()))]


def rows(part: str) -> list[str]:
    """The first cells of a part's table."""
    return re.findall(r"(?m)^\| `([^`]+)` \|", part)


def named() -> list[tuple[str, str]]:
    return [(m, name) for m in MODULES for name in importlib.import_module(m).__all__]


@pytest.mark.parametrize("module", MODULES)
def test_the_page_has_every_public_name_and_no_other(module: str) -> None:
    assert sorted(section(module)) == sorted(importlib.import_module(module).__all__)


@pytest.mark.parametrize("module, name", named(), ids=".".join)
def test_a_name_is_described_with_all_that_it_has(module: str, name: str) -> None:
    public, part = getattr(importlib.import_module(module), name), section(module)[name]
    found = members(public)
    if getattr(public, "_is_protocol", False):
        assert sorted(rows(part)) == found
    else:
        assert rows(part) == found
    if inspect.isfunction(public):
        shown = re.search(r"```python\n(def \w+\(.*\): \.\.\.)\n```", part)
        assert shown is not None
        space: dict[str, Any] = {}
        exec(shown[1], space)
        wanted = [
            (p.name, p.kind, p.default) for p in inspect.signature(public).parameters.values()
        ]
        said = inspect.signature(space[name]).parameters.values()
        assert [(p.name, p.kind, p.default) for p in said] == wanted


def functions() -> list[tuple[str, str]]:
    return [
        (m, n) for m, n in named() if inspect.isfunction(getattr(importlib.import_module(m), n))
    ]


@pytest.mark.parametrize("module, name", functions(), ids=".".join)
def test_an_error_that_a_function_raises_is_named(module: str, name: str) -> None:
    """As its docstring has it under `Raises`; in the module's introduction where all raise it."""
    told = inspect.getdoc(getattr(importlib.import_module(module), name)) or ""
    raised = re.findall(r"(?m)^    ([A-Z]\w+): ", told.partition("Raises:")[2])
    assert ("Raises:" in told) == bool(raised)
    part = PAGE.read_text("utf-8").split(f"\n## `{module}`\n", 1)[1].partition("\n### ")[0]
    said = part + section(module)[name]
    assert not [error for error in raised if f"`{error}`" not in said]
