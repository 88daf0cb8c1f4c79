"""kedge's overhead for a prediction in the same process: choosing, checking, counting, answering.

`choose_us` is `Plan.choose` alone, in a canary, for a request with an entity. `added_us` is the
whole ASGI app, driven on a loop without a server, less a floor that decodes the same JSON, makes
the array, asks the same model and encodes the same answer. CPU time; medians of batches that
alternate between the two. The detail `traces` has the same request with tracing off, on but not
sampled, and sampled; `branches_us` is what the code of tracing costs a request while it is off.
"""

from __future__ import annotations

import gc
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import floor_app
import material
import uvloop
from common import SERVER_CPU, Bench, interval, on, spread

from kedge.adapters.models.onnx import OnnxLoader
from kedge.adapters.models.sklearn import SklearnLoader
from kedge.core.routing import Plan, compile_plan
from kedge.core.trace_context import SpanRecord
from kedge.core.values import Arm, Placement, Policy, Release, Stage, State
from kedge.engine.recording.recorder import Recorder
from kedge.engine.request import Request
from kedge.engine.serving.live import Live
from kedge.engine.serving.pool import Handle
from kedge.engine.serving.serving import Serving
from kedge.gateway import traces
from kedge.gateway.contract import Contract
from kedge.gateway.decode import parse
from kedge.gateway.http.app import Gateway
from kedge.gateway.http.infer import WorkerBounds, render
from kedge.gateway.traces import RequestTraces
from kedge.ports import Model

ENTITIES = [f"caller-{number}" for number in range(2000)]
BATCH = 200


def state_of(model: Model, *, canary: bool = False) -> State:
    """A row with this model in production, and in a canary perhaps."""
    releases = {
        number: Release(
            endpoint="flights",
            number=number,
            digest=f"sha256:{number}",
            model="flights",
            version=number,
            model_digest=f"sha256:m{number}",
            flavour="bench",
            signature=model.signature,
            placement=Placement.INLINE,
        )
        for number in (1, 2)
    }
    return State(
        endpoint="flights",
        epoch=7,
        stage=Stage.CANARY if canary else Stage.SETTLED,
        production=1,
        candidate=2 if canary else None,
        weight=500 if canary else 0,
        salt="salt",
        policy=Policy(audience="internal"),
        fields=model.signature.inputs,
        served=(1,),
        releases=releases,
    )


def live_of(model: Model, *, canary: bool = False) -> Live:
    """What a worker serves then."""
    state = state_of(model, canary=canary)
    contract = Contract(state.fields, rows=state.policy.limits.rows, entity=state.policy.entity)
    return Live(
        state=state,
        plan=compile_plan(state),
        handles={1: Handle(state.releases[1], inline=model)},
        contract=contract,
        recorder=Recorder("bench", state),
        lease=True,
        pinned=False,
    )


def gateway_of(model: Model, *, canary: bool = False) -> tuple[floor_app.App, Serving, Live]:
    """The gateway's app over it."""
    serving, live = Serving(time.monotonic), live_of(model, canary=canary)
    serving.swap(live)
    bounds = WorkerBounds(body=8 << 20, requests=256)
    return Gateway(serving, bounds, ready=lambda: True), serving, live


# ---------------------------------------------------------------- timing

Work = Callable[[int], Awaitable[None]]
"""Does something so many times."""


