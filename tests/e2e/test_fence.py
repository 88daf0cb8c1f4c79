"""The fence where it matters: under a real `kedge up`, with a model that tries to leave it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from contract.test_fence import needs_all, without_landlock
from e2e.place import KEDGE, Site

pytestmark = pytest.mark.e2e

TRY: dict[str, tuple[str, list[Any]]] = {"x": ("FP64", [1.0]), "word": ("BYTES", ["try"])}


def label(site: Site) -> str:
    status, _, body = site.infer(TRY)
    assert status == 200, body
    said: str = next(out for out in body["outputs"] if out["name"] == "label")["data"][0]
    return said


@needs_all
def test_production_in_a_process_cannot_read_what_kedge_can(make_site: Callable[..., Site]) -> None:
    """The ledger, another model's artifact, the tester's secret: none is its business."""
    site = make_site(policy='runtime = "process"')
    site.start()
    state = site.root / ".kedge"
    tried = " or ".join(
        f"os.path.exists({str(path)!r}) and open({str(path)!r}).close()"
        for path in (state / "ledger" / "ledger.db",)
    )
    site.run("register", site.endpoint, site.model("one", "try", trigger="try", tried=tried))
    site.run("promote", site.endpoint, "v1")
    site.until(lambda: site.infer()[0] == 200, "the first answer")
    assert [label(site) for _ in range(4)] == ["refused"] * 4
    assert "NOT FENCED" not in site.run("status", site.endpoint).stdout
    told = site.run("doctor", check=False).stdout
    assert "ok   fence: every part is there" in told
    assert f"may read and write {state / 'online'}" in told


def start_without_landlock(site: Site) -> None:
    """Run `kedge up` where the kernel says that it has no Landlock."""
    log = (site.root / "up.log").open("ab")
    site.up = subprocess.Popen(
        without_landlock([sys.executable, *KEDGE[1:], "up"]),
        cwd=site.root,
        env=site.env,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    site.until(lambda: site.answers("/v2/health/live"), "the gateway to answer")


def test_a_kernel_without_a_part_is_reported_everywhere_and_serves(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy='runtime = "process"')
    start_without_landlock(site)
    site.release()
    assert "NOT FENCED: this machine is missing landlock" in (site.root / "up.log").read_text()
    told = site.until(lambda: _told(site, "status", site.endpoint), "it in status")
    assert "r1" in told
    assert "landlock" in told
    assert "NOT FENCED" in site.run("check", site.endpoint, check=False).stdout


def _told(site: Site, *words: str) -> str:
    lines = site.run(*words, check=False).stdout.splitlines()
    return "\n".join(line for line in lines if "NOT FENCED" in line)


def test_where_the_whole_fence_is_required_nothing_is_loaded_without_it(
    make_site: Callable[..., Site],
) -> None:
    """What is tried out on such a machine is refused as well."""
    site = make_site(policy='runtime = "process"', server='fence = "require"')
    start_without_landlock(site)
    site.run("register", site.endpoint, site.model("one"))
    refused = site.data("promote", site.endpoint, "v1", check=False)["error"]
    assert "lacks landlock" in str(refused)
    words = [*KEDGE[1:], "register", site.endpoint, site.model("two", scale=3.0), "--json"]
    tried = subprocess.run(
        without_landlock([sys.executable, *words]),
        cwd=site.root,
        env=site.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert tried.returncode == 1
    assert "not_fenced" in tried.stdout


def test_a_directory_for_files_of_a_model_goes_with_its_process(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy='runtime = "process"')
    site.start()
    site.release()
    own = [Path(path) for path in (site.root / ".kedge" / "run").glob("*/*.sock.tmp")]
    assert own
    assert site.stop() == 0
    assert not any(path.exists() for path in own)
    assert list((site.root / ".kedge" / "run").glob("*")) == []
