"""Uploads over control's API: resumed, verified, bounded, of one caller, and removed."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from contract.sql_world import World, world
from kedge.adapters.artifacts import quarantine
from kedge.adapters.artifacts.quarantine import Quarantine
from kedge.adapters.clock import SystemClock
from kedge.core.access import Access, AccessKind, Role, Scope
from kedge.core.errors import KedgeError, Unavailable
from kedge.core.uploads import KEPT_S, USED_S, UploadRequest
from kedge.core.values import FileEntry
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.catalogue import API
from kedge.web import uploads
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.events import Streams
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from models import environment, install, misbehaving
from support.access import Open
from support.api import api_of

PATH = f"{API}/uploads"
BODY = bytes(range(256)) * 40
CI = Access("ci", AccessKind.TOKEN, scopes=(Scope.REGISTER,), token=1)
LABELS = Access("labels", AccessKind.TOKEN, scopes=(Scope.OUTCOMES,), token=2)


def entry(path: str, raw: bytes) -> dict[str, Any]:
    return {"path": path, "size": len(raw), "sha256": hashlib.sha256(raw).hexdigest()}


def listed(*files: tuple[str, bytes], purpose: str = "register", **more: Any) -> dict[str, Any]:
    endpoint = {"endpoint": "flights"} if purpose != "features apply" else {}
    return {"purpose": purpose, "files": [entry(*one) for one in files], **endpoint, **more}


class Dock:
    """The API over a state directory, for a caller that tests may change."""

    def __init__(self, root: Path) -> None:
        self.world: World = world(root)
        (root / "kedge.toml").write_text('[endpoints.flights]\naudience = "internal"\n')
        self.faults = ProcessFaults(SystemClock())
        readers = Readers(partial(Workplace, self.world.state_dir))
        earlier = Admin(lambda _: [], lambda _: None, None)  # type: ignore[arg-type]
        self.gate = Open(CI)
        api = api_of(readers, Streams(readers, self.faults), self.world.state_dir)
        self.app = Front(earlier, api.routes(), self.faults, gate=self.gate)
        self.loop = asyncio.Runner()
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url="http://127.0.0.1", timeout=120
        )

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return self.loop.run(self.http.request(method, path, **more))

    def create(self, body: dict[str, Any]) -> httpx2.Response:
        return self.ask("POST", PATH, json=body)

    def add(self, name: str, offset: int, raw: Any, **headers: str) -> httpx2.Response:
        given = {"content-type": "application/partial-upload", "upload-offset": str(offset)}
        given |= {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("PATCH", f"{PATH}/{name}", content=raw, headers=given)

    @property
    def stored(self) -> list[Path]:
        """Everything in quarantine but its lock."""
        root = self.world.state_dir / quarantine.UPLOADS_DIR
        return [path for path in root.iterdir() if path.name != "lock"] if root.exists() else []


@pytest.fixture
def dock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Dock]:
    (tmp_path / ".kedge").symlink_to(tmp_path / "state")
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", install(tmp_path / "plugin"))
    # A refusal after the last byte must not wait for more of them.
    monkeypatch.setattr(uploads, "DRAINED_S", 3600.0)
    made = Dock(tmp_path)
    yield made
    made.loop.run(made.http.aclose())
    made.loop.close()


def code(answer: httpx2.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def test_an_upload_is_continued_where_it_ended(dock: Dock) -> None:
    files = (("m/a.bin", BODY), ("m/empty", b""), ("m/deep/b.bin", BODY[:5000]))
    made = dock.create(listed(*files))
    assert (made.status_code, made.headers["upload-offset"]) == (201, "0")
    name = made.json()["upload"]
    assert made.headers["location"] == f"{PATH}/{name}"
    whole = b"".join(raw for _, raw in files)
    for begin, end in ((0, 3000), (3000, 11_000)):
        added = dock.add(name, begin, whole[begin:end], upload_complete="?0")
        assert (added.status_code, added.headers["upload-complete"]) == (200, "?0")
        head = dock.ask("HEAD", f"{PATH}/{name}")
        assert head.headers["upload-offset"] == str(end) == added.headers["upload-offset"]
        assert head.headers["upload-length"] == str(len(whole))
        again = dock.create(listed(*files)).json()
        assert (again["upload"], again["offset"]) == (name, end)
    done = dock.add(name, 11_000, whole[11_000:], upload_complete="?1")
    assert (done.headers["upload-complete"], done.json()["complete"]) == ("?1", True)
    store = Quarantine(dock.world.state_dir, SystemClock().unix)
    with store.reading("token ci (1)", name, "register", "flights") as ready:
        found = {p.relative_to(ready.folder).as_posix(): p.read_bytes() for p in files_in(ready)}
        assert found == dict(files)
        modes = {p.stat().st_mode & 0o777 for p in ready.folder.rglob("*")}
        assert modes == {0o600, 0o700}
    repeated = dock.create(listed(*files)).json()
    assert (repeated["complete"], repeated["offset"]) == (True, len(whole))


def files_in(ready: quarantine.ReadyUpload) -> list[Path]:
    return [path for path in ready.folder.rglob("*") if path.is_file()]


def test_other_bytes_than_announced_are_never_kept(dock: Dock) -> None:
    name = dock.create(listed(("a", BODY))).json()["upload"]
    wrong = dock.add(name, 0, bytes(len(BODY)), upload_complete="?1")
    assert code(wrong) == (422, "wrong_digest")
    assert wrong.json()["details"]["path"] == "a"
    assert code(dock.add(name, 0, BODY)) == (404, "unknown_upload")
    assert dock.stored == []
    assert dock.faults.limited["control.wrong_digest"] == 1


def test_bytes_at_a_wrong_place_are_refused_with_the_right_one(dock: Dock) -> None:
    name = dock.create(listed(("a", BODY))).json()["upload"]
    dock.add(name, 0, BODY[:100])
    late = dock.add(name, 200, BODY[200:300])
    assert code(late) == (409, "wrong_offset")
    assert late.headers["upload-offset"] == "100"
    assert late.json()["details"] == {"expected-offset": 100, "provided-offset": 200}
    for raw, headers in (
        (BODY, {}),  # more than announced
        (BODY[100:200], {"upload_complete": "?1"}),  # truncated
    ):
        assert code(dock.add(name, 100, raw, **headers)) == (400, "inconsistent_length")
    at = int(dock.ask("HEAD", f"{PATH}/{name}").headers["upload-offset"])
    assert at == 200  # what arrived of a truncated request stays
    for offset in ("-1", "", "1e3", "9" * 30):
        assert code(dock.add(name, 0, b"", upload_offset=offset)) == (400, "bad_offset")
    assert code(dock.add(name, at, b"x", upload_complete="yes")) == (400, "bad_offset")
    assert code(dock.add(name, at, b"x", content_type="text/plain")) == (415, "unsupported_type")
    assert code(dock.add(name, at, b"x", content_encoding="gzip"))[1] == "unsupported_encoding"
    assert dock.add(name, at, BODY[at:]).json()["complete"]


def test_a_lost_connection_keeps_what_arrived(dock: Dock) -> None:
    name = dock.create(listed(("a", BODY))).json()["upload"]

    messages = iter([{"type": "http.request", "body": BODY[:700], "more_body": True}])

    async def receive() -> dict[str, Any]:
        return next(messages, {"type": "http.disconnect"})

    async def send(_: Any) -> None:
        return None

    dock.loop.run(dock.app(patch(name), receive, send))
    assert dock.ask("HEAD", f"{PATH}/{name}").headers["upload-offset"] == "700"
    assert dock.faults.limited["control.hung_up"] >= 1
    assert dock.add(name, 700, BODY[700:]).json()["complete"]


def test_a_slow_caller_loses_its_place_but_no_byte(
    dock: Dock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "IDLE_S", 0.2)
    name = dock.create(listed(("a", BODY))).json()["upload"]

    async def ask() -> httpx2.Response:
        first = True

        async def receive() -> dict[str, Any]:
            nonlocal first
            if first:
                first = False
                return {"type": "http.request", "body": BODY[:300], "more_body": True}
            await asyncio.Event().wait()
            raise AssertionError

        told: list[Any] = []

        async def send(message: Any) -> None:
            told.append(message)

        await dock.app(patch(name), receive, send)
        return httpx2.Response(told[0]["status"], content=told[1]["body"])

    monkeypatch.setattr(uploads, "DRAINED_S", 0.1)
    assert code(dock.loop.run(ask())) == (408, "body_too_slow")
    assert dock.ask("HEAD", f"{PATH}/{name}").headers["upload-offset"] == "300"


def test_an_upload_belongs_to_the_token_that_made_it(dock: Dock) -> None:
    body = listed(("a", BODY))
    name = dock.create(body).json()["upload"]
    for other in (
        Access(
            "ci", AccessKind.TOKEN, scopes=(Scope.REGISTER,), token=9
        ),  # a later one of its name
        Access("ada", AccessKind.TOKEN, role=Role.ADMIN, token=3),
    ):
        dock.gate.access = other
        for method in ("GET", "DELETE"):
            assert code(dock.ask(method, f"{PATH}/{name}")) == (404, "unknown_upload")
        assert code(dock.add(name, 0, BODY)) == (404, "unknown_upload")
        assert dock.create(body).json()["upload"] != name
    dock.gate.access = CI
    assert dock.ask("DELETE", f"{PATH}/{name}").status_code == 204
    assert dock.ask("GET", f"{PATH}/{name}").status_code == 404


@pytest.mark.parametrize(
    ("access", "body", "refused"),
    [
        (LABELS, listed(("a", BODY)), "scope_missing"),
        (CI, listed(("a", BODY), purpose="outcomes"), "scope_missing"),
        (CI, listed(("a", BODY), purpose="features apply"), "role_too_low"),
        (Access("v", AccessKind.TOKEN, role=Role.VIEWER), listed(("a", BODY)), "scope_missing"),
        (msgspec.structs.replace(CI, endpoints=("other",)), listed(("a", BODY)), "endpoint_denied"),
    ],
)
def test_only_who_may_use_the_files_may_send_them(
    dock: Dock, access: Access, body: dict[str, Any], refused: str
) -> None:
    dock.gate.access = access
    assert code(dock.create(body)) == (403, refused)
    assert dock.stored == []


@pytest.mark.parametrize(
    "path", ["/etc/x", "../x", "a/../../x", "a//b", "", "a\0", "a\\b", "..", "a" * 300, "\n"]
)
def test_a_malicious_name_writes_nothing(dock: Dock, path: str) -> None:
    for files in ((path, BODY), ("good", BODY)), ((f"good/{path}/x", BODY),):
        body = {**listed(), "files": [entry(*one) for one in files]}
        status, why = code(dock.create(body))
        assert (status, why) == (400, "bad_upload"), path
    assert dock.stored == []
    name = dock.create(listed(("m/a", b""))).json()["upload"]
    asked = {"upload": name, "path": "m", "golden": path}
    answer = dock.ask("POST", f"{API}/endpoints/flights/register", json=asked)
    assert answer.status_code == 400
    assert answer.json()["code"] in ("not_in_upload", "bad_parameters")


@pytest.mark.parametrize("name", ["..", "x", "%2e%2e%2fledger", "A" * 64, "0" * 63, "0" * 65])
def test_a_name_that_is_none_reads_nothing(dock: Dock, name: str) -> None:
    assert dock.ask("GET", f"{PATH}/{name}").status_code == 404


def test_the_number_of_files_and_their_list_are_bounded(dock: Dock) -> None:
    many = [entry(f"{number}", b"") for number in range(10_001)]
    assert code(dock.create(listed() | {"files": many})) == (400, "bad_parameters")
    long = [entry(f"{number:0900}", b"") for number in range(5_000)]
    assert code(dock.create(listed() | {"files": long})) == (413, "too_large")
    assert code(dock.create(listed() | {"files": []})) == (400, "bad_parameters")
    assert code(dock.create(listed(("a", b"")) | {"endpoint": None})) == (400, "bad_parameters")
    assert dock.stored == []


def test_two_requests_do_not_add_bytes_at_once(dock: Dock) -> None:
    name = dock.create(listed(("a", BODY))).json()["upload"]
    store = Quarantine(dock.world.state_dir, SystemClock().unix)
    with store.appending("token ci (1)", name, 0):  # the same upload of another client
        busy = dock.add(name, 0, BODY)
        assert code(busy) == (409, "upload_busy")
        assert busy.json()["retryable"]
        assert code(dock.ask("DELETE", f"{PATH}/{name}")) == (409, "upload_busy")
    assert dock.add(name, 0, BODY).json()["complete"]


def test_slow_requests_of_one_caller_leave_places_to_others(dock: Dock) -> None:
    async def ask(access: Access, name: str, asked: int) -> int:
        """Begin requests that send nothing, and one that does; return its status."""
        begun: asyncio.Queue[None] = asyncio.Queue()
        waiting = asyncio.Event()

        async def receive() -> dict[str, Any]:
            await begun.put(None)
            await waiting.wait()
            return {"type": "http.disconnect"}

        async def send(_: Any) -> None:
            return None

        dock.gate.access = CI
        slow = []
        for each in names[:asked]:
            slow.append(asyncio.ensure_future(dock.app(patch(each), receive, send)))
            await begun.get()
        dock.gate.access = access
        headers = {"content-type": "application/partial-upload", "upload-offset": "0"}
        done = await dock.http.patch(f"{PATH}/{name}", content=BODY, headers=headers)
        waiting.set()
        await asyncio.gather(*slow)
        return done.status_code

    names = [dock.create(listed((f"f{n}", BODY))).json()["upload"] for n in range(5)]
    ada = dock.gate.access = msgspec.structs.replace(CI, name="ada", token=7)
    other = dock.create(listed(("a", BODY))).json()["upload"]
    assert dock.loop.run(ask(CI, names[4], uploads.HOLDER_AT_ONCE)) == 503
    assert dock.loop.run(ask(ada, other, uploads.HOLDER_AT_ONCE)) == 200
    assert dock.loop.run(ask(CI, names[4], uploads.HOLDER_AT_ONCE - 1)) == 200


def patch(name: str) -> dict[str, Any]:
    """The scope of a request that adds bytes at the beginning."""
    headers = [
        (b"host", b"127.0.0.1"),
        (b"content-type", b"application/partial-upload"),
        (b"upload-offset", b"0"),
    ]
    path = f"{PATH}/{name}"
    whole = {"type": "http", "method": "PATCH", "path": path, "raw_path": path.encode()}
    return {**whole, "query_string": b"", "headers": headers}


def test_a_model_is_registered_from_its_upload(dock: Dock, tmp_path: Path) -> None:
    model = misbehaving(tmp_path / "model")
    raw = (model / "behave.json").read_bytes()
    golden = b'{"inputs": {"x": [1.0, 2.0], "word": ["a", "b"]}}'
    files = (("model/behave.json", raw), ("golden/golden.json", golden))
    name = dock.create(listed(*files)).json()["upload"]
    register = f"{API}/endpoints/flights/register"
    asked = {"upload": name, "path": "model", "golden": "golden/golden.json"}
    assert code(dock.ask("POST", register, json=asked)) == (409, "upload_incomplete")
    dock.add(name, 0, raw + golden)
    other = dock.ask("POST", f"{API}/endpoints/other/register", json=asked)
    assert code(other) == (409, "upload_purpose")
    for more in (
        {"trust": ["os.system"]},
        {"trust_inline": "it is mine"},
        {"allow_code": "it is mine"},
    ):
        assert code(dock.ask("POST", register, json=asked | more)) == (403, "role_too_low")
    outside = dock.ask("POST", register, json=asked | {"golden": "../about.json"})
    assert code(outside) == (400, "not_in_upload")
    done = dock.ask("POST", register, json=asked)
    found = done.json()
    assert done.status_code == 200, done.text
    assert (found["flavour"], found["golden"], found["new"]) == ("test", "given", True)
    (note, *_) = dock.world.ledger.history("flights")
    assert (note.by, note.token) == ("ci", "token ci")
    again = dock.ask("POST", register, json=asked).json()
    assert (again["version"], again["new"]) == (found["version"], False)


def test_a_refusal_names_the_file_as_its_caller_does(dock: Dock) -> None:
    name = dock.create(listed(("wine.onnx", b"no model"))).json()["upload"]
    dock.add(name, 0, b"no model")
    asked = {"upload": name, "path": "wine.onnx"}
    refused = dock.ask("POST", f"{API}/endpoints/flights/register", json=asked)
    assert refused.status_code == 409
    assert "wine.onnx" in refused.json()["detail"]
    assert str(dock.world.state_dir) not in refused.text


def test_what_a_command_wrote_is_streamed_to_its_caller_alone(dock: Dock) -> None:
    dock.gate.access = operator = Access("op", AccessKind.TOKEN, role=Role.OPERATOR, token=4)
    made = dock.create(listed(purpose="log export")).json()
    assert (made["complete"], made["results"]) == (True, [])
    assert code(dock.create(listed(("a", b"x"), purpose="log export")))[1] == "bad_parameters"
    store = Quarantine(dock.world.state_dir, SystemClock().unix)
    about = ("token op (4)", made["upload"], "log export", "flights")
    with store.reading(*about) as ready, store.working(ready) as work:
        (work / "out" / "day").mkdir(parents=True)
        (work / "out" / "day" / "00.parquet").write_bytes(BODY)
        (work / "out" / "link").symlink_to("/etc/passwd")
        store.keep_results(ready, work, "out")
    path = f"{PATH}/{made['upload']}"
    (result,) = dock.ask("GET", path).json()["results"]
    assert result == entry("out/day/00.parquet", BODY)
    assert dock.ask("GET", f"{path}/results/out/day/00.parquet").content == BODY
    part = dock.ask("GET", f"{path}/results/{result['path']}", headers={"range": "bytes=10-19"})
    assert (part.status_code, part.content) == (206, BODY[10:20])
    for wrong in ("out/link", "out", "", "../about.json", "..%2fabout.json", "%2fetc%2fpasswd"):
        assert dock.ask("GET", f"{path}/results/{wrong}").status_code == 404, wrong
    dock.gate.access = msgspec.structs.replace(operator, token=5)
    assert dock.ask("GET", f"{path}/results/{result['path']}").status_code == 404


def test_a_result_takes_no_place_of_a_file(dock: Dock) -> None:
    dock.gate.access = Access("op", AccessKind.TOKEN, role=Role.OPERATOR, token=4)
    name = dock.create(listed(("s.csv", BODY), purpose="features training-set")).json()["upload"]
    dock.add(name, 0, BODY)
    asked = {"upload": name, "spine": "s.csv", "time": "at"}
    for out in ("s.csv", "../s.csv", "a/b", ".hidden", ""):
        path = f"{API}/endpoints/flights/features/training-set"
        refused = dock.ask("POST", path, json=asked | {"out": out})
        assert code(refused) == (400, "bad_parameters"), out


# ---------------------------------------------------------------- the store


class Shelf:
    """A quarantine of a test, with its own time."""

    def __init__(self, root: Path) -> None:
        self.now = 1_000_000_000.0
        self.root = root
        self.store = self.opened()

    def opened(self, most: int = 1 << 30) -> Quarantine:
        """The store as another process opens it."""
        return Quarantine(self.root, lambda: self.now, most=most)

    def wanted(self, raw: bytes, name: str = "a") -> UploadRequest:
        digest = hashlib.sha256(raw).hexdigest()
        files = (FileEntry(path=name, size=len(raw), sha256=digest),)
        return UploadRequest(purpose="register", endpoint="flights", files=files)

    def add(self, raw: bytes, name: str = "a", *, ends: bool = True) -> str:
        """A whole upload, or one whose last byte is missing."""
        upload = self.store.create("ci", self.wanted(raw, name)).upload
        with self.store.appending("ci", upload, 0) as appender:
            appender.write(raw if ends else raw[:-1])
            appender.finish()
        return upload

    def left(self) -> list[str]:
        return sorted(p.name for p in (self.root / "uploads").iterdir() if p.name != "lock")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_an_abandoned_upload_expires_and_a_used_one_sooner(shelf: Shelf) -> None:
    abandoned, used = shelf.add(b"abandoned", "a", ends=False), shelf.add(b"used", "b")
    with shelf.store.reading("ci", used, "register", "flights"):
        pass
    shelf.now += USED_S + 1
    assert shelf.store.sweep() == 0
    assert shelf.left() == [abandoned]
    shelf.now += KEPT_S - USED_S - 100
    shelf.store.create("ci", shelf.wanted(b"abandoned"))  # the client is still there
    shelf.now += 200
    assert shelf.store.sweep() == 0
    shelf.now += KEPT_S
    assert shelf.opened().sweep() == 1
    assert shelf.left() == []


def test_files_that_a_command_refuses_make_room_too(shelf: Shelf) -> None:
    name = shelf.add(b"bytes")
    opened = shelf.store.reading("ci", name, "register", "flights")
    with pytest.raises(ZeroDivisionError), opened:
        raise ZeroDivisionError
    shelf.now += USED_S + 1
    assert (shelf.store.sweep(), shelf.left()) == (0, [])


def test_an_upload_that_was_removed_for_another_is_counted(shelf: Shelf) -> None:
    shelf.store = shelf.opened(most=100)
    shelf.add(b"x" * 40, "a", ends=False)
    shelf.now += USED_S + 1
    later = shelf.add(b"y" * 40, "b")
    assert (shelf.store.sweep(), shelf.left()) == (1, [later])


def test_what_a_command_reads_is_not_removed(shelf: Shelf) -> None:
    name = shelf.add(b"bytes")
    with shelf.store.reading("ci", name, "register", "flights") as ready:
        shelf.now += KEPT_S + 100
        shelf.opened().sweep()
        assert (ready.folder / "a").read_bytes() == b"bytes"


@pytest.mark.parametrize("step", ["hardlink_to", "rename"])
def test_a_crash_while_an_upload_ends_loses_nothing(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """As a process that is killed: what it did until then stays, and nothing else happens."""
    name = shelf.store.create("ci", shelf.wanted(b"bytes")).upload

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    def add() -> None:
        with shelf.store.appending("ci", name, 0) as appender:
            appender.write(b"bytes")
            monkeypatch.setattr(Path, step, die)
            appender.finish()

    with monkeypatch.context(), pytest.raises(Killed):
        add()
    monkeypatch.undo()
    found = shelf.opened().find("ci", name)
    assert (found.offset, found.complete) == (5, False)
    with shelf.opened().appending("ci", name, 5) as appender:
        appender.finish()
    assert shelf.opened().find("ci", name).complete


def test_the_remains_of_a_crash_are_removed(shelf: Shelf) -> None:
    shelf.add(b"kept")
    for name in (".new-1", ".gone-1", ".inline-1"):
        (shelf.root / "uploads" / name / "parts").mkdir(parents=True)
    with shelf.store.keeping("rows.csv", b"id,value") as folder:
        assert shelf.opened().sweep() == 0
        assert (folder / "rows.csv").read_bytes() == b"id,value"
    assert len(shelf.left()) == 1


def test_uploads_take_no_more_than_their_share(shelf: Shelf) -> None:
    shelf.store = shelf.opened(most=100)
    first = shelf.add(b"x" * 30, "a")
    for size, why in ((51, "upload_too_large"), (40, "uploads_full")):
        with pytest.raises(KedgeError) as told:
            shelf.add(b"y" * size, "b")
        assert told.value.code == why
    with shelf.store.reading("ci", first, "register", "flights"), pytest.raises(KedgeError):
        shelf.add(b"z" * 40, "c")
    shelf.add(b"z" * 40, "c")
    assert first not in shelf.left()


def test_uploads_leave_the_reserve_to_the_ledger(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = shelf.store.create("ci", shelf.wanted(b"bytes")).upload
    with monkeypatch.context() as patched:
        patched.setattr(quarantine, "get_free", lambda _: 100)
        patched.setattr(quarantine, "is_short", lambda _: True)
        with pytest.raises(Unavailable) as told:
            shelf.store.create("ci", shelf.wanted(b"other"))
        assert told.value.code == "no_room"
        with pytest.raises(Unavailable) as told, shelf.store.appending("ci", name, 0) as appender:
            appender.write(b"bytes")
        assert told.value.code == "no_room"
    assert shelf.store.find("ci", name).offset == 0


def test_a_folder_that_others_could_change_is_not_used(shelf: Shelf, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (shelf.root / "uploads").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(Unavailable) as told:
        shelf.store.create("ci", shelf.wanted(b"bytes"))
    assert told.value.code == "uploads_unavailable"
    assert not any((tmp_path / "elsewhere").iterdir())