async def batches(works: dict[str, Work], rounds: int, batch: int) -> dict[str, list[float]]:
    """CPU microseconds a call, one value a batch; the batches of all works alternate."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        await work(batch)
    for _ in range(rounds):
        for name, work in works.items():
            begun = time.thread_time_ns()
            await work(batch)
            found[name].append((time.thread_time_ns() - begun) / batch / 1e3)
    return found


def called(function: Callable[[], object]) -> Work:
    """Something that is called."""

    async def work(times: int) -> None:
        for _ in range(times):
            function()

    return work


def asked(app: floor_app.App, body: bytes, entity: str = "") -> Work:
    """Requests through an ASGI app, by hand: on a loop, without a server or a socket."""
    scope = scope_of(body, entity)
    message = {"type": "http.request", "body": body, "more_body": False}

    async def receive() -> dict[str, Any]:
        return message

    async def send(sent: dict[str, Any]) -> None:
        del sent

    async def work(times: int) -> None:
        for _ in range(times):
            await app(scope, receive, send)

    return work


def scope_of(body: bytes, entity: str) -> dict[str, Any]:
    """The ASGI scope of a request."""
    headers = [
        (b"host", b"127.0.0.1:8080"),
        (b"content-type", b"application/json"),
        (b"accept", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *([(b"kedge-entity", entity.encode())] if entity else []),
    ]
    path = "/v2/models/flights/infer"
    return {"type": "http", "method": "POST", "path": path, "headers": headers}


async def check(app: floor_app.App, body: bytes) -> None:
    """One answer, looked at: it must be the real thing."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope_of(body, ""), receive, send)
    if sent[0]["status"] != 200:
        raise RuntimeError(f"{sent[0]['status']}: {sent[1]['body']!r}")


# ---------------------------------------------------------------- choose


async def measure_choose(bench: Bench, model: Model) -> None:
    """Time and memory of one choice."""
    plan = compile_plan(state_of(model, canary=True))
    settled = compile_plan(state_of(model))

    def walk(plan: Plan) -> Work:
        def all_of_them() -> None:
            choose = plan.choose
            for entity in ENTITIES:
                choose(entity, 5000)

        return called(all_of_them)

    works = {"canary": walk(plan), "settled": walk(settled)}
    with bench.phase("choose"):
        found = await batches(works, bench.rounds(300, 60), 1)
    each = {name: [value / len(ENTITIES) for value in times] for name, times in found.items()}
    bench.note("choose_us", statistics.median(each["canary"]))
    bench.detail["choose"] = {
        "canary_us": spread(each["canary"]),
        "settled_us": spread(each["settled"]),
        "interval_us": interval(each["canary"]),
        **choose_memory(plan),
    }


def choose_memory(plan: Plan) -> dict[str, float]:
    """Blocks that outlive a choice, and bytes that it needs while it runs."""
    for entity in ENTITIES:
        plan.choose(entity, 5000)
    gc.collect()
    before = sys.getallocatedblocks()
    for entity in ENTITIES:
        plan.choose(entity, 5000)
    kept = (sys.getallocatedblocks() - before) / len(ENTITIES)
    peaks = []
    tracemalloc.start()
    for entity in ENTITIES[:200]:
        tracemalloc.reset_peak()
        held = tracemalloc.get_traced_memory()[0]
        plan.choose(entity, 5000)
        peaks.append(tracemalloc.get_traced_memory()[1] - held)
    tracemalloc.stop()
    return {"blocks_kept_per_choice": round(kept, 4), "bytes_at_most_within": max(peaks)}


# ---------------------------------------------------------------- what kedge adds


async def measure_added(
    bench: Bench, name: str, model: Model, file: Path, datatype: str
) -> list[float]:
    """The app against its floor; the difference, batch by batch."""
    body = material.body(datatype)
    floor = floor_app.asgi_of(floor_app.answerer(file))
    app, serving, live = gateway_of(model)
    canary, _, split = gateway_of(model, canary=True)
    outside = next(each for each in ENTITIES if split.plan.choose(each, 0).arm is Arm.PRODUCTION)
    await check(app, body)
    await check(floor, body)
    works = {
        "floor": asked(floor, body),
        "kedge": asked(app, body),
        "kedge_canary": asked(canary, body, outside),
    }
    steps = await parts_of(serving, live, model, body)
    gc.collect()
    gc.freeze()
    with bench.phase(f"added, {name}"):
        found = await batches(works, bench.rounds(300 if name == "onnx" else 100, 30), BATCH)
        parts = await batches(steps, bench.rounds(60, 10), BATCH)
    added = [ours - theirs for ours, theirs in zip(found["kedge"], found["floor"], strict=True)]
    bench.detail[f"added_{name}"] = {
        "added_us": spread(added),
        "interval_us": interval(added),
        **{f"{who}_us": spread(times) for who, times in found.items()},
        "parts_us": {part: round(statistics.median(times), 2) for part, times in parts.items()},
    }
    return added


