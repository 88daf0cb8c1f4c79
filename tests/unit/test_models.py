"""The warm pool and the breaker: when releases are loaded and dropped, and requests withheld."""

from __future__ import annotations

import threading
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest

from kedge.core.errors import CorruptArtifact, UnfitModel
from kedge.core.evidence.windows import INSTANT_S
from kedge.core.release.needs import NeededRelease
from kedge.core.stored.roster import ReplicaHold
from kedge.core.values import FileEntry, Placement, Plainness, Proof, Release, State
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.engine.serving.pool import (
    GRACE_S,
    RETRY_S,
    Breaker,
    Pool,
    Silence,
    host_status,
    socket_of,
)
from kedge.inspection import RULE
from kedge.system.interpreter import HiddenModules
from kedge.testing.samples import endpoint, release

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from kedge.ports import OnDone, Predicted, RemoteModel
    from kedge.typing import Columns

INLINE, PROCESS = Placement.INLINE, Placement.PROCESS
ONE, TWO = release(1), release(2)
ROW = endpoint(ONE, TWO)


# ---------------------------------------------------------------- the breaker


def failing(times: int, at: float = 0.0) -> Breaker:
    """A breaker after so many failures in a row, the last of them at this time."""
    breaker = Breaker()
    for number in range(times):
        breaker.failed(at + (number + 1 - times) * INSTANT_S * 1.01)
    return breaker


def test_failures_of_one_instant_are_one() -> None:
    """A death takes what is under way with it."""
    breaker = Breaker()
    for _ in range(10 * Breaker.FAILURES):
        breaker.failed(5.0)
    assert not breaker.open


def test_twenty_failures_in_a_row_open_it_and_nineteen_do_not() -> None:
    """As many as end a rollout: fewer would spare a release that fails as often as production."""
    assert failing(Breaker.FAILURES - 1).allows(0.0)
    assert not failing(Breaker.FAILURES - 1).open
    assert not failing(Breaker.FAILURES).allows(0.0)
    assert failing(Breaker.FAILURES).open


def test_it_lets_one_question_through_when_its_time_is_over() -> None:
    """One, not all that come in the same moment."""
    breaker = failing(Breaker.FAILURES)
    assert not breaker.allows(Breaker.FIRST_S - 0.001)
    assert [breaker.allows(Breaker.FIRST_S) for _ in range(3)] == [True, False, False]


def test_an_answer_closes_it_and_the_count_begins_again() -> None:
    """A candidate that came back has all its chances."""
    breaker = failing(Breaker.FAILURES)
    breaker.succeeded()
    assert breaker.allows(0.0)
    assert not breaker.open
    for number in range(Breaker.FAILURES - 1):
        breaker.failed(1.0 + number)
    assert breaker.allows(30.0)


def test_a_candidate_that_stays_broken_is_tried_ever_more_rarely_and_never_given_up() -> None:
    """Twice as long each time, up to half a minute."""
    breaker, now, waits = failing(Breaker.FAILURES), 0.0, []
    for _ in range(8):
        until = next(t / 8 for t in range(int(now * 8), 10_000) if breaker.allows(t / 8))
        waits.append(until - now)
        now = until
        breaker.failed(now)
    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]


def test_questions_that_were_under_way_when_it_opened_do_not_lengthen_the_wait() -> None:
    """A process dies under twenty of them: that is one death, not sixteen failed trials."""
    breaker = failing(Breaker.FAILURES)
    for _ in range(16):
        breaker.failed(0.05)
    assert breaker.allows(Breaker.FIRST_S)


# ---------------------------------------------------------------- silence


def silent(until: float) -> Breaker:
    """Asked ten times a second, and no answer to anything."""
    breaker, at = Breaker(), 0.0
    while at < until:
        if breaker.allows(at, 0.05):
            breaker.silence.asked(at)
        at += 0.1
    return breaker


def test_a_silent_process_gets_no_requests_after_five_and_is_retried() -> None:
    """Callers would wait for each; one of them tries whether it is back."""
    breaker = silent(1.0)
    assert breaker.open
    assert [breaker.allows(1.6, 0.05) for _ in range(2)] == [True, False]


def test_a_sign_of_life_closes_a_breaker_that_silence_opened_at_once() -> None:
    """A pause of half a second costs half a second."""
    breaker = silent(0.8)
    assert breaker.open
    breaker.heard()
    assert breaker.allows(0.8, 0.05)
    assert not breaker.open


def test_a_sign_of_life_does_not_close_one_that_failures_opened() -> None:
    breaker = failing(Breaker.FAILURES)
    breaker.heard()
    assert breaker.open


