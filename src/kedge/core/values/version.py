"""Versions of a model, and the releases that use them."""

from __future__ import annotations

from typing import Literal

from kedge.core.values.signature import Signature
from kedge.core.values.structs import FileEntry, Placement, Value


class TrainingSet(Value, kw_only=True, frozen=True):
    """The record of a training set: the code of its features, and the values that they used."""

    schema: str
    transformation: int
    code: str
    """The digest of the transformation's bundle."""
    generations: tuple[str, ...] = ()
    """The runs that its features looked up, such as carrier_delays/1#2@1."""
    data: str
    """The digest of its content, independent of the file's layout."""
    rows: int
    spine: str = ""
    """The file with the rows of the spine."""
    time: str = ""
    """The column with the time of each row."""
    made_at: str = ""

    @property
    def label(self) -> str:
        """Its code and generations: flight/1#4, carrier_delays/1#2@1."""
        return ", ".join((f"{self.schema}#{self.transformation}", *self.generations))


class Plainness(Value, kw_only=True, frozen=True):
    """Result of inspecting a loaded model: whether all its parts are known and harmless inline."""

    proven: bool
    rule: int
    """The number of the inspection's tables."""
    why: str = ""
    """The first unknown part, in words, for display."""
    found: tuple[str, ...] = ()
    """The estimators or operators that it consists of."""
    apart: bool = False
    """Whether it must run in a process even if an operator allows inline: no worker imports what it
    needs."""


class ModelVersion(Value, kw_only=True, frozen=True):
    """An immutable artifact with the facts that are known about it."""

    model: str
    number: int
    digest: str
    flavour: str
    signature: Signature
    schema: str | None = None
    size: int
    files: tuple[FileEntry, ...]
    source: str
    trusted: tuple[str, ...] = ()
    load_s: float = 0.0
    stalls: bool = False
    """Whether loading it holds the interpreter lock, so that loading it inline would stall a
    worker."""
    golden: Literal["given", "training", "made"] = "made"
    registered_at: str = ""
    registered_by: str = ""
    trained_on: TrainingSet | None = None
    """Its training set, if kedge made it."""
    allowed: str = ""
    """Who allowed it to run code when it is loaded, and why; empty: it runs none."""

    @property
    def label(self) -> str:
        """The displayed name: v3."""
        return f"v{self.number}"


class Release(Value, kw_only=True, frozen=True):
    """The immutable bundle that serves. Content-addressed; `number` is its name in an endpoint."""

    endpoint: str
    number: int
    digest: str
    model: str
    version: int
    model_digest: str
    flavour: str
    signature: Signature
    placement: Placement
    schema: str | None = None
    transformation: int | None = None
    generation: str | None = None
    trusted: tuple[str, ...] = ()
    load_s: float = 0.0
    code: str | None = None
    """The digest of the transformation's bundle. With one, `signature` takes its raw columns."""

    @property
    def label(self) -> str:
        """The displayed name: r3."""
        return f"r{self.number}"


class Bundle(Value, frozen=True):
    """The parts of a release, whose digest is its content address."""

    endpoint: str
    model: str
    version: int
    model_digest: str
    placement: Placement
    schema: str | None = None
    transformation: int | None = None
    generation: str | None = None
