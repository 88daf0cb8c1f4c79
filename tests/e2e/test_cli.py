"""The commands, as a user types them: in an empty directory, with nothing edited."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import sqlite3
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e.place import KEDGE, Site
from kedge.cli.pages import COMMANDS

pytestmark = pytest.mark.e2e


class Fresh(Site):
    """An empty directory. `init` writes the configuration; only the audience is changed."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        (root / "kedge.toml").unlink()

    def init(self) -> None:
        self.run("init", "flights", "--port", str(self.port))
        self.expects_no_customers()

    def expects_no_customers(self) -> None:
        """Let a canary come before a passed shadow window."""
        config = self.root / "kedge.toml"
        safe, quick = (f'audience = "{word}"' for word in ("customer", "internal"))
        config.write_text(config.read_text().replace(safe, quick))

    def edit(self, text: str) -> None:
        """Add lines to kedge.toml."""
        with (self.root / "kedge.toml").open("a") as file:
            file.write(text)

    def epoch(self) -> int:
        """The row's epoch, read past kedge."""
        ledger = sqlite3.connect(self.root / ".kedge/ledger/ledger.db")
        ((epoch,),) = ledger.execute("SELECT epoch FROM endpoint").fetchall()
        ledger.close()
        return int(epoch)

    def says(self, *words: str) -> str:
        """What a command that succeeds prints."""
        return self.run(*words).stdout

    def fails(self, code: int, *words: str, **env: str) -> str:
        """What a command that fails says; it ends with a hint."""
        self.env.update(env)
        done = self.run(*words, check=False)
        assert done.returncode == code, (words, done)
        assert done.stderr.splitlines()[-1].startswith("hint: "), (words, done.stderr)
        assert "Traceback" not in done.stderr
        return done.stderr


def fresh() -> Fresh:
    return Fresh(Path(tempfile.mkdtemp(prefix="kedge-site-")))


@pytest.fixture
def empty() -> Iterator[Fresh]:
    """A directory in which nothing was done yet."""
    site = fresh()
    yield site
    site.end()
    shutil.rmtree(site.root, ignore_errors=True)


@pytest.fixture(scope="module")
def served() -> Iterator[Fresh]:
    """`init`, `up`, two versions, v1 in production. Tests that use it leave it so."""
    site = fresh()
    try:
        site.init()
        site.start()
        site.release()
        yield site
        assert site.stop() == 0
        assert site.processes("kedge") == []
    finally:
        site.end()
        shutil.rmtree(site.root, ignore_errors=True)


# ---------------------------------------------------------------- the walk


def test_the_walk_in_text(empty: Fresh) -> None:
    """Every verb in the order in which a user meets it, from an empty directory to a rollback."""
    say = empty.says
    assert "next: kedge up" in say("init", "flights", "--port", str(empty.port))
    empty.expects_no_customers()
    empty.start()
    told = say("register", "flights", empty.model("one"))
    assert told.startswith("flights v1\n")
    for word in ("flavour   test", "takes     x:float64", "gives     score:float64", "sha256:"):
        assert word in told
    say("register", "flights", empty.model("two", scale=3.0))
    again = say("register", "flights", str(empty.root / "two"))
    assert again.startswith("flights v2 (registered before: the same bytes)")

    assert "r1 is production" in say("promote", "flights", "v1")
    assert empty.served() == "r1"
    assert "r2 is shadowed with 50 %" in say("shadow", "flights", "v2", "--sample", "50")
    assert "r2 answers 1 % of the callers" in say("canary", "flights", "v2", "--weight", "1")
    assert "from 1 % to 2 %" in say("set-weight", "flights", "2")
    assert "is held" in say("pause", "flights", "--reason", "lunch")
    assert "continues" in say("resume", "flights")
    assert "from 2 % to 5 %" in say("promote", "flights")
    assert "stays eligible" in say("abort", "flights")
    say("canary", "flights", "v2")
    promoted = say("promote", "flights", "--full")
    assert "r2 is production, r1 is the way back" in promoted
    assert empty.served() == "r2"

    receipt = say("rollback", "flights").splitlines()
    assert "production went back from r2 to r1; r2 is condemned" in receipt[0]
    words = [line.split()[0] for line in receipt[1:]]
    words = [word for word in words if word != "prepared"]  # only where a release had to be loaded
    assert words == ["decided", "written", "ack", "ack", "first", "total"]
    assert empty.served() == "r1"

    assert say("apply") == "nothing changed\n"
    status = say("status", "flights")
    for word in ("production  r1 (flights v1", "condemned   r2", "replica     ", "requests    "):
        assert word in status
    history = say("history", "flights")
    assert "tester: the rollout is held — lunch" in history
    assert "rollback took" in history
    listed = say("versions", "flights").splitlines()
    assert [line.split()[0] for line in listed] == ["v1", "v2"]
    assert "production" in listed[0]
    assert "condemned" in listed[1]
    assert "BAD" not in say("doctor")
    assert empty.stop() == 0
    assert empty.processes("kedge") == []


