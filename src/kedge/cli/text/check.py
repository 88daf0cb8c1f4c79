"""Text of a check: whether a rollback would work now, and how to fix what would stop it."""

from __future__ import annotations

from kedge.operations.readiness.check import CheckedEndpoint

WORDS = {"pass": "pass", "fail": "FAIL", "not applicable": "-"}


def check_text(found: CheckedEndpoint) -> str:
    """Return the checks as text, one line each."""
    lines = [get_standing(found)]
    lines += [
        f"  {WORDS[check.outcome]:4}  {check.name:12}  {check.why}"
        + (f"; fix: {check.mend}" if check.mend else "")
        for check in found.checks
    ]
    lines += [f"  !     {line}" for line in (*found.fence, *found.libraries)]
    return "\n".join(lines)


def get_standing(found: CheckedEndpoint) -> str:
    """Return whether the endpoint is ready."""
    failing = f"NOT READY: {len(found.failed)} of {len(found.checks)} checks fail"
    return f"{found.endpoint} is {'ready' if found.ready else failing}"
