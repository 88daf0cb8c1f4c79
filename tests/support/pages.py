"""Pages of the dashboard over a real state directory, and a guard that says who looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx2
from msgspec.structs import replace

from kedge.core.access import Access, AccessKind, Need, Role, refuse
from kedge.core.errors import Denied
from kedge.engine.process_faults import ProcessFaults
from kedge.operations.diagnosis.document import DiagnosisReport
from kedge.operations.evidence.read import evidence_of
from kedge.operations.status.read import status_of
from kedge.web.api import Admin
from kedge.web.app import Front
from kedge.web.dashboard.rates import TrafficSampler
from kedge.web.dashboard.routes import Dashboard, DashboardParts
from kedge.web.readers import Readers
from kedge.workspace import Workplace


class Session:
    """A guard for whom requests come from one person, whose role a test changes."""

    def __init__(self, role: Role = Role.OPERATOR, name: str = "ada") -> None:
        self.access = Access(name, AccessKind.SESSION, role=role)
        self.over = False

    async def allow(self, scope: Mapping[str, Any], need: Need, endpoint: str | None) -> Access:
        access = self._find(scope)
        refusal = refuse(access, need, endpoint, 0.0)
        if refusal is not None:
            raise refusal
        return access

    def _find(self, scope: Mapping[str, Any]) -> Access:
        """The person; a browser with a cookie `who` is another one."""
        cookies = SimpleCookie(dict(scope["headers"]).get(b"cookie", b"").decode())
        return replace(self.access, name=cookies["who"].value) if "who" in cookies else self.access

    async def identify(self, scope: Mapping[str, Any]) -> Access:
        return self.access

    def ended(self, access: Access) -> Denied | None:
        return Denied("over", code="session_ended") if self.over else None

    def is_secure(self, scope: Mapping[str, Any]) -> bool:
        return False

    def csrf(self, scope: Mapping[str, Any]) -> str:
        return "token"


async def no_diagnosis(endpoint: str) -> DiagnosisReport:
    raise Denied(f"{endpoint} is not diagnosed here", code="role_too_low")


def make_dashboard(state_dir: Path, session: Session, sampler: TrafficSampler) -> Dashboard:
    """The dashboard of a state directory."""

    def open_place() -> Workplace:
        return Workplace(state_dir, patience_s=0.2)

    clock = open_place().clock
    parts = DashboardParts(
        readers=Readers(open_place),
        commands=Readers(open_place, name="command"),
        rollbacks=Readers(open_place, name="rollback"),
        open_place=lambda holder: Workplace(state_dir, token=holder, patience_s=1.0),
        sampler=sampler,
        unix=clock.unix,
        monotonic=clock.monotonic,
        diagnose=no_diagnosis,
        loopback=True,
    )
    return Dashboard(session, parts)


async def join_nothing(endpoint: str, *_: object) -> object:
    raise Denied(f"{endpoint} takes no outcomes here", code="role_too_low")


def make_front(place: Workplace, dashboard: Dashboard, session: Session) -> Front:
    """Control's whole application, with the pages of a dashboard."""
    earlier = Admin(partial(status_of, place), partial(evidence_of, place), join_nothing)
    return Front(earlier, dashboard.routes(), ProcessFaults(place.clock), gate=session)


class Pages:
    """A browser without scripts, in one event loop."""

    def __init__(self, state_dir: Path, role: Role = Role.OPERATOR) -> None:
        self.session = Session(role)
        self.place = Workplace(state_dir)
        self.sampler = TrafficSampler()
        self.dashboard = make_dashboard(state_dir, self.session, self.sampler)
        self.app = make_front(self.place, self.dashboard, self.session)
        self.runner = asyncio.Runner()
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app),
            base_url="http://127.0.0.1",
            follow_redirects=True,
        )

    def get(self, path: str) -> httpx2.Response:
        return self.runner.run(self.http.get(path))

    def post(self, path: str, **form: str) -> httpx2.Response:
        return self.runner.run(self.http.post(path, data=form))

    def run(self, work: Callable[[], Any]) -> Any:
        """Run a coroutine in the loop of the pages."""
        return self.runner.run(work())

    def close(self) -> None:
        self.runner.run(self.http.aclose())
        self.runner.close()
