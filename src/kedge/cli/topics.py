"""Topics of the documentation, which the package contains."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import NamedTuple

SECTIONS = {
    "tutorial.md": "Start here",
    "howto": "How-to",
    "concepts": "Concepts",
    "reference": "Reference",
}
"""Place of a page, and the heading that lists it. Decisions are for developers and not listed."""
PACKAGE = Path(__file__).parents[1]
PLACES = (PACKAGE / "docs", PACKAGE.parents[1] / "docs")
"""Directories of the pages: in a wheel, and in a source checkout."""
ERRORS = "reference/errors.md"
_LINK = re.compile(r"\[([^\]]+)\]\(([^)\s]+\.md)(#[^)]*)?\)")
_IMAGE = re.compile(r"(?m)^!\[[^\]]*\]\([^)]*\)\n?")


class HelpTopic(NamedTuple):
    """One page of the documentation."""

    name: str
    """The word to type: the file's name, with its folder if two folders have one of that name."""
    title: str
    section: str
    path: Path

    def read(self, anchor: str = "") -> str:
        """Return the page or one section as text; links to pages become commands that show them."""
        text = _IMAGE.sub("", self.path.read_text("utf-8"))
        return _LINK.sub(self._command, _section(text, anchor) if anchor else text)

    def _command(self, link: re.Match[str]) -> str:
        target = (self.path.parent / link[2]).resolve()
        known = {topic.path.resolve(): topic for topic in list_topics()}
        if target not in known:
            return link[1]
        return f"{link[1]} (kedge help {known[target].name}{link[3] or ''})"


@functools.cache
def list_topics() -> list[HelpTopic]:
    """Return every page in listed order; empty if the package has none."""
    root = next((place for place in PLACES if (place / "tutorial.md").is_file()), None)
    if root is None:
        return []
    pages = [
        (path, heading)
        for part, heading in SECTIONS.items()
        for path in ([root / part] if part.endswith(".md") else sorted((root / part).glob("*.md")))
    ]
    pages.append((root / "glossary.md", "Reference"))
    stems = [path.stem for path, _ in pages]
    return [
        HelpTopic(
            path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}/{path.stem}",
            _title(path),
            heading,
            path,
        )
        for path, heading in pages
        if path.is_file()
    ]


def find_topic(word: str) -> HelpTopic | None:
    """Return the page of a name, with or without its folder; how-to before the others."""
    wanted = word.strip("/").removesuffix(".md").removeprefix("docs/")
    for topic in list_topics():
        if wanted in (topic.name, topic.path.stem, f"{topic.path.parent.name}/{topic.path.stem}"):
            return topic
    return None


def explain_code(code: str) -> list[str]:
    """Return the reference's text on an error code: one line for each meaning."""
    page = find_topic(ERRORS)
    if page is None:
        return []
    rows = (line for line in page.read().splitlines() if line.startswith("| "))
    return [
        ": ".join(cell.strip() for cell in row.strip("| ").split(" | ") if cell.strip())
        for row in rows
        if f"`{code}`" in row.split(" | ")[0]
    ]


def _section(text: str, anchor: str) -> str:
    """Return an anchor's section with its subsections; the whole page if it is missing."""
    lines, level, fenced = list[str](), 0, False
    for line in text.splitlines():
        fenced ^= line.startswith("```")
        depth = 0 if fenced else len(line) - len(line.lstrip("#"))
        if depth and level and depth <= level:
            break
        if depth and not level and _anchor(line) == anchor:
            level = depth
        if level:
            lines.append(line)
    return "\n".join(lines) or text


def _anchor(heading: str) -> str:
    """Return the anchor of a heading, as the repository's viewer makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip("# ").lower()).replace(" ", "-")


def _title(path: Path) -> str:
    first = path.read_text("utf-8").partition("\n")[0]
    return first.removeprefix("# ").strip()
