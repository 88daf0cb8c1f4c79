"""Ask: one request for an operation of the catalogue, with the place and the caller."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from kedge.operations.parameters import NoParameters
from kedge.workspace import Workplace

Given = TypeVar("Given", bound=NoParameters)


class Ask(NamedTuple):
    """One request for an operation."""

    place: Workplace
    endpoint: str | None
    """None: the operation is about no single endpoint."""
    parameters: NoParameters
    by: str
    """The actor, for the ledger."""
    number: int | None = None
    """The number of the alert that the path names."""
    expect: int | None = None
    """The epoch that the caller saw; None: any."""

    @property
    def named(self) -> str:
        """The endpoint of an operation that always has one."""
        assert self.endpoint is not None
        return self.endpoint

    def given(self, kind: type[Given]) -> Given:
        """Return the parameters as the struct of the catalogue."""
        assert isinstance(self.parameters, kind)
        return self.parameters
