"""Readiness of an endpoint for a rollback: facts in, one check per line out. Values only.

Theory of operation
-------------------
* Each check is a function of the same facts. `CHECKS` lists them in the order in which an operator
  would fix them. A check without a result yet is *not applicable*, which is not a failure.
* The *landing* is the release on which a rollback lands: the way back, or during a rollout
  production, which the candidate would replace. So a promotion is judged by the landing that it
  would leave.
* The proof is a note of the ledger, not an operator's word. Such notes record that a test was
  delivered, a release was deployed from nothing, or a drill succeeded.
* Deliberately absent: how facts are found, and what follows from a failure.
  `kedge.operations.readiness.check` does both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Generic, Literal, NamedTuple, TypeVar

from kedge.core.alerts.alerts import Raise, Topic, rungs, url_of
from kedge.core.automation import guardrails
from kedge.core.runbook import FLIP_S, MOST_S, PEOPLE_S, configuration_digest
from kedge.core.stored.notes import AlertTested, DrillResult, Proven, RunbookNote
from kedge.core.values import UNNAMED_OWNER, State, Value

B = TypeVar("B")

DAY_S = 86_400.0
PROOF_S = DAY_S
"""Age limit of a proof: disks and libraries change without notice, and a proof costs seconds."""
TEST_S = 30 * DAY_S
"""Age limit of a test of the alerts: tokens and mailboxes are commonly renewed every quarter. A
month finds an expired one before most incidents do."""
DRILL_S = 30 * DAY_S
"""Age limit of a drill: with one every month, each person of a rota of four has done one on
duty."""
DRILL_MOST_S = 600.0
"""Time limit of a drill: a rollback is promised within ten minutes."""
EVIDENCE_S = 600.0
"""Age limit of the newest window while callers send requests. The judge restarts its bets as often.
At a tenth of the inputs, a caller every second leaves no gap of that length."""
LEVELS = 2
"""Least levels of an escalation: one person sleeps, or has no signal."""

# ---------------------------------------------------------------- values


class Check(Value, frozen=True, kw_only=True):
    """The result of one check, and how to fix it."""

    name: str
    outcome: Literal["pass", "fail", "not applicable"]
    why: str
    mend: str = ""
    """How to fix it; empty if there is nothing to fix."""


class NewestNote(NamedTuple, Generic[B]):
    """The newest note of a kind in the ledger."""

    at: float
    """Unix time."""
    epoch: int
    body: B


class ReadinessFacts(Value, frozen=True, kw_only=True):
    """All facts that the checks use."""

    state: State
    now: float
    """Unix time."""
    landing: int | None = None
    """The release on which a rollback would land; see `landing_of`."""
    grouped: bool = False
    """Whether the owner's name or address is that of a group."""
    people_since: int = 0
    """The epoch of the present owner, escalation and rota."""
    tested: NewestNote[AlertTested] | None = None
    """The newest test of the alerts."""
    proven: Proven | None = None
    """The newest proof of the landing."""
    proven_at: float = 0.0
    replicas: tuple[str, ...] = ()
    cold: Mapping[str, str] = {}
    """Replicas that do not hold the landing although they should, or are silent; and why."""
    kept: bool = True
    """Whether the landing must be loaded everywhere; else the policy's `back_window` is over."""
    pinned: tuple[str, ...] = ()
    """Replicas that follow a pin instead of commands."""
    drill: NewestNote[DrillResult] | None = None
    runbook: NewestNote[RunbookNote] | None = None
    unwritten: str = ""
    """The replicas that cannot write their counts."""
    silence_s: float | None = None
    """Age of the newest window while callers send requests. None: no requests come, or nothing is
    compared."""
    runs: int = 0
    """Number of runs that production and the landing read by key."""
    stale: Mapping[str, str] = {}
    """The runs that are too old to be read, in words, each with the view to materialise."""
    blind: Mapping[str, str] = {}
    """The runs that cannot be read, in words, each with what to do about it."""


