"""Build hook: the dashboard's JavaScript, from the npm registry by package-lock.json.

The hook needs no Node. It downloads each archive, compares it with the hash in the lock, and
unpacks the minified files and the licences. An sdist contains them, so that a wheel that is built
from it needs no network. `python hatch_build.py` does the same by hand.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import sys
import tarfile
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand, or by a test
    BuildHookInterface = object

ROOT = Path(__file__).parent
ASSETS = ROOT / "src" / "kedge" / "web" / "dashboard" / "assets"
STAMP = "LOCK"
"""The file in the folder of assets with the digest of the lock that they were made from."""
REGISTRY = "npm_config_registry"
"""The variable with which npm itself replaces the registry."""
DOWNLOAD_S = 60.0
ARCHIVE_BYTES = 32 << 20
"""Limit of one archive."""

FILES = {
    "htmx.org": {
        "dist/htmx.min.js": "htmx.js",
        "dist/ext/hx-sse.min.js": "htmx-sse.js",
        "LICENSE": "htmx.LICENSE.txt",
    },
    "uplot": {
        "dist/uPlot.iife.min.js": "uplot.js",
        "dist/uPlot.min.css": "uplot.css",
        "LICENSE": "uplot.LICENSE.txt",
    },
    "axe-core": {"axe.min.js": "axe.js", "LICENSE": "axe.LICENSE.txt"},
}
"""By package: its files, and their names here. The wheel leaves out packages that only tests use."""


class AssetFault(Exception):
    """An archive that cannot be downloaded, differs from the lock, or lacks a file."""


class Archive(NamedTuple):
    """An archive of the lock."""

    package: str
    url: str
    integrity: str


def read_lock(lock: Path, *, dev: bool) -> list[Archive]:
    """Return the archives of a lock: those of the dashboard, or those that only tests use."""
    packages: dict[str, dict[str, Any]] = json.loads(lock.read_text("utf-8"))["packages"]
    return [
        Archive(path.removeprefix("node_modules/"), one["resolved"], one["integrity"])
        for path, one in sorted(packages.items())
        if path and bool(one.get("dev")) == dev
    ]


def make_assets(into: Path = ASSETS, lock: Path = ROOT / "package-lock.json", *, dev: bool) -> bool:
    """Write the files of a lock into a folder, unless it has them; return whether it wrote them.

    Raises:
        AssetFault: an archive cannot be downloaded, differs from the lock, or lacks a file.
    """
    stamp = hashlib.sha256(lock.read_bytes()).hexdigest() + "\n"
    archives = read_lock(lock, dev=dev)
    names = [name for one in archives for name in FILES[one.package].values()]
    written = into / STAMP
    known = written.is_file() and written.read_text("utf-8") == stamp
    if known and all((into / name).is_file() for name in names):
        return False
    found = {
        name: content
        for archive in archives
        for name, content in unpack(archive.package, download(archive)).items()
    }
    into.mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        (into / name).write_bytes(content)
    written.write_text(stamp, "utf-8")
    return True


def download(archive: Archive) -> bytes:
    """Return the bytes of an archive, compared with the lock.

    `npm_config_registry` replaces the registry of the lock.
    """
    url = archive.url
    registry = os.environ.get(REGISTRY, "").rstrip("/")
    if registry:
        url = registry + urlsplit(url).path
    if not url.startswith(("https://", "http://")):
        raise AssetFault(f"{url} must be an address of http or https")
    try:
        with urllib.request.urlopen(url, timeout=DOWNLOAD_S) as answer:
            content: bytes = answer.read(ARCHIVE_BYTES + 1)
    except OSError as error:
        raise AssetFault(f"{url} cannot be downloaded: {error}") from error
    check_integrity(archive, content)
    return content


def check_integrity(archive: Archive, content: bytes) -> None:
    """Raise if an archive differs from the lock."""
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != archive.integrity:
        raise AssetFault(f"{archive.package} must have the digest {archive.integrity}, got {found}")


def unpack(package: str, content: bytes) -> dict[str, bytes]:
    """Return the wanted files of an archive, by their names here."""
    found: dict[str, bytes] = {}
    with tarfile.open(fileobj=io.BytesIO(content), mode="r:gz") as archive:
        for inside, name in FILES[package].items():
            try:
                file = archive.extractfile(f"package/{inside}")
            except KeyError as error:
                raise AssetFault(f"{package} lacks {inside}") from error
            if file is None:
                raise AssetFault(f"{inside} of {package} is not a file")
            # A map of the source is not delivered, so nothing refers to it.
            lines = file.read().splitlines(keepends=True)
            found[name] = b"".join(x for x in lines if not x.startswith(b"//# sourceMappingURL"))
    return found


class AssetsHook(BuildHookInterface):  # type: ignore[misc]
    """The hook: an sdist or a wheel needs the assets, an editable install works without them."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Make the assets before the files of a build are collected."""
        del build_data
        try:
            if make_assets(dev=False):
                self.app.display_info(f"dashboard: wrote its JavaScript to {ASSETS}")
        except AssetFault as error:
            if version != "editable":
                raise
            self.app.display_warning(
                f"dashboard: its JavaScript is missing, so its pages are not live: {error}"
                " - python hatch_build.py tries again"
            )


def main(words: list[str]) -> int:
    """Make the assets, or with a folder as the argument those that only tests use."""
    try:
        made = make_assets(Path(words[0]), dev=True) if words else make_assets(dev=False)
    except AssetFault as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    sys.stderr.write("written\n" if made else "up to date\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
