"""Models: loaders and loaded models, in this process or in another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from kedge.core.values import Signature

if TYPE_CHECKING:
    from kedge.typing import Columns


class Model(Protocol):
    """A loaded model, in this process."""

    signature: Signature

    def predict(self, columns: Columns) -> Columns:
        """Answer the rows. May raise any exception, which the caller counts against the release."""


class Flavour(Protocol):
    """Recognises one flavour on disk."""

    flavour: str
    stalls: bool
    """Whether loading holds the interpreter lock for long."""
    looks_for: str
    """The names that `claims` searches for, in words, for the refusal."""

    def claims(self, path: Path) -> bool:
        """Return whether this directory holds this flavour."""


class Loader(Flavour, Protocol):
    """Loads one flavour."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load the model.

        Raises:
            UnfitModel: the files are not of this flavour, or a requirement is missing.
        """


class Predicted(NamedTuple):
    """An answer of a model in another process."""

    columns: Columns
    micros: int
    """Microseconds spent inside the model."""
    violated: bool = False
    """Whether one of its features broke its schema."""


OnDone = Callable[["Columns | None", int, "str | None", bool], None]


class RemoteModel(Protocol):
    """A model in another process, reached over a socket."""

    violations: dict[str, int]
    """Features out of range or unseen that its transformation gave, by name; cumulative."""

    @property
    def ready(self) -> bool:
        """Return whether a process answers at the other end."""

    @property
    def throttled(self) -> bool:
        """Whether no copies are sent now, because answers to copies used up their bytes."""

    @property
    def stalled(self) -> bool:
        """Whether it has requests and has not responded for a while."""

    async def predict(
        self,
        columns: Columns,
        deadline_s: float,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        on_late: OnDone | None = None,
    ) -> Predicted:
        """Answer the rows; the result has the microseconds spent inside the model.

        Args:
            columns: the rows.
            deadline_s: how long the caller waits. The process drops requests not begun by then.
            alone: no other process can answer: look-ups by key use what they get, NaN is valid.
            patience_s: how long after the request `on_late` still needs the outcome.
            on_late: called once after the deadline, with the answer and its microseconds, or the
                code of the failure (`model_late`: no answer within the patience).

        Raises:
            ModelFailure: it raised, died, was late, was never asked, or no process runs.
        """

    def submit(
        self,
        columns: Columns,
        on_done: OnDone,
        deadline_s: float,
        *,
        patience_s: float = 0.0,
        apart: bool = False,
    ) -> bool:
        """Ask without waiting: `on_done(answer, microseconds, error code, violated)` is called once.

        The process answers callers' requests first. With `apart` the request is merged with no
        other. The process drops requests not begun by the deadline; the client waits for an answer
        for `patience_s`. Returns False, and never calls back, when the limit on requests under way
        is reached.
        """

    def hang_up(self) -> None:
        """Close the connection; callable from any thread."""
