"""Questions of the demo to kedge: what a transformation would change, and why production became worse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from kedge.demo.processes import CommandResult
from kedge.system.pause import pause
from kedge.system.terminal import show

AGAIN, WAIT_S = 2, 8.0
"""How often it is asked again at most, and how long labels are waited for before."""


class Asking(Protocol):
    """The part of the demo that asks questions."""

    diagnoses: list[dict[str, Any]]

    def shell(self, *words: str) -> CommandResult:
        """Show a command, run it, and return its result."""


def asked(demo: Asking, since_s: float) -> dict[str, Any]:
    """Diagnose; repeat once or twice while the finding needs more outcomes."""
    told = demo.shell("diagnose", "flights", "--since", f"{since_s:.0f}s").data
    for _ in range(AGAIN):
        lacking = {lack["code"] for lack in told["diagnosis"]["missing"]}
        findings = told["diagnosis"]["findings"]
        if findings[0]["cause"] != "cannot_tell" or not lacking & {"outcomes", "more_outcomes"}:
            break
        show(f"  cannot tell yet: {findings[0]['statement'][:100]}; asked again in {WAIT_S:.0f} s")
        pause(WAIT_S)
        since_s += 2 * WAIT_S  # as much again for the diagnosis itself
        told = demo.shell("diagnose", "flights", "--since", f"{since_s:.0f}s").data
    return dict(told)


def diagnosed(demo: Asking, injected: str, since_s: float) -> None:
    """Diagnose, show the finding, and record it for the report."""
    told = asked(demo, since_s)
    found = told["diagnosis"]
    show(f"  {found['headline']}")
    for finding in found["findings"]:
        kind = f" ({finding['kind']})" if finding.get("kind") else ""
        show(f"    {finding['cause']}{kind}: {finding['statement'][:110]}")
    show(f"    do: {found['action']['sentence'][:130]}")
    effect = found["effect"] or {}
    demo.diagnoses.append(
        {
            "injected": injected,
            "found": [finding["cause"] for finding in found["findings"]],
            "effect": effect.get("value"),
            "interval": [effect.get("low"), effect.get("high")],
            "labelled": effect.get("n", 0),
            "action": found["action"]["code"],
        }
    )
    if injected not in demo.diagnoses[-1]["found"]:
        show(f"    NOT what was injected: that is {injected}")


def apply(demo: Asking, work: Path, *, wrong: bool) -> dict[str, Any]:
    """Apply the features file, with or without the mistake: one word of one line."""
    text = (Path(__file__).parent / "features.py").read_text(encoding="utf-8")
    if wrong:
        text = text.replace('raw["sched_minute"]', 'raw["utc_minute"]')
    (work / "features.py").write_text(text, encoding="utf-8")
    told: dict[str, Any] = demo.shell("features", "apply", "features.py").data["transformations"][0]
    against = f"; {told['outcome']} against {told['against']}" if told["against"] else ""
    from_ = ", ".join(told["raw"][:6])
    show(f"  {told['version']}: takes {from_}, ... out of a request{against}")
    for column in told["columns"]:
        if column["outcome"] != "bit-equal":
            show(
                f"    {column['column']:14} {column['outcome']}: {column['rows']} values, "
                f"by {column['largest']:g} at most"
            )
    return told
