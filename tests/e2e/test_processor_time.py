"""Processor time: a request that computes for ever costs its process, and production answers beside it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from e2e.place import Site

pytestmark = pytest.mark.e2e

WAIT_S = 3.0


def loop(directory: Path) -> Path:
    """An ONNX model that goes round as often as its caller says."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Identity", ["held"], ["kept"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("held", TensorProto.INT64, [None]),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("kept", TensorProto.INT64, [None]),
        ],
    )
    graph = helper.make_graph(
        [
            helper.make_node("ReduceMax", ["n"], ["most"], keepdims=0),
            helper.make_node("Loop", ["most", "yes", "n"], ["y"], body=body),
        ],
        "graph",
        [helper.make_tensor_value_info("n", TensorProto.INT64, [None])],
        [helper.make_tensor_value_info("y", TensorProto.INT64, [None])],
        [helper.make_tensor("yes", TensorProto.BOOL, [], [True])],
    )
    directory.mkdir()
    imports = [helper.make_opsetid("", 17)]
    onnx.save(
        helper.make_model(graph, opset_imports=imports, ir_version=9), directory / "model.onnx"
    )
    return directory


def turns(count: int) -> dict[str, tuple[str, list[Any]]]:
    return {"n": ("INT64", [count])}


@pytest.mark.soak
def test_a_loop_of_a_callers_number_stops_production_for_a_second(
    make_site: Callable[..., Site],
) -> None:
    """Each worker finds out by itself, so there is one. The bound follows how long a caller waits."""
    site = make_site(workers=1, policy=f"limits = {{timeout_ms = {int(WAIT_S * 1000)}}}")
    site.start()
    site.run("register", site.endpoint, str(loop(site.root / "loop")))
    site.run("promote", site.endpoint, "v1")
    site.until(lambda: site.infer(turns(3))[0] == 200, "the first answer")
    hosts = site.processes("kedge.adapters.process")
    assert len(hosts) == 2  # it is not proven plain

    began = time.monotonic()
    status, _, body = site.infer(turns(10**15))
    assert (status, body["code"]) == (504, "model_late")
    for _ in range(20):  # the other process answers, while the first still computes
        assert site.infer(turns(3))[0] == 200
    assert time.monotonic() - began < WAIT_S + 5
    assert set(site.processes("kedge.adapters.process")) >= set(hosts)

    site.until(lambda: not all(map(alive, hosts)), "the end of the process", within_s=60)
    assert sum(map(alive, hosts)) == 1  # the other one was not asked the same
    told = site.until(
        lambda: "cpu_exceeded" in site.run("status", site.endpoint).stdout, "its name"
    )
    assert told
    site.until(lambda: len(site.processes("kedge.adapters.process")) == 2, "the next process")
    assert site.infer(turns(3))[0] == 200


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