def test_the_walk_in_json(served: Fresh) -> None:
    """The same verbs, each printing one document and nothing else on stdout."""
    ask = served.data
    version = ask("register", "flights", served.model("three", scale=5.0))
    assert (version["version"], version["new"], version["flavour"]) == ("v3", True, "test")
    assert {"digest", "size", "load_s", "golden", "signature"} <= version.keys()
    assert ask("register", "flights", str(served.root / "three"))["new"] is False

    replicas = {replica["name"] for replica in ask("status", "flights")["replicas"]}

    def walk(*words: str) -> tuple[str, str, float]:
        told = ask(*words)
        assert (told["endpoint"], told["receipt"]["acks"].keys()) == ("flights", replicas)
        return told["event"], told["stage"], told["weight"]

    assert walk("shadow", "flights", "v2") == ("shadow_started", "shadow", 0.0)
    assert walk("shadow", "flights", "v2", "--sample", "10") == ("sample_set", "shadow", 0.0)
    assert walk("canary", "flights", "v2", "--weight", "1") == ("canary_started", "canary", 1.0)
    assert walk("set-weight", "flights", "12.5") == ("weight_set", "canary", 12.5)
    assert walk("pause", "flights") == ("paused", "canary", 12.5)
    assert walk("resume", "flights") == ("resumed", "canary", 12.5)
    assert walk("promote", "flights") == ("weight_set", "canary", 25.0)
    assert walk("abort", "flights") == ("aborted", "settled", 0.0)
    assert walk("promote", "flights", "v3", "--override", "a test")[0] == "promoted"
    back = ask("rollback", "flights", "--reason", "a test")
    assert (back["event"], back["release"], back["left"]) == ("rolled_back", "r1", "r3")
    parts = back["receipt"]
    assert 0 < parts["decide_ms"] < parts["last_ack_ms"] <= parts["total_ms"]
    assert parts["first_old_answer_ms"] is not None
    assert (parts["silent"], parts["cold"]) == ([], {})

    assert ask("apply") == {"changed": {}}
    (item,) = ask("status")
    assert (item["endpoint"], item["stage"], item["candidate"]) == ("flights", "settled", None)
    entries = ask("history", "flights", "--limit", "3")
    assert [entry["seq"] for entry in entries] == sorted((e["seq"] for e in entries), reverse=True)
    assert len(entries) == 3
    assert {row["version"] for row in ask("versions", "flights")} == {"v1", "v2", "v3"}
    assert ask("doctor")["ok"] is True
    assert ask("init", "flights")["created"] is False


def test_a_person_who_calls_themselves_a_patrol_is_a_person(empty: Fresh) -> None:
    """KEDGE_ACTOR is a name; what wrote an entry is stated beside it."""
    empty.init()
    empty.run("apply")
    empty.env["KEDGE_ACTOR"] = "patrol@here"
    empty.release(promote=False)
    empty.run("promote", "flights", "v1", "--override", "a test")
    empty.run("promote", "flights", "v2", "--override", "a test")
    empty.run("rollback", "flights")
    entries = empty.data("history", "flights", "--limit", "50")
    mine = [entry["actor"] for entry in entries if entry["by"] == "patrol@here"]
    assert len(mine) > 3
    assert set(mine) == {"person"}
    (told,) = empty.data("speed", "flights")["incidents"]
    assert (told["by"], told["automatic"], told["sign"]) == ("patrol@here", False, "command")


