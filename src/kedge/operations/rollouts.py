"""Rollouts: commands that find a release of a version first, then shadow, release or promote it."""

from __future__ import annotations

from kedge.core.release.commands import Canary, Promote, Shadow
from kedge.core.release.guards import buckets
from kedge.core.values import Policy, Release, State
from kedge.operations.commands import Order, submit, with_reason
from kedge.operations.readiness.check import gate_of
from kedge.operations.receipts import CommandReceipt
from kedge.operations.releases import release_of


def start_shadow(
    order: Order, version: str, *, sample: float | None, override: str | None
) -> CommandReceipt:
    """Send a version a silent copy of production's requests; `sample` in per cent.

    Raises:
        Refused: the version is not found, or as `operations.commands.submit`.
    """
    release = release_of(order.place, order.endpoint, version)
    return shadow_release(order, release, sample=sample, override=override)


def start_canary(
    order: Order, version: str, *, weight: float | None, auto: bool, override: str | None
) -> CommandReceipt:
    """Send `weight` per cent of the traffic to a version.

    Raises:
        Refused: the version is not found, or as `operations.commands.submit`.
    """
    release = release_of(order.place, order.endpoint, version)
    return release_canary(order, release, weight=weight, auto=auto, override=override)


def promote(
    order: Order, version: str | None, *, full: bool, override: str | None, loopback: bool
) -> CommandReceipt:
    """Move a rollout to its next step, or a version into production.

    Args:
        order: the endpoint, the actor and the reason.
        version: a version or a release; None: the candidate.
        full: whether the remaining canary steps are skipped.
        override: why the rules are overridden.
        loopback: whether only this machine reaches the gateways, for the gate.

    Raises:
        Refused: the version is not found, or as `operations.commands.submit`.
    """
    found = release_of(order.place, order.endpoint, version) if version else None
    number = found.number if found is not None else None
    return submit_promotion(
        order, Promote(release=number, full=full, override=override), loopback=loopback
    )


def submit_promotion(order: Order, command: Promote, *, loopback: bool) -> CommandReceipt:
    """Submit a promotion, which passes the gate of readiness."""
    gate = gate_of(order.place, loopback=loopback, say=order.say)
    return submit(with_reason(order, command.override), command, gate)


def shadow_release(
    order: Order, release: Release, *, sample: float | None, override: str | None
) -> CommandReceipt:
    """Shadow a release; the default of `sample` is the policy's."""
    share = _policy(order).shadow.sample if sample is None else sample
    command = Shadow(release=release.number, sample=buckets(share), override=override)
    return submit(with_reason(order, override), command)


def release_canary(
    order: Order, release: Release, *, weight: float | None, auto: bool, override: str | None
) -> CommandReceipt:
    """Start a canary of a release; the default of `weight` is the policy's first step."""
    share = _policy(order).canary.steps[0] if weight is None else weight
    command = Canary(release=release.number, weight=buckets(share), override=override, auto=auto)
    return submit(with_reason(order, override), command)


def _policy(order: Order) -> Policy:
    states = order.place.ledger.read().states
    return states.get(order.endpoint, State(endpoint=order.endpoint)).policy
