"""What the engine needs from the outside, as small protocols. Adapters implement them.

Everything here that touches a disk is synchronous: the serving loop never calls it. The
replica's own thread and the commands do. Only a model in another process is asynchronous.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from kedge.core.alerts.alerts import Alert, Message, Raise
from kedge.core.evidence.records import Coverage, Ingested, Labelled, Reused
from kedge.core.evidence.rollup import Roll
from kedge.core.evidence.windows import Window
from kedge.core.golden import Origin, RowsMark
from kedge.core.release.commands import AnyEvent
from kedge.core.stored.head import Head
from kedge.core.stored.ledger import Book, Change, Entry, Note, Wanted
from kedge.core.stored.roster import Member, Tally
from kedge.core.values import (
    ActorKind,
    Beginning,
    Field,
    FileEntry,
    ModelVersion,
    Placement,
    Plainness,
    Release,
    Signature,
    Value,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Columns = Mapping[str, NDArray[np.generic]]
    """One request's inputs, or one answer's outputs: name to array, first axis = rows.
    Strings are object arrays of str (None where null); a null float is NaN."""


class Clock(Protocol):
    """Where time comes from."""

    def now(self) -> str:
        """The instant, RFC 3339 in UTC with microseconds."""

    def unix(self) -> float:
        """Seconds since 1970, for comparing instants written by different processes."""

    def monotonic(self) -> float:
        """Seconds since some start; for durations and deadlines."""

    def sleep(self, seconds: float) -> None:
        """Wait."""


# ---------------------------------------------------------------- ledger


class Ledger(Protocol):
    """The append-only truth.

    Raises `Unavailable` from every method when the ledger is gone, locked for longer than
    its patience, read-only, or full.
    """

    def read(self, known: Head | None = None) -> Book:
        """Read every endpoint's row, and whether the history still has the entry that is known."""

    def append(
        self,
        endpoint: str,
        events: Sequence[AnyEvent],
        *,
        expect: int,
        by: str,
        reason: str,
        at: str,
        actor: ActorKind | None = None,
    ) -> tuple[Entry, ...]:
        """Append the events and move the row, in one durable transaction.

        `actor` is what `by` is; None: the component that this ledger was opened for.

        Raises:
            Stale: the row is not at `expect` any more; says at which epoch, by whom and why.
        """

    def append_all(
        self,
        changes: Sequence[Change],
        *,
        by: str,
        reason: str,
        at: str,
        head: tuple[str, int] | None = None,
    ) -> tuple[tuple[Entry, ...], ...]:
        """Append to several endpoints and move their rows, and the head of a schema: all or nothing.

        Raises:
            Stale: one of the rows is not where it was expected; says at which epoch, by whom and why.
        """

    def note(self, endpoint: str, note: Note, *, by: str, reason: str, at: str) -> Entry:
        """Append an entry that changes no row."""

    def want(self, wanted: Wanted) -> None:
        """Write (or renew) a wish; drops wishes that ran out."""

    def history(self, endpoint: str, limit: int = 50) -> tuple[Entry, ...]:
        """The newest entries of an endpoint, newest first."""

    def entries(
        self, endpoint: str, what: str, limit: int = 1, *, within: int = 1_000_000
    ) -> tuple[Entry, ...]:
        """The newest entries of one event, or of one kind of note, newest first.

        Looked for among the newest `within` entries of the endpoint.
        """


class Signal(Protocol):
    """A wake-up. It may come for nothing; the ledger is the truth."""

    def wait(self, timeout_s: float) -> bool:
        """Return True when something may have changed, False after `timeout_s`."""

    def wake(self) -> None:
        """Make the present `wait`, or the next, return at once; from any thread or handler."""

    def close(self) -> None:
        """Let go of it."""


# ---------------------------------------------------------------- registry


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