def test_status_can_be_watched_until_ctrl_c(served: Fresh) -> None:
    """It shows it again and again, and ends with 0."""
    watching = subprocess.Popen(
        [*KEDGE, "status", "flights", "--watch", "--json"],
        cwd=served.root,
        env=served.env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watching.stdout is not None
    ages = [json.loads(watching.stdout.readline())["replicas"][0]["beat_age_s"] for _ in range(2)]
    watching.send_signal(signal.SIGINT)
    _, errors = watching.communicate(timeout=10)
    assert len(ages) == 2
    assert (watching.returncode, errors) == (0, b"")


# ---------------------------------------------------------------- failures


@pytest.mark.parametrize(
    "line, said",
    [
        ("promote flights v9", "no version v9 of flights is registered"),
        ("promote flights r9", "flights has no release r9"),
        ("promote flights best", "'best' is neither a version nor a release"),
        ("promote flights v1", "flights already serves r1"),
        ("promote flights v2", "r2 has not been shadowed or canaried"),
        ("promote flights", "no rollout is under way"),
        ("promote nowhere v1", "no endpoint nowhere"),
        ("shadow flights v1", "flights already serves r1"),
        ("set-weight flights 5", "no rollout is under way"),
        ("pause flights", "no rollout is under way"),
        ("resume nowhere", "no endpoint nowhere"),
        ("abort flights", "no rollout is under way"),
        ("rollback nowhere", "no endpoint nowhere"),
        ("rollback flights --to r9", "flights has no release r9"),
        ("rollback flights --to v1", "'v1' is not a release"),
        ("rollback flights --axis features", "no earlier good release"),
        ("unpin flights", "flights is not pinned on this host"),
        ("status nowhere", "no endpoint nowhere"),
        ("doctor --forget nobody", "no replica nobody"),
        ("up", "kedge up already runs"),
        ("gateway", "kedge up already runs"),
    ],
)
def test_a_no_is_exit_1_with_its_reason_and_a_hint(served: Fresh, line: str, said: str) -> None:
    """Nothing changed; what to do instead is the last line."""
    before = served.epoch()
    assert said in served.fails(1, *line.split())
    assert served.epoch() == before


@pytest.mark.parametrize(
    "line, said",
    [
        ("shadow flights v2 --sample 200", "'200' is more than 100 %"),
        ("canary flights v2 --weight -1", "'-1' is below 0 %"),
        ("canary flights v2 --weight 1e-9", "below the smallest share, 0.01 %"),
        ("set-weight flights nan", "'nan' is not a share in per cent"),
        ("plan flights --rate nan", "'nan' is not a rate in requests a second"),
    ],
)
def test_a_number_that_is_none_is_a_usage_error_in_words(
    served: Fresh, line: str, said: str
) -> None:
    before = served.epoch()
    done = served.run(*line.split(), check=False)
    assert (done.returncode, said in done.stderr) == (2, True), done.stderr
    assert served.epoch() == before


def test_a_no_is_one_json_document_too(served: Fresh) -> None:
    """With its code, message and hint; the hint also stands on stderr."""
    told = served.data("promote", "flights", "v9", check=False)["error"]
    assert told["code"] == "unknown_version"
    assert told["message"]
    assert told["hint"]
    assert served.fails(1, "promote", "flights", "v9", "--json").startswith("hint: ")
    assert served.data("up", check=False)["error"]["code"] == "already_running"


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "promote",
        "set-weight flights much",
        "set-weight flights",
        "canary flights",
        "register flights ./nothing-here",
        "status --colour",
        "rollback flights --axis both",
        "history flights --limit all",
        "--config",
    ],
)
def test_an_invalid_command_line_exits_with_2_and_points_to_the_help(
    served: Fresh, line: str
) -> None:
    """It never reaches the ledger."""
    done = served.run(*line.split(), check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.splitlines()[-1].startswith("hint: ")
    assert done.stdout == ""


@pytest.mark.parametrize("line", ["apply", "up", "gateway"])
def test_without_a_configuration_it_is_exit_2(empty: Fresh, line: str) -> None:
    """And the hint says who writes one."""
    assert "kedge init" in empty.fails(2, line)


@pytest.mark.parametrize(
    "line",
    [
        "status",
        "promote flights v1",
        "rollback flights",
        "versions flights",
        "history flights",
        "rollback flights --local",
    ],
)
def test_in_an_empty_directory_it_is_exit_2_and_says_the_way_out(empty: Fresh, line: str) -> None:
    """One may be in the wrong one: nothing is said to be gone."""
    assert "kedge.toml" in empty.fails(2, *line.split())


def test_without_a_ledger_it_is_exit_4(empty: Fresh) -> None:
    empty.init()
    shutil.rmtree(empty.root / ".kedge", ignore_errors=True)
    empty.fails(4, "status")


def test_init_writes_what_can_be_read_and_is_content_to_find_it(empty: Fresh) -> None:
    """Twice is not once too often; `apply` takes what it wrote, unedited."""
    empty.init()
    written = (empty.root / "kedge.toml").read_text()
    assert f"port = {empty.port}" in written
    empty.init()
    assert (empty.root / "kedge.toml").read_text() == written
    assert empty.says("apply") == "flights: first policy\n"
    assert empty.says("apply") == "nothing changed\n"


@pytest.mark.parametrize("words", [("my model",), ("a.b",), ("flights", "--port", "99999")])
def test_init_of_what_cannot_be_leaves_no_file_behind(empty: Fresh, words: tuple[str, ...]) -> None:
    """Else the next try finds a broken one."""
    empty.fails(2, "init", *words)
    assert not (empty.root / "kedge.toml").exists()
    empty.init()


@pytest.mark.parametrize(
    "code, line",
    [
        (2, "up --port 99999 --run-for 0.2"),
        (2, "up --workers 0 --run-for 0.2"),
        (2, "set-weight flights nan"),
    ],
)
def test_a_number_that_cannot_be_is_refused_on_the_command_line_too(
    empty: Fresh, code: int, line: str
) -> None:
    """By the same rules as in the configuration, never with a traceback."""
    empty.init()
    empty.run("apply")
    empty.fails(code, *line.split())


# ---------------------------------------------------------------- configuration


BAD = """
colour = "red"
[endpoints.flights.shadow]
sample = 0
[endpoints.flights.limits]
rows = "many"
[endpoints.flights.fields.x]
dtype = "floot32"
"""
PLACES = [
    "endpoints.flights.colour",
    "endpoints.flights.shadow.sample",
    "endpoints.flights.limits.rows",
    "endpoints.flights.fields.x.dtype",
]


def test_a_bad_configuration_lists_all_its_faults_and_changes_nothing(served: Fresh) -> None:
    """Exit 2; what is in force stays, and a rollback still works."""
    path = served.root / "kedge.toml"
    good = path.read_text()
    policy = served.data("status", "flights")["policy"]
    try:
        path.write_text(
            good.replace('audience = "internal"', 'audience = "internal"\ncolour = "red"')
            + BAD.replace('colour = "red"\n', "")
        )
        told = served.fails(2, "apply")
        assert [place for place in PLACES if f"{place}: " not in told] == []
        faults = served.data("apply", check=False)["error"]["faults"]
        assert len(faults) == len(PLACES)
        served.fails(2, "up")
        assert served.data("status", "flights")["policy"] == policy
        assert served.infer()[0] == 200
        served.run("canary", "flights", "v2", "--weight", "1")
        assert served.data("rollback", "flights")["event"] == "candidate_rolled_back"
        path.write_text("[[[")
        assert "at line 1" in served.fails(2, "apply")
        assert served.data("status", "flights")["policy"] == policy
    finally:
        path.write_text(good)
    assert served.says("apply") == "nothing changed\n"


def test_a_change_is_shown_once_comes_into_force_and_then_nothing_changes(empty: Fresh) -> None:
    """The diff names the leaf, the old value and the new; it stands in the history."""
    empty.init()
    empty.run("apply")
    empty.edit("[endpoints.flights.shadow]\nsample = 20\n")
    assert empty.says("apply") == "flights: shadow.sample: 100.0 -> 20.0\n"
    assert empty.data("apply") == {"changed": {}}
    assert "shadow.sample: 100.0 -> 20.0" in empty.says("history", "flights")


def test_another_file_is_named_by_option_or_environment(empty: Fresh) -> None:
    """Its directory is where the state stands."""
    empty.init()
    empty.run("apply")
    elsewhere = Path(tempfile.mkdtemp(prefix="kedge-elsewhere-"))
    try:
        config = str(empty.root / "kedge.toml")
        for words, env in (
            (["--config", config, "status", "--json"], empty.env),
            (["status", "--json"], {**empty.env, "KEDGE_CONFIG": config}),
        ):
            told = subprocess.run(
                [*KEDGE, *words], cwd=elsewhere, env=env, capture_output=True, check=True
            )
            assert json.loads(told.stdout)[0]["endpoint"] == "flights"
    finally:
        shutil.rmtree(elsewhere)


# ---------------------------------------------------------------- up


def test_up_on_a_taken_port_is_exit_4_and_leaves_nothing_running(empty: Fresh) -> None:
    """Another process has it; the hint says how to take another."""
    empty.init()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        told = empty.fails(4, "up", "--port", str(port))
    assert f"cannot listen on 127.0.0.1:{port}" in told
    assert "--port" in told.splitlines()[-1]
    assert empty.processes("kedge") == []


def test_up_is_bound_to_loopback_unless_callers_may_be_plain(
    empty: Fresh,
) -> None:
    empty.init()
    path = empty.root / "kedge.toml"
    path.write_text(path.read_text().replace('"127.0.0.1"', '"0.0.0.0"'))
    assert "reachable from outside" in empty.fails(2, "up", "--run-for", "0.2")
    empty.env["KEDGE_TRUST_NETWORK"] = "1"
    assert "[server] plain = true" in empty.fails(2, "up", "--run-for", "0.2")
    del empty.env["KEDGE_TRUST_NETWORK"]
    path.write_text(path.read_text().replace("[server]\n", "[server]\nplain = true\n"))
    told = empty.run("up", "--run-for", "8").stderr
    # What is printed can be opened: nothing listens at 0.0.0.0 itself.
    assert "serving on http://127.0.0.1:" in told


# ---------------------------------------------------------------- doctor


def tampering(change: str) -> Callable[[sqlite3.Connection], None]:
    """Change the ledger behind kedge's back: its triggers would say no."""

    def tamper(ledger: sqlite3.Connection) -> None:
        triggers = ledger.execute(
            "SELECT name FROM sqlite_master WHERE type = 'trigger'"
        ).fetchall()
        for (name,) in triggers:
            ledger.execute(f'DROP TRIGGER "{name}"')
        ledger.execute("PRAGMA foreign_keys = OFF")
        ledger.execute(change)

    return tamper


@pytest.fixture(scope="module")
def written() -> Iterator[Fresh]:
    """A ledger of three entries, and nothing that runs."""
    site = fresh()
    try:
        site.init()
        for sample in (90, 80, 70):
            path = site.root / "kedge.toml"
            text = path.read_text().partition("[endpoints.flights.shadow]")[0]
            path.write_text(f"{text}[endpoints.flights.shadow]\nsample = {sample}\n")
            site.run("apply")
        yield site
    finally:
        shutil.rmtree(site.root, ignore_errors=True)


@pytest.mark.parametrize(
    "change, said",
    [
        ("UPDATE ledger SET reason = 'it was not me' WHERE seq = 2", "entry 2 was changed"),
        (
            "UPDATE ledger SET event = replace(event, '80', '81') WHERE seq = 2",
            "entry 2 was changed",
        ),
        ("DELETE FROM ledger WHERE seq = 2", "entry 2 is missing"),
        ("UPDATE endpoint SET epoch = 2", "flights is at epoch 2, its entries at 3"),
    ],
)
def test_doctor_names_the_entry_that_was_tampered_with(
    written: Fresh, change: str, said: str
) -> None:
    """Every byte is chained to the one before it: it is found, told, and exit 1."""
    ledger = written.root / ".kedge/ledger/ledger.db"
    saved = written.root / "saved"
    shutil.copytree(ledger.parent, saved)
    try:
        connection = sqlite3.connect(ledger, isolation_level=None)
        tampering(change)(connection)
        connection.close()
        done = written.run("doctor", "--json", check=False)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("hint: ")
        told = json.loads(done.stdout)
        assert told["ok"] is False
        (finding,) = [item for item in told["findings"] if item["check"] == "ledger chain"]
        assert said in finding["detail"]
    finally:
        shutil.rmtree(ledger.parent)
        saved.rename(ledger.parent)


def test_the_triggers_say_no_to_a_change_of_the_ledger(written: Fresh) -> None:
    """Before doctor has anything to find."""
    connection = sqlite3.connect(written.root / ".kedge/ledger/ledger.db", isolation_level=None)
    try:
        for change in ("UPDATE ledger SET reason = 'x' WHERE seq = 1", "DELETE FROM ledger"):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(change)
    finally:
        connection.close()


def test_doctor_finds_the_byte_of_an_artifact_that_was_changed(served: Fresh) -> None:
    """And names the file."""
    first = served.data("versions", "flights")[0]
    digest = first["digest"].removeprefix("sha256:")
    changed = served.root / ".kedge/artifacts" / digest / "files" / "behave.json"
    good = changed.read_bytes()
    changed.parent.chmod(0o755)
    changed.chmod(0o644)
    try:
        changed.write_bytes(bytes([good[0] ^ 1]) + good[1:])
        done = served.run("doctor", check=False)
        assert done.returncode == 1
        bad = [line for line in done.stdout.splitlines() if "BAD" in line]
        assert any("behave.json" in line for line in bad), done.stdout
    finally:
        changed.write_bytes(good)


# ---------------------------------------------------------------- help


@pytest.mark.parametrize("name", [None, *sorted(COMMANDS)])
def test_every_command_explains_itself(empty: Fresh, name: str | None) -> None:
    """--help and -h, without a configuration, a ledger, or a traceback; --json where there is data."""
    words = [] if name is None else [name]
    told = empty.says(*words, "--help")
    assert told.startswith("Usage: ")
    assert len(told.splitlines()) > 3
    if name is None:
        shown = {
            line.split()[0] for line in told.partition("Options:")[2].splitlines() if line.strip()
        }
        hidden = {name for name, listed in COMMANDS.items() if listed.hidden}
        assert COMMANDS.keys() - hidden <= shown
        assert not hidden & shown
        assert empty.says("-h") == told
    else:
        prints_json_only = name == "grafana"
        assert "--json" in told or "Commands:" in told or prints_json_only
    assert list(empty.root.iterdir()) == [empty.root / "plugin"]


def test_the_version_is_the_packages(empty: Fresh) -> None:
    """One number, in one place."""
    from importlib.metadata import version

    assert version("kedge") in empty.says("--version")


def test_nothing_is_written_by_only_looking(empty: Fresh) -> None:
    """In the wrong directory one must not leave another .kedge behind."""
    for line in ("status", "versions flights"):
        empty.run(*line.split(), check=False)
    assert not (empty.root / ".kedge").exists()


def test_data_goes_to_stdout_and_messages_to_stderr(served: Fresh) -> None:
    """So that a pipe gets only the data."""
    done = served.run("status", "flights", "--json")
    assert done.stderr == ""
    failed: dict[str, Any] = json.loads(served.run("status", "x", "--json", check=False).stdout)
    assert list(failed) == ["error"]
    assert served.run("status", "x", check=False).stdout == ""
