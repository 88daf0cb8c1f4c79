"""`kedge config` and `kedge init NAME` on a file that is there."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.place import Site

pytestmark = pytest.mark.e2e


def test_an_endpoint_is_added_to_the_file_and_to_the_ledger_and_no_other_moves(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    config = site.root / "kedge.toml"
    site.run("init", "flights")
    site.run("apply")
    text = config.read_text().replace("workers = 2", "workers = 2   # mine")
    config.write_text(text + "\n[defaults]\nmemory_mb = 2048\n")
    before = site.data("status", "flights")["epoch"]
    found = site.data("init", "wine")
    assert (found["created"], found["audience"]) == (False, "customer")
    assert config.read_text().startswith(text)
    status = {each["endpoint"]: each["epoch"] for each in site.data("status")}
    assert status == {"flights": before, "wine": 1}, (
        "the change of the defaults waits for kedge apply"
    )
    written = config.read_text()
    again = site.run("init", "wine").stdout
    assert config.read_text() == written, "once more changes nothing"
    assert again.startswith("kedge.toml has wine already; nothing was changed\n")
    assert "\nnext: kedge status wine\nask:  curl http://" in again
    config.write_text(text)
    refused = site.data("init", "wine", check=False)
    assert refused["error"]["code"] == "endpoint_exists"
    assert config.read_text() == text
    assert site.run("init", "my model", check=False).returncode != 0


def test_config_check_needs_no_state_directory_and_says_every_line(
    make_site: Callable[..., Site],
) -> None:
    site = make_site()
    assert site.data("config", "check") == {
        "config": str(site.root / "kedge.toml"),
        "ok": True,
        "faults": [],
        "endpoints": ["flights"],
    }
    (site.root / "kedge.toml").write_text('[server]\nprot = 1\n\n[endpoints.x]\naudience = "all"\n')
    done = site.run("config", "check", check=False)
    assert done.returncode == 2
    assert [line.split(": ")[0] for line in done.stdout.splitlines()] == [
        "kedge.toml:2",
        "kedge.toml:5",
    ]
    data = site.data("config", "check", check=False)
    assert [(f["line"], f["place"]) for f in data["faults"]] == [
        (2, "server.prot"),
        (5, "endpoints.x.audience"),
    ]
    (site.root / "kedge.toml").write_text("[server\n")
    assert site.data("config", "check", check=False)["ok"] is False
    assert not (site.root / ".kedge").exists()


def test_the_template_leads_editors_to_the_schema(make_site: Callable[..., Site]) -> None:
    site = make_site()
    config = Path(site.root / "kedge.toml")
    config.unlink()
    site.run("init", "flights")
    first = config.read_text().splitlines()[0]
    assert first == "#:schema .kedge/kedge.schema.json"
    schema = json.loads((site.root / ".kedge/kedge.schema.json").read_text())
    assert schema == json.loads(site.run("config", "schema").stdout)
    assert set(tomllib.loads(config.read_text())) <= set(schema["properties"])
