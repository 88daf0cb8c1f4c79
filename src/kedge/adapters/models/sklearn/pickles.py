"""Loader of estimators from pickles, which run code when they are read.

An operator has allowed it for this version, with a reason. It happens in a model's process alone,
behind the fence: never in a command, in control or in a gateway worker.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import joblib
import sklearn
from picklescan.scanner import SafetyLevel, scan_pickle_bytes

from kedge.adapters.models.flavours import PickleFlavour
from kedge.adapters.models.sklearn.loader import make_single_threaded
from kedge.adapters.models.sklearn.model import SklearnModel
from kedge.adapters.models.sklearn.signature import inputs_of
from kedge.adapters.models.stated import read_stated
from kedge.core.errors import UnfitModel
from kedge.core.formats import inflated
from kedge.core.values import Plainness

if TYPE_CHECKING:
    from kedge.ports import Model

PROCESS = "kedge.adapters.process.__main__"
"""The module that a model's process runs."""
SCANNED = 64 << 20
"""Bytes that are scanned: the names of a pickle come before most of its data."""
RULE = 1
"""The number of this inspection: what a pickle made is never proven plain."""


class PickleLoader(PickleFlavour):
    """Loader of its flavour's files."""

    def load(self, path: Path, trusted: Sequence[str] = ()) -> Model:
        """Read the pickle, if it names nothing dangerous that the caller does not trust.

        Raises:
            UnfitModel: this is no model's process (`not_apart`), the scan finds something
                (`dangerous_pickle`), a library is missing, the pickle cannot be read, or it is no
                estimator.
        """
        if not is_apart():
            raise UnfitModel(
                "a pickle runs code, and is read in a model's process only",
                code="not_apart",
                hint='runtime = "auto" or "process" in kedge.toml',
            )
        file = self.find(path)
        if file is None:
            raise UnfitModel(f"{path} does not hold {self.looks_for}")
        _scan(file, trusted)
        estimator = _read(file)
        if not hasattr(estimator, "predict"):
            raise UnfitModel(
                f"{type(estimator).__name__} has no predict: it is not a model",
                hint="write the fitted estimator alone: joblib.dump(model, 'model.joblib')",
            )
        make_single_threaded(estimator)
        stated = read_stated(path)
        inputs = inputs_of(estimator, stated)
        found = Plainness(
            proven=False,
            rule=RULE,
            why="its pickle runs code, which model processes alone do",
            apart=True,
        )
        version = getattr(estimator, "__dict__", {}).get("_sklearn_version")
        written = {"scikit-learn": str(version)} if version else {}
        return SklearnModel(estimator, inputs, stated.outputs, found, written)


def is_apart() -> bool:
    """Return whether this is a model's process."""
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return spec is not None and spec.name == PROCESS


def _scan(file: Path, trusted: Sequence[str]) -> None:
    """Raise if the first part of a pickle names a function that serves attacks.

    The list is picklescan's. It finds what is known, up to the first array that joblib wrote beside
    its instructions; what it does not find can still do harm.
    """
    with file.open("rb") as opened:
        raw = inflated(opened.read(SCANNED), SCANNED)
    logging.getLogger("picklescan").setLevel(logging.CRITICAL)
    found = scan_pickle_bytes(BytesIO(raw), file.name).globals
    dangerous = sorted(
        {f"{one.module}.{one.name}" for one in found if one.safety is SafetyLevel.Dangerous}
        - {*trusted}
    )
    if dangerous:
        raise UnfitModel(
            f"{file.name} names {', '.join(dangerous)}, which serves attacks",
            code="dangerous_pickle",
            hint="ask its author; if it is right: "
            + " ".join(f"--trust {name}" for name in dangerous),
            details={"names": dangerous},
        )


def _read(file: Path) -> Any:
    try:
        return joblib.load(file)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        raise UnfitModel(
            f"{file.name} needs {error.name}, which is not installed",
            hint=f"pip install {library}, where kedge runs"
            if library != "__main__"
            else "the class is defined in the script that wrote the pickle: put it into a package",
        ) from error
    except Exception as error:  # whatever its code raises
        raise UnfitModel(
            f"{file.name} cannot be read: {type(error).__name__}: {str(error)[:300]}",
            hint=f"write it again with the versions that are installed here (scikit-learn"
            f" {sklearn.__version__}); a class of the script itself must be in a package",
        ) from error
