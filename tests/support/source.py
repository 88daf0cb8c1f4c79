"""The syntax trees of kedge's source: parsed when a test first asks for one."""

import ast
import functools
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src" / "kedge"
FILES = sorted(SOURCE.rglob("*.py"))


@functools.cache
def get_tree(path: Path) -> ast.Module:
    """Parse one file, once a process."""
    return ast.parse(path.read_text("utf-8"))


def get_trees() -> dict[Path, ast.Module]:
    """Parse every file of kedge."""
    return {path: get_tree(path) for path in FILES}
