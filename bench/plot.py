"""The detection table as a picture: `docs/reference/detection.svg`, from `bench/results/detection.json`."""

from __future__ import annotations

import json
from math import log10
from pathlib import Path
from typing import Any

from common import RESULTS, ROOT

METHODS = ("kedge", "argo-like", "kayenta-like", "peeking z")
COLOURS = {
    "kedge": "#1f6f8b",
    "argo-like": "#c98a2b",
    "kayenta-like": "#8a6fb0",
    "peeking z": "#b5483a",
}
HEALTHY, WORSE = ("A/A at 5%", "shared incident"), ("5.0% at 5%", "2.0% at 25%", "2.0% at 5%")
WIDTH, ROW, LEFT, BAR = 760, 17, 190, 420


def cell(row: dict[str, Any], method: str) -> Any:
    """What one method made of one scenario."""
    return row if method == "kedge" else row["others"][method]


def bars(
    title: str, rows: list[dict[str, Any]], top: int, *, seconds: bool
) -> tuple[list[str], int]:
    """One panel: a bar for each scenario and method."""
    out = [f'<text x="10" y="{top}" class="t">{title}</text>']
    y = top + 10
    for row in rows:
        out.append(f'<text x="10" y="{y + 14}">{row["scenario"]}</text>')
        for method in METHODS:
            found = cell(row, method)
            if seconds:
                middle = found["median_s"]
                size = 0.0 if middle is None else log10(max(middle, 1)) / log10(20_000)
                told = (
                    "never" if middle is None else f"{middle:,.0f} s, {found['errors']:,.0f} failed"
                )
            else:
                size, told = found["rolled_back"], f"{found['rolled_back']:.1%}"
            width = max(round(BAR * size), 1)
            out.append(
                f'<rect x="{LEFT}" y="{y + 3}" width="{width}" height="{ROW - 5}" fill="{COLOURS[method]}"/>'
                f'<text x="{LEFT + width + 6}" y="{y + 14}" class="s">{method}: {told}</text>'
            )
            y += ROW
        y += 6
    return out, y + 26


def main() -> None:
    """Draw it."""
    found = json.loads((RESULTS / "detection.json").read_text("utf-8"))["detail"]["table"]
    of = {row["scenario"]: row for row in found}
    first, y = bars(
        "Healthy candidates that were taken back, within a day",
        [of[n] for n in HEALTHY],
        24,
        seconds=False,
    )
    second, y = bars(
        "Worse candidates: median seconds until taken back (logarithmic)",
        [of[n] for n in WORSE],
        y,
        seconds=True,
    )
    style = "text{font:13px system-ui,sans-serif;fill:#222}.t{font-weight:600}.s{font-size:11px;fill:#444}"
    Path(ROOT / "docs" / "reference" / "detection.svg").write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" role="img">'
        f"<title>Detection: kedge beside what others ship</title><style>{style}</style>"
        f'<rect width="{WIDTH}" height="{y}" fill="#fff"/>' + "".join(first + second) + "</svg>\n"
    )


if __name__ == "__main__":
    main()
