"""Interpreter start: the command lines and the environment of kedge's own Python processes.

Python puts the working directory, or an empty entry of PYTHONPATH, before the standard library. A
downloaded folder with a `numpy.py` would then run as the operator. So kedge starts every process
with `-P`, and its environment sets the same for its children. A process that runs other people's
code gets the variables of one table, and no password or token of this machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping

TYPE_CHECKING = (
    False  # as in `typing`, which is not imported while the working directory may be on the path
)
if TYPE_CHECKING:
    from typing import Any

SAFE_PATH = "PYTHONSAFEPATH"
SEARCH_PATH = "PYTHONPATH"

PASSED: dict[str, str] = {
    "PATH": "where libraries look for their own tools",
    "LD_LIBRARY_PATH": "where shared libraries are",
    "LD_PRELOAD": "an allocator or a clock that was put in for all processes",
    "VIRTUAL_ENV": "which environment Python runs in",
    "PYTHON*": "where Python finds modules, and how it reads and hashes text",
    "LANG": "how text is read",
    "LANGUAGE": "how text is read",
    "LC_*": "how text is read",
    "TZ": "the time zone",
    "OMP_*": "threads of OpenMP",
    "GOMP_*": "threads of GNU's OpenMP",
    "KMP_*": "threads of Intel's OpenMP",
    "OPENBLAS_*": "threads and kernels of OpenBLAS",
    "MKL_*": "threads and kernels of MKL",
    "BLIS_*": "threads of BLIS",
    "NUMEXPR_*": "threads of numexpr",
    "ORT_*": "ONNX Runtime's switches",
    "MALLOC_*": "the C library's allocator",
    "SSL_CERT_*": "certificates of an online store",
}
"""The variables that a process with other people's code inherits, each with its reason; `*` is any
ending. No others pass: KEDGE_* holds passwords, and an alert's channel may read any name."""


def module_command(module: str, *words: str) -> list[str]:
    """Return the command line that runs a module; start it with `safe_environment`."""
    return [sys.executable, "-P", "-m", module, *words]


def kedge_command(*words: str) -> list[str]:
    """Return the command line of a kedge command."""
    return module_command("kedge", *words)


def safe_environment(base: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return an environment in which no Python searches the working directory by accident.

    An empty entry of PYTHONPATH, as in `PYTHONPATH=$PYTHONPATH:lib`, is the working directory. An
    entry that names a folder is deliberate and stays.
    """
    found = {**(os.environ if base is None else base), SAFE_PATH: "1"}
    if SEARCH_PATH in found:
        found[SEARCH_PATH] = os.pathsep.join(filter(None, found[SEARCH_PATH].split(os.pathsep)))
    return found


def bare_environment() -> dict[str, str]:
    """Return the environment of a process with other people's code: the variables in `PASSED`."""
    whole = {name for name in PASSED if not name.endswith("*")}
    starts = tuple(name.removesuffix("*") for name in PASSED if name.endswith("*"))
    found = safe_environment()
    return {
        name: value for name, value in found.items() if name in whole or name.startswith(starts)
    }


def drop_working_directory() -> None:
    """Remove the working directory from the path of a kedge program, before any other import.

    It stays if kedge is imported as a library, or if PYTHONPATH names it.
    """
    started = sys.orig_argv
    by_module = sys.argv[:1] == ["-m"] and "-m" in started
    if by_module and started[started.index("-m") + 1].partition(".")[0] != "kedge":
        return
    if not by_module and os.path.basename(sys.argv[0] if sys.argv else "") != "kedge":  # noqa: PTH119
        return
    if by_module and not sys.flags.safe_path:
        del sys.path[0]
    named = os.environ.get(SEARCH_PATH, "").split(os.pathsep)
    if "" in named[1:] or (named[0] == "" and len(named) > 1):
        here = os.getcwd()  # noqa: PTH109 - pathlib is not imported yet
        if here not in map(os.path.abspath, filter(None, named)):
            sys.path[:] = [entry for entry in sys.path if entry not in ("", here)]


class _Without:
    """A finder of modules that does not find one of them.

    `sys.modules[NAME] = None` would also refuse the import. But some libraries, such as
    scikit-learn for pandas, test whether `sys.modules` has another one, and take None for the
    module. Others call `find_spec` and expect None: a finder that raises would end their import.
    """

    def __init__(self, finder: Any, module: str) -> None:
        self.finder = finder
        self.module = module

    def find_spec(self, name: str, path: Any = None, target: Any = None, /) -> Any:
        """Find any other module as the wrapped finder does."""
        if name.partition(".")[0] == self.module:
            return None
        return self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        """Return the wrapped finder's attribute, such as the listing of distributions."""
        return getattr(self.finder, name)


class HiddenModules:
    """A context in which a module looks as if it were not installed."""

    def __init__(self, module: str) -> None:
        self._module = module

    def __enter__(self) -> None:
        sys.meta_path[:] = [_Without(finder, self._module) for finder in sys.meta_path]

    def __exit__(self, *_: object) -> None:
        sys.meta_path[:] = [
            (
                finder.finder
                if isinstance(finder, _Without) and finder.module == self._module
                else finder
            )
            for finder in sys.meta_path
        ]


def forbid(module: str) -> None:
    """Prevent any import of a module in this process, as if it were not installed."""
    HiddenModules(module).__enter__()


def find_forbidden(error: BaseException) -> str:
    """Return the forbidden module that an error comes from; empty if there is none."""
    forbidden = {finder.module for finder in sys.meta_path if isinstance(finder, _Without)}
    one: BaseException | None = error
    for _ in range(CAUSES):
        if isinstance(one, ModuleNotFoundError) and one.name is not None:
            module = one.name.partition(".")[0]
            if module in forbidden:
                return module
        one = (one.__cause__ or one.__context__) if one is not None else None
    return ""


CAUSES = 20
"""Maximum number of causes that are followed from one error: they may form a cycle."""
