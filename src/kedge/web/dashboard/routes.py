"""Routes of the dashboard: thin, each reads, builds its page, and renders it."""

from __future__ import annotations

import asyncio
import gzip
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from functools import partial
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from msgspec.structs import replace
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from kedge.core.access import Access, Need, refuse
from kedge.core.errors import BadRequest, KedgeError, Refused
from kedge.core.links import ALERTS, diagnosis_path
from kedge.core.names import is_name, read_number, unknown_endpoint
from kedge.core.values import Value
from kedge.operations.alerts import acknowledge
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.operations.evidence.read import RolloutEvidence
from kedge.web.auth import take_csrf
from kedge.web.dashboard.act_routes import FORM_PARTS, ActRoutes
from kedge.web.dashboard.acts import Acts
from kedge.web.dashboard.assets import Assets, takes_gzip
from kedge.web.dashboard.commands import carry_out
from kedge.web.dashboard.course import Course, CourseLine
from kedge.web.dashboard.guard import Guard
from kedge.web.dashboard.live import NOTHING, PageStreams, Reading, SharedReads, next_look
from kedge.web.dashboard.pages.alerts import alert_page, alerts_page
from kedge.web.dashboard.pages.comparison import ReleaseComparison
from kedge.web.dashboard.pages.decisions import chosen, decision_page, decisions_page
from kedge.web.dashboard.pages.diagnosis import diagnosis_page
from kedge.web.dashboard.pages.endpoint import EndpointHead, endpoint_page, head_of
from kedge.web.dashboard.pages.fleet import fleet_page
from kedge.web.dashboard.pages.page import DashboardPage, PagePart, Viewer
from kedge.web.dashboard.pages.readings import (
    AlertsReading,
    ExampleReading,
    FindingsReading,
    FleetReading,
    HistoryReading,
    PageReading,
)
from kedge.web.dashboard.pages.ready import ready_page
from kedge.web.dashboard.pages.segment import example_page, segment_page
from kedge.web.dashboard.rates import SHOWN, TrafficSampler
from kedge.web.dashboard.reads import dated, read_page
from kedge.web.dashboard.render import PageFrame, Rendered, Renderer
from kedge.web.dashboard.sources import (
    read_alert,
    read_alerts,
    read_comparison,
    read_decision,
    read_example,
    read_findings,
    read_fleet,
    read_history,
    read_ready,
    read_segment,
    read_verdicts,
    remember_fleet,
)
from kedge.web.parameters import read_form
from kedge.web.problems import get_status
from kedge.web.readers import Readers
from kedge.workspace import Workplace

FORM_BYTES = 16 << 10
"""Limit of a form."""
LONGEST_ID = 200
"""Characters of a prediction's id, or of a segment, in an address."""
SHARED = 200
"""Rendered pages that are kept for streams."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""Content-Security-Policy of pages: nothing inline, nothing of another host."""
HEADERS = {
    "content-security-policy": POLICY,
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
}

Scope = MutableMapping[str, Any]
Build = Callable[[Request, Viewer], Awaitable[DashboardPage]]


class Diagnose(Protocol):
    """A function that diagnoses an endpoint in a process of its own."""

    async def __call__(self, endpoint: str) -> DiagnosisReport:
        """Return the diagnosis, or raise why there is none."""


class DashboardParts(NamedTuple):
    """What the dashboard is made of."""

    readers: Readers
    """Threads that read."""
    commands: Readers
    """Threads that carry commands out."""
    rollbacks: Readers
    """Threads that carry out rollbacks alone: they never wait for another command."""
    open_place: Callable[[str], Workplace]
    """Opens the state directory for the commands of a token or session."""
    sampler: TrafficSampler
    unix: Callable[[], float]
    monotonic: Callable[[], float]
    diagnose: Diagnose
    loopback: bool
    """Whether only this machine reaches the gateways, for the gate of a promotion."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether the server waits for its streams to end."""


class DiagnosisRun(NamedTuple):
    """A diagnosis that a page started."""

    began: float
    """Unix time."""
    task: asyncio.Task[str]
    """Its result is why it failed; empty: it did not."""


class FaultView(Value, frozen=True):
    """A page that cannot be shown."""

    title: str
    text: str
    hint: str
    kept: str = ""
    """What the person had written; empty: nothing."""
    target: str = ""
    """Where to continue, below the root of all pages."""
    link: str = "All endpoints"


