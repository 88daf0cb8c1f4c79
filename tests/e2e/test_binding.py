"""Binding rules: the contract of answers, and a verdict `fail`. Real models, a real webhook."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from contract.receivers import Web
from e2e.place import Site

pytestmark = pytest.mark.e2e

POLICY = (
    'output = {kind = "score", score = "score", tolerance = 0.5}\n'
    'canary = {steps = [20, 50], dwell = "1h"}\n'
    'owner = {name = "Ada Lovelace", contact = "ada@example.org"}\n'
)
DTYPES = {"float64": TensorProto.DOUBLE, "float32": TensorProto.FLOAT, "int64": TensorProto.INT64}


def written(site: Site, name: str, **gives: str) -> str:
    """Write an ONNX model of x that gives x under each of these names, as these dtypes."""
    graph = helper.make_graph(
        [helper.make_node("Cast", ["x"], [one], to=DTYPES[dtype]) for one, dtype in gives.items()],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, ["N"])],
        [helper.make_tensor_value_info(one, DTYPES[dtype], ["N"]) for one, dtype in gives.items()],
    )
    path = site.root / f"{name}.onnx"
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))
    return str(path)


def refused(site: Site, *words: str) -> tuple[str, str]:
    """The code and the message of a command that is refused."""
    error = site.data(*words, check=False)["error"]
    return error["code"], error["message"]


def answered(site: Site) -> set[tuple[str, str]]:
    """The names and datatypes that a caller gets."""
    return {(one["name"], one["datatype"]) for one in site.infer()[2]["outputs"]}


def test_callers_never_get_less_than_promised_without_an_override(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(policy=POLICY, workers=1)
    site.start()
    gives: tuple[dict[str, str], ...] = (
        {"score": "float64", "label": "int64"},
        {"score": "float32"},
        {"p_churn": "float64", "churn": "int64"},
        {"score": "float64", "label": "int64", "margin": "float32"},
    )
    for number, each in enumerate(gives, start=1):
        site.run("register", "flights", written(site, f"m{number}", **each))
    site.run("promote", "flights", "v1")
    promised = {("score", "FP64"), ("label", "INT64")}
    assert answered(site) == promised

    for words in (("shadow",), ("canary", "--weight", "30"), ("promote",), ("canary", "--auto")):
        code, message = refused(site, words[0], "flights", "v2", *words[1:])
        assert code == "answers_missing"
        assert "label (not given)" in message
        assert "score (gives float32, promised float64)" in message
        code, message = refused(site, words[0], "flights", "v3", *words[1:])
        assert (code, "score (not given), label (not given)" in message) == (
            "answers_missing",
            True,
        )

    site.run("shadow", "flights", "v4")
    site.run("canary", "flights", "v4", "--weight", "20")
    site.run("promote", "flights", "--full")
    assert answered(site) == {*promised, ("margin", "FP32")}

    site.run("canary", "flights", "v3", "--weight", "100", "--override", "callers were told")
    assert refused(site, "promote", "flights")[0] == "answers_missing"
    site.run("set-weight", "flights", "1")
    assert refused(site, "set-weight", "flights", "2")[0] == "answers_missing"
    site.run("set-weight", "flights", "2", "--force", "the older spelling")
    site.run("rollback", "flights")
    assert answered(site) == {*promised, ("margin", "FP32")}

    config = site.root / "kedge.toml"
    config.write_text(f'{config.read_text()}answers = {{score = {{dtype = "float64"}}}}\n')
    changed = site.data("apply")["changed"]["flights"]
    assert [line for line in changed if line.startswith("answers")] == [
        'answers.label: "int64" -> not set'
    ]
    code, message = refused(site, "shadow", "flights", "v2")
    assert (code, "label" in message) == ("answers_missing", False)
    assert site.run("doctor", check=False).stdout.count("BAD") == 0


def test_a_failed_shadow_binds_and_its_page_ends_with_the_operator_who_continued(
    make_site: Callable[..., Site],
) -> None:
    web = Web()
    site = make_site(policy=f'{POLICY}escalation = [{{after = "0s", to = ["{web.url}/1"]}}]\n')
    site.start()
    site.release(kind="raise", trigger="boom")
    with site.load(rate=200, boom=3):
        site.run("shadow", "flights", "v2")
        site.until(lambda: pages(web, "firing"), "the page", 60)
        for words in (
            ("canary", "flights", "v2"),
            ("promote", "flights"),
            ("promote", "flights", "--full"),
        ):
            code, message = refused(site, *words)
            assert code == "verdict_fail"
            assert message.startswith("the verdict on r2 against r1 is fail: errors: ")
        blank = site.run("canary", "flights", "v2", "--override", " ", check=False)
        assert blank.returncode == 2
        site.run("canary", "flights", "v2", "--weight", "20", "--override", "an incident")
        (over,) = site.until(lambda: pages(web, "continued"), "the end of the page", 40)
        assert over["reason"] == "continued by tester: an incident"
        assert pages(web, "resolved") == []
        site.until(lambda: site.data("status", "flights")["stage"] == "settled", "a rollback", 60)

    kinds = {
        entry["event"].get("kind") for entry in site.data("history", "flights", "--limit", "99")
    }
    assert {"alert_continued", "alert_opened"} <= kinds
    assert "continued by tester: an incident" in site.run("alerts", "flights", "--all").stdout
    assert refused(site, "shadow", "flights", "v2")[0] == "condemned"
    site.run("shadow", "flights", "v2", "--override", "to find the fault")
    assert refused(site, "canary", "flights", "v2")[0] == "condemned"
    web.close()


def pages(web: Web, status: str) -> list[Any]:
    """What was told of the failing release with this status."""
    return [b for b in web.bodies if b["key"] == "failing:r2" and b["status"] == status]


def test_init_writes_the_safe_audience_and_says_so(make_site: Callable[..., Site]) -> None:
    site = make_site()
    config = Path(site.root / "kedge.toml")
    config.unlink()
    said = site.run("init", "flights").stdout
    assert "audience customer: a canary is refused until the candidate passed its shadow" in said
    assert "(shadow.window 7d, shadow.min_pairs 1,000)" in said
    assert '\n# shadow = {window = "7d", min_pairs = 1000}\n' in config.read_text()
    found = site.data("init", "flights")
    assert (found["audience"], found["shadow"]["window"]) == ("customer", "7d")
    config.write_text(config.read_text().replace('audience = "customer"', 'audience = "internal"'))
    assert "audience internal: a canary may come before" in site.run("init", "flights").stdout
