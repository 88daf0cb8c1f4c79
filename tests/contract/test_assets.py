"""The dashboard's JavaScript: only what the lock names, byte for byte, and its licences."""

import base64
import hashlib
import io
import json
import tarfile
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingTCPServer
from threading import Thread

import hatch_build
import pytest
from hatch_build import AssetFault, make_assets, read_lock


def pack(files: dict[str, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return raw.getvalue()


WHOLE = {
    "dist/uPlot.iife.min.js": b"var uPlot;\n//# sourceMappingURL=uPlot.map\n",
    "dist/uPlot.min.css": b".uplot{}\n",
    "LICENSE": b"MIT\n",
}


class Registry:
    """A registry on loopback that serves one archive, and counts its requests."""

    def __init__(self, content: bytes) -> None:
        self.asked: list[str] = []
        registry = self

        class Answers(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                registry.asked.append(self.path)
                self.send_response(200)
                self.end_headers()
                self.wfile.write(content)

            def log_request(self, code: object = 0, size: object = 0) -> None:
                return

        self.server = ThreadingTCPServer(("127.0.0.1", 0), Answers)
        Thread(target=self.server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_address[1]}/mirror/"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


def lock_of(folder: Path, content: bytes) -> Path:
    lock = folder / "package-lock.json"
    digest = base64.b64encode(hashlib.sha512(content).digest()).decode()
    one = {"resolved": "https://registry.invalid/uplot.tgz", "integrity": f"sha512-{digest}"}
    lock.write_text(json.dumps({"packages": {"": {}, "node_modules/uplot": one}}))
    return lock


def test_the_files_and_licences_come_from_the_registry_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = pack(WHOLE)
    registry, lock, into = Registry(content), lock_of(tmp_path, content), tmp_path / "assets"
    monkeypatch.setenv("npm_config_registry", registry.url)
    try:
        assert make_assets(into, lock, dev=False)
        assert not make_assets(into, lock, dev=False)
    finally:
        registry.close()
    assert registry.asked == ["/mirror/uplot.tgz"]
    assert (into / "uplot.js").read_bytes() == b"var uPlot;\n"
    assert (into / "uplot.LICENSE.txt").read_bytes() == b"MIT\n"


@pytest.mark.parametrize(
    "content, fault",
    [(pack(WHOLE) + b"\0", "must have the digest"), (pack({"LICENSE": b""}), "lacks dist/")],
    ids=["changed", "incomplete"],
)
def test_an_archive_that_differs_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, fault: str
) -> None:
    registry, into = Registry(content), tmp_path / "assets"
    lock = lock_of(tmp_path, pack(WHOLE) if "digest" in fault else content)
    monkeypatch.setenv("npm_config_registry", registry.url)
    try:
        with pytest.raises(AssetFault, match=fault):
            make_assets(into, lock, dev=False)
    finally:
        registry.close()
    assert not into.exists()


class Shown:
    """The part of hatch's application that shows text."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def display_info(self, text: str) -> None:
        raise AssertionError(text)

    def display_warning(self, text: str) -> None:
        self.warnings.append(text)


def test_an_editable_install_works_without_the_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*, dev: bool) -> bool:
        raise AssetFault("registry cannot be reached")

    monkeypatch.setattr(hatch_build, "make_assets", fail)
    hook = hatch_build.AssetsHook()
    hook.app = shown = Shown()
    hook.initialize("editable", {})
    assert "cannot be reached" in shown.warnings[0]
    with pytest.raises(AssetFault):
        hook.initialize("standard", {})


def test_every_archive_of_the_lock_has_a_hash_and_a_licence() -> None:
    lock = hatch_build.ROOT / "package-lock.json"
    archives = [one for dev in (False, True) for one in read_lock(lock, dev=dev)]
    assert {one.package for one in archives} == set(hatch_build.FILES)
    assert all(one.integrity.startswith("sha512-") for one in archives)
    assert all("LICENSE" in files for files in hatch_build.FILES.values())
