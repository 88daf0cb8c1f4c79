"""Somebody's own sense of when two answers say the same: a function that the policy names.

It runs beside the counting, once a second, and never on the way of a request. What it raises, or
says in another shape, is a disagreement: a broken comparison may not look like a good candidate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import structlog

from kedge.core.errors import BadConfig
from kedge.core.values import Output

if TYPE_CHECKING:
    from kedge.ports import Columns

log = structlog.get_logger("kedge.custom")

Agree = Callable[["Columns", "Columns", int], Sequence[bool]]
"""(production's answer, the other one, rows) to whether each row says the same."""


def function_of(output: Output) -> Callable[..., Any]:
    """The function that an output of kind "custom" names.

    Raises:
        BadConfig: it cannot be imported, or is no function.
    """
    module, _, name = (output.function or "").partition(":")
    try:
        found = getattr(import_module(module), name)
    except Exception as error:  # importing runs somebody's code, which may raise anything
        raise BadConfig(
            [
                f"output.function: {output.function} cannot be imported: {type(error).__name__}: {error}"
            ],
            hint="MODULE:NAME of a function that kedge's own Python can import; PYTHONPATH adds a folder",
        ) from error
    if not callable(found):
        raise BadConfig([f"output.function: {output.function} is no function"],
                        hint="it is called with two answers, and gives one bool a row")  # fmt: skip
    return found  # type: ignore[no-any-return]


class Custom:
    """The function, with its faults told once."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._function: Callable[..., Any] | None = None
        self._told = False

    def __call__(self, ours: Columns, theirs: Columns, rows: int) -> Sequence[bool]:
        """Whether each row says the same."""
        try:
            if self._function is None:
                self._function = function_of(self._output)
            found = [bool(one) for one in self._function(ours, theirs)]
        except Exception as error:  # noqa: BLE001 - somebody's code may raise anything
            return self._none(rows, f"{type(error).__name__}: {error}")
        return (
            found if len(found) == rows else self._none(rows, f"gave {len(found)} for {rows} rows")
        )

    def _none(self, rows: int, fault: str) -> Sequence[bool]:
        if not self._told:
            log.warning("custom.failed", function=self._output.function, fault=fault)
        self._told = True
        return [False] * rows
