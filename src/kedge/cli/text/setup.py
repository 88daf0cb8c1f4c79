"""Text of setup: an endpoint's audience, the applied policies, and the findings of doctor."""

from __future__ import annotations

from kedge.core.values import Policy
from kedge.operations.doctor import DoctorReport
from kedge.operations.setup import AppliedPolicies


def audience_text(policy: Policy) -> str:
    """Return the audience's demands on a candidate, and how to choose another audience."""
    window, pairs = policy.shadow.window, policy.shadow.min_pairs
    if policy.audience == "customer":
        return (
            f"audience customer: a canary is refused until the candidate passed its shadow window "
            f'(shadow.window {window}, shadow.min_pairs {pairs:,}); audience = "internal" lets a'
            " canary come first"
        )
    return (
        "audience internal: a canary may come before a passed shadow window; "
        f'audience = "customer" refuses that until one passed (shadow.window {window},'
        f" shadow.min_pairs {pairs:,})"
    )


def applied_text(done: AppliedPolicies) -> str:
    """Return the differences from the earlier policies, by endpoint."""
    return "\n".join(
        f"{name}: {diff[0]}" if len(diff) == 1 else "\n  ".join([f"{name}:", *diff])
        for name, diff in done.changed.items()
    )


def doctor_text(report: DoctorReport) -> str:
    """Return each finding on its own line."""
    return "\n".join(
        f"{'ok  ' if one.ok else 'BAD '} {one.check}: {one.detail}" for one in report.findings
    )