class Registry(Protocol):
    """Numbers for immutable things. The same digest is the same version."""

    def add(self, version: ModelVersion) -> ModelVersion:
        """Register a version; returns the one that exists when its digest is known."""

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Every version of a model, in order of number."""

    def release(
        self, bundle: Bundle, *, raw: tuple[Field, ...] = (), code: str | None = None
    ) -> Release:
        """The release with exactly this bundle, made when there was none.

        `raw` and `code` are what its transformation takes, and the digest of its source.
        """

    def remove(self, model: str, number: int, *, now: float) -> None:
        """Forget a version.

        Raises:
            Refused: it is live, in some `back*`, or was production inside the window.
        """


class ColumnStatistics(Value, frozen=True):
    """What one column of the training set looked like.

    Null and NaN are counted in `nulls` and in nothing else. `values` holds up to the 50 most
    frequent strings or booleans with their counts; the rest is `count - nulls` less their sum.
    `distinct` stops at 10,000: then there are at least that many.
    """

    count: int
    nulls: int
    minimum: float | None = None
    maximum: float | None = None
    mean: float | None = None
    std: float | None = None
    values: dict[str, int] = {}
    distinct: int = 0
    longest: int | None = None
    """Values of the longest list where the length is open, else characters of the longest text."""


class Proof(Value, frozen=True):
    """Golden rows: what every replica must hear from the model before the model may serve."""

    inputs: dict[str, list[Any]]
    outputs: dict[str, list[Any]]
    rtol: float = 1e-4
    atol: float = 1e-6
    statistics: dict[str, ColumnStatistics] = {}
    origin: Origin = "unknown"
    """Where the rows come from."""
    rows: RowsMark = "unknown"
    """The batch mark: whether answers depend on the rows asked together. Only `independent` is ever merged across requests."""
    tested: int = 0
    """Rows that were asked alone, in pairs and all together for it."""
    why: str = ""
    """The first answer that differed, or why nothing was tested; in words, for people."""
    raw: dict[str, list[Any]] = {}
    """Rows of a model's training set before their transformation: what a newer one of the same schema is compared on."""
    plain: Plainness | None = None
    """What the walk over the loaded model found. None: not walked yet."""
    inline: str = ""
    """Who let it run inline although it was not proven plain, and why."""
    written_with: dict[str, str] = {}
    """Version of each library that wrote the model, by the name of its distribution."""
    needs: tuple[str, ...] = ()
    """Modules that it needs where it is served, beside those of its loader."""
    assumed: tuple[str, ...] = ()
    tolerant: tuple[str, ...] = ()
    """As `Described` has them: inputs whose type nothing said, and those in which null would be answered."""


class Artifacts(Protocol):
    """Bytes by digest."""

    def put(self, source: Path, beside: Sequence[Path] = ()) -> tuple[str, tuple[FileEntry, ...]]:
        """Copy a file or a directory in, with files beside it; returns its digest and its per-file manifest."""

    def path(self, digest: str) -> Path:
        """Where the files are, unverified.

        Raises:
            CorruptArtifact: it is not there.
        """

    def verify(self, digest: str) -> Path:
        """Hash every byte again, then say where the files are.

        Raises:
            CorruptArtifact: a file is missing, was added, or differs; names it.
        """

    def fetch(self, digest: str, into: Path) -> None:
        """Copy an artifact, unverified, into the root of another store.

        Raises:
            CorruptArtifact: it is not there.
            Unavailable: it cannot be copied.
        """

    def write_proof(self, digest: str, proof: Proof) -> None:
        """Keep the golden rows beside the files; replaces those that are there, whole."""

    def proof(self, digest: str) -> Proof:
        """The golden rows.

        Raises:
            CorruptArtifact: there are none, or they cannot be read.
        """


# ---------------------------------------------------------------- replicas


class Roster(Protocol):
    """The replicas that are known. One stays known until it leaves or is declared gone."""

    def publish(self, member: Member) -> None:
        """Write what a replica says of itself."""

    def leave(self, name: str) -> None:
        """Forget a replica: it stopped in order, or its supervisor saw it die."""

    def members(self) -> tuple[Member, ...]:
        """Everyone known, by name."""

    def beginning(self) -> Beginning | None:
        """When the roster was made; None where that is not known."""


class EvidenceStore(Protocol):
    """Telemetry. It may be lost; it never holds up a flip."""

    def publish(self, tallies: Sequence[Tally]) -> None:
        """Write the tallies over those with the same key."""

    def tallies(self, endpoint: str) -> tuple[Tally, ...]:
        """Everything counted for an endpoint."""


class WindowStore(Protocol):
    """What workers counted by the second, and what the judge made of it. It may be lost."""

    def write(self, windows: Sequence[Window]) -> None:
        """Write the windows; one that is there already stays as it is."""

    def read(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Window, ...]]:
        """The windows of an endpoint that were written after a position, oldest first.

        Returns the position of the last one, and the windows.
        """

    def keep(self, endpoint: str, comparison: str, body: bytes) -> None:
        """Keep what the judge knows of a comparison, over what was kept before."""

    def kept(self, endpoint: str, comparison: str) -> bytes | None:
        """What was kept, if anything."""

    def set_aside(self, endpoint: str, comparison: str, body: bytes) -> str:
        """Rename what was kept and cannot be read, and keep `body` in its place; its new name."""

    def beginning(self) -> Beginning | None:
        """When the store was made; None where that is not known."""

    def skipped(self, endpoint: str) -> int:
        """Windows that this reader passed over, because they cannot be read."""


