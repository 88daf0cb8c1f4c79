"""System calls that fail once: no caller notices, and the fault is named.

One story is traced: start, load, a promotion, processes that end, rollback, stop. Each pair of a system
call and the place in kedge's code that made it, in one kind of process, then fails once: a few pairs in
one run of the same story. The suite runs a sample; `make faults` runs all, and says what it found.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import kedge
from e2e.place import Site
from support import failing_calls
from support.failing_calls import ARMED, ERRNOS, FIRED, MARK, PLAN, TRACE

pytestmark = pytest.mark.e2e

ALL = os.environ.get("KEDGE_ALL_FAULTS", "")
"""A folder for the findings: every pair is tried."""
TOGETHER = 10
"""Pairs that fail in one run. A run that goes wrong is repeated pair by pair, under `ALL`."""
SAMPLE = 14
"""Pairs of the suite: one run."""
TRIES = 4
"""Of a command: an operator types it again when it was refused for a fault that has passed."""
QUIET = {
    "system/streams.py": "status shows `log_writes`, and the log of a child that could not be opened",
    "adapters/records/spool.py": "status shows `records_dropped`; the reader looks again",
    "adapters/sql/sqlite/signal.py": "without the kernel's watches followers look by themselves",
    "adapters/sql/sqlite/ballast.py": "the next write makes it again",
    "operations/preflight.py": "what stands in the way is found again when it is used",
    "adapters/sql/creation.py": "the age of the evidence is shown as not known",
}
"""Files where a failure is counted as a number, or costs nothing; and why."""
QUIET_CALLS = {
    "os.utime": "rings for followers, which look by themselves",
    "os.mkdir": "the folder is there already",
    "os.rmdir": "an empty folder of a process that has ended; the next sweep takes it",
}
"""Calls whose failure costs nothing, wherever they are made."""
QUIET_PLACES = {
    "adapters/artifacts/directory.py _lock": "the next sweep takes what is left",
    "adapters/artifacts/directory.py _sweep": "the next sweep takes what is left",
    "adapters/artifacts/directory.py _temporary": "the next sweep takes what is left",
    "cli/root.py main": "click and the interpreter look a file up in another way",
    "adapters/clock.py boot": "beats are compared by the wall clock",
    "adapters/process/confine.py confine": "the process has the limits of its parent",
    "system/door.py _make_directory": "the process has no temporary files, and serves",
    "system/door.py close": "the next sweep takes what is left",
    "system/door.py exceeds": "asked again each second",
    "system/door.py read_detail": "the end of the process is named without it",
    "engine/pins.py heads": "another replica's may be whole; read again with the next entry",
    "engine/pins.py remembered": "another replica's may be whole, and the ledger has the row",
    "engine/pins.py set_aside_unreadable": "left where it is: it may be whole",
    "engine/relief.py _stat": "asked again each second",
    "runtime/supervisor.py prepare": "the preflight names a path that cannot be written",
    "operations/registration.py _find_loaders": "looked for again when a loader is not found",
    "engine/serving/last_asked.py __init__": "a worker that is killed does not name its model",
    "engine/serving/pool.py host_status": "asked again at once",
    "engine/child.py _start": "started with the descriptors that are kept for it",
    "engine/child.py telling": "started with the descriptors that are kept for it",
    "engine/child.py take": "there are fewer spare descriptors",
    "engine/child.py memory": "asked again each second",
    "config/locate.py <genexpr>": "the ledger, or kedge.toml beside it, is found as well",
    "system/files.py connect_to": "tried again at once, or in the next directory of the list",
    "system/files.py listen_at": "tried again at once, or in the next directory of the list",
    "system/files.py socket_address": "tried again at once, or in the next directory of the list",
    "system/files.py close": "the next sweep takes what is left",
    "system/files.py is_lost": "the socket is made again",
    "system/files.py tighten": "`kedge doctor` names what is open to others",
    "gateway/auth.py read_tokens": "read again with the next request that has a token",
    "operations/tokens.py read_token": "`kedge login` prints the link; control looks again each second",
    "system/machine.py _text": "the machine's limits are taken instead of the group's",
    "system/reserve.py _allocate": "done again each second",
    "system/reserve.py _ask": "asked again each second",
    "system/reserve.py allocate_open_files": "done again each second",
    "gateway/http/connections.py <genexpr>": "open files are counted again at the next connection",
    "runtime/supervisor.py run_supervisor": "the state directory is looked at again each second",
    "runtime/announcement.py is_answered": "asked again at once",
    "runtime/paths.py _check_base": "the next directory of the list is used",
    "runtime/restart.py started": "the next start looks for what a restart left",
    "runtime/paths.py _empty": "the next sweep takes what is left",
    "runtime/paths.py _folders": "the next sweep takes what is left",
    "runtime/paths.py _try": "the next directory of the list is used",
    "runtime/paths.py get_candidates": "the next directory of the list is used",
    "runtime/paths.py remove_folder": "the next sweep takes what is left",
}
"""Functions in which a failure costs nothing; and why."""
AGAIN = {errno.EAGAIN, errno.ENOSPC}
"""A database that is locked is waited for, and one on a full disk is written again without its ballast."""
CALLERS = ("gateway/",)
"""Where a fault may cost the one request on whose connection it came."""


class Pair(NamedTuple):
    """A call, in a kind of process, at a place; and when it is made."""

    armed: bool
    role: str
    call: str
    kind: str
    file: str
    function: str
    line: int

    @property
    def words(self) -> str:
        return f"{self.role} {self.call} {self.file}:{self.line} ({self.function})"


class Kit:
    """The folder that makes calls of a site's processes fail."""

    def __init__(self, site: Site) -> None:
        self.folder = site.root / "kit"
        self.folder.mkdir()
        shutil.copy(Path(failing_calls.__file__), self.folder / "sitecustomize.py")
        site.env["PYTHONPATH"] = f"{self.folder}{os.pathsep}{site.env['PYTHONPATH']}"

    def plan(self, pairs: list[Pair], *, trace: bool = False) -> None:
        """Have these fail once each, from now on."""
        for name in (FIRED, TRACE, ARMED):
            (self.folder / name).unlink(missing_ok=True)
        faults = [
            {
                "number": number,
                "pair": [*pair[1:]],
                "armed": pair.armed,
                "errno": errno_of(pair),
            }
            for number, pair in enumerate(pairs)
        ]
        (self.folder / PLAN).write_text(json.dumps({"trace": trace, "faults": faults}))

    def arm(self) -> None:
        """Have the calls of a running site fail too."""
        (self.folder / ARMED).touch()

    def fired(self) -> set[int]:
        """The numbers of those that have failed."""
        path = self.folder / FIRED
        raw = path.read_bytes() if path.exists() else b""
        return {number for number, byte in enumerate(raw) if byte == ord("x")}

    def traced(self) -> list[Pair]:
        """Every pair: of a running site where it was made there, else of its start."""
        found: dict[tuple[Any, ...], Pair] = {}
        for line in (self.folder / TRACE).read_text().splitlines():
            pair = Pair(*json.loads(line))
            if pair.armed or pair[1:] not in found:
                found[pair[1:]] = pair
        return sorted(found.values(), key=lambda pair: pair[1:])


