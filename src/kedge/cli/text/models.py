"""Text of model versions: a registered one, and a list of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kedge.core.values import RowsMark

if TYPE_CHECKING:  # `kedge status` needs the marks, but not the imports of registration
    from kedge.operations.registration import LabelReading, ListedVersion, RegisteredVersion

MARKS: dict[RowsMark, str] = {
    "independent": "independent of each other",
    "dependent": "dependent on each other: requests are never merged",
    "unknown": "not known to be independent: requests are never merged",
}
"""Batch marks as text."""


def registered_text(found: RegisteredVersion) -> str:
    """Return a registered version as text."""
    takes, gives = (
        ", ".join(
            f"{f.name}:{f.dtype}{list(f.shape) or ''}{' or null' if f.nullable else ''}"
            for f in part
        )
        for part in (found.signature.inputs, found.signature.outputs)
    )
    again = "" if found.new else " (registered before: the same bytes)"
    why = f": {found.rows_why}" if found.rows_why else ""
    lines = [
        f"{found.endpoint} {found.version}{again}",
        f"  flavour   {found.flavour}",
        f"  takes     {takes}",
        f"  gives     {gives}",
        f"  size      {found.size:,} bytes",
        f"  digest    {found.digest}",
        f"  loads in  {found.load_s:.2f} s, answers its golden rows ({found.golden})",
        f"  rows      {MARKS[found.rows]}, on {found.rows_tested} rows{why}",
        f"  runs      {_placing(found)}",
    ]
    if found.allowed:
        lines.append(f"  code      runs when it is loaded, allowed by {found.allowed}")
    if found.libraries:
        lines.append(f"  libraries {'; '.join(found.libraries)}")
    if found.trained_on:
        lines.append(f"  trained   on {found.trained_on.label}")
    lines += _unsaid_lines(found)
    lines.append(labels_text(found.labels))
    if found.example:
        lines.append(f"  ask       {found.example}")
    if found.contract:
        has_them = any(field.is_bounded for field in found.signature.inputs)
        lines.append(
            "  bounds    are in force from its promotion on where there is no contract yet; else"
            " write into kedge.toml:"
            if has_them
            else "  bounds    are not part of this version, which was registered without them;"
            " write into kedge.toml:"
        )
        lines += [f"            {line}" for line in found.contract]
    return "\n".join(lines)


def _placing(found: RegisteredVersion) -> str:
    """Return the placements that a version may have."""
    if found.inline and not (found.plain is not None and found.plain.apart):
        return f"inline, as {found.inline}"
    if found.plain is None or not found.plain.proven:
        return f"in a process: {found.plain.why if found.plain is not None else 'not walked yet'}"
    return f"inline: proven plain ({', '.join(found.plain.found)})"


def _unsaid_lines(found: RegisteredVersion) -> list[str]:
    """Return the facts that a model does not declare about its inputs, and the assumed ones."""
    lines = []
    if found.assumed:
        lines.append(
            f"  assumed   {', '.join(found.assumed)}: float64, since nothing in the model says what"
            " they are; --training FILE decides"
        )
    if found.tolerant:
        lines.append(
            f"  null      is refused in {', '.join(found.tolerant)}, which the model would answer; "
            "--training FILE shows whether it was fitted on missing values"
        )
    return lines


def labels_text(found: LabelReading) -> str:
    """Return the output that labels are compared with, and the setting to declare."""
    if found.code == "ambiguous" and len(found.among) == 1:
        head = f"cannot be compared: output {found.among[0]} holds several numbers a row"
    elif found.code == "ambiguous":
        head = "cannot be compared: several outputs could be meant"
    elif found.code == "missing":
        head = (
            f"cannot be compared: the version gives no output {found.output}, which kedge.toml"
            " declares"
        )
    elif found.code == "unreadable":
        head = (
            f"cannot be compared: output {found.output} holds more than one class or number a row"
        )
    else:
        head = f"are compared with output {found.output}:{found.dtype}"
        if found.reads == "number":
            head += f", right within {found.tolerance:g}"
        elif found.reads == "yes":
            head += f", yes from {found.threshold:g} on"
    choose = "; declare one in kedge.toml:" if len(found.proposed) > 1 else "; to declare it:"
    lines = [f"  labels    {head}{choose if found.proposed else ''}"]
    return "\n".join([*lines, *(f"            {line}" for line in found.proposed)])


def versions_text(found: Sequence[ListedVersion]) -> str:
    """Return registered versions, one or more lines each."""
    return "\n".join(
        f"{one.version:>5}  {one.flavour:8} {one.size:>12,} B  {one.digest[:19]}…  "
        f"{', '.join(one.releases) or '-':8} {', '.join(one.roles)}".rstrip()
        + (f"\n       rows {MARKS[one.rows]}" if one.rows != "independent" else "")
        + (
            f"\n       trained on {one.trained_on.label}: {one.trained_on.rows:,} rows"
            if one.trained_on
            else ""
        )
        + (f"\n       runs code when it is loaded, allowed by {one.allowed}" if one.allowed else "")
        for one in found
    )
