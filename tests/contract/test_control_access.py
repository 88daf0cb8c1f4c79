"""Control's paths with a real gatekeeper: what is open, what a token opens, and browsers' logins."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest

from contract.sql_world import world
from contract.test_gatekeeper import bearer
from kedge.adapters.clock import SystemClock
from kedge.core.access import Role, Scope
from kedge.core.sessions import csrf_token
from kedge.core.values import ActorKind
from kedge.engine.loop import Duty
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.catalogue import API, CATALOGUE, Lane, Operation
from kedge.operations.evidence.read import evidence_of
from kedge.operations.status.read import status_of
from kedge.operations.tokens import (
    Grants,
    create_token,
    list_tokens,
    make_link,
    read_admin_token,
    revoke_token,
)
from kedge.runtime.access import LOOK_S, access_of
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.dashboard.assets import Assets
from kedge.web.dashboard.render import Renderer
from kedge.web.events import BEAT_S, Streams
from kedge.web.login import Login
from kedge.web.readers import Readers
from kedge.workspace import Workplace
from support.api import api_of

PORT = 8081
BASE = f"http://127.0.0.1:{PORT}"
READS = (
    "/api/status",
    "/api/status/flights",
    "/api/evidence/flights",
    "/api/v1/endpoints",
    "/api/v1/endpoints/flights/status",
    "/api/v1/openapi.json",
    "/api/nothing",
)


class Site:
    """Control's application as `run_control` builds it, over a real state directory."""

    def __init__(self, root: Path) -> None:
        self.place = Workplace(world(root).state_dir)
        self.faults = ProcessFaults(SystemClock())
        open_place = partial(Workplace, self.place.state_dir, actor=ActorKind.CONTROL)
        self.access = access_of(Duty(self.place.clock, self.faults), open_place, PORT)
        self.joined: list[tuple[str, str]] = []

        async def join(endpoint: str, _: bytes | bytearray, by: str, *_more: object) -> object:
            self.joined.append((endpoint, by))
            return {}

        earlier = Admin(partial(status_of, self.place), partial(evidence_of, self.place), join)
        readers = Readers(open_place)
        streams = Streams(readers, self.faults)
        api = api_of(readers, streams, self.place.state_dir)
        draw = Renderer(Assets()).login
        routes = [*api.routes(), *Login(self.access.gate, draw).routes()]
        self.app = Front(earlier, routes, self.faults, gate=self.access.gate)
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app), base_url=BASE, follow_redirects=False
        )
        self.loop = asyncio.Runner()

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        return self.loop.run(self.http.request(method, path, **more))

    def token(self, name: str = "ci", **grants: Any) -> dict[str, str]:
        """The header of a new token."""
        return bearer(create_token(self.place, Grants(name, **grants), by="ada").token)

    def post(self, headers: dict[str, str], query: str = "") -> httpx2.Response:
        """A batch of outcomes."""
        kind = {"content-type": "application/x-ndjson"}
        return self.ask(
            "POST", f"/api/outcomes/flights{query}", content=b"{}", headers=headers | kind
        )

    def log_in(self) -> str:
        """Log a browser in by the link of this machine; returns its secret."""
        self.access.look()
        link = make_link(self.place, BASE)
        done = self.ask("GET", link.url.removeprefix(BASE))
        assert (done.status_code, done.headers["location"]) == (303, ".")
        return done.headers["set-cookie"].split(";")[0].partition("=")[2]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path)
    yield made
    made.loop.run(made.http.aclose())
    made.loop.close()


def test_without_a_token_only_health_is_open(site: Site) -> None:
    assert site.ask("GET", "/health").json() == {"live": True}
    for path in READS:
        found = site.ask("GET", path)
        assert (found.status_code, found.json()["code"]) == (401, "token_missing"), path
        assert found.headers["www-authenticate"] == "Bearer"
    assert site.post({}).status_code == 401
    assert site.joined == []


def test_a_forwarded_or_loopback_address_is_no_proof(site: Site) -> None:
    for name in ("x-forwarded-for", "forwarded", "x-real-ip", "x-forwarded-user"):
        assert site.ask("GET", "/api/status", headers={name: "127.0.0.1"}).status_code == 401


def test_a_viewer_reads_everything_and_sends_no_outcomes(site: Site) -> None:
    viewer = site.token(role=Role.VIEWER)
    for path in READS[:2]:
        assert site.ask("GET", path, headers=viewer).status_code == 200, path
    found = site.post(viewer)
    assert (found.status_code, found.json()["code"]) == (403, "scope_missing")
    assert site.joined == []


