"""Proofs on a real store and in real processes: valid releases, and every kind of fault."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from contract.process_world import PROOF
from kedge.adapters.records.spool import Spool
from kedge.adapters.sql.sqlite.create import create
from kedge.columns import columns_of, lists_of
from kedge.core import codec
from kedge.core.errors import Unavailable
from kedge.core.evidence.records import JoinRow
from kedge.core.features.schema import Spec
from kedge.core.stored.notes import Proven
from kedge.core.values import Bundle, Field, ModelVersion, Placement, Proof, Release
from kedge.operations.doctor import examine
from kedge.operations.readiness.deployable import FOLDER, prove, scratch
from kedge.operations.replay.model import loaded
from kedge.transforms.authoring import SPEC, schema, spec_of
from kedge.transforms.authoring import Field as Feature
from kedge.transforms.bundle import Bare, Transform
from kedge.workspace import Workplace
from models import SIGNATURE, misbehaving
from support.waiting import wait_until

VIEW = schema(
    "view/1",
    fields={
        "x": Feature("float64"),
        "word": Feature("string", null=True),
    },
)
RAW = (Field("n", "float64"), Field("w", "string", nullable=True))
DOUBLED = "def columns(raw):\n    return {'x': raw['n'] * 2, 'word': raw['w']}\n"


class Home:
    """A state directory with releases that were never tested."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.state_dir = root / "state"
        create(self.state_dir)
        self.place = Workplace(self.state_dir)

    def release(
        self, kind: str = "good", proof: Proof = PROOF, schema: str | None = None, **more: Any
    ) -> Release:
        """A release of a model that behaves as told, with these golden rows."""
        digest, files = self.place.artifacts.put(misbehaving(self.root / kind, kind, **more))
        self.place.artifacts.write_proof(digest, proof)
        added = self.place.registry.add(
            ModelVersion(
                model="flights",
                number=0,
                digest=digest,
                flavour="test",
                signature=SIGNATURE,
                size=100,
                files=files,
                source="test",
                schema=schema,
            )
        )
        return self.place.registry.release(self.bundle(added, schema=schema))

    def bundle(self, of: ModelVersion, **more: Any) -> Bundle:
        return Bundle(
            endpoint="flights",
            model=of.model,
            version=of.number,
            model_digest=of.digest,
            placement=Placement.PROCESS,
            **more,
        )

    def behind(self, source: str) -> Release:
        """A release of a good model behind a transformation."""
        folder = self.root / "features"
        folder.mkdir()
        (folder / "features.py").write_text(source)
        (folder / SPEC).write_bytes(
            codec.canonical(Spec(schema=VIEW, entry="features:columns", raw=RAW))
        )
        digest, _ = self.place.artifacts.put(folder)
        asked: dict[str, list[Any]] = {"n": [1.0, 2.0], "w": ["a", "b"]}
        bare = Bare(Transform(folder))
        given = lists_of(bare.predict(columns_of(asked, bare.signature)))
        self.place.artifacts.write_proof(digest, Proof(asked, given))
        spec = spec_of(self.place.artifacts.verify(digest))
        self.place.features.add(spec.schema, digest)
        self.release(schema="view/1")
        (version,) = self.place.registry.versions("flights")
        of = self.bundle(version, schema="view/1", transformation=1)
        return self.place.registry.release(of, raw=RAW, code=digest)

    def prove(self, release: Release, *, again: bool = False, step_s: float = 30.0) -> Proven:
        state = self.place.ledger.read().states["flights"]
        return prove(self.place, state, release.number, by="test", again=again, step_s=step_s)[0]

    def log(self, *words: str | None) -> None:
        """Callers were answered, a row each, and their inputs are kept."""
        now = self.place.clock.unix()
        rows = [
            JoinRow(
                id=f"{word}{number}/0",
                at=now - 5,
                unit=f"u{number}",
                endpoint="flights",
                production=1,
                candidate=None,
                salt="",
                weight=0,
                arm="production",
                failed=False,
                segments=(),
                score=None,
                decision=None,
                inputs=msgspec.msgpack.encode({"x": 1.0, "word": word}),
            )
            for number, word in enumerate(words)
        ]
        with Spool(self.place.records.spool, "w0") as worker:
            assert worker.append(rows) == 0
        self.place.records.ingest(now)

    def notes(self) -> int:
        return len(self.place.ledger.entries("flights", "proven", limit=50))

    def left(self) -> list[str]:
        return [path.name for path in (self.state_dir / FOLDER).iterdir() if path.name != "lock"]

    def files(self, release: Release) -> Path:
        return self.place.artifacts.path(release.model_digest)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    info = tmp_path / "plugin" / "kedge_test_loader-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kedge-test-loader\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[kedge.loaders]\ntest = models:TestLoader\n")
    paths = [str(info.parent), str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))
    return Home(tmp_path)


