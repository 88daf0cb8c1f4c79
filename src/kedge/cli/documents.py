"""Documents: the JSON of each command with --json, as a page of the docs and as a check.

`python -m kedge.cli.documents docs/reference/json.md` writes the page again. A test fails while it
differs from the commands. `check` compares the output of a command with its declared type.
"""

from __future__ import annotations

import argparse
import contextlib
import inspect
import json
import sys
import types
import typing
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Union

import click
import msgspec

from kedge.cli.main import main as root
from kedge.cli.root import walk
from kedge.core.release.commands import Event
from kedge.core.stored.notes import KINDS
from kedge.core.values import Policy
from kedge.operations.meanings import meanings

WORDS = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "true or false",
    type(None): "null",
    msgspec.UnsetType: "absent",
    Any: "any value",
    object: "any value",
    Path: "string",
}
ELSEWHERE = {Policy: "[a policy](config.md)", Event: "[an event](events.md)"}
"""Types that another page describes, with their subclasses."""


def documents() -> dict[str, Any]:
    """Return the type of each command's document, by the command's words; None: it prints none."""
    assert isinstance(root, click.Group)
    return {
        path: getattr(command.callback, "document", inspect.Parameter.empty)
        for path, command in walk(root)
        if any(parameter.name == "as_json" for parameter in command.params)
    }


def find_document(words: list[str]) -> Any:
    """Return the document of a command line, by the longest matching command."""
    known = documents()
    named = [word for word in words if not word.startswith("-")]
    for length in (2, 1):
        path = " ".join(named[:length])
        if path in known:
            return known[path]
    return inspect.Parameter.empty


def check(words: list[str], printed: str) -> None:
    """Raise if a command did not print the document that it declares.

    Raises:
        ValueError: the text has another shape, a missing field, or an additional field.
    """
    document = find_document(words)
    if document is inspect.Parameter.empty:
        return
    try:
        read = _read(document, printed)
    except msgspec.ValidationError as error:
        raise ValueError(f"kedge {' '.join(words)} --json: {error}") from error
    told, kept = json.loads(printed), json.loads(msgspec.json.encode(read))
    if told != kept:
        raise ValueError(f"kedge {' '.join(words)} --json: {told} is not {kept}")


def _read(document: Any, printed: str) -> Any:
    """Decode a text as the first alternative that fits; msgspec cannot distinguish two structs."""
    alone = typing.get_origin(document) not in (Union, types.UnionType)
    *others, last = (document,) if alone else typing.get_args(document)
    for kind in others:
        with contextlib.suppress(msgspec.ValidationError):
            return msgspec.json.decode(printed, type=kind)
    return msgspec.json.decode(printed, type=last)


def spell(kind: Any) -> str:
    """Return a type in words, with links to the structs of this page."""
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        found = dict.fromkeys(spell(one) for one in inner)
        return " or ".join(found)
    if origin is Literal:
        return " or ".join(f"`{json.dumps(one)}`" for one in inner)
    if origin is dict:
        return f"object of {spell(inner[1])}"
    if origin is tuple and inner[-1] is not Ellipsis:
        return f"[{', '.join(spell(one) for one in inner)}]"
    if origin is not None:
        return f"list of {spell(inner[0])}" if inner else "list"
    if kind in WORDS:
        return WORDS[kind]
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(f"`{json.dumps(one.value)}`" for one in kind)
    for known, text in ELSEWHERE.items():
        if isinstance(kind, type) and issubclass(kind, known):
            return text
    name: str = kind.__name__
    return f"[{name}](#{name.lower()})"


def parts(kind: Any) -> list[type[msgspec.Struct]]:
    """Return the structs that a type names and this page describes, outermost first."""
    found: list[type[msgspec.Struct]] = []
    waiting = [kind]
    while waiting:
        one = waiting.pop(0)
        waiting += typing.get_args(one)
        if not isinstance(one, type) or issubclass(one, (*ELSEWHERE,)) or one in found:
            continue
        if issubclass(one, msgspec.Struct):
            found.append(one)
            waiting += typing.get_type_hints(one).values()
    return found


INTRODUCTION = """\
# JSON documents

With `--json` a command prints one JSON document to stdout. This page is made from the types that
the commands print, and a test holds what they print against it. Later versions add fields. They
rename or remove a field only with a line in CHANGELOG.

A command that fails prints `{"error": {"code": ..., "message": ..., "hint": ...}}`, with more
fields for some codes. [Errors](errors.md) has the codes.

| Command | Document |
|---|---|
"""


NOTES = """\
## Notes of the ledger

An entry of `kedge history` whose event is `noted` has a `kind` and a `body`. A body that another
version wrote, and that does not fit, is printed as it was written. [Events](events.md) says when
each is written.

| Kind | Body |
|---|---|"""


def page() -> str:
    """Write the page: each command with its document, then each struct with its fields."""
    known = {
        path: kind
        for path, kind in documents().items()
        if kind is not None and kind is not inspect.Parameter.empty
    }
    lines = [f"| `kedge {path}` | {spell(kind)} |" for path, kind in sorted(known.items())]
    kinds = [kind for _, kind in sorted(known.items())]
    structs = dict.fromkeys(part for kind in (*kinds, *KINDS.values()) for part in parts(kind))
    lines += ["", NOTES, *(f"| `{kind}` | {spell(body)} |" for kind, body in KINDS.items())]
    for struct in sorted(structs, key=lambda one: one.__name__):
        lines += ["", *_section(struct)]
    return INTRODUCTION + "\n".join(lines) + "\n"


def find_absent(struct: type[msgspec.Struct]) -> set[str]:
    """Return the fields of a struct that its JSON can leave out."""
    hints = typing.get_type_hints(struct)
    unset = {name for name in hints if msgspec.UnsetType in typing.get_args(hints[name])}
    if not struct.__struct_config__.omit_defaults:
        return unset
    fields = msgspec.structs.fields(struct)
    return unset | {field.name for field in fields if not field.required}


def _section(struct: type[msgspec.Struct]) -> list[str]:
    """Write one struct: its name, its meaning and a table of its fields."""
    hints, told, absent = typing.get_type_hints(struct), meanings(struct), find_absent(struct)
    about = " ".join((inspect.getdoc(struct) or "").split("\n\n")[0].split())
    rows = [
        f"| `{wire}` | {spell(hints[name])}{', or absent' if name in absent else ''}"
        f" | {told.get(name, '')} |".replace("|  |", "| |")
        for name, wire in zip(
            struct.__struct_fields__, struct.__struct_encode_fields__, strict=True
        )
    ]
    tag = struct.__struct_config__
    if tag.tag_field is not None:
        rows.insert(0, f"| `{tag.tag_field}` | `{json.dumps(tag.tag)}` | |")
    return [
        f"## {struct.__name__}",
        "",
        about,
        "",
        "| Field | Type | Meaning |",
        "|---|---|---|",
        *rows,
    ]


def main(arguments: list[str]) -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description="Write what each command prints with --json.")
    parser.add_argument("file", type=Path, metavar="FILE", help="the page to write")
    target: Path = parser.parse_args(arguments).file
    target.write_text(page(), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
