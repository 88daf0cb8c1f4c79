"""Snippets of the docs: the blocks of a page, and the commands of a console block with their output."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

BLOCK = re.compile(r"(?ms)^(?P<indent> *)```(?P<language>\w*)\n(?P<text>.*?)^(?P=indent)```")


class Block(NamedTuple):
    """A fenced block.

    Attributes:
        language: what stands after the fence.
        text: without the indent of a list.
        file: the name that the paragraph before it gives a Python file; "" without.
        line: of the page.
    """

    language: str
    text: str
    file: str
    line: int


class Command(NamedTuple):
    """A line that a reader types, and what the page shows below it."""

    line: str
    shown: str

    @property
    def refused(self) -> bool:
        """Whether the page shows a refusal."""
        return self.shown.startswith("error: ")


def blocks(page: Path) -> Iterator[Block]:
    """The blocks of a page, in order."""
    text = page.read_text("utf-8")
    end = 0
    for found in BLOCK.finditer(text):
        paragraph = text[end : found.start()].rstrip().rsplit("\n\n", 1)[-1]
        named = re.findall(r"`(\w+\.py)`", paragraph)
        cut = re.sub(rf"(?m)^{found['indent']}", "", found["text"])
        yield Block(
            found["language"],
            cut,
            named[-1] if named else "",
            text.count("\n", 0, found.start()) + 1,
        )
        end = found.end()


def commands(block: Block) -> Iterator[Command]:
    """The lines that a console block tells to type; one that ends with a quote left open goes on."""
    line, shown = "", list[str]()
    for each in block.text.splitlines():
        if line.endswith("\\"):
            line = line[:-1] + each
        elif line and line.count("'") % 2:
            line += "\n" + each
        elif each.startswith("$ "):
            if line:
                yield Command(line, "\n".join(shown))
            line, shown = re.sub(r" {2,}# .*", "", each[2:]), []
        else:
            shown.append(each)
    if line:
        yield Command(line, "\n".join(shown))