def landing_of(state: State, *, promoting: bool = False) -> int | None:
    """Return the landing of a rollback: production while another release is about to replace it."""
    under_way = promoting or state.candidate is not None
    return state.production if under_way else state.back


def judge(facts: ReadinessFacts) -> tuple[Check, ...]:
    """Return every check, in the order in which an operator fixes them."""
    return tuple(check(facts) for check in CHECKS)


def failed(checks: tuple[Check, ...]) -> tuple[str, ...]:
    """Return the names of the failing checks; empty if the endpoint is ready."""
    return tuple(check.name for check in checks if check.outcome == "fail")


# ---------------------------------------------------------------- alert recipients


def _owner(facts: ReadinessFacts) -> Check:
    name, owner = facts.state.endpoint, facts.state.policy.owner
    fix = (
        f'write owner = {{name = "...", contact = "..."}} under [endpoints.{name}], then kedge'
        " apply"
    )
    if owner is None or not owner.name.strip() or not owner.contact.strip():
        return _no("owner", "no owner is named", fix)
    if UNNAMED_OWNER.name in owner.name or url_of(owner.contact) == url_of(UNNAMED_OWNER.contact):
        return _no("owner", "kedge init found no name in git's configuration", fix)
    if facts.grouped:
        return _no(
            "owner", f"{owner.name} ({owner.contact}) is a group; name one accountable person", fix
        )
    return _ok("owner", f"{owner.name}, {owner.contact}")


def _escalation(facts: ReadinessFacts) -> Check:
    """Check the levels: a level counts if it reaches a person whom no earlier level reaches."""
    name = facts.state.endpoint
    known: set[str] = set()
    counted = 0
    for rung in rungs(facts.state.policy, facts.now):
        urls = {target.url for target in rung.targets}
        counted += bool(urls - known)
        known |= urls
    if counted >= LEVELS:
        return _ok("escalation", f"{counted} levels")
    had = (
        "alerts have no recipient"
        if not counted
        else "no second level takes over when the first one does not acknowledge"
    )
    return _no(
        "escalation",
        had,
        f"add a level with another channel to [[endpoints.{name}.escalation]], then kedge apply",
    )


def _guardrails(facts: ReadinessFacts) -> Check:
    """Check the way of every alert of the endpoint, which all guardrails share."""
    policy, name = facts.state.policy, facts.state.endpoint
    rails = ", ".join(sorted(guardrails(policy)))
    levels = rungs(policy, facts.now)
    mine = url_of(policy.owner.contact) if policy.owner is not None else None
    if not levels:
        return _no(
            "guardrails",
            f"a failure of {rails} is sent to no recipient",
            f"add [[endpoints.{name}.escalation]], then kedge apply",
        )
    if mine not in {t.url for rung in levels for t in (*rung.targets, *rung.relieved)}:
        return _no(
            "guardrails",
            f"a failure of {rails} is never sent to the owner",
            'put "owner" into one level of the escalation, then kedge apply',
        )
    return _ok("guardrails", f"{rails} reach the owner and the escalation")


def _notification(facts: ReadinessFacts) -> Check:
    fix, tested = f"kedge alerts test {facts.state.endpoint}", facts.tested
    if tested is None:
        return _no("notification", "no test of the alerts was ever sent", fix)
    if tested.epoch < facts.people_since:
        return _no("notification", "owner or escalation changed after the last test", fix)
    if not tested.body.delivered:
        dead = [str(one.level) for one in tested.body.levels if not one.works]
        return _no(
            "notification", f"the last test reached no recipient of level {', '.join(dead)}", fix
        )
    if facts.now - tested.at > TEST_S:
        return _no("notification", f"the last test was delivered {_ago(facts, tested.at)}", fix)
    return _ok("notification", f"a test was delivered {_ago(facts, tested.at)}")


# ---------------------------------------------------------------- the way back

