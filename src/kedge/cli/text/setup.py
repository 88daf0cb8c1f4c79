"""Setup in words: an endpoint's audience, the policies that came into force, and what doctor found."""

from __future__ import annotations

from kedge.core.values import Policy
from kedge.operations.doctor import DoctorReport
from kedge.operations.setup import AppliedPolicies


def audience_text(policy: Policy) -> str:
    """Say what an endpoint's audience asks of a candidate, and how to choose otherwise."""
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
    """Return what differs from the policies before, by endpoint."""
    return "\n".join(
        f"{name}: {diff[0]}" if len(diff) == 1 else "\n  ".join([f"{name}:", *diff])
        for name, diff in done.changed.items()
    )


def doctor_text(report: DoctorReport) -> str:
    """Return each finding on its line."""
    return "\n".join(
        f"{'ok  ' if one.ok else 'BAD '} {one.check}: {one.detail}" for one in report.findings
    )