def test_a_label_job_sends_outcomes_and_reads_nothing(site: Site) -> None:
    job = site.token(scopes=(Scope.OUTCOMES,))
    assert site.post(job).status_code == 200
    assert site.post(job, "?correct=true&by=ada").status_code == 200
    assert site.joined == [("flights", ""), ("flights", "ada (token ci)")]
    found = site.ask("GET", "/api/status/flights", headers=job)
    assert (found.status_code, found.json()["code"]) == (403, "role_too_low")


def test_a_token_of_one_endpoint_sees_no_other(site: Site) -> None:
    other = site.token("other", role=Role.OPERATOR, endpoints=("flights",))
    assert [one["endpoint"] for one in site.ask("GET", "/api/status", headers=other).json()] == [
        "flights"
    ]
    for path in ("/api/status/fraud", "/api/v1/endpoints/fraud/status"):
        found = site.ask("GET", path, headers=other)
        assert (found.status_code, found.json()["code"]) == (403, "endpoint_denied"), path


def test_a_revoked_token_is_refused_within_one_look(site: Site) -> None:
    ci = site.token(role=Role.VIEWER)
    assert site.ask("GET", "/api/status", headers=ci).status_code == 200
    revoke_token(site.place, "ci", by="ada")
    site.access.look()
    found = site.ask("GET", "/api/status", headers=ci)
    assert (found.status_code, found.json()["code"]) == (401, "token_revoked")


def test_an_open_stream_ends_within_five_seconds_of_its_token(site: Site) -> None:
    """The longest time: a look of control's loop, then a look of the stream."""
    assert LOOK_S + BEAT_S <= 5.0
    assert site.loop.run(_followed(site, site.token(role=Role.VIEWER)))


async def _followed(site: Site, headers: dict[str, str]) -> bool:
    """Open a stream, revoke its token while it is open, and wait for its end."""
    named = [(b"host", b"localhost"), *((k.encode(), v.encode()) for k, v in headers.items())]
    scope = {
        "type": "http",
        "method": "GET",
        "path": "/api/v1/events",
        "query_string": b"",
        "headers": named,
    }
    begun = asyncio.Event()
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)
        if message["type"] == "http.response.body":
            begun.set()

    async def receive() -> Any:
        await asyncio.Event().wait()

    stream = asyncio.ensure_future(site.app(scope, receive, send))
    await begun.wait()
    assert sent[0]["status"] == 200
    revoke_token(site.place, "ci", by="ada")
    site.access.look()
    async with asyncio.timeout(BEAT_S + 2.0):
        await stream
    return not sent[-1].get("more_body")


def test_control_makes_the_admin_token_of_this_machine(site: Site) -> None:
    assert read_admin_token(site.place.state_dir) == ""
    site.access.look()
    mine = bearer(read_admin_token(site.place.state_dir))
    assert site.ask("GET", "/api/status", headers=mine).status_code == 200
    assert [one.name for one in list_tokens(site.place)] == ["local"]
    (entry,) = site.place.ledger.history("*")
    assert entry.actor == "control"


def test_a_browser_logs_in_by_a_link_once(site: Site) -> None:
    site.access.look()
    path = make_link(site.place, BASE).url.removeprefix(BASE)
    done = site.ask("GET", path)
    assert done.status_code == 303
    cookie = done.headers["set-cookie"]
    for part in (f"kedge-{PORT}=", "HttpOnly", "SameSite=Lax", "Max-Age=43200", "Path=/"):
        assert part in cookie
    assert done.headers["referrer-policy"] == "same-origin"
    again = site.ask("GET", path)
    assert again.status_code == 401
    assert "set-cookie" not in again.headers
    assert "was used" in again.text
    shown = {"cookie": cookie.split(";")[0]}
    assert site.ask("GET", "/api/status", headers=shown).status_code == 200


def test_a_browser_logs_in_with_a_token_and_out_again(site: Site) -> None:
    text = site.token(role=Role.VIEWER)["authorization"].removeprefix("Bearer ")
    page = site.ask("GET", "/login")
    assert (page.status_code, 'name="token"' in page.text) == (200, True)
    # With `no-referrer` a browser would send this form with `Origin: null`, which is refused.
    assert page.headers["referrer-policy"] == "same-origin"
    refused = site.ask("POST", "/login", data={"token": text}, headers={"origin": "null"})
    assert (refused.status_code, refused.json()["code"]) == (403, "foreign_origin")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    many = site.ask("POST", "/login", data={f"field{n}": "x" for n in range(60)})
    assert (many.status_code, many.json()["code"]) == (400, "malformed_body")  # no fault of control
    wrong = site.ask("POST", "/login", data={"token": "<script>alert(1)</script>"})
    assert (wrong.status_code, "<script>" in wrong.text) == (401, False)
    done = site.ask("POST", "/login", data={"token": text})
    assert done.status_code == 303
    secret = done.headers["set-cookie"].split(";")[0].partition("=")[2]
    shown = {"cookie": f"kedge-{PORT}={secret}"}
    assert site.ask("POST", "/logout", headers=shown).status_code == 403
    forged = site.ask("POST", "/logout", headers=shown, data={"csrf": "0" * 64})
    assert forged.status_code == 403
    left = site.ask("POST", "/logout", headers=shown | {"kedge-csrf": csrf_token(secret)})
    assert (left.status_code, "Max-Age=0" in left.headers["set-cookie"]) == (303, True)
    assert site.ask("GET", "/api/status", headers=shown).status_code == 401


