"""Refusals of the release machine: code -> (message, hint).

The codes are stable and documented in `docs/reference/state-machine.md`; the words may change.
A message states the fact, a hint what to do instead. `core.release.machine` fills in the names.
"""

from __future__ import annotations

REFUSALS: dict[str, tuple[str, str]] = {
    "no_rollout": (
        "no rollout is under way on {endpoint} (stage: {stage})",
        "kedge shadow {endpoint} VERSION starts one (the very first: kedge promote)",
    ),
    "unknown_release": (
        "{endpoint} has no release {release}",
        "kedge versions {endpoint} lists what is registered",
    ),
    "nothing_in_production": (
        "{endpoint} has nothing in production yet, so there is nothing to compare with",
        "kedge promote {endpoint} VERSION makes the first production release",
    ),
    "already_production": (
        "{endpoint} already serves {release}",
        "kedge status {endpoint} shows what is live",
    ),
    "undeclared_field": (
        "{release} needs what the request contract of {endpoint} does not promise: {fields}",
        "declare it under [endpoints.{endpoint}.fields] and run kedge apply",
    ),
    "rollout_running": (
        "{candidate} is already a candidate on {endpoint} (stage: {stage})",
        "kedge abort {endpoint} ends it",
    ),
    "condemned": (
        "{release} is condemned: a rollback left {left}",
        'kedge register {endpoint} takes a corrected version, or use --override "reason"',
    ),
    "verdict_fail": (
        "the verdict on {release} against {production} is fail: {failure}",
        ('kedge shadow {endpoint} VERSION must pass its window first, or use --override "reason"'),
    ),
    "answers_missing": (
        "{release} does not give the answers that {endpoint} promises: {answers}",
        ('change [endpoints.{endpoint}.answers] and run kedge apply, or use --override "reason"'),
    ),
    "answers_break_live": (
        (
            "{release} is live on {endpoint} or a way back, and is missing the new answers:"
            " {answers}"
        ),
        "promise it once {endpoint} no longer serves or goes back to {release}",
    ),
    "shadow_first": (
        "{endpoint} serves customers: a candidate needs a passed shadow window before a canary",
        'kedge shadow {endpoint} VERSION, or use --override "reason"',
    ),
    "rollout_first": (
        "{release} has not been shadowed or canaried on {endpoint}",
        'kedge canary {endpoint} VERSION, or use --override "reason"',
    ),
    "canary_first": (
        "{candidate} is only shadowed: no caller has received its answers yet",
        'kedge canary {endpoint} VERSION, or use --override "reason"',
    ),
    "not_shadowed": (
        "{candidate} answers callers of {endpoint}: a shadow window must come before the canary",
        "kedge evidence {endpoint} shows what the canary has proven",
    ),
    "nothing_to_go_back_to": (
        "{endpoint} has no earlier good release to go back to",
        "kedge history {endpoint} shows what served; --to RELEASE names a condemned one",
    ),
    "never_in_production": (
        "{release} never was production on {endpoint}: switching to it would be a promotion",
        "kedge canary {endpoint} VERSION, then kedge promote {endpoint}",
    ),
    "bad_weight": (
        "a share of callers must be 0 to 100 %, got {share}",
        "give a weight, a sample and every canary step in per cent",
    ),
    "drill_running": (
        "a drill is running on {endpoint}: {drilled} is restored within a minute",
        "wait for it; kedge rollback {endpoint} ends it too, and condemns {drilled}",
    ),
    "no_drill": (
        "no drill of this kind is running on {endpoint} (stage: {stage})",
        "kedge history {endpoint} shows who ended it",
    ),
    "contract_breaks_live": (
        (
            "{release} is live on {endpoint} or a way back, and the new contract removes a field"
            " that it needs: {fields}"
        ),
        "keep the field declared until {endpoint} no longer serves or goes back to {release}",
    ),
    "unchanged": (
        "nothing to do: {endpoint} is already in the requested state",
        "kedge status {endpoint} shows what is live",
    ),
}
