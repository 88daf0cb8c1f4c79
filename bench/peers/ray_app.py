"""The model on Ray Serve; ends when its stdin does. BENCH_MODEL is a joblib file."""

import logging
import os
import sys
from typing import Any

import joblib  # type: ignore[import-untyped, unused-ignore]
import numpy as np
import ray  # type: ignore[import-not-found, unused-ignore]
from ray import serve  # type: ignore[import-not-found, unused-ignore]


class Peer:
    """One replica, one model."""

    def __init__(self) -> None:
        self.model = joblib.load(os.environ["BENCH_MODEL"])

    async def __call__(self, request: Any) -> Any:
        """Answer the rows."""
        given = await request.json()
        return {"predictions": self.model.predict(np.asarray(given["instances"])).tolist()}


def main() -> None:
    """Serve."""
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        logging_level=logging.WARNING,
        object_store_memory=200 * 2**20,
        runtime_env={"env_vars": {"BENCH_MODEL": os.environ["BENCH_MODEL"]}},
    )
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[1])})
    deployment = serve.deployment(ray_actor_options={"num_cpus": 0}, max_ongoing_requests=64)
    serve.run(deployment(Peer).bind(), route_prefix="/predict")
    print("ready", flush=True)
    sys.stdin.read()


main()
