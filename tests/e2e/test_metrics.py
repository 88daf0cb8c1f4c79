"""Quality metrics beyond the error rate, from the model to the evidence: a ranking, and a function of the operator."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from e2e.place import Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300), pytest.mark.soak]

SHADOW = 'shadow = {window = "1h", min_pairs = 100}\nlimits = {candidate_deadline_ms = 10000}\nlog = {sample = 100}\n'
OWN = (
    'output = {kind = "score", value = "score", tolerance = 1.0}\n'
    'guardrails = {quality = {metric = "my_losses:apart", worse_by = 0.05}}\n'
)
RANKING = (
    'output = {kind = "ranking", label = "items"}\n'
    'guardrails = {quality = {metric = "ndcg@3", worse_by = 0.05}}\n'
)
LOSS = "def apart(answer, outcome):\n    return min(abs(answer - outcome) / 100, 1.0)\n"
ROWS = 60


def ranker(directory: Path, largest: int) -> str:
    """A model that ranks three items by what it is sent: the best first, or the worst."""
    directory.mkdir()
    top = helper.make_node("TopK", ["scores", "k"], ["values", "items"], largest=largest)
    graph = helper.make_graph(
        [top],
        "rank",
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 3])],
        [helper.make_tensor_value_info("items", TensorProto.INT64, ["N", 3])],
        [helper.make_tensor("k", TensorProto.INT64, [1], [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(directory / "model.onnx"))
    return str(directory)


def shadowed(site: Site, endpoint: str, one: str, two: str, row: dict[str, Any], true: int) -> Any:
    """Register both, shadow the second, ask, and hand in the outcomes; return the evidence of all of them."""
    site.run("register", endpoint, one)
    site.run("promote", endpoint, "v1")
    site.run("register", endpoint, two)
    site.run("shadow", endpoint, "v2")
    for n in range(ROWS):
        body = json.dumps({"id": f"q{n}", "rows": [row]}).encode()
        path, entity = f"/v2/models/{endpoint}/infer", {"kedge-entity": f"caller-{n}"}
        assert site.request("POST", path, body, entity)[0] == 200
    site.until(lambda: site.data("evidence", endpoint)["units"][1] >= ROWS, "the pairs", 60)
    labels = site.root / f"{endpoint}.csv"
    labels.write_text("\n".join(["id,value", *(f"q{n},{true}" for n in range(ROWS))]))
    told = site.data("outcomes", endpoint, "--file", str(labels))
    assert (told["joined"] + told["parked"], told["unfit"]) == (ROWS, 0)

    def labelled() -> Any:
        found = site.data("evidence", endpoint)
        return found if sum(found["labels"]["units"]) >= 2 * ROWS else None

    return site.until(labelled, "the labels to be judged", 90)


def test_a_ranking_and_a_function_of_the_operator_are_judged(
    make_site: Callable[..., Site],
) -> None:
    site = make_site(
        policy=f'{OWN}{SHADOW}\n[endpoints.rank]\naudience = "internal"\n{RANKING}{SHADOW}'
    )
    (site.root / "plugin" / "my_losses.py").write_text(LOSS)
    site.start()
    row: dict[str, Any] = {"x": 20.0, "word": "w"}
    own = shadowed(site, "flights", site.model("one"), site.model("two", scale=3.0), row, 40)
    assert own["labels"]["figures"] == pytest.approx([0.0, 0.2])
    folder = site.root / "rank"
    folder.mkdir()
    best, worst = ranker(folder / "one", 1), ranker(folder / "two", 0)
    ranked = shadowed(site, "rank", best, worst, {"scores": [0.1, 0.9, 0.5]}, 1)
    assert ranked["labels"]["figures"] == pytest.approx([1.0, 0.5])
    for found in (own, ranked):
        quality = next(one for one in found["metrics"] if one["metric"] == "quality")
        assert quality["verdict"] != "pass"
    text = site.run("evidence", "rank").stdout
    assert "ndcg@3: r1 1" in text