NO_BACK = "there is no way back yet"


def _proven(facts: ReadinessFacts) -> Check:
    fix, proven, landing = f"kedge check {facts.state.endpoint}", facts.proven, facts.landing
    if landing is None:
        return _none("deployable", NO_BACK)
    if proven is None or proven.release != landing:
        return _no("deployable", f"a deployment of r{landing} from nothing was never tried", fix)
    when = _ago(facts, facts.proven_at)
    if not proven.ok:
        return _no(
            "deployable",
            f"r{landing} could not be deployed {when}: {proven.why}",
            f"fix or register it again, then {fix}",
        )
    if facts.now - facts.proven_at > PROOF_S:
        return _no("deployable", f"r{landing} was deployed from nothing {when}", fix)
    more = f" and {proven.sampled} of the log" if proven.sampled else ""
    return _ok(
        "deployable",
        f"r{landing} was deployed from nothing {when} in {proven.took_s:.1f} s and answered "
        f"{proven.rows} golden rows ({proven.golden}){more}",
    )


def _warm(facts: ReadinessFacts) -> Check:
    name, landing = facts.state.endpoint, facts.landing
    if landing is None:
        return _none("warm", NO_BACK)
    if not facts.replicas:
        return _no("warm", "no replica is known", "kedge up")
    if facts.pinned:
        return _no(
            "warm",
            f"pinned replicas follow no command: {', '.join(facts.pinned)}",
            f"kedge unpin {name}",
        )
    if facts.cold:
        where = "; ".join(f"{replica}: {why}" for replica, why in sorted(facts.cold.items()))
        return _no(
            "warm",
            f"r{landing} is not ready everywhere: {where}",
            f"kedge status {name} shows each replica",
        )
    if not facts.kept:
        return _let_go(facts, landing)
    return _ok("warm", f"r{landing} is loaded on {len(facts.replicas)} replicas")


def _let_go(facts: ReadinessFacts, landing: int) -> Check:
    """Check a landing that is deliberately not loaded: it must load within the runbook's time."""
    name, proven, window = facts.state.endpoint, facts.proven, facts.state.policy.back_window
    cold = f"r{landing} is not kept loaded, since its back_window of {window} has ended"
    if proven is None or proven.release != landing or not proven.ok:
        return _no(
            "warm",
            f"{cold}, and its loading time is not proven",
            f"kedge check {name}",
        )
    all_s = PEOPLE_S + FLIP_S + proven.took_s
    takes = (
        f"a rollback loads it first, {proven.took_s:.1f} s as proven; with the manual steps of "
        f"the runbook {all_s:.0f} s"
    )
    if all_s > MOST_S:
        return _no(
            "warm",
            f"{cold}; {takes} (limit {MOST_S:.0f} s)",
            f"a longer back_window under [endpoints.{name}], then kedge apply",
        )
    return _ok("warm", f"{cold}: {takes} (limit {MOST_S:.0f} s)")


def _drill(facts: ReadinessFacts) -> Check:
    fix, drill = f"kedge drill {facts.state.endpoint}", facts.drill
    if facts.state.back is None:
        return _none("drill", NO_BACK)
    if drill is None:
        return _no("drill", "a rollback was never practised", fix)
    took = drill.body.total_s
    when = f"{_ago(facts, drill.at)}, to r{drill.body.release}"
    if not drill.body.ok:
        return _no("drill", f"the last drill failed {when}: {drill.body.why or 'no reason'}", fix)
    if took > DRILL_MOST_S:
        return _no(
            "drill",
            f"the last drill took {took:.0f} s {when} (limit {DRILL_MOST_S:.0f} s)",
            fix,
        )
    if facts.now - drill.at > DRILL_S:
        return _no("drill", f"the last drill was {when}", fix)
    shown = f"{took:.1f} s" if took >= 1 else f"{1000 * took:.0f} ms"
    return _ok("drill", f"practised {when}, in {shown}")


