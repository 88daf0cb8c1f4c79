"""Login of browsers: a single-use link, a form for a token, and logout."""

from __future__ import annotations

import re
from collections.abc import Callable
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from kedge.core.errors import KedgeError
from kedge.web.auth import Gatekeeper, take_csrf
from kedge.web.parameters import read_form
from kedge.web.problems import get_status

LONGEST_FORM = 1024
"""Maximum bytes of the login form: a token has 55."""
HOME = "."
"""Where a browser goes after its login, relative to /login, so that a path prefix stays."""
_PAGE = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.~%-]*(/[A-Za-z0-9_.~%-]+)*(\?[A-Za-z0-9_.~%&=,+-]*)?")
"""A page of control, relative to it: neither another host nor another scheme."""
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; form-action 'self';"
    " frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {"content-security-policy": POLICY, "referrer-policy": "same-origin"}
"""The link's secret is in the address, which no other site may see. Without any referrer a browser
would send the form with `Origin: null`, which is not accepted."""
Draw = Callable[[str, str], str]
"""Returns the page of a login: why the last one failed, and the query that the form keeps."""


class Login:
    """The pages /login and /logout."""

    def __init__(self, gate: Gatekeeper, draw: Draw) -> None:
        """Begin and end the sessions of this gatekeeper, with pages that `draw` returns."""
        self._gate = gate
        self._draw = draw

    def routes(self) -> list[Route]:
        """Return the routes; no other page is open to a browser without a session."""
        return [
            Route("/login", self._show, methods=["GET"]),
            Route("/login", self._log_in, methods=["POST"]),
            Route("/logout", self._log_out, methods=["POST"]),
        ]

    async def _show(self, request: Request) -> Response:
        link = request.query_params.get("link", "")
        if not link or request.method == "HEAD":
            return self._page("", _target(request))
        return await self._begin(request, link=link)

    async def _log_in(self, request: Request) -> Response:
        form = await read_form(request, LONGEST_FORM)
        return await self._begin(request, token=form.get("token", "").strip())

    async def _begin(self, request: Request, *, link: str = "", token: str = "") -> Response:
        try:
            done = await self._gate.login(request.scope, link=link, token=token)
        except KedgeError as error:
            return self._page(f"{error}. {error.hint}", _target(request), get_status(error))
        answer = RedirectResponse(_target(request) or HOME, 303, HEADERS)
        answer.headers.append("set-cookie", done.set_cookie)
        return answer

    async def _log_out(self, request: Request) -> Response:
        form = await read_form(request, LONGEST_FORM)
        take_csrf(request.scope, form, self._gate.csrf(request.scope))
        await self._gate.identify(request.scope)
        answer = RedirectResponse("login", 303, HEADERS)
        answer.headers.append("set-cookie", await self._gate.logout(request.scope))
        return answer

    def _page(self, fault: str, target: str, status: int = 200) -> Response:
        query = f"?{urlencode({'next': target}, safe='/')}" if target else ""
        return HTMLResponse(self._draw(fault, query), status, HEADERS)


def _target(request: Request) -> str:
    """Return the page that sent the browser here; empty if it is none of control's own."""
    given = request.query_params.get("next", "")
    return given if len(given) <= LONGEST_FORM and _PAGE.fullmatch(given) else ""
