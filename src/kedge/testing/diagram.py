"""The state machine's diagram for the docs, drawn from the table that decides.

`python -m kedge.testing.diagram --write docs/reference/state-machine.md` renews the page's
two blocks; a test fails while they differ from the table.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from pathlib import Path

from kedge.core.release.machine import TABLE, Rule
from kedge.core.release.refusals import REFUSALS
from kedge.core.values import Stage


def diagram() -> str:
    """Draw TABLE as a Mermaid state diagram: one arrow a pair of stages, one line a way."""
    ways: dict[tuple[Stage, Stage], list[str]] = defaultdict(list)
    for (stage, command), rules in TABLE.items():
        for rule in rules:
            if rule.refuse is None:
                ways[stage, rule.to or stage].append(_way(command.__name__, rule))
    lines = ["stateDiagram-v2", "    direction LR", f"    [*] --> {Stage.EMPTY}"]
    for (stage, to), texts in sorted(ways.items(), key=lambda way: _order(way[0])):
        lines.append(f"    {stage} --> {to}: {'<br/>'.join(texts)}")
    return "```mermaid\n" + "\n".join(lines) + "\n```\n"


def _order(way: tuple[Stage, Stage]) -> tuple[int, int]:
    stages = list(Stage)
    return stages.index(way[0]), stages.index(way[1])


def _way(command: str, rule: Rule) -> str:
    condition = "" if rule.when == "always" else f" [{rule.when}]"
    return f"{command}{condition} / {', '.join(rule.then)}"


def refusals() -> str:
    """Write every refusal as a row of a Markdown table."""
    names = {"endpoint": "ENDPOINT", "stage": "STAGE", "release": "RELEASE"} | {
        "candidate": "CANDIDATE",
        "fields": "FIELDS",
        "answers": "FIELDS",
        "failure": "REASON",
        "production": "RELEASE",
        "share": "SHARE",
        "left": "RELEASE behind",
        "drilled": "RELEASE",
    }
    rows = [
        f"| `{code}` | {message.format(**names)} | {hint.format(**names)} |"
        for code, (message, hint) in sorted(REFUSALS.items())
    ]
    return "\n".join(["| Code | Message | Hint |", "|---|---|---|", *rows]) + "\n"


BLOCKS = {"diagram": diagram, "refusals": refusals}


def renewed(page: str) -> str:
    """Return the page with each block between its markers replaced.

    Raises:
        ValueError: a block has no markers on this page.
    """
    for name, block in BLOCKS.items():
        markers = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not markers.search(page):
            raise ValueError(f"the page has no block between <!-- {name} --> and <!-- /{name} -->")
        text = block()
        page = markers.sub(lambda found, text=text: f"{found[1]}{text}{found[2]}", page)  # type: ignore[misc]
    return page


def main(arguments: list[str]) -> None:
    """Print the diagram, or write it into a page."""
    parser = argparse.ArgumentParser(description="Draw the release state machine from its table.")
    parser.add_argument("--write", type=Path, metavar="FILE", help="renew the blocks of this page")
    page: Path | None = parser.parse_args(arguments).write
    if page is None:
        sys.stdout.write(diagram())
    else:
        page.write_text(renewed(page.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