# ---------------------------------------------------------------- production

NO_PRODUCTION = "nothing is in production yet"


def _runbook(facts: ReadinessFacts) -> Check:
    fix, runbook = f"kedge runbook {facts.state.endpoint}", facts.runbook
    if facts.state.production is None:
        return _none("runbook", NO_PRODUCTION)
    if runbook is None:
        return _no("runbook", "there is no runbook", fix)
    if runbook.body.digest != configuration_digest(facts.state):
        return _no(
            "runbook",
            "policy, production or the way back changed since it was made "
            f"{_ago(facts, runbook.at)}",
            fix,
        )
    return _ok("runbook", f"made {_ago(facts, runbook.at)}, and still current")


def _evidence(facts: ReadinessFacts) -> Check:
    if facts.state.production is None:
        return _none("evidence", NO_PRODUCTION)
    fix = "kedge doctor"
    if facts.unwritten:
        return _no("evidence", facts.unwritten, fix)
    if facts.silence_s is not None and facts.silence_s > EVIDENCE_S:
        return _no(
            "evidence",
            f"requests arrive, but nothing was counted for {facts.silence_s / 60:.0f} minutes",
            fix,
        )
    return _ok("evidence", "every replica writes what it counts")


def _features(facts: ReadinessFacts) -> Check:
    if facts.state.production is None:
        return _none("features", NO_PRODUCTION)
    if not facts.runs:
        return _none("features", "nothing is read by key")
    if facts.stale or facts.blind:
        views = dict.fromkeys(facts.stale.values())
        fix = [*facts.blind.values(), *(f"kedge features materialise {view}" for view in views)]
        return _no(
            "features", "; ".join((*facts.blind, *facts.stale)), "; ".join(dict.fromkeys(fix))
        )
    return _ok("features", f"{facts.runs} runs that are read by key are fresh")


CHECKS: tuple[Callable[[ReadinessFacts], Check], ...] = (
    _owner,
    _escalation,
    _guardrails,
    _notification,
    _proven,
    _warm,
    _drill,
    _runbook,
    _evidence,
    _features,
)

# ---------------------------------------------------------------- an alert

UNREADY_S = 3600.0
"""Seconds not ready before an alert opens: after a promotion an operator needs time for a runbook
and a drill."""
REFUSING_S = 60.0
"""The same if the policy then refuses promotions, since the next one can depend on it."""


def raised(state: State, unready: Sequence[str]) -> tuple[Raise, ...]:
    """Return the alerts to open while these checks fail."""
    if not unready:
        return ()
    after_s = REFUSING_S if state.policy.readiness == "refuse" else UNREADY_S
    return (
        Raise(
            key=Topic.UNREADY.value,
            topic=Topic.UNREADY,
            level="warn",
            lasts="condition",
            after_s=after_s,
            detail=f"kedge check {state.endpoint} shows how to fix each",
            summary=f"it is not ready for a rollback: {', '.join(unready)}",
        ),
    )


def settled(unready: Sequence[str] | None) -> str:
    """Return why the alert is over; empty while it stands, or before any check has run (None)."""
    return "it is ready again" if unready is not None and not unready else ""


# ---------------------------------------------------------------- words


def _ok(name: str, why: str) -> Check:
    return Check(name=name, outcome="pass", why=why)


def _no(name: str, why: str, fix: str) -> Check:
    return Check(name=name, outcome="fail", why=why, mend=fix)


def _none(name: str, why: str) -> Check:
    return Check(name=name, outcome="not applicable", why=why)


def _ago(facts: ReadinessFacts, at: float) -> str:
    """Return how long ago it was, in the largest unit with at least two."""
    gone = max(facts.now - at, 0.0)
    for unit, size in (("days", DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if gone >= 2 * size:
            return f"{gone / size:.0f} {unit} ago"
    return f"{gone:.0f} seconds ago"