def errno_of(pair: Pair) -> int:
    """Choose an error that this call can have; another one at each place."""
    kind = "stream" if pair.file == "system/streams.py" else pair.kind
    options = ERRNOS[kind]
    return options[(pair.line + len(pair.call) + len(pair.role)) % len(options)]


class Finding(NamedTuple):
    """What one run showed."""

    failures: list[str]
    """What must not be."""
    fired: set[int]
    status: set[int]
    """The numbers of faults that `kedge status` named."""
    log: set[int]
    """Of those that a log named."""
    spared: int
    """Failed requests that the faults of callers' connections may have cost."""


class Story:
    """A site with two releases, and what happens on it."""

    def __init__(self, site: Site, pairs: list[Pair]) -> None:
        self.site = site
        self.pairs = pairs
        self.kit = Kit(site)
        self.kit.plan(pairs, trace=not pairs)
        self.wrong: list[str] = []
        self.said = ""
        """What `kedge status` said, each time."""

    def run(self) -> Finding:
        """Start, load, promote, lose processes, roll back, stop."""
        requests: list[str] = []
        try:
            self.start()
            with self.site.load(rate=60, connections=4) as load:
                self.kit.arm()
                time.sleep(0.5)
                self.repeated("promote", "flights", "v2", "--override", "a test")
                self.look()  # what a process says of its faults ends with it
                self.lose()
                self.repeated("rollback", "flights")
                self.wait(lambda: self.site.served() == "r1", "the rollback to be served")
                time.sleep(1.5)
            requests = load.failures
            named = self.named()
            if self.site.stop() != 0:
                self.wrong.append("kedge up did not stop with 0")
        except AssertionError as error:
            self.wrong.append(str(error)[:2000])
            named = self.named()
        fired = self.kit.fired()
        own = sum(self.pairs[number].file.startswith(CALLERS) for number in fired)
        if len(requests) > own:
            self.wrong.append(f"{len(requests)} requests failed: {requests[:3]}")
        return Finding(self.wrong, fired, named[0], named[1], min(len(requests), own))

    def start(self) -> None:
        """Start; a start that is refused, before anything serves, may be repeated."""
        for _ in range(TRIES):
            self.site.start(wait=False)
            up = self.site.up
            assert up is not None
            until = time.monotonic() + 60
            while up.poll() is None and time.monotonic() < until:
                if self.site.answers("/v2/models/flights/ready"):
                    return
                time.sleep(0.1)
            if up.poll() is None:
                break
        raise AssertionError(
            f"it does not serve: {(self.site.root / 'up.log').read_text()[-1500:]}"
        )

    def wait(self, true: Callable[[], Any], what: str) -> None:
        def holds() -> bool:
            try:
                return bool(true())
            except (OSError, KeyError):
                return False

        self.site.until(holds, what, 60)

    def repeated(self, *words: str) -> None:
        """Run a command, as an operator does: until it is done."""
        said = ""
        for _ in range(TRIES):
            done = self.site.run(*words, check=False)
            if done.returncode in (0, 3):  # 3: done, and a replica has not acknowledged yet
                return
            said = f"{words[0]}: {done.returncode} {done.stdout} {done.stderr}"[:800]
            time.sleep(1)
        self.wrong.append(said)

    def lose(self) -> None:
        """End a worker and control in order, and kill one of production's processes."""
        site = self.site
        self.wait(lambda: len(site.processes("gateway-worker")) == 2, "two workers")
        self.wait(lambda: site.served() == "r2", "r2 to serve")
        workers, control = site.processes("gateway-worker"), site.processes("\0control")
        models = site.processes("process\0serve")
        before = len(models)
        end(workers[0], signal.SIGTERM)
        for pid in control:
            end(pid, signal.SIGTERM)
        killed = next((pid for pid in models if is_copy(pid, "-r2-1.sock")), models[-1])
        end(killed, signal.SIGKILL)

        def restored() -> bool:
            mine = site.processes("gateway-worker")
            return (
                workers[0] not in mine
                and len(mine) == 2
                and len(site.processes("process\0serve")) >= before
                and len(site.processes("\0control")) == 1
            )

        self.wait(restored, "what ended to be started again")
        self.wait(lambda: len(self.speaking()) == 2, "both workers to speak")

    def speaking(self) -> list[Any]:
        status = self.site.data("status", "flights")
        return [replica for replica in status["replicas"] if not replica["silent"]]

    def look(self) -> None:
        """Ask for the status."""
        self.said += self.site.run("status", "flights", "--json", check=False).stdout

    def named(self) -> tuple[set[int], set[int]]:
        """The faults that `kedge status` names, and those that a log does."""
        self.look()
        logs = [self.site.root / "up.log", *(self.site.root / ".kedge" / "logs").glob("*.log*")]
        words = "".join(path.read_text(errors="replace") for path in logs if path.is_file())
        numbers = range(len(self.pairs))
        return tuple({n for n in numbers if f"{MARK}{n}-" in text} for text in (self.said, words))  # type: ignore[return-value]