async def parts_of(serving: Serving, live: Live, model: Model, body: bytes) -> dict[str, Work]:
    """The steps of a request, each alone: where the time goes."""
    contract: Contract = live.contract  # type: ignore[assignment]
    parsed, binary = parse(body, None)
    columns, rows = contract.columns(parsed, binary)
    request = Request(id="", columns=columns, rows=rows, entity=None, draw=1)
    answer = await serving.answer(live, request)

    async def answers(times: int) -> None:
        for _ in range(times):
            await serving.answer(live, request)

    return {
        "parse": called(lambda: parse(body, None)),
        "contract": called(lambda: contract.columns(parsed, binary)),
        "answer_with_model": answers,
        "model": called(lambda: model.predict(columns)),
        "render": called(lambda: render(live, request, answer, None)),
        "finish": called(lambda: serving.finish(live, request, answer)),
    }


class NoSpans:
    """A sink that keeps nothing: a collector costs a thread of its own, and is not measured."""

    def take(self, _: SpanRecord) -> None:
        """Drop it."""

    def close(self) -> None:
        """Nothing is open."""


async def measure_traces(bench: Bench, model: Model) -> None:
    """What tracing costs a request: nothing was traced, or some, or all."""
    traces.MOST = 1 << 40  # production's limit would drop most spans of a bench
    body = material.body("FP32")
    works: dict[str, Work] = {}
    for name, share in (("off", None), ("not_sampled", 0.0), ("sampled", 1.0)):
        serving, live = Serving(time.monotonic), live_of(model)
        serving.swap(live)
        bounds = WorkerBounds(body=8 << 20, requests=256)
        if share is not None:
            bounds.traces = RequestTraces(NoSpans(), share, lambda _: None)
        works[name] = asked(Gateway(serving, bounds, ready=lambda: True), body)

    def branches() -> None:
        # The three of `infer`, and the read of the bounds, with tracing off.
        span = bounds_off.traces.begin({}) if bounds_off.traces is not None else None
        if span is not None:
            return
        if span is not None and bounds_off.traces is not None:
            return

    def nothing() -> None:
        return

    bounds_off = WorkerBounds(body=8 << 20, requests=256)
    works |= {"branches": called(branches), "nothing": called(nothing)}
    with bench.phase("traces"):
        found = await batches(works, bench.rounds(300, 30), BATCH)
    off = zip(found.pop("branches"), found.pop("nothing"), strict=True)
    bench.detail["traces"] = {
        "branches_us": spread([ours - theirs for ours, theirs in off]),
        **{f"{name}_us": spread(times) for name, times in found.items()},
    }


async def measure(bench: Bench, root: Path) -> None:
    """Both figures; everything on one loop, as in a worker."""
    onnx_dir = material.write_onnx(root / "onnx", flip=False)
    sklearn_dir = material.write_sklearn(root / "sklearn", flip=False)
    onnx, sklearn = OnnxLoader().load(onnx_dir), SklearnLoader().load(sklearn_dir)
    await measure_choose(bench, onnx)
    added = await measure_added(bench, "onnx", onnx, onnx_dir / "model.onnx", "FP32")
    bench.note("added_us", statistics.median(added))
    await measure_added(bench, "sklearn", sklearn, sklearn_dir / "model.skops", "FP64")
    await measure_traces(bench, onnx)


def main() -> None:
    """Measure."""
    with (
        Bench("choose", __doc__) as bench,
        tempfile.TemporaryDirectory() as folder,
        on({SERVER_CPU}),
    ):
        uvloop.run(measure(bench, Path(folder)))


if __name__ == "__main__":
    main()
