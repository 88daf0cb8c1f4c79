"""Model processes: each runs one model, reached over a Unix socket.

A model there can hang, crash, leak or answer nonsense without affecting a gateway worker, and one
copy serves all workers of a host. `command` starts one (`serve`), `ProcessModel` asks it, and
`probe` tries an unknown file in a process that it may crash. `prove` tries a whole release,
deployed from nothing. `FeaturesProcess` runs features files.
"""

from kedge.adapters.process.client import Allowance, ProcessModel
from kedge.adapters.process.features import FeaturesProcess
from kedge.adapters.process.fence import missing
from kedge.adapters.process.launch import (
    STEPS,
    command,
    environment,
    fenced_environment,
    first_words,
    probe,
    prove,
    reach_of,
)
from kedge.adapters.process.messages import ProofStep

__all__ = [
    "STEPS",
    "Allowance",
    "FeaturesProcess",
    "ProcessModel",
    "ProofStep",
    "command",
    "environment",
    "fenced_environment",
    "first_words",
    "missing",
    "probe",
    "prove",
    "reach_of",
]