def end(pid: int, how: signal.Signals) -> None:
    try:
        os.kill(pid, how)
    except ProcessLookupError:
        return


def is_copy(pid: int, socket: str) -> bool:
    try:
        return socket.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


class Stories:
    """Runs stories, each on a copy of a state directory with two releases."""

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="kedge-site-"))
        self.count = 0
        self.first = self.site()
        self.first.start()
        self.first.release()
        assert self.first.stop() == 0

    def site(self) -> Site:
        self.count += 1
        where = self.root / f"s{self.count}"
        where.mkdir()
        return Site(where, policy='runtime = "process"')

    def story(self, pairs: list[Pair]) -> Story:
        site = self.site()
        old = shutil.ignore_patterns("run", "logs")
        shutil.copytree(self.first.root / ".kedge", site.root / ".kedge", ignore=old)
        return Story(site, pairs)

    def tell(self, pairs: list[Pair]) -> Finding:
        """Run one in which these fail."""
        story = self.story(pairs)
        try:
            return story.run()
        finally:
            story.site.end()
            if not ALL:
                shutil.rmtree(story.site.root, ignore_errors=True)

    def trace(self) -> list[Pair]:
        """Run one in which nothing fails, and return every pair."""
        story = self.story([])
        try:
            assert story.run().failures == []
            return story.kit.traced()
        finally:
            story.site.end()

    def close(self) -> None:
        self.first.end()
        if not ALL:
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def stories() -> Iterator[Stories]:
    made = Stories()
    yield made
    made.close()


