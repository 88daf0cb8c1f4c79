"""Rollout of features: production's model with another transformation, and the head it follows."""

from __future__ import annotations

from kedge.core.release.commands import Promote
from kedge.operations.commands import Order, submit
from kedge.operations.features.apply import may_roll, target_of
from kedge.operations.features.head import follow_command
from kedge.operations.receipts import CommandReceipt
from kedge.operations.rollouts import release_canary, shadow_release, submit_promotion


def shadow_features(
    order: Order,
    number: int,
    *,
    sample: float | None,
    generation: str | None,
    override: str | None,
) -> CommandReceipt:
    """Shadow production's model with a transformation.

    Raises:
        Refused: as `target_of`, or as `operations.commands.submit`.
    """
    _, release, _ = target_of(order.place, order.endpoint, number, generation)
    return shadow_release(order, release, sample=sample, override=override)


def canary_features(
    order: Order,
    number: int,
    *,
    weight: float | None,
    auto: bool,
    generation: str | None,
    override: str | None,
) -> CommandReceipt:
    """Send a percentage of traffic to production's model with a transformation.

    Raises:
        Refused: as `target_of`, or as `operations.commands.submit`.
    """
    _, release, _ = target_of(order.place, order.endpoint, number, generation)
    return release_canary(order, release, weight=weight, auto=auto, override=override)


def roll_features(
    order: Order, number: int, *, generation: str | None, override: str | None, loopback: bool
) -> CommandReceipt:
    """Put production's model with a transformation into production.

    Raises:
        Refused: as `may_roll`, or as `operations.commands.submit`.
    """
    release, why = may_roll(order.place, order.endpoint, number, override, generation)
    command = Promote(release=release.number, override=override, equivalence=why)
    return submit_promotion(order, command, loopback=loopback)


def follow(order: Order) -> CommandReceipt:
    """Let the endpoint follow the head of its feature schema.

    Raises:
        Refused: `no_schema`, or as `operations.commands.submit`.
    """
    return submit(order, follow_command(order.place, order.endpoint))