class RollStore(Protocol):
    """Old windows as minutes and hours: the course of an endpoint's evidence. It may be lost."""

    def age(self, now: float) -> int:
        """Make minutes of old windows and hours of old minutes, drop old hours; how many it took."""

    def read(self, endpoint: str, since: float) -> Sequence[Roll]:
        """The rolls of an endpoint that began at `since` (Unix seconds) or later, oldest first."""


class RecordStore(Protocol):
    """Predictions that wait for their outcome, and the labels that came."""

    def waiting(self) -> int:
        """How many spool files may be taken now."""

    def ingest(self, now: float) -> Ingested:
        """Store some of what workers wrote, then adopt outcomes that had come before."""

    def labels(self, endpoint: str, after: int, limit: int) -> tuple[int, tuple[Labelled, ...]]:
        """Labels in the order in which they were joined, after a cursor; and the next cursor.

        The next one is 0 where the labels were made anew since.
        """

    def coverage(self, endpoint: str) -> tuple[Coverage, ...]:
        """How many predictions of each arm have a label, comparison by comparison."""

    def unrecorded(self, endpoint: str) -> dict[str, int]:
        """How many predictions came in and are not among the records, by cause."""

    def corrected(self, endpoint: str, after: int) -> tuple[int, int | None]:
        """The newest correction's number, and the first label that was corrected after one."""

    def reused(self, endpoint: str) -> Reused:
        """How many ids more than one request used, and the labels that are not joined for it."""

    def newest_label(self, endpoint: str) -> int:
        """The cursor after the newest label; 0 when there is none."""

    def prune(self, now: float) -> int:
        """Drop what is beyond the horizon."""

    def strip(self, now: float, retention_s: float, endpoint: str) -> int:
        """Remove the raw inputs of predictions older than this; how many had them."""


class AlertStore(Protocol):
    """Alerts, in the ledger's database: they survive whatever the ledger survives.

    Raises `Unavailable` from every method as the ledger does.
    """

    def news(self, after: int, limit: int) -> tuple[Entry, ...]:
        """The ledger's entries after this one that raised no alert yet, oldest first."""

    def raise_all(
        self,
        found: Sequence[tuple[str, Raise]],
        *,
        by: str,
        at: str,
        now: float,
        seen: int | None = None,
    ) -> tuple[Alert, ...]:
        """Open an alert for each (endpoint, thing) that has none open; those that are new.

        `seen`: up to this entry the news have been looked at, in the same transaction; nothing is
        raised when another process has looked at them.
        """

    def adopt(self, alert: Alert, *, by: str) -> Alert:
        """Number and keep an alert that began without a ledger; or the like one that is open."""

    def change(
        self, number: int, edit: Callable[[Alert], Alert], *, by: str, at: str
    ) -> Alert | None:
        """Let `edit` change an alert while no other process writes; what it is then. None: there is none.

        An acknowledgement or an end becomes a note in the history too.
        """

    def finish(self, number: int) -> None:
        """Say that nothing is left to do about an alert."""

    def live(self) -> tuple[Alert, ...]:
        """Every alert about which something may be left to do, in order of number."""

    def listed(self, endpoint: str | None, *, over: bool, limit: int) -> tuple[Alert, ...]:
        """Alerts, newest first: the open ones, or with `over` all of them."""

    def find(self, number: int) -> Alert | None:
        """The alert of this number."""


class Channels(Protocol):
    """The channels to the alert recipients."""

    def send(self, url: str, message: Message) -> None:
        """Say something, and return when the other end has taken it.

        Raises:
            KedgeError: it has not; without any secret in its words.
        """


class OnlineStore(Protocol):
    """Values by key, one packed row each, in namespaces that are generations of a view."""

    def write(self, namespace: str, rows: Iterable[tuple[str, bytes]]) -> int:
        """Upsert rows; how many. Writing them again changes nothing."""

    def read(self, namespace: str, keys: Sequence[str]) -> list[bytes | None]:
        """The rows of these keys, in their order; None where there is none.

        Raises:
            Unavailable: `online_unavailable`.
        """

    def drop(self, namespace: str) -> None:
        """Remove a namespace; nothing when it is not there."""

    def namespaces(self) -> tuple[str, ...]:
        """Those that are there."""

    def count(self, namespace: str) -> int:
        """How many keys a namespace has; 0 when it is not there. May take time: for people."""


# ---------------------------------------------------------------- models


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