def test_a_silence_is_one_only_over_several_seconds_in_which_it_was_asked() -> None:
    """Twenty questions of one instant may wait for one heavy request before them."""
    silence = Silence()
    for _ in range(20):
        silence.asked(10.1)
    assert silence.lasts_s(14.0) == 0.0
    silence.asked(11.0)
    silence.asked(13.0)
    assert silence.lasts_s(14.0) == pytest.approx(3.9)
    silence.heard()
    assert silence.lasts_s(15.0) == 0.0


# ---------------------------------------------------------------- the pool


class StoodStill:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.at = 0.0

    def now(self) -> str:
        return ""

    def unix(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


class Shelf:
    """Artifacts that are there, or damaged."""

    def __init__(self) -> None:
        self.damaged = False
        self.golden = Proof(inputs={"dep_delay": [1.0]}, outputs={"p_late": [2.0]})

    def put(self, source: Path, beside: Sequence[Path] = ()) -> tuple[str, tuple[FileEntry, ...]]:
        raise NotImplementedError

    def path(self, digest: str) -> Path:
        return Path(digest)

    def verify(self, digest: str) -> Path:
        if self.damaged:
            raise CorruptArtifact(f"model.onnx of {digest} was changed")
        return Path(digest)

    def fetch(self, digest: str, into: Path) -> None:
        raise NotImplementedError

    def write_proof(self, digest: str, proof: Proof) -> None:
        raise NotImplementedError

    def proof(self, digest: str) -> Proof:
        return self.golden


class Doubles:
    """A model that doubles."""

    signature = ONE.signature

    def __init__(self, why: str = "", needs: str = "") -> None:
        self.plainness = Plainness(proven=not why, rule=RULE, why=why)
        self._needs = needs

    def predict(self, columns: Columns) -> Columns:
        if self._needs:
            import_module(self._needs)
        x: NDArray[Any] = columns["dep_delay"]
        return {"p_late": x * np.float32(2)}


class Loads:
    """A loader that can be held up, and that remembers what it loaded."""

    flavour = "onnx"
    stalls = False
    looks_for = ""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.fault: BaseException | None = None
        self.unknown = self.needs = ""

    def claims(self, path: Path) -> bool:
        return True

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Doubles:
        self.loaded.append(str(path))
        self.begun.set()
        assert self.go_on.wait(10)
        if self.fault is not None:
            raise self.fault
        return Doubles(self.unknown, self.needs)


class Line:
    """A connection to a model process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.violations: dict[str, int] = {}
        self.ready = False
        self.stalled = self.throttled = False
        self.open = True

    async def predict(
        self,
        columns: Columns,
        deadline_s: float,
        *,
        alone: bool = False,
        patience_s: float = 0.0,
        on_late: OnDone | None = None,
    ) -> Predicted:
        raise NotImplementedError

    def submit(
        self,
        columns: Columns,
        on_done: OnDone,
        deadline_s: float,
        *,
        patience_s: float = 0.0,
        apart: bool = False,
    ) -> bool:
        return False

    def hang_up(self) -> None:
        self.open = False


class Place:
    """A pool and everything around it."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.clock, self.shelf, self.loader = StoodStill(), Shelf(), Loads()
        self.lines: list[Line] = []
        self.apart: dict[tuple[str, int], str] = {}
        self.full = False
        """Whether nothing can be set apart: the disk is full."""
        self.changed = threading.Semaphore(0)
        self.pool = Pool(
            Duty(self.clock, ProcessFaults(self.clock)),
            loaders={"onnx": self.loader},
            artifacts=self.shelf,
            connect=self._connect,
            run_dir=run_dir,
            changed=self.changed.release,
            apart=lambda: self.apart,
            set_apart=self._set_apart,
        )

    def _set_apart(self, of: Release, why: str) -> None:
        if self.full:
            raise OSError(28, "No space left on device")
        self.apart[of.endpoint, of.number] = why

    def _connect(self, path: Path, of: Release, in_flight: int) -> RemoteModel:
        line = Line(path)
        self.lines.append(line)
        return line

    def keep(self, *needs: tuple[int, Placement], state: State = ROW, copies: int = 1) -> None:
        """Need exactly this from now on."""
        wishes = tuple(
            NeededRelease(release=number, placement=at, copies=copies) for number, at in needs
        )
        self.pool.keep({"flights": state}, {"flights": wishes})

    def loaded(self) -> None:
        """Wait until one more release was loaded, or failed to be."""
        assert self.changed.acquire(timeout=10)

    def hold(self, number: int, placement: Placement = INLINE) -> ReplicaHold | None:
        return next(
            (h for h in self.pool.holds() if (h.release, h.placement) == (number, placement)), None
        )

    def state(self, number: int, placement: Placement = INLINE) -> str | None:
        hold = self.hold(number, placement)
        return None if hold is None else hold.state

    def says(self, copy: int = 0, **status: Any) -> None:
        """A model process of r2 appears, and says something of itself."""
        socket = socket_of(self.run_dir, "flights", 2, copy)
        socket.touch()
        socket.with_name(socket.name + ".json").write_bytes(msgspec.json.encode(status))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.loader.go_on.set()
    made.pool.close()


def test_a_release_is_loaded_beside_and_ready_when_it_answered_its_golden_rows(
    place: Place,
) -> None:
    """`keep` returns at once; until it is ready no caller gets it."""
    place.loader.go_on.clear()
    place.keep((1, INLINE))
    assert place.state(1) == "loading"
    assert place.pool.handle("flights", 1, INLINE) is None
    assert not place.pool.settled
    place.loader.go_on.set()
    place.loaded()
    assert place.state(1) == "ready"
    assert place.pool.settled
    handle = place.pool.handle("flights", 1, INLINE)
    assert handle is not None
    assert handle.inline is not None


def test_a_release_that_is_not_proven_plain_is_never_asked_here_and_served_by_its_process(
    place: Place,
) -> None:
    """One from before the walk was made to run inline: it is judged when it is loaded."""
    place.loader.unknown = "a Loop"
    place.keep((2, INLINE))
    place.loaded()
    assert place.apart == {("flights", 2): "a Loop"}
    assert place.pool.handle("flights", 2, INLINE) is None
    place.says(0, state="ready")
    place.keep((2, INLINE))
    place.lines[0].ready = True
    place.keep((2, INLINE))
    assert place.state(2) == "ready"
    handle = place.pool.handle("flights", 2, INLINE)
    assert handle is not None
    assert handle.inline is None
    assert handle.remotes == (place.lines[0],)


def test_a_loader_that_ends_its_thread_costs_one_load(place: Place) -> None:
    place.loader.fault = SystemExit("a library")
    place.keep((1, INLINE))
    place.loaded()
    hold = place.hold(1)
    assert hold is not None
    assert (hold.state, hold.detail) == ("failed", "SystemExit: a library")
    place.loader.fault = None
    place.clock.at += RETRY_S[0]
    place.keep((1, INLINE))
    place.loaded()
    assert place.state(1) == "ready"


@pytest.mark.parametrize("when", ["loaded", "asked"])
def test_a_model_with_a_module_that_no_worker_imports_is_served_by_its_process(
    place: Place, when: str
) -> None:
    """An operator may have let it run inline, or an earlier version of kedge: it is moved, and does not fail."""
    place.loader.needs = "kedge_no_such" if when == "asked" else ""
    if when == "loaded":
        place.loader.fault = UnfitModel("it cannot be loaded")
        place.loader.fault.__cause__ = ModuleNotFoundError("no", name="kedge_no_such.core")
    with HiddenModules("kedge_no_such"):
        place.keep((2, INLINE))
        place.loaded()
    assert place.apart == {
        ("flights", 2): "it needs kedge_no_such, which is imported in model processes only"
    }
    assert place.state(2) == "loading"


def test_a_release_that_cannot_be_set_apart_is_tried_again(place: Place) -> None:
    place.loader.unknown, place.full = "a Loop", True
    place.keep((2, INLINE))
    place.loaded()
    assert place.state(2) == "failed"
    place.full = False
    place.clock.at += RETRY_S[0]
    place.keep((2, INLINE))
    place.loaded()
    assert place.apart == {("flights", 2): "a Loop"}


def test_a_verdict_that_was_stored_spares_the_load(place: Place) -> None:
    refuted = Plainness(proven=False, rule=RULE, why="a Loop")
    place.shelf.golden = msgspec.structs.replace(place.shelf.golden, plain=refuted)
    place.keep((2, INLINE))
    place.loaded()
    assert place.apart == {("flights", 2): "a Loop"}
    assert not place.loader.loaded


def test_a_version_that_an_operator_lets_run_inline_runs_inline(place: Place) -> None:
    refuted = Plainness(proven=False, rule=RULE, why="a Loop")
    place.shelf.golden = msgspec.structs.replace(
        place.shelf.golden, plain=refuted, inline="ada: ours"
    )
    place.loader.unknown = "a Loop"
    place.keep((2, INLINE))
    place.loaded()
    assert place.state(2) == "ready"
    assert not place.apart


def test_a_release_that_is_moved_answers_inline_until_its_process_is_there(place: Place) -> None:
    place.keep((2, INLINE))
    place.loaded()
    place.apart["flights", 2] = "it hung"
    place.keep((2, INLINE))
    handle = place.pool.handle("flights", 2, INLINE)
    assert handle is not None
    assert handle.inline is not None
    place.says(0, state="ready")
    place.keep((2, INLINE))
    place.lines[0].ready = True
    place.keep((2, INLINE))
    moved = place.pool.handle("flights", 2, INLINE)
    assert moved is not None
    assert moved.inline is None


def test_a_release_that_is_needed_repeatedly_is_loaded_once(place: Place) -> None:
    """The replica asks four times a second."""
    for _ in range(3):
        place.keep((1, INLINE))
    place.loaded()
    place.keep((1, INLINE))
    assert place.loader.loaded == ["sha256:model-1"]


def test_a_release_that_is_no_longer_needed_stays_for_a_grace_and_is_then_dropped(
    place: Place,
) -> None:
    """A request that is under way keeps the model it was given; so does a quick change of mind."""
    place.keep((1, INLINE))
    place.loaded()
    place.keep()
    place.clock.at = GRACE_S
    place.keep()
    assert place.state(1) == "ready"
    place.keep((1, INLINE))
    place.keep()
    place.clock.at = 2 * GRACE_S + 0.1
    place.keep()
    assert place.state(1) is None
    assert place.pool.handle("flights", 1, INLINE) is None
    place.keep((1, INLINE))
    place.loaded()
    assert len(place.loader.loaded) == 2


def test_a_release_is_held_inline_and_in_a_process_as_two_things(place: Place) -> None:
    """A candidate is prepared inline while it still runs apart."""
    place.keep((2, INLINE), (2, PROCESS))
    place.loaded()
    assert (place.state(2, INLINE), place.state(2, PROCESS)) == ("ready", "loading")


@pytest.mark.parametrize(
    "break_it, said",
    [
        (lambda p: setattr(p.shelf, "damaged", True), "model.onnx of sha256:model-1 was changed"),
        (lambda p: setattr(p.loader, "fault", ValueError("odd")), "ValueError: odd"),
        (
            lambda p: setattr(
                p.shelf, "golden", Proof(inputs={"dep_delay": [1.0]}, outputs={"p_late": [3.0]})
            ),
            "golden rows: golden row 0: p_late is 2.0, expected 3.0",
        ),
    ],
)
def test_a_release_that_cannot_be_loaded_or_proven_fails_with_a_reason(
    place: Place, break_it: Callable[[Place], None], said: str
) -> None:
    """A changed byte, an error of the loader, another answer: a state, never an exception."""
    break_it(place)
    place.keep((1, INLINE))
    place.loaded()
    hold = place.hold(1)
    assert hold is not None
    assert hold.state == "failed"
    assert said in hold.detail
    assert place.pool.handle("flights", 1, INLINE) is None
    assert place.pool.settled


def test_a_flavour_without_a_loader_is_failed_and_named(place: Place) -> None:
    """It may have been installed where the model was registered, and not here."""
    other = endpoint(msgspec.structs.replace(ONE, flavour="exotic"))
    place.keep((1, INLINE), state=other)
    place.loaded()
    hold = place.hold(1)
    assert hold is not None
    assert "exotic" in hold.detail


def test_a_failed_load_is_tried_again_ever_more_rarely_and_may_then_succeed(place: Place) -> None:
    """A damaged artifact can be fixed while the replica runs."""
    place.shelf.damaged = True
    place.keep((1, INLINE))
    for wait in (*RETRY_S, RETRY_S[-1]):
        place.loaded()
        place.clock.at += wait - 0.1
        place.keep((1, INLINE))
        assert place.state(1) == "failed"
        assert not place.changed.acquire(blocking=False)
        place.clock.at += 0.1
        place.keep((1, INLINE))
    place.loaded()
    place.shelf.damaged = False
    place.clock.at += RETRY_S[-1]
    place.keep((1, INLINE))
    place.loaded()
    assert place.state(1) == "ready"


def test_a_release_that_is_needed_again_before_its_turn_is_still_loaded(place: Place) -> None:
    """A candidate is aborted while another release loads, and then wanted again."""
    three = endpoint(ONE, TWO, release(3))
    place.loader.go_on.clear()
    place.keep((1, INLINE), (2, INLINE), (3, INLINE), state=three)
    assert place.loader.begun.wait(10)
    place.keep((1, INLINE), (3, INLINE), state=three)
    place.loader.go_on.set()
    place.loaded()
    place.loaded()  # r3: the turn of r2 has come, when no row needed it
    place.keep((1, INLINE), (2, INLINE), (3, INLINE), state=three)
    assert place.changed.acquire(timeout=1)
    assert place.state(2) == "ready"


# ---------------------------------------------------------------- processes


def test_a_process_is_connected_to_when_its_socket_is_there_and_ready_when_it_answers(
    place: Place,
) -> None:
    """Until then it is loading."""
    place.keep((2, PROCESS))
    assert place.lines == []
    assert place.state(2, PROCESS) == "loading"
    place.says(state="loading")
    place.keep((2, PROCESS))
    (line,) = place.lines
    assert line.path == socket_of(place.run_dir, "flights", 2, 0)
    assert place.state(2, PROCESS) == "loading"
    line.ready = True
    place.keep((2, PROCESS))
    assert place.state(2, PROCESS) == "ready"
    handle = place.pool.handle("flights", 2, PROCESS)
    assert handle is not None
    assert handle.remotes == (line,)
    assert len(place.lines) == 1


def test_production_in_a_process_has_a_second_one_beside_it(place: Place) -> None:
    """Each is connected to as it comes; one is enough to be ready, and it is told how many are."""
    place.says(0)
    place.keep((2, PROCESS), copies=2)
    place.lines[0].ready = True
    place.keep((2, PROCESS), copies=2)
    hold = place.hold(2, PROCESS)
    assert hold is not None
    assert (hold.state, hold.copies) == ("ready", 1)
    assert not place.pool.settled, "the second is still to come"
    place.says(1)
    place.keep((2, PROCESS), copies=2)
    assert [line.path.name for line in place.lines] == ["flights-r2-0.sock", "flights-r2-1.sock"]
    place.lines[1].ready = True
    place.keep((2, PROCESS), copies=2)
    hold = place.hold(2, PROCESS)
    assert hold is not None
    assert (hold.state, hold.copies) == ("ready", 2)
    assert place.pool.settled


def test_a_second_process_that_cannot_load_says_why_while_the_first_answers(place: Place) -> None:
    """A promotion that waits for it must not wait for two minutes."""
    place.says(0)
    place.keep((2, PROCESS), copies=2)
    place.lines[0].ready = True
    place.says(1, state="failed", detail="no memory", pid=7)
    place.keep((2, PROCESS), copies=2)
    hold = place.hold(2, PROCESS)
    assert hold is not None
    assert (hold.state, hold.copies, hold.detail, hold.attempt) == ("ready", 1, "no memory", 7)
    assert place.pool.settled


def test_a_second_process_that_is_not_wanted_any_more_is_hung_up_on_after_a_while(
    place: Place,
) -> None:
    """A promotion was refused: the candidate has one process again, and no worker dials the other."""
    place.says(0)
    place.says(1)
    place.keep((2, PROCESS), copies=2)
    place.keep((2, PROCESS))
    assert [line.open for line in place.lines] == [True, True]
    place.clock.at = GRACE_S + 0.1
    place.keep((2, PROCESS))
    assert [line.open for line in place.lines] == [True, False]
    handle = place.pool.handle("flights", 2, PROCESS)
    assert handle is not None
    assert len(handle.remotes) == 1


def test_a_process_that_cannot_load_says_why(place: Place) -> None:
    """Its words reach the roster."""
    place.says(state="failed", detail="no such thing")
    place.keep((2, PROCESS))
    hold = place.hold(2, PROCESS)
    assert hold is not None
    assert (hold.state, hold.detail) == ("failed", "no such thing")


def test_a_process_that_is_not_needed_any_more_is_hung_up_on(place: Place) -> None:
    """And so is everything when the pool closes."""
    place.says()
    place.keep((2, PROCESS))
    place.keep()
    place.clock.at = GRACE_S + 0.1
    place.keep()
    assert not place.lines[0].open
    place.keep((2, PROCESS))
    place.pool.close()
    assert [line.open for line in place.lines] == [False, False]


@pytest.mark.parametrize("raw", [None, b"", b"{", b'{"state": 3}', b"\xff"])
def test_a_process_that_has_said_nothing_readable_is_loading(
    tmp_path: Path, raw: bytes | None
) -> None:
    """It may be writing just now."""
    socket = socket_of(tmp_path, "flights", 1, 0)
    if raw is not None:
        socket.with_name(socket.name + ".json").write_bytes(raw)
    assert host_status(socket).state == "loading"
