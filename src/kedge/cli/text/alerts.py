"""Text of alerts: a list of them, and a test of their channels."""

from __future__ import annotations

from collections.abc import Sequence

from kedge.operations.alerts import AlertTest, ListedAlert


def alerts_text(found: Sequence[ListedAlert]) -> str:
    """Return alerts as text, two lines each."""
    return "\n".join(
        f"#{one.number:<5} {one.level:4}  {one.endpoint}: {one.summary}"
        + (f"  ({one.times} times)" if one.times > 1 else "")
        + f"\n       {one.opened_at[:19]}Z  {one.standing}"
        + (f"\n       kedge ack {one.number} acknowledges it" if is_waiting(one) else "")
        + (f"\n       {one.link}" if one.link else "")
        for one in found
    )


def is_waiting(one: ListedAlert) -> bool:
    """Return whether the alert waits for an operator."""
    return one.open and one.level == "page" and not one.acknowledged_by


def alert_test_text(found: AlertTest) -> str:
    """Return the result of a test, one line for each channel."""
    return "\n".join(
        f"level {level.level}  {'delivered' if channel.delivered else 'FAILED   '} "
        f" {channel.channel}"
        + (f" ({channel.who})" if channel.who else "")
        + (f"  {channel.fault}" if channel.fault else "")
        for level in found.levels
        for channel in level.channels
    )
