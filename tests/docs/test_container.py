"""The container's files agree with the code: read only, since the tests have no Docker."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import yaml

from kedge.config.load import load
from kedge.config.model import STATE_DIR, ServerSettings

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "container"
DOCKERFILE = (FOLDER / "Dockerfile").read_text("utf-8").replace("\\\n", " ")
SERVICE = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))["services"]["kedge"]
SERVER = load(FOLDER / "kedge.toml").server


def lines(word: str) -> list[str]:
    return [
        line.partition(" ")[2].strip()
        for line in DOCKERFILE.splitlines()
        if line.startswith(f"{word} ")
    ]


def test_copied_paths_and_extras_exist() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    (sync,) = [line for line in lines("RUN") if "uv sync" in line]
    assert set(re.findall(r"--extra (\w+)", sync)) <= set(extras)
    for copied in lines("COPY"):
        if not copied.startswith("--from"):
            *sources, _ = copied.split()
            assert all((ROOT / source).exists() for source in sources)


def test_the_platform_is_that_of_the_newest_sqlite() -> None:
    """Without a wheel the image would need a compiler, and get the SQLite of its distribution."""
    packages = tomllib.loads((ROOT / "uv.lock").read_text("utf-8"))["package"]
    (sqlite,) = [package for package in packages if package["name"] == "pysqlite3"]
    machines = {wheel["url"].rpartition("linux_")[2] for wheel in sqlite["wheels"]}
    assert {re.sub(r"^(\d+_)+|\.whl$", "", machine) for machine in machines} == {"x86_64"}
    assert SERVICE["platform"] == "linux/amd64"
    assert "--platform linux/amd64" in DOCKERFILE


def test_the_state_is_a_volume_of_the_user_that_runs() -> None:
    (work,), (volume,), (user,) = lines("WORKDIR")[1:], lines("VOLUME"), lines("USER")
    assert volume == f"{work}/{STATE_DIR}"
    number = user.partition(":")[0]
    assert number.isdigit()
    assert f"--uid {number}" in DOCKERFILE
    assert re.search(
        rf"install -d -o kedge -g kedge -m 0700 {work} {re.escape(volume)}", DOCKERFILE
    )
    mounts = dict(mount.split(":")[:2] for mount in SERVICE["volumes"])
    assert mounts["state"] == volume
    assert mounts["./kedge.toml"] == f"{work}/kedge.toml"
    assert SERVICE["read_only"] is True
    assert "/tmp" in SERVICE["tmpfs"]


def test_ports_and_health_are_those_of_the_gateway() -> None:
    assert lines("EXPOSE") == [str(SERVER.port)] == [str(ServerSettings().port)]
    assert SERVICE["ports"] == [f"127.0.0.1:{SERVER.port}:{SERVER.port}"]
    (health,) = lines("HEALTHCHECK")
    assert f"http://127.0.0.1:{SERVER.port}/v2/health/live" in health
    assert not SERVER.loopback
    assert SERVER.plain
    assert lines("STOPSIGNAL") == ["SIGTERM"]
    assert lines("CMD") == ['["kedge", "up"]']


def test_it_has_the_time_that_a_stop_takes() -> None:
    assert int(SERVICE["stop_grace_period"].rstrip("s")) > SERVER.drain_s + 30


def test_the_documented_build_works() -> None:
    build = SERVICE["build"]
    assert (FOLDER / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).is_file()