class Dashboard:
    """The pages."""

    def __init__(self, guard: Guard, parts: DashboardParts) -> None:
        """Serve pages to those whom the guard lets in."""
        self._guard = guard
        self._parts = parts
        self._assets = Assets()
        self._renderer = Renderer(self._assets)
        self._source = SharedReads(parts.readers, parts.unix, parts.monotonic)
        self._streams = PageStreams(parts.unix, parts.monotonic, parts.is_stopping)
        self._token_mark = secrets.token_hex(16)
        carry = partial(carry_out, loopback=parts.loopback)
        acts = Acts(parts.commands, parts.rollbacks, parts.open_place, carry)
        self._act = ActRoutes(self._source, acts, parts.unix)
        self._courses: dict[str, Course] = {}
        self._diagnosing: dict[str, DiagnosisRun] = {}
        self._shared: dict[object, tuple[float, asyncio.Task[Rendered]]] = {}

    def routes(self) -> list[Route]:
        """Return the routes of all pages."""
        pages: dict[str, Build] = {
            "/": self._fleet,
            "/alerts": self._alerts,
            "/alerts/{number}": self._alert,
            "/endpoints/{endpoint}": self._endpoint,
            "/endpoints/{endpoint}/segment": self._segment,
            "/endpoints/{endpoint}/example": self._example,
            "/endpoints/{endpoint}/decisions": self._decisions,
            "/endpoints/{endpoint}/decisions/{seq}": self._decision,
            "/endpoints/{endpoint}/diagnosis": self._diagnosis,
            "/endpoints/{endpoint}/ready": self._ready,
            "/endpoints/{endpoint}/acts/{number}": self._act.receipt,
        }
        found = [Route("/assets/{digest}/{name}", self._assets.serve)]
        for path, build in pages.items():
            found.append(Route(path, self._page(build)))
            found.append(Route(f"{path.rstrip('/')}/live", self._live(build)))
        found += [
            Route("/endpoints/{endpoint}/act/{act}", self._page(self._act.form), methods=["GET"]),
            Route("/endpoints/{endpoint}/act/{act}", self._write(self._act.send), methods=["POST"]),
            Route("/endpoints/{endpoint}/act/{act}/live", self._live(self._act.notice, FORM_PARTS)),
            Route(
                "/endpoints/{endpoint}/diagnose",
                self._write(self._start_diagnosis),
                methods=["POST"],
            ),
            Route("/alerts/{number}/ack", self._write(self._acknowledge), methods=["POST"]),
        ]
        return found

    def draw_login(self, fault: str, query: str) -> str:
        """Return the page of a login: why the last one failed, and the query that it keeps."""
        return self._renderer.login(fault, query)

    # ------------------------------------------------------------ frame

    async def _viewer(self, request: Request, need: Need = Need.READ) -> tuple[Viewer, Access]:
        endpoint = request.path_params.get("endpoint")
        if endpoint is not None and not is_name(endpoint):
            raise unknown_endpoint(endpoint, ())
        access = await self._guard.allow(request.scope, need, endpoint)
        return self._describe(access, endpoint), access

    def _describe(self, access: Access, endpoint: str | None) -> Viewer:
        refusal = refuse(access, Need.OPERATE, endpoint, self._parts.unix())
        return Viewer(
            name=access.name,
            role=str(access.role) if access.role is not None else "no role",
            can_operate=refusal is None or (endpoint is None and refusal.code == "endpoint_denied"),
            endpoints=access.endpoints,
        )

    def _frame(self, request: Request, viewer: Viewer | None, live: str = "") -> PageFrame:
        path = path_of(request).removesuffix("/live") or "/"
        return PageFrame(
            viewer=viewer,
            root=root_of(path),
            live=live,
            csrf=self._guard.csrf(request.scope) if viewer is not None else "",
            now=self._parts.unix(),
        )

    def _page(self, build: Build) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            viewer: Viewer | None = None
            try:
                viewer, _ = await self._viewer(request)
                page = await build(request, viewer)
            except KedgeError as error:
                return self._fail(request, viewer, error)
            query = f"?{request.url.query}" if request.url.query else ""
            live = page.live or (path_of(request).strip("/") + "/live").strip("/") + query
            frame = self._frame(request, viewer, live)
            answer = self._html(page, frame)
            # The other pages repeat text of their address beside the token of the session. Their
            # compressed size would tell about that token.
            if path_of(request) == "/" and not query and takes_gzip(request):
                answer = HTMLResponse(
                    gzip.compress(bytes(answer.body), 5),
                    headers={**HEADERS, "content-encoding": "gzip", "vary": "accept-encoding"},
                )
            return answer

        return serve

    def _html(self, page: DashboardPage, frame: PageFrame, status: int = 200) -> Response:
        return HTMLResponse(self._renderer.page(page, frame), status, HEADERS)

    def _fail(self, request: Request, viewer: Viewer | None, error: KedgeError) -> Response:
        """Answer with a page that says why, or with the login."""
        status = get_status(error)
        if status == 401:
            target = path_of(request).strip("/")
            query = f"?{request.url.query}" if request.url.query else ""
            root = root_of(path_of(request))
            return RedirectResponse(f"{root}login?next={quote(target + query)}", 303, HEADERS)
        titles = {403: "Not allowed", 404: "Not found", 503: "Not available"}
        view = FaultView(titles.get(status, "It did not work"), str(error), error.hint)
        page = DashboardPage(
            title=view.title, template="error.html", parts=(PagePart("fault", "fault.html", view),)
        )
        return self._html(page, self._frame(request, viewer), status)

    def _fail_write(
        self, request: Request, viewer: Viewer | None, error: KedgeError, form: dict[str, str]
    ) -> Response:
        """Answer a write that did nothing with a page that keeps what its form had."""
        path = path_of(request).strip("/")
        status, has_form = get_status(error), "/act/" in path
        target = path if has_form else path.rpartition("/")[0]
        view = FaultView(
            title="Nothing happened: log in again" if status == 401 else "Nothing happened",
            text=str(error),
            hint=error.hint,
            kept=form.get("reason", "").strip() or form.get("override", "").strip(),
            target=f"login?next={quote(target)}" if status == 401 else target,
            link="Log in" if status == 401 else "Open the form again" if has_form else "Back",
        )
        page = DashboardPage(
            title=view.title, template="error.html", parts=(PagePart("fault", "fault.html", view),)
        )
        return self._html(page, self._frame(request, viewer), status)

    # ------------------------------------------------------------ streams

    def _live(
        self, build: Build, shown: dict[str, str] = NOTHING
    ) -> Callable[[Request], Awaitable[Response]]:
        """Return the route of a stream; `shown` are the parts that it may replace, else all."""

        async def serve(request: Request) -> Response:
            viewer, access = await self._viewer(request)
            token = self._guard.csrf(request.scope)
            # Only the frame of a page names its viewer, so viewers with equal rights see the same.
            # A receipt tells its reader whether the command was their own.
            shared = viewer if build == self._act.receipt else replace(viewer, name="")
            frame = self._frame(request, shared)._replace(csrf=self._token_mark)

            async def render() -> Rendered:
                return await self._share(request, build, shared, frame)

            messages = self._streams.open(
                render,
                lambda: self._guard.ended(access) is not None,
                (self._token_mark.encode(), token.encode()),
                shown,
            )
            headers = HEADERS | {"x-accel-buffering": "no"}
            return StreamingResponse(messages, 200, headers, "text/event-stream")

        return serve

    async def _share(
        self, request: Request, build: Build, viewer: Viewer, frame: PageFrame
    ) -> Rendered:
        """Render a page for a stream; equal viewers of the same page share it until the next look."""
        key = (str(request.url.path), request.url.query, viewer)
        now = self._parts.monotonic()
        known = self._shared.get(key)
        if known is None or now >= known[0]:
            task = asyncio.ensure_future(self._render(request, build, viewer, frame))
            self._shared.pop(key, None)
            self._shared[key] = known = (next_look(now), task)
            while len(self._shared) > SHARED:
                self._shared.pop(next(iter(self._shared)))
        return await asyncio.shield(known[1])

    async def _render(
        self, request: Request, build: Build, viewer: Viewer, frame: PageFrame
    ) -> Rendered:
        try:
            page = await build(request, viewer)
        except KedgeError as error:
            view = FaultView("Not available", str(error), error.hint)
            parts = (PagePart("fault", "fault.html", view),)
            page = DashboardPage(title=view.title, template="error.html", parts=parts)
        return self._renderer.parts(page, frame)

    # ------------------------------------------------------------ pages

    async def _fleet(self, _: Request, viewer: Viewer) -> DashboardPage:
        found = await self._source.read("fleet", read_fleet, remember_fleet)
        reading = found.value
        assert isinstance(reading, FleetReading)
        reading = await self._judged(reading)
        rates = {
            one.endpoint: self._parts.sampler.rates(one.endpoint, SHOWN) for one in reading.found
        }
        return dated(fleet_page(reading, rates, viewer, found.at), found)

    async def _judged(self, reading: FleetReading) -> FleetReading:
        """Return the fleet with the verdict on each rollout. They are read less often if it takes long."""
        try:
            verdicts = (await self._source.read("verdicts", read_verdicts)).value
        except KedgeError:
            return reading  # the page says why the ledger cannot be read
        assert isinstance(verdicts, dict)
        return FleetReading(
            tuple(replace(one, decision=verdicts.get(one.endpoint)) for one in reading.found)
        )

    async def _alerts(self, _: Request, viewer: Viewer) -> DashboardPage:
        found = await self._source.read("alerts", read_alerts)
        return dated(alerts_page(found.value, viewer, found.at), found)  # type: ignore[arg-type]

    async def _alert(self, request: Request, viewer: Viewer) -> DashboardPage:
        number = read_number(request.path_params["number"]) or 0
        found = await self._source.read(("alert", number), partial(read_alert, number=number))
        assert isinstance(found.value, AlertsReading)
        if not all(viewer.sees(alert.endpoint) for alert in found.value.found):
            raise Refused(f"there is no alert {number}", code="unknown_alert")  # as if it were so
        return dated(alert_page(found.value, viewer, found.at), found)

    async def _head(self, request: Request, viewer: Viewer) -> tuple[EndpointHead, Reading]:
        reading, found = await read_page(self._source, request.path_params["endpoint"])
        return head_of(reading, reading.refusals, viewer), found

    async def _endpoint(self, request: Request, viewer: Viewer) -> DashboardPage:
        reading, found = await read_page(self._source, request.path_params["endpoint"])
        endpoint = reading.status.endpoint
        page = endpoint_page(
            reading,
            refusals=reading.refusals,
            traffic=self._parts.sampler.rates(endpoint),
            lines=await self._course(reading),
            viewer=viewer,
            at=found.at,
        )
        return dated(page, found)

    async def _course(self, reading: PageReading) -> list[CourseLine]:
        evidence, endpoint = reading.evidence, reading.status.endpoint
        if evidence is None or reading.pair is None:
            self._courses.pop(endpoint, None)
            return []
        course = self._courses.get(endpoint)
        if course is None or course.pair != reading.pair:
            course = self._courses[endpoint] = Course(reading.pair)
        since = evidence.path.at[0] if evidence.path.at else self._parts.unix()
        try:
            found = await self._source.read(
                ("course", endpoint, reading.pair),
                partial(course.read, endpoint=endpoint, since=since),
            )
        except KedgeError:
            return []  # the page says why the evidence cannot be read
        assert isinstance(found.value, list)
        return found.value

    async def _segment(self, request: Request, viewer: Viewer) -> DashboardPage:
        head, found = await self._head(request, viewer)
        reading = found.value
        assert isinstance(reading, PageReading)
        segment = request.query_params.get("name", "")
        evidence = reading.evidence
        if evidence is not None and segment not in {one.segment for one in evidence.segments}:
            name = segment[:LONGEST_ID]
            read = partial(read_segment, endpoint=head.endpoint, segment=name)
            try:
                found = await self._source.read(("segment", head.endpoint, name), read)
            except Refused:
                evidence = None
            else:
                evidence = found.value if isinstance(found.value, RolloutEvidence) else None
        if evidence is None or segment not in {one.segment for one in evidence.segments}:
            raise BadRequest(
                f"no segment {segment[:80]} is compared on {head.endpoint} now",
                code="unknown_path",
            )
        return dated(segment_page(reading, evidence, segment, head, found.at), found)

    async def _example(self, request: Request, viewer: Viewer) -> DashboardPage:
        head, found = await self._head(request, viewer)
        reading, name = found.value, request.query_params.get("id", "")[:LONGEST_ID]
        assert isinstance(reading, PageReading)
        known = await self._source.read(
            ("example", head.endpoint, name), lambda place: read_example(place, reading, name)
        )
        if not isinstance(known.value, ExampleReading):
            raise BadRequest(
                f"both releases of {head.endpoint} answered no request {name[:80]}",
                code="unknown_path",
                hint="the page of a segment lists the newest disagreements",
            )
        return dated(example_page(reading, known.value, head, viewer, found.at), known)

    async def _decisions(self, request: Request, viewer: Viewer) -> DashboardPage:
        head, found = await self._head(request, viewer)
        reading, endpoint = found.value, head.endpoint
        assert isinstance(reading, PageReading)
        cursor = request.query_params.get("before", "")
        history = await self._source.read(
            ("history", endpoint, cursor),
            partial(read_history, endpoint=endpoint, cursor=cursor),
            lambda _: HistoryReading(entries=(), policies=(), cursor=cursor, next=None),
        )
        assert isinstance(history.value, HistoryReading)
        asked = (request.query_params.get(name, "") for name in ("one", "other"))
        one, other = chosen(reading, *asked)
        comparison: object = None
        if one != other:
            compared = await self._source.read(
                ("comparison", endpoint, one, other),
                partial(read_comparison, endpoint=endpoint, one=one, other=other),
                lambda _: None,
            )
            comparison = compared.value
        assert isinstance(comparison, ReleaseComparison | None)
        page = decisions_page(reading, history.value, (one, other), comparison, head, found.at)
        return dated(page, history if history.fault else found)

    async def _decision(self, request: Request, viewer: Viewer) -> DashboardPage:
        head, _ = await self._head(request, viewer)
        seq = read_number(request.path_params["seq"]) or 0
        found = await self._source.read(
            ("decision", head.endpoint, seq),
            partial(read_decision, endpoint=head.endpoint, seq=seq),
        )
        assert isinstance(found.value, HistoryReading)
        return dated(decision_page(found.value, seq, head, found.at), found)

    async def _ready(self, request: Request, viewer: Viewer) -> DashboardPage:
        head, _ = await self._head(request, viewer)
        found = await self._source.read(
            ("ready", head.endpoint), partial(read_ready, endpoint=head.endpoint)
        )
        return dated(ready_page(found.value, head, found.at), found)  # type: ignore[arg-type]

    # ------------------------------------------------------------ diagnosis

    async def _diagnosis(self, request: Request, viewer: Viewer) -> DashboardPage:
        head, _ = await self._head(request, viewer)
        endpoint = head.endpoint
        found = await self._source.read(
            ("findings", endpoint), partial(read_findings, endpoint=endpoint)
        )
        assert isinstance(found.value, FindingsReading)
        run = self._diagnosing.get(endpoint)
        is_over = run is None or run.task.done()
        page = diagnosis_page(
            endpoint,
            found.value,
            head,
            viewer,
            running=None if run is None or is_over else run.began,
            fault=run.task.result() if run is not None and is_over else "",
            at=found.at,
        )
        return dated(page, found)

    async def _start_diagnosis(
        self, request: Request, _form: dict[str, str], _access: Access
    ) -> str:
        endpoint = request.path_params["endpoint"]
        run = self._diagnosing.get(endpoint)
        if run is None or run.task.done():
            task = asyncio.create_task(self._run_diagnosis(endpoint))
            self._diagnosing[endpoint] = DiagnosisRun(self._parts.unix(), task)
        return diagnosis_path(endpoint)

    async def _run_diagnosis(self, endpoint: str) -> str:
        """Run a diagnosis, which stores its own report; return why it failed."""
        try:
            await self._parts.diagnose(endpoint)
        except KedgeError as error:
            return str(error)
        finally:
            self._source.forget(("findings", endpoint))
        return ""

    # ------------------------------------------------------------ writes

    async def _acknowledge(self, request: Request, _form: dict[str, str], access: Access) -> str:
        number = read_number(request.path_params["number"]) or 0

        def work(place: Workplace) -> None:
            alert = place.alerts.find(number)
            if alert is None or alert.endpoint not in allowed:
                raise Refused(f"there is no alert {number}", code="unknown_alert")
            if alert.acknowledged_by != access.name:  # a second click changes nothing
                acknowledge(place, number, access.name)

        fleet = await self._source.read("fleet", read_fleet, remember_fleet)
        assert isinstance(fleet.value, FleetReading)
        now = self._parts.unix()
        allowed = {
            one.endpoint
            for one in fleet.value.found
            if refuse(access, Need.OPERATE, one.endpoint, now) is None
        }
        await self._parts.commands.run(work)
        self._source.forget("alerts")
        return ALERTS

    def _write(
        self, work: Callable[[Request, dict[str, str], Access], Awaitable[str]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def serve(request: Request) -> Response:
            viewer: Viewer | None = None
            form: dict[str, str] = {}
            try:
                # An alert belongs to an endpoint that only the work knows: it asks again.
                need = Need.OPERATE if "endpoint" in request.path_params else Need.READ
                form = await read_form(request, FORM_BYTES)
                take_csrf(request.scope, form, self._guard.csrf(request.scope))
                viewer, access = await self._viewer(request, need)
                target = await work(request, form, access)
            except KedgeError as error:
                return self._fail_write(request, viewer, error, form)
            return RedirectResponse(root_of(path_of(request)) + target, 303, HEADERS)

        return serve


def path_of(request: Request) -> str:
    """Return the path of a request below the prefix under which a proxy serves kedge."""
    path: str = request.scope["path"]
    return path.removeprefix(request.scope.get("root_path", ""))


def root_of(path: str) -> str:
    """Return the way from a page to the root of all pages, so that any prefix works."""
    return "../" * (len(path.split("/")) - 2) or "./"
