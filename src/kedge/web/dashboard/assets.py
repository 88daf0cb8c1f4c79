"""Assets of pages: style, scripts, and the JavaScript that the build took from npm."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from kedge.core.errors import BadRequest

HERE = Path(__file__).parent
OWN = HERE / "static"
BUILT = HERE / "assets"
TYPES = {
    ".js": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
NEEDED = ("htmx.js", "htmx-sse.js", "uplot.js", "uplot.css")
"""Built files without which pages are not live."""
JOINED = "live.js"
"""htmx with its extension in one file: htmx starts as soon as it is loaded, and an extension that is
loaded later would miss the page's stream."""
FOREVER = "public, max-age=31536000, immutable"
"""A file's address contains its digest, so that its content never changes."""


class Assets:
    """The files of pages, read once, each under an address that contains its digest."""

    def __init__(self, *folders: Path) -> None:
        """Read the files of these folders; by default the own and the built ones."""
        self._files: dict[str, bytes] = {}
        for folder in folders or (OWN, BUILT):
            for path in sorted(folder.glob("*.*")) if folder.is_dir() else ():
                if path.suffix in TYPES:
                    self._files[path.name] = path.read_bytes()
        if {"htmx.js", "htmx-sse.js"} <= self._files.keys():
            parts = self._files["htmx.js"], self._files["htmx-sse.js"]
            self._files[JOINED] = b"\n;\n".join(parts)
        self._packed = {name: gzip.compress(raw, 9) for name, raw in self._files.items()}
        self._digests = {
            name: hashlib.sha256(content).hexdigest()[:12] for name, content in self._files.items()
        }

    @property
    def missing(self) -> tuple[str, ...]:
        """Return the built files that are not there."""
        return tuple(name for name in NEEDED if name not in self._files)

    def path(self, name: str) -> str:
        """Return the address of a file, below the root of the pages; empty if it is missing."""
        return f"assets/{self._digests[name]}/{name}" if name in self._files else ""

    async def serve(self, request: Request) -> Response:
        """Answer with a file.

        Raises:
            BadRequest: `unknown_path`.
        """
        name = request.path_params["name"]
        content = self._files.get(name)
        if content is None or request.path_params["digest"] != self._digests[name]:
            raise BadRequest(f"no such file: {name[:80]}", code="unknown_path")
        kind = TYPES[Path(name).suffix]
        headers = {"cache-control": FOREVER, "vary": "accept-encoding"}
        if takes_gzip(request):
            content, headers["content-encoding"] = self._packed[name], "gzip"
        return Response(content, media_type=kind, headers=headers)


def takes_gzip(request: Request) -> bool:
    """Return whether the browser accepts gzip."""
    return "gzip" in request.headers.get("accept-encoding", "")
