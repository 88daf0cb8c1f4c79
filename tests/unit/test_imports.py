"""What a process loads first."""

import gc
import importlib
import subprocess
import sys

import pytest

from kedge.system.imports import quick_imports

LOADED = """
import sys
from kedge.system.imports import quick_imports
with quick_imports():
    import structlog
print([name for name in sys.modules if name.partition(".")[0] == "rich"])
import rich.text
"""


def test_structlog_is_loaded_without_rich_which_is_there_afterwards() -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_a_module_that_cannot_be_imported_leaves_everything_as_it_was() -> None:
    before, loaded = gc.isenabled(), sys.modules.get("rich")
    with pytest.raises(ImportError), quick_imports():
        importlib.import_module("absent_module")
    assert gc.isenabled() == before
    assert sys.modules.get("rich") is loaded
