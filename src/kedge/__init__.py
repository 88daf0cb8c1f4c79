"""kedge: a release controller that ships model versions and rolls them back in seconds, with proof.

The names of `__all__`, of `kedge.plugins` and of `kedge.testing.checks` are the public API. Every
other module can move or change in any version. Each name is imported at its first use, so that
`import kedge` stays light.
"""

from kedge.system.interpreter import drop_working_directory

drop_working_directory()

# The working directory is removed from the path first.
from importlib import import_module  # noqa: E402

TYPE_CHECKING = False  # as of `typing`, which a command line need not import
if TYPE_CHECKING:
    from kedge.core.diagnosis.diagnose import diagnose
    from kedge.core.diagnosis.facts import Facts, Instruments, Sample, Source
    from kedge.core.diagnosis.findings import (
        Act,
        Action,
        Cause,
        Diagnosis,
        Estimate,
        Evidence,
        Finding,
        Kind,
        Missing,
        Suspect,
    )
    from kedge.core.errors import BadConfig, KedgeError, Refused
    from kedge.core.features.schema import Schema
    from kedge.core.values import ColumnStatistics, Output
    from kedge.transforms.authoring import Columns, Field, materialise, schema, transform

__all__ = [
    "Act",
    "Action",
    "BadConfig",
    "Cause",
    "ColumnStatistics",
    "Columns",
    "Diagnosis",
    "Estimate",
    "Evidence",
    "Facts",
    "Field",
    "Finding",
    "Instruments",
    "KedgeError",
    "Kind",
    "Missing",
    "Output",
    "Refused",
    "Sample",
    "Schema",
    "Source",
    "Suspect",
    "diagnose",
    "materialise",
    "schema",
    "transform",
]

_NAMES = {
    "kedge.core.diagnosis.diagnose": "diagnose",
    "kedge.core.diagnosis.facts": "Facts Instruments Sample Source",
    "kedge.core.diagnosis.findings": (
        "Act Action Cause Diagnosis Estimate Evidence Finding Kind Missing Suspect"
    ),
    "kedge.core.errors": "BadConfig KedgeError Refused",
    "kedge.core.features.schema": "Schema",
    "kedge.core.values": "ColumnStatistics Output",
    "kedge.transforms.authoring": "Columns Field materialise schema transform",
}
"""The public names by the module that defines them."""
_PLACES = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> object:
    """Import a public name.

    Raises:
        AttributeError: there is no such name.
    """
    if name not in _PLACES:
        raise AttributeError(f"module 'kedge' has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_PLACES[name]), name)
    return found


def __dir__() -> list[str]:
    """Return the names of the module, including those that are not imported yet."""
    return sorted({*globals(), *__all__})