def test_a_form_without_scripts_logs_a_browser_out_with_its_csrf_token(site: Site) -> None:
    secret = site.log_in()
    shown = {"cookie": f"kedge-{PORT}={secret}"}
    left = site.ask("POST", "/logout", headers=shown, data={"csrf": csrf_token(secret)})
    assert (left.status_code, "Max-Age=0" in left.headers["set-cookie"]) == (303, True)
    assert site.ask("GET", "/api/status", headers=shown).status_code == 401


def test_a_write_of_another_site_is_refused_although_the_cookie_comes_with_it(site: Site) -> None:
    secret = site.log_in()
    shown = {"cookie": f"kedge-{PORT}={secret}"}
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"},
    ):
        found = site.post(shown | headers | {"kedge-csrf": csrf_token(secret)})
        assert (found.status_code, found.json()["code"]) == (403, "foreign_origin"), headers
    found = site.post(shown | {"origin": BASE})
    assert (found.status_code, found.json()["code"]) == (403, "csrf")
    good = {"origin": BASE, "kedge-csrf": csrf_token(secret)}
    assert site.post(shown | good).status_code == 200
    assert len(site.joined) == 1


def test_another_hosts_name_is_refused_with_a_valid_token_too(site: Site) -> None:
    """A page whose name was made to resolve to this machine has no token, but may have a cookie."""
    viewer = site.token(role=Role.VIEWER)
    found = site.ask("GET", "/api/status", headers=viewer | {"host": "evil.example:8081"})
    assert (found.status_code, found.json()["code"]) == (403, "foreign_host")


@pytest.mark.parametrize("next_", ["https://evil.example", "//evil.example", "/\\evil", "a\r\nb:c"])
def test_a_login_leads_to_no_other_site(site: Site, next_: str) -> None:
    text = site.token(role=Role.VIEWER)["authorization"].removeprefix("Bearer ")
    done = site.ask("POST", "/login", params={"next": next_}, data={"token": text})
    assert (done.status_code, done.headers["location"]) == (303, ".")


def test_a_login_leads_to_the_page_that_asked_for_it(site: Site) -> None:
    text = site.token(role=Role.VIEWER)["authorization"].removeprefix("Bearer ")
    asked = {"next": "endpoints/flights?since=1d"}
    assert "endpoints/flights" in site.ask("GET", "/login", params=asked).text
    done = site.ask("POST", "/login", params=asked, data={"token": text})
    assert done.headers["location"] == "endpoints/flights?since=1d"


ALLOWED: dict[Role | Scope, set[str]] = {
    Role.VIEWER: {"read"},
    Role.OPERATOR: {"read", "operate", "register", "outcomes"},
    Role.ADMIN: {"read", "operate", "register", "outcomes", "admin"},
    Scope.REGISTER: {"register"},
    Scope.OUTCOMES: {"outcomes"},
    Scope.METRICS: set(),
}
SERVED = [one for one in CATALOGUE if one.lane is not Lane.LOCAL]


def refusal(site: Site, one: Operation, headers: dict[str, str], endpoint: str) -> tuple[int, str]:
    path = API + one.path.replace("{endpoint}", endpoint).replace("{number}", "1")
    found = site.ask(one.method, path, headers=headers)
    return found.status_code, found.json()["code"]


@pytest.mark.parametrize("grant", ALLOWED, ids=str)
def test_every_operation_refuses_a_role_or_scope_that_is_too_low(
    site: Site, grant: Role | Scope
) -> None:
    given = {"role": grant} if isinstance(grant, Role) else {"scopes": (grant,)}
    headers = site.token(**given)
    for one in SERVED:
        if one.needs not in ALLOWED[grant] and "{number}" not in one.path:
            status, code = refusal(site, one, headers, "flights")
            assert (status, code in ("role_too_low", "scope_missing")) == (403, True), one.name


def test_every_operation_refuses_an_admin_of_another_endpoint(site: Site) -> None:
    """Also what concerns all endpoints: such an admin could make a token for all of them."""
    headers = site.token(role=Role.ADMIN, endpoints=("flights",))
    for one in SERVED:
        if one.has_endpoint or (one.needs != "read" and "{number}" not in one.path):
            assert refusal(site, one, headers, "fraud") == (403, "endpoint_denied"), one.name
