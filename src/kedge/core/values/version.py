"""Versions of a model, and the releases that are made of them."""

from __future__ import annotations

from typing import Literal

from kedge.core.values.signature import Signature
from kedge.core.values.structs import FileEntry, Placement, Value


class TrainingSet(Value, kw_only=True, frozen=True):
    """What a training set says of itself: which code made its features, of which values."""

    schema: str
    transformation: int
    code: str
    """The digest of the transformation's bundle."""
    generations: tuple[str, ...] = ()
    """The runs that were looked up, such as carrier_delays/1#2@1."""
    data: str
    """The digest of its content, whatever the layout of the file."""
    rows: int
    spine: str = ""
    """The file whose rows they are."""
    time: str = ""
    """The column that says when each row was asked."""
    made_at: str = ""

    @property
    def label(self) -> str:
        """Its code and generations: flight/1#4, carrier_delays/1#2@1."""
        return ", ".join((f"{self.schema}#{self.transformation}", *self.generations))


class Plainness(Value, kw_only=True, frozen=True):
    """What the walk over a loaded model found: whether it holds only what is known to be harmless inline."""

    proven: bool
    rule: int
    """The number of the tables that it was walked by."""
    why: str = ""
    """The first thing that is not known, in words, for people."""
    found: tuple[str, ...] = ()
    """The estimators or operators that it is made of."""
    apart: bool = False
    """Whether it runs in a process, also where an operator lets it run inline: it needs what no worker imports."""


class ModelVersion(Value, kw_only=True, frozen=True):
    """An immutable artifact and what is known of it."""

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
    """Loading it holds the interpreter lock, so loading it inline would stall a worker."""
    golden: Literal["given", "training", "made"] = "made"
    registered_at: str = ""
    registered_by: str = ""
    trained_on: TrainingSet | None = None
    """Its training set, where kedge made it."""

    @property
    def label(self) -> str:
        """The name people use: v3."""
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
        """The name people use: r3."""
        return f"r{self.number}"


class Bundle(Value, frozen=True):
    """What a release is made of; its content address is the digest of this."""

    endpoint: str
    model: str
    version: int
    model_digest: str
    placement: Placement
    schema: str | None = None
    transformation: int | None = None
    generation: str | None = None
