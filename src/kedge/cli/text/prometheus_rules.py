"""Alert rules as the YAML that Prometheus reads."""

from __future__ import annotations

import json
from collections.abc import Iterator

from kedge.core.metrics.alert_rules import AlertRule, AlertRules


def rules_text(rules: AlertRules) -> str:
    """Return a file of rules. JSON's strings are valid in YAML, with every escape."""
    lines = [
        "# Written by `kedge prometheus-rules`; write it again after `kedge apply`.",
        "groups:",
    ]
    for group in rules.groups:
        lines += [f"  - name: {json.dumps(group.name)}", "    rules:"]
        for rule in group.rules:
            lines += _rule_lines(rule)
    return "\n".join(lines)


def _rule_lines(rule: AlertRule) -> Iterator[str]:
    labels: dict[str, str] = {"severity": rule.severity}
    if rule.endpoint:
        labels["endpoint"] = rule.endpoint
    notes = {"summary": rule.summary, "description": rule.description}
    yield f"      - alert: {json.dumps(rule.alert)}"
    yield f"        expr: {json.dumps(rule.expr)}"
    yield f"        for: {rule.for_s}s"
    for name, pairs in (("labels", labels), ("annotations", notes)):
        yield f"        {name}:"
        yield from (f"          {key}: {json.dumps(value)}" for key, value in pairs.items())