def test_a_sound_release_is_proven_once_a_day_and_again_when_asked(home: Home) -> None:
    one = home.release()
    found = home.prove(one)
    assert (found.ok, found.why, found.rows, found.sampled, found.golden) == (
        True,
        "",
        2,
        0,
        "made",
    )
    assert all(
        took is not None for took in (found.fetch_s, found.verify_s, found.load_s, found.answer_s)
    )
    assert home.prove(one) == found
    assert home.notes() == 1
    assert home.prove(one, again=True).ok
    assert home.notes() == 2
    assert home.left() == []


def test_two_at_once_make_one_proof(home: Home) -> None:
    one, found = home.release(), list[Proven]()
    home.place.ledger.read()
    others = [Workplace(home.state_dir) for _ in range(2)]
    state = home.place.ledger.read().states["flights"]

    def ask(place: Workplace) -> None:
        found.append(prove(place, state, one.number, by="test", again=True)[0])

    threads = [threading.Thread(target=ask, args=(place,)) for place in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [each.ok for each in found] == [True, True]
    assert home.notes() == 1


def spoil(home: Home, release: Release, how: str) -> None:
    file = home.files(release) / "behave.json"
    match how:
        case "changed":
            file.chmod(0o644)
            file.write_bytes(file.read_bytes().replace(b"2.0", b"3.0"))
        case "added":
            (file.parent / "more.txt").write_text("x")
        case "link":
            copy = home.root / "copy.json"
            copy.write_bytes(file.read_bytes())
            file.unlink()
            file.symlink_to(copy)
        case "no rows":
            (file.parent.parent / "proof.json").unlink()
        case "all":
            file.parent.parent.rename(home.root / "gone")


@pytest.mark.parametrize(
    "how, said",
    [
        ("changed", "verify: .*behave.json was changed"),
        ("added", "verify: .*more.txt was added"),
        ("link", "verify: .*behave.json was changed"),
        ("no rows", "answer: .*no readable golden rows"),
        ("all", "fetch: .*is not in"),
    ],
)
def test_what_the_store_lost_is_found(home: Home, how: str, said: str) -> None:
    one = home.release()
    spoil(home, one, how)
    found = home.prove(one)
    assert not found.ok
    assert re.match(said, found.why), found.why
    assert home.left() == []


@pytest.mark.parametrize(
    "kind, more, said",
    [
        ("good", {"scale": 2.5}, "answer: golden rows: golden row 0: score is 2.5"),
        ("raise", {}, "answer: golden rows: the model raised"),
        ("load_exit", {}, "load: the model's process died"),
        ("load_scribble", {}, "load: the model's process wrote 'Loading weights"),
        ("scribble", {}, "answer: the model's process wrote 'Loading weights"),
        ("load_hang", {}, "load: the model did not come to an end within 3 s"),
    ],
)
def test_a_model_that_is_not_what_it_was_is_found(
    home: Home, kind: str, more: dict[str, Any], said: str
) -> None:
    one = home.release(kind, **more)
    began = time.monotonic()
    found = home.prove(one, step_s=3.0 if kind == "load_hang" else 30.0)
    assert (found.ok, found.why[: len(said)]) == (False, said)
    assert time.monotonic() - began < 30
    assert home.left() == []


def test_made_rows_are_helped_out_by_logged_ones(home: Home) -> None:
    """A word that kedge did not think of, and that callers send."""
    one = home.release("nan", trigger="boom")
    home.log("a", None)
    found = home.prove(one)
    assert (found.ok, found.sampled) == (True, 2)
    home.log("boom")
    found = home.prove(one, again=True)
    assert (found.ok, found.why[:28]) == (False, "sample: score is not finite ")


def test_a_transformation_is_proven_with_its_model(home: Home) -> None:
    one = home.behind(DOUBLED)
    found = home.prove(one)
    assert (found.ok, found.why, found.rows) == (True, "", 4)
    assert one.code is not None
    source = home.place.artifacts.path(one.code) / "features.py"
    source.chmod(0o644)
    source.write_text(DOUBLED.replace("2", "3"))
    assert "features.py was changed" in home.prove(one, again=True).why


KILLED = """
import sys
from pathlib import Path
from kedge.core.features.generations import Online
from kedge.operations.readiness.deployable import prove
from kedge.workspace import Workplace
place = Workplace(Path(sys.argv[1]))
prove(place, place.ledger.read().states["flights"], 1, by="test", again=True)
"""


def command_of(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def running(word: str) -> list[int]:
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if word.encode() in command_of(pid)]


def test_killed_in_the_middle_it_leaves_nothing_behind(home: Home) -> None:
    """While the model hangs in its first golden row, so that only the kernel ends it."""
    begun = home.root / "begun"
    home.release("hang", log=str(begun))
    prover = subprocess.Popen([sys.executable, "-c", KILLED, str(home.state_dir)])
    wait_until(lambda: list(home.state_dir.glob("*/*/own/begun")), "the first golden row", 40)
    (name,) = home.left()
    (child,) = [pid for pid in running(name) if b"prove" in command_of(pid)]
    try:
        prover.send_signal(signal.SIGKILL)
        prover.wait()
        wait_until(lambda: not home.left() and not running(name), "the end of its processes", 40)
        assert home.notes() == 0
    finally:
        if b"prove" in command_of(child):
            os.kill(child, signal.SIGKILL)


def test_what_even_the_janitor_left_goes_with_the_next_proof(home: Home) -> None:
    one = home.release()
    (home.state_dir / FOLDER / "left").mkdir(parents=True)
    assert home.prove(one).ok
    assert home.left() == []


def test_a_scratch_directory_goes_with_a_fault(tmp_path: Path) -> None:
    def faulty() -> None:
        with scratch(tmp_path) as made:
            (made / "file").write_text("x")
            raise ValueError("this")

    with pytest.raises(ValueError, match="this"):
        faulty()
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------- asked again


def test_a_release_that_cannot_be_asked_again_says_why_and_doctor_finds_the_same(
    home: Home,
) -> None:
    one = home.release()
    spoil(home, one, "changed")
    state = home.place.ledger.read().states["flights"]

    async def ask() -> None:
        async with loaded(home.place, state, one, None):
            raise AssertionError("a changed model was loaded")

    with pytest.raises(Unavailable) as caught:
        asyncio.run(ask())
    assert "r1 did not load: CorruptArtifact: " in str(caught.value)
    assert str(caught.value).endswith("behave.json was changed")
    assert caught.value.hint == "kedge doctor checks its files"
    findings = examine(home.state_dir, home.root / "kedge.toml")
    found = {finding.check: finding for finding in findings}
    artifact = found[f"artifact {one.model_digest[:19]}"]
    assert not artifact.ok
    assert artifact.detail.endswith("behave.json was changed")