def spread(pairs: list[Pair], count: int) -> list[Pair]:
    """Choose so many: evenly over kinds of process and of call."""
    order = sorted(pairs, key=lambda pair: (pair.role, pair.kind, pair.file, pair.line))
    step = max(len(order) / count, 1.0)
    return [order[int(n * step)] for n in range(min(count, len(order)))]


@pytest.mark.timeout(100_000 if ALL else 400)
def test_a_system_call_that_fails_once_costs_no_caller_anything(stories: Stories) -> None:
    pairs = stories.trace()
    assert {pair.role for pair in pairs} == {"supervisor", "worker", "control", "model"}
    if ALL:
        try_all(stories, pairs, Path(ALL))
        return
    some = spread(pairs, SAMPLE)
    found = stories.tell(some)
    told = [f"{n}: {pair.words}" for n, pair in enumerate(some) if n in found.fired]
    assert found.failures == [], told
    assert found.fired, told
    # Of two faults of one place that come together the second is counted: alone each is named.
    for pair in unnamed(some, found):
        assert unnamed([pair], stories.tell([pair])) == []


def test_a_restart_that_lacks_threads_still_serves(stories: Stories) -> None:
    """The new image has taken over by then: if it ended, nothing would run the host."""
    places = (
        ("runtime/announcement.py", "start", "self._thread.start()"),
        ("runtime/state_guard.py", "guard_state", '.start("kedge-reserve")'),
    )
    pairs = [
        Pair(
            armed=True,
            role="supervisor",
            call="thread",
            kind="thread",
            file=file,
            function=function,
            line=line_of(file, what),
        )
        for file, function, what in places
    ]
    story = stories.story(pairs)
    try:
        story.start()
        story.kit.arm()
        restarted = story.site.run("restart", check=False)
        assert restarted.returncode == 0, restarted.stdout + restarted.stderr
        assert story.kit.fired() == {0, 1}
        assert story.site.served() == "r1"
        said = story.site.run("status", "flights").stdout
        assert "supervisor.announcement" in said
        assert "supervisor.guard" in said
        assert story.site.stop() == 0
    finally:
        story.site.end()


def line_of(file: str, what: str) -> int:
    """Return the number of the first line of kedge's file that has this text."""
    lines = (Path(kedge.__file__).parent / file).read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if what in line)


def unnamed(pairs: list[Pair], found: Finding) -> list[Pair]:
    """The faults that failed something and that neither `kedge status` nor a log names."""
    silent = found.fired - found.status - found.log
    return [pairs[n] for n in sorted(silent) if not is_quiet(pairs[n])]


def is_quiet(pair: Pair) -> bool:
    """Whether a failure of this call costs nothing, or is counted as a number.

    While the interpreter imports, it looks a file up in another way; a start that fails is refused
    with a sentence, which need not hold the words of a driver; and a model's process that fails ends,
    which `kedge status` says with its exit code.
    """
    return (
        pair.function == "<module>"
        or pair.file == "__main__.py"
        or (pair.kind == "database" and errno_of(pair) in AGAIN)
        or pair.role == "model"
        or not (pair.armed or pair.kind != "database")
        or pair.file in QUIET
        or pair.call in QUIET_CALLS
        or f"{pair.file} {pair.function}" in QUIET_PLACES
    )


def try_all(stories: Stories, pairs: list[Pair], folder: Path) -> None:
    """Try every pair, and write what came of it; a run that goes wrong is repeated pair by pair."""
    folder.mkdir(parents=True, exist_ok=True)
    groups = -(-len(pairs) // TOGETHER)
    wrong: dict[str, list[str]] = {}
    silent: list[str] = []
    with (folder / "findings.txt").open("a", buffering=1) as out:
        out.write(f"{len(pairs)} pairs\n")
        for number in range(groups):
            some = pairs[number::groups]
            found = stories.tell(some)
            write(out, some, found)
            for pair in unnamed(some, found):
                silent += [one.words for one in unnamed([pair], stories.tell([pair]))]
            if not found.failures:
                continue
            for pair in (some[n] for n in sorted(found.fired)):
                alone = stories.tell([pair])
                write(out, [pair], alone)
                if alone.failures:
                    wrong[pair.words] = alone.failures
        out.write(f"wrong: {len(wrong)}; not named: {silent}\n")
    assert (wrong, silent) == ({}, [])


def write(out: Any, pairs: list[Pair], found: Finding) -> None:
    for number, pair in enumerate(pairs):
        named = "status" if number in found.status else "log" if number in found.log else "nowhere"
        fired = named if number in found.fired else "not reached"
        out.write(
            f"{fired:12} {os.strerror(errno_of(pair)):30} {'' if pair.armed else 'start '}{pair.words}\n"
        )
    out.write(f"  -> {found.failures or 'right'}; requests {found.spared}\n")
