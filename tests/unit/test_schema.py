"""The JSON schema of kedge.toml: valid files fit it, and every setting is in it."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from kedge.cli.config import schema_text
from kedge.config.document import TEMPLATE, write_block
from kedge.config.load import parse

ROOT = Path(__file__).parents[2]
SCHEMA: dict[str, Any] = json.loads(schema_text())
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
PLACES = {
    "[server]": ("server",),
    "[online]": ("online",),
    "[features]": ("features",),
    "[alerts]": ("alerts",),
    "[endpoints.NAME]": ("endpoints", "x"),
    "fields": ("endpoints", "x", "fields", "f"),
    **{
        name: ("endpoints", "x", name)
        for name in (
            "output",
            "shadow",
            "canary",
            "cost",
            "limits",
            "owner",
            "rota",
            "after",
            "drill",
            "features",
            "log",
        )
    },
    "guardrails": ("endpoints", "x", "guardrails", "errors"),
    "escalation": ("endpoints", "x", "escalation", 0),
}
"""By heading of the reference: where its keys stand."""


def at(spec: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """The part of the schema for a place."""
    while "$ref" in spec:
        spec = SCHEMA["$defs"][spec["$ref"].rpartition("/")[2]]
    if not path:
        return spec
    step, *rest = path
    if isinstance(step, int):
        return at(spec["items"], *rest)
    if step in spec.get("properties", {}):
        return at(spec["properties"][step], *rest)
    for pattern, below in spec.get("patternProperties", {}).items():
        if re.search(pattern, step):
            return at(below, *rest)
    return at(spec["additionalProperties"], *rest)


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def files() -> list[str]:
    """Every kedge.toml that the repository shows."""
    found = [
        TEMPLATE.format(schema="s", name="wine", port=8080, owner='"Ada"', contact='"a@b.org"')
    ]
    found.append(found[0] + write_block("more", ("output",)))
    found += [path.read_text("utf-8") for path in sorted((ROOT / "examples").rglob("*.toml"))]
    for page in sorted((ROOT / "docs").rglob("*.md")):
        for block in re.findall(r"(?ms)^ *```toml\n(.*?)^ *```", page.read_text("utf-8")):
            if "endpoints" in tomllib.loads(block):
                found.append(block)
    return found


@pytest.mark.parametrize("text", files())
def test_the_template_the_examples_and_the_pages_fit_it(text: str) -> None:
    raw = tomllib.loads(text)
    parse(raw)
    assert [error.message for error in VALIDATOR.iter_errors(raw)] == []


@pytest.mark.parametrize("heading", PLACES)
def test_every_setting_of_the_reference_is_in_it(heading: str) -> None:
    page = (ROOT / "docs/reference/config.md").read_text("utf-8")
    section = re.split(r"(?m)^## ", page.split(f"## {heading}\n", 1)[1])[0]
    keys = (
        re.findall(r"(?m)^\| `(\w+)` \|", section)
        if heading != "fields"
        else ["dtype", "shape", "nullable"]
    )
    assert keys
    assert set(keys) <= set(at(SCHEMA, *PLACES[heading])["properties"])


def test_the_defaults_take_what_an_endpoint_takes() -> None:
    assert at(SCHEMA, "defaults") == at(SCHEMA, "endpoints", "wine")


@pytest.mark.parametrize(
    "text",
    [
        "[server]\nprot = 1\n",
        '[endpoints.wine]\naudience = "public"\n',
        '[endpoints."2late"]\n',
        '[endpoints.wine.canary]\ndwell = "soon"\n',
        '[endpoints.wine]\nescalation = [{after = "0s"}]\n',
        "[endpoints.wine.guardrails.erors]\nworse_by = 1\n",
        '[endpoints.wine.fields]\nx = {dtype = "float"}\n',
        '[endpoints.wine.fields]\nx = {name = "y", dtype = "bool"}\n',
        "[defaults]\nmemory_mb = 1.5\n",
    ],
)
def test_a_file_that_kedge_refuses_by_its_form_does_not_fit(text: str) -> None:
    assert [*VALIDATOR.iter_errors(tomllib.loads(text))]


@pytest.mark.parametrize(
    "text",
    [
        '[defaults.owner]\nname = "Ada"\n[endpoints.wine.owner]\ncontact = "a@b.org"\n',
        '[server]\nentity_from = ["10.0.0.0/8"]\n',
        '[server]\nentity_from = "anyone"\n',
        "[endpoints.wine.cost]\nper_call = 1\nversions = {v3 = {per_call = 2}}\n",
        "[endpoints.wine.answers]\n",
    ],
)
def test_a_file_that_kedge_accepts_fits(text: str) -> None:
    raw = tomllib.loads(text)
    parse(raw)
    assert [error.message for error in VALIDATOR.iter_errors(raw)] == []
