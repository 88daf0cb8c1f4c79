"""Errors of kedge, as a tree from which a caller can choose.

    KedgeError
    ├── Refused           the rules say no; nothing changed              exit 1
    │   ├── Stale         another process changed the row first          exit 1
    │   └── Denied        the caller may not do this; nothing changed    exit 1
    ├── BadConfig         kedge.toml has faults; all of them are listed  exit 2
    ├── Usage             a command line that cannot be parsed           exit 2
    ├── NotAcknowledged   written, but a replica has not said so         exit 3
    ├── Unavailable       the ledger (or a gateway) cannot be reached    exit 4
    ├── CorruptArtifact   bytes do not match the digest they were registered under
    ├── UnfitModel        no loader accepts it, or its answers break its own golden rows
    ├── BadRequest        a caller's request breaks the endpoint's contract
    ├── Overloaded        a bound was reached; the request was not started
    └── ModelFailure      a model raised, hung, died or answered nonsense

One class per *different handling*. `code` is stable and documented, `hint` says how to
fix it. HTTP statuses are absent here: the gateway owns the only table from error to status.
"""

from __future__ import annotations


class KedgeError(Exception):
    """Something kedge promised cannot be kept."""

    code = "error"
    retryable = False

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        hint: str = "",
        details: dict[str, object] | None = None,
    ) -> None:
        super().__init__(message or (self.__doc__ or "").strip())
        if code is not None:
            self.code = code
        self.hint = hint
        self.details = details or {}


class Refused(KedgeError):
    """The rules of the release machine refuse this command; nothing was changed."""

    code = "refused"


class Stale(Refused):
    """Another command changed the endpoint first."""

    code = "stale"
    retryable = True


class Denied(Refused):
    """The caller has not proved who it is, or may not do this; nothing was changed."""

    code = "denied"


class BadConfig(KedgeError):
    """The configuration has faults."""

    code = "bad_config"

    def __init__(self, faults: list[str], *, hint: str = "", code: str | None = None) -> None:
        super().__init__("\n".join(faults), code=code, hint=hint, details={"faults": faults})
        self.faults = faults


class Usage(KedgeError):
    """The command line cannot be understood; nothing was done."""

    code = "usage"


class NotAcknowledged(KedgeError):
    """The change is written, but not every replica has acknowledged it."""

    code = "not_acknowledged"


class Unavailable(KedgeError):
    """A part that is needed for this command cannot be reached."""

    code = "unavailable"
    retryable = True


class CorruptArtifact(KedgeError):
    """The bytes of a model version do not match the digest it was registered under."""

    code = "corrupt_artifact"


class UnfitModel(KedgeError):
    """The model cannot be loaded, or does not answer its own golden rows."""

    code = "unfit_model"


class BadRequest(KedgeError):
    """The request breaks the endpoint's contract."""

    code = "bad_request"


class Overloaded(KedgeError):
    """A bound of the gateway was reached; the request was not started."""

    code = "overloaded"
    retryable = True


class ModelFailure(KedgeError):
    """The model failed to answer."""

    code = "model_failure"
