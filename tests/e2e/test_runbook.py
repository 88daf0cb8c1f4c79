"""Every command of a runbook works as the page states, typed unchanged."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Callable
from typing import Any

import pytest

from e2e.place import Site
from kedge.workspace import host_name

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'owner = {name = "Ada Lovelace", contact = "ada@example.org"}\n'
    "log = {sample = 100}\n"
    'after = {on_fail = "tell"}\n'
)
MAY_REFUSE = {"check": (0, 1)}
"""`check` says with its exit code what is missing; everything else has to be done."""


def sections(page: str) -> dict[str, list[str]]:
    """The commands of each step of a Markdown page."""
    found = {}
    for part in page.split("\n### ")[1:]:
        blocks = re.findall(r"```sh\n(.*?)```", part, re.DOTALL)
        found[part.splitlines()[0]] = [line for block in blocks for line in block.splitlines()]
    return found


def typed(site: Site, line: str) -> None:
    words = shlex.split(line)
    assert words[:3] == ["kedge", "--config", str(site.root / "kedge.toml")]
    words = ["kedge", *words[3:]]
    # What has just been answered takes seconds to the log, and a new row a moment to the host's disk.
    if words[1] == "accept" or "--local" in words:
        site.until(lambda: site.run(*words[1:], check=False).returncode == 0, line)
        return
    done = site.run(*words[1:], check=False)
    assert done.returncode in MAY_REFUSE.get(words[1], (0,)), f"{line}\n{done.stdout}{done.stderr}"


def settled(site: Site) -> None:
    """v2 in production with v1 behind it, and no replica is waited for."""
    status = site.data("status", "flights")
    if (status["production"]["release"], (status["back"] or {}).get("release")) != ("r2", "r1"):
        if status["production"]["release"] == "r2":
            site.run("rollback", "flights", "--to", "r1")
        site.run("promote", "flights", "v2", "--full", "--override", "again")
    for alert in site.data("alerts", "flights"):
        if alert["level"] == "page" and not alert["acknowledged_by"]:
            site.run("ack", str(alert["number"]))


def notes(site: Site, kind: str) -> list[dict[str, Any]]:
    entries = site.data("history", "flights", "--limit", "200")
    return [e["event"]["body"] for e in entries if e["event"].get("kind") == kind]


def test_every_command_of_the_page_can_be_typed_as_it_stands(
    make_site: Callable[..., Site],
) -> None:
    """One story: the page is made by the promotion, stands still, and all of it works."""
    site = make_site(policy=POLICY)
    site.start()
    site.release()
    with site.load(rate=20) as load:
        settled(site)
        filed = notes(site, "runbook")[0]
        page = site.run("runbook", "flights").stdout
        steps = sections(page)
        assert sections(filed["markdown"]) == steps, "what the promotion kept is what is printed"
        shown = re.findall(r"<pre>(.*?)</pre>", site.run("runbook", "flights", "--html").stdout)
        assert [html.unescape(line) for line in shown] == [c for s in steps.values() for c in s]
        assert "production r2 (v2), way back r1 (v1)" in page
        assert "owner: Ada Lovelace, ada@example.org" in page
        assert f"Log in to the host {host_name()}. kedge.toml is in {site.root}" in page

        for lines in list(steps.values())[:5]:
            for line in lines:
                typed(site, line)
        assert site.data("status", "flights")["production"]["release"] == "r1"
        for title, lines in list(steps.items())[5:]:
            settled(site)
            assert list(sections(site.run("runbook", "flights").stdout).values()) == list(
                steps.values()
            ), title
            if title.startswith("If going back was wrong"):
                site.run("rollback", "flights")
            for line in lines:
                typed(site, line)
    assert load.failures == []
    assert "last measured" in site.run("runbook", "flights").stdout
    assert len(notes(site, "drill")) == 1
    assert notes(site, "accepted")
