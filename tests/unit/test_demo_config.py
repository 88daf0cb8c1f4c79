"""The configuration of the demo: valid, and independent of the load of the machine."""

from __future__ import annotations

from pathlib import Path

import kedge.demo
from kedge.config.load import read


def test_it_is_valid_and_slowness_of_the_machine_stops_no_candidate() -> None:
    text = (Path(kedge.demo.__file__).parent / "kedge.toml").read_text(encoding="utf-8")
    rails = read(text).endpoints["flights"].guardrails
    assert rails["latency"].worse_by == 100
    assert rails["quality"].metric == "log_loss"
