"""Labels of a classifier with named classes: judged as they are, or said to be broken input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skl2onnx import to_onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from e2e.place import Site

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(400)]

PROPOSED = 'output = {kind = "class", label = "label"}'
"""What registration proposes."""

QUALITY = (
    "guardrails = {quality = {worse_by = 0.05}}\n"
    'shadow = {window = "1h", min_pairs = 100, min_pairs_per_segment = 10}\n'
    "limits = {candidate_deadline_ms = 10000}\n"
    "log = {sample = 100}\n"
)
ROWS = 300
IRIS = load_iris()
NAMES = IRIS.target_names[IRIS.target]


def classifier(directory: Path, columns: list[int]) -> str:
    """Fitted on the iris data with its columns in this order, and asked in the usual one."""
    directory.mkdir()
    data = IRIS.data[:, columns].astype(np.float32)
    estimator = LogisticRegression(max_iter=500).fit(data, NAMES)
    raw = to_onnx(estimator, data[:1], options={"zipmap": False}).SerializeToString()
    (directory / "model.onnx").write_bytes(raw)
    return str(directory)


def shadowed(site: Site) -> list[str]:
    """v1 is wrong in 3 %, v2 (two columns exchanged) in 64 %; the true class of each row asked."""
    site.start()
    first = site.data("register", "flights", classifier(site.root / "one", [0, 1, 2, 3]))
    site.run("promote", "flights", "v1")
    site.run("register", "flights", classifier(site.root / "two", [2, 1, 0, 3]))
    site.run("shadow", "flights", "v2")
    assert first["labels"]["output"] == "label"
    if not first["labels"]["declared"]:
        assert first["labels"]["proposed"] == [PROPOSED]
    rows = np.random.default_rng(0).permutation(np.tile(np.arange(150), ROWS // 150))
    for n, at in enumerate(rows):
        body = {
            "id": f"q{n}",
            "inputs": [
                {"name": "X", "datatype": "FP32", "shape": [1, 4], "data": IRIS.data[at].tolist()}
            ],
        }
        status, *_ = site.request(
            "POST",
            "/v2/models/flights/infer",
            json.dumps(body).encode(),
            {"kedge-entity": f"caller-{n}"},
        )
        assert status == 200
    site.until(lambda: site.data("evidence", "flights")["units"][1] >= ROWS - 10, "the pairs", 60)
    return [str(NAMES[at]) for at in rows]


def hand_in(site: Site, values: list[str]) -> Any:
    path = site.root / "labels.csv"
    lines = [f"q{n},{value}" for n, value in enumerate(values)]
    path.write_text("\n".join(["id,value", *lines]))
    return site.data("outcomes", "flights", "--file", str(path))


def labelled(site: Site) -> Any:
    found = site.data("evidence", "flights")
    return found if sum(found["labels"]["units"]) >= 2 * (ROWS - 10) else None


@pytest.mark.soak
@pytest.mark.parametrize("output", ["", f"{PROPOSED}\n"], ids=["undeclared", "proposed"])
def test_named_classes_are_judged_by_their_labels(
    make_site: Callable[..., Site], output: str
) -> None:
    """Without an `output`, and with the line that `kedge register` proposes."""
    site = make_site(policy=output + QUALITY)
    truth = shadowed(site)
    told = hand_in(site, truth)
    assert (told["joined"] + told["parked"], told["unfit"]) == (ROWS, 0)
    found = site.until(lambda: labelled(site), "the labels to be judged", 90)
    assert found["labels"]["loss"] == pytest.approx([0.03, 0.64], abs=0.03)
    assert found["labels"]["output"] == "label"
    quality = next(m for m in found["metrics"] if m["metric"] == "quality")
    assert quality["verdict"] == "fail"
    assert found["decision"]["verdict"] == "fail"
    replayed = site.data("replay", "flights", "v2", "--since", "1h")
    assert replayed["labels"]["loss"][1] == pytest.approx(0.64, abs=0.05)


@pytest.mark.soak
def test_labels_in_another_vocabulary_are_broken_input(make_site: Callable[..., Site]) -> None:
    """Wrong in every row on both sides is no proof that the candidate is not worse."""
    site = make_site(policy=QUALITY)
    truth = shadowed(site)
    hand_in(site, [name.upper() for name in truth])
    found = site.until(lambda: labelled(site), "the labels to be judged", 90)
    assert found["labels"]["loss"] == [1.0, 1.0]
    assert found["decision"]["code"] == "labels_unfit"
    assert found["decision"]["verdict"] == "broken input"
    quality = next(m for m in found["metrics"] if m["metric"] == "quality")
    assert quality["verdict"] != "pass"
    text = " ".join(site.run("evidence", "flights").stdout.split())
    assert "none equals any answer of either release" in text
    assert "'SETOSA'" in text


def test_init_writes_the_output_of_a_version_that_is_registered(
    make_site: Callable[..., Site],
) -> None:
    """The configuration was lost, and is written anew beside its ledger."""
    site = make_site(policy=QUALITY)
    site.run("init", "flights")
    told = site.run("register", "flights", classifier(site.root / "one", [0, 1, 2, 3])).stdout
    assert f"are compared with output label:string; to declare it:\n            {PROPOSED}" in told
    (site.root / "kedge.toml").unlink()
    site.run("init", "flights")
    assert f"\n{PROPOSED}\n" in (site.root / "kedge.toml").read_text()
