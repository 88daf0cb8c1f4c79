"""Examples of disagreement: requests that both releases answered differently, as a list."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from kedge.core.values import Value
from kedge.operations.evidence.view import DisagreementExample


class ExampleLine(Value, frozen=True, kw_only=True):
    """A request that both releases answered differently, in a list."""

    id: str
    path: str
    """Its page, below that of the endpoint."""
    production: str
    candidate: str
    differs: str


def example_lines(examples: Sequence[DisagreementExample]) -> tuple[ExampleLine, ...]:
    """Return worked examples as a list."""
    return tuple(
        ExampleLine(
            id=one.id,
            path=f"example?id={quote(one.id, safe='')}",
            production=one.production,
            candidate=one.candidate,
            differs=", ".join(f"{d.output}: {d.production} → {d.candidate}" for d in one.differs),
        )
        for one in examples
    )
