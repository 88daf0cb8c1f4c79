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
        """Answer the rows. May raise anything: the caller counts it against the release."""


class Flavour(Protocol):
    """Tells one flavour on the disk."""

    flavour: str
    stalls: bool
    """Whether loading holds the interpreter lock for long."""
    looks_for: str
    """What `claims` looks for, in words, for the refusal."""

    def claims(self, path: Path) -> bool:
        """Whether this directory holds this flavour."""


class Loader(Flavour, Protocol):
    """Loads one flavour."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Load it.

        Raises:
            UnfitModel: it is not what it claims to be, or needs something that is missing.
        """


class Predicted(NamedTuple):
    """An answer of a model in another process."""

    columns: Columns
    micros: int
    """Spent inside the model."""
    violated: bool = False
    """Whether a feature of it was not as its schema promises."""


OnDone = Callable[["Columns | None", int, "str | None", bool], None]


class RemoteModel(Protocol):
    """A model in another process, reached over a socket."""

    violations: dict[str, int]
    """What its transformation gave out of range or unseen, cumulative."""

    @property
    def ready(self) -> bool:
        """Return whether a process answers at the other end."""

    @property
    def throttled(self) -> bool:
        """Whether no copy is asked now, because answers to copies used up their bytes."""

    @property
    def stalled(self) -> bool:
        """Whether it is asked, and has said nothing for a while."""

    async def predict(
        self,
        columns: Columns,
        deadline_s: float,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        on_late: OnDone | None = None,
    ) -> Predicted:
        """Answer the rows; with the microseconds spent inside the model.

        Args:
            columns: the rows.
            deadline_s: how long the caller waits. What the process has not begun with by then, it drops.
            alone: no other process can answer: what is looked up by key has to make do, NaN is an answer.
            patience_s: how long, from the question on, its outcome is of interest to `on_late`.
            on_late: called once after the deadline, with what came within the patience: the
                answer and its microseconds, or the code of the failure (`model_late`: nothing came).

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

        Callers' questions go first in the process. With `apart` it is merged with no other one. What
        is not begun with by the deadline is dropped; an answer is waited for as long as `patience_s`.
        Returns False, and never calls back, when the bound on questions under way is reached.
        """

    def hang_up(self) -> None:
        """Close the connection; may be called from any thread."""
