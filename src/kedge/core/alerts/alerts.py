"""Alerts: what is worth telling a human, whom, when, and until when. Values in, values out.

Theory of operation
-------------------
* An alert has a key. While one is open, the same condition at the same endpoint is no second one.
* Time is the alert's own: seconds that it has been open, gathered from a monotonic clock. Only the
  gap between two processes is told by the wall clock, and it brings one level at most (`passed`).
  A clock that jumps back silences no one, and one that jumps forward wakes no one out of turn.
* A page escalates until it is acknowledged; a warning goes to the first level. Whichever level
  reached no one, because all its channels are dead, is followed by the next one at once.
* A delivery is claimed, sent, then recorded. A claim runs out, so that what a process that died
  has sent perhaps is sent again: at least once. The faster process claims; the other one waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec.structs import replace

from kedge.core.codec import fingerprint
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import Contact, Policy, Rota, Value

if TYPE_CHECKING:  # it needs NumPy, and a rollback must not wait for that
    from kedge.core.automation import Decision

DEAD_AFTER = 3
"""Failures in a row after which a channel is dead: once may be a lost packet, twice a restart."""
FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 300.0
"""Retries come after 2, 4, 8 seconds and so on, and every five minutes in the end, for ever."""
NOTICES = 12
"""Attempts at saying that something is over, half an hour, to a recipient who was told that it began."""

Level = Literal["warn", "page"]
Kind = Literal["told", "resolved"]
Ending = Literal["resolved", "continued"]
"""How an alert ends: the thing is over, or an operator went on in spite of it."""
WORDS = ("owner", "rota")
"""Of an escalation's `to`: the owner at that time."""

# ---------------------------------------------------------------- values


class Topic(StrEnum):
    """What an alert is about. The first word of its key, and the name Alertmanager gets."""

    FAILING = "failing"
    BROKEN = "broken"
    BLIND = "blind"
    WAITING = "waiting"
    ROLLED_BACK = "rolled_back"
    OVERRIDE = "override"
    FINDING = "finding"
    CHANNEL = "channel"
    LEDGER = "ledger"
    CONTROL = "control"
    HISTORY = "history"
    RECORDING = "recording"
    UNREADY = "unready"
    EVIDENCE = "evidence"
    TEST = "test"
    OTHER = "other"
    """Stored by a kedge that knew a topic which this one does not know."""

    @classmethod
    def _missing_(cls, _value: object) -> Topic:
        """Read a later version's topic, so that one unknown alert does not hide the others."""
        return cls.OTHER


class Raise(Value, frozen=True, kw_only=True):
    """Something that is wrong, before it is an alert.

    `key` is its identity and is never taken apart; `topic`, `subject`, `step` and `channel` say
    what it is about.
    """

    key: str
    topic: Topic
    level: Level
    lasts: Literal["condition", "event", "channel"]
    summary: str
    """One line, which stays the same while the thing does."""
    detail: str = ""
    subject: int | None = None
    """The release that it is about."""
    step: str = ""
    """Where in a rollout that release waits, such as "25 %"."""
    channel: str = ""
    """The channel that does not deliver."""
    after_s: float = 0.0
    """For how long it has to last before it is told."""


class Delivery(Value, frozen=True, kw_only=True):
    """One message to one channel: under way, delivered, or failed and to be tried again."""

    level: int
    channel: str
    """As it is shown: without secrets, and the same for as long as the policy is."""
    kind: Kind = "told"
    state: Literal["sending", "delivered", "failed"]
    who: str = ""
    """The person on duty, where the channel is "rota"."""
    failures: int = 0
    fault: str = ""
    due_s: float = 0.0
    """When it is tried again, in the alert's own time."""
    by: str = ""
    until: float = 0.0
    """When the claim runs out, Unix time."""
    at: str = ""


class Alert(Value, frozen=True, kw_only=True):
    """An alert for the recipients. `number` is its name: `kedge ack 17`."""

    number: int
    endpoint: str
    key: str
    topic: Topic
    level: Level
    lasts: Literal["condition", "event", "channel"]
    summary: str
    detail: str = ""
    subject: int | None = None
    step: str = ""
    channel: str = ""
    times: int = 1
    opened_at: str
    elapsed_s: float = 0.0
    """For how long it has been open, as of `seen`."""
    seen: float = 0.0
    """Unix time at which that was written."""
    acknowledged_at: str = ""
    acknowledged_by: str = ""
    resolved_at: str = ""
    resolved: str = ""
    """Why it is over."""
    ended: Ending = "resolved"
    head: str = ""
    """The newest entry of the ledger when it was opened, shortened: NUMBER:HASH."""
    deliveries: tuple[Delivery, ...] = ()

    @property
    def open(self) -> bool:
        """Whether it is not over."""
        return not self.resolved_at

    @property
    def told(self) -> tuple[Delivery, ...]:
        """Who knows of it."""
        return tuple(d for d in self.deliveries if d.kind == "told" and d.state == "delivered")


class AlertTarget(NamedTuple):
    """A channel of a level, and the URL behind it, in which variables are not filled in yet."""

    level: int
    channel: str
    who: str
    url: str


class Rung(NamedTuple):
    """One level of an escalation, resolved."""

    after_s: float
    targets: tuple[AlertTarget, ...]
    relieved: tuple[AlertTarget, ...] = ()
    """Those of the rota who are not on duty now, and may have been when it began."""


class Sight(NamedTuple):
    """What the patrol saw when it looked last."""

    decisions: Mapping[str, tuple[int, Decision]] = {}
    """By endpoint: the epoch that it decided on, and what."""
    fault: str = ""
    """Why it could not look; empty when it could."""
    replicas: tuple[Raise, ...] = ()
    """What replicas say is wrong with them, for every endpoint."""
    unready: Mapping[str, tuple[str, ...]] = {}
    """By endpoint: the checks of its readiness that fail; without those that were never checked."""
    faults: Mapping[str, str] = {}
    """By endpoint: why it alone could not be looked at."""

    def fault_at(self, endpoint: str) -> str:
        """Why an endpoint could not be looked at; empty when it could."""
        return self.fault or self.faults.get(endpoint, "")


class Message(Value, frozen=True, kw_only=True):
    """What a channel is given to say."""

    status: Literal["firing", "resolved", "continued", "test"]
    number: int
    endpoint: str
    key: str
    topic: Topic
    level: Level
    summary: str
    detail: str
    opened_at: str
    resolved_at: str = ""
    reason: str = ""
    head: str = ""
    """The ledger's newest entry when it was opened: a copy outside, that `kedge doctor --head` compares."""

    @property
    def title(self) -> str:
        """One line."""
        word = self.level if self.status == "firing" else self.status
        number = f" (#{self.number})" if self.number else ""
        return f"[kedge {word}] {self.endpoint}: {self.summary}{number}"

    @property
    def text(self) -> str:
        """Everything, for people."""
        lines = [self.detail or self.summary, f"opened: {self.opened_at}"]
        if self.status == "resolved":
            lines.append(f"resolved: {self.resolved_at}: {self.reason}")
        elif self.status == "continued":
            lines.append(f"{self.resolved_at}: {self.reason}")
        elif self.status == "firing" and self.number:
            lines.append(f"kedge ack {self.number} --by NAME acknowledges it")
        if self.head:
            lines.append(f"ledger head: {self.head}")
        return "\n".join(lines)


# ---------------------------------------------------------------- an alert's life


def channel_key(channel: str) -> str:
    """The key of the alert about a channel."""
    return f"{Topic.CHANNEL}:{channel}"


def dead_channel(endpoint: str, delivery: Delivery) -> Raise:
    """The alert about a channel that does not deliver."""
    return Raise(
        key=channel_key(delivery.channel),
        topic=Topic.CHANNEL,
        channel=delivery.channel,
        level="warn",
        lasts="channel",
        summary=f"the channel {delivery.channel} of {endpoint} does not deliver",
        detail=f"{delivery.failures} attempts failed: {delivery.fault}",
    )


def opened(found: Raise, endpoint: str, *, at: str, now: float, number: int = 0) -> Alert:
    """A new alert. `at` is RFC 3339, `now` Unix time of the same instant."""
    return Alert(
        number=number,
        endpoint=endpoint,
        key=found.key,
        topic=found.topic,
        level=found.level,
        lasts=found.lasts,
        summary=found.summary,
        detail=found.detail,
        subject=found.subject,
        step=found.step,
        channel=found.channel,
        opened_at=at,
        seen=now,
    )


def again(alert: Alert, found: Raise) -> Alert:
    """The same thing once more: it is counted when it is an event, and the newest words stand."""
    if alert.lasts == "event":
        return replace(alert, times=alert.times + 1, summary=found.summary, detail=found.detail)
    if alert.summary == found.summary:
        return alert
    return replace(alert, summary=found.summary, detail=found.detail)


def acknowledge(alert: Alert, *, by: str, at: str) -> Alert:
    """Acknowledge the alert: no one else is woken. What has only happened is over with that."""
    if not alert.open or alert.acknowledged_by:
        return alert
    known = replace(alert, acknowledged_by=by, acknowledged_at=at)
    if alert.lasts == "event":
        return resolve(known, reason=f"{by} has seen it", at=at)
    return known


def resolve(alert: Alert, *, reason: str, at: str, ended: Ending = "resolved") -> Alert:
    """It is over."""
    if not alert.open:
        return alert
    return replace(alert, resolved=reason, resolved_at=at, ended=ended)


def message(alert: Alert, kind: Kind) -> Message:
    """What is said of it."""
    return Message(
        status="firing" if kind == "told" else alert.ended,
        number=alert.number,
        endpoint=alert.endpoint,
        key=alert.key,
        topic=alert.topic,
        level=alert.level,
        summary=alert.summary,
        detail=alert.detail,
        opened_at=alert.opened_at,
        resolved_at=alert.resolved_at,
        reason=alert.resolved,
        head=alert.head,
    )


# ---------------------------------------------------------------- whom


def on_duty(rota: Rota, now: float) -> Contact:
    """Who is on duty at this Unix time; before the start it is the first."""
    turns = int((now - read_instant(rota.start)) // seconds(rota.each))
    return rota.people[max(turns, 0) % len(rota.people)]


def rungs(policy: Policy, now: float) -> tuple[Rung, ...]:
    """The levels of a policy, with the people that they mean at this Unix time.

    A URL that stands twice in one level, once by its word, is told once.
    """
    found = []
    for number, step in enumerate(policy.escalation):
        targets: dict[str, AlertTarget] = {}
        relieved: list[AlertTarget] = []
        for entry in step.to:
            who, url = "", entry
            if entry == "owner" and policy.owner is not None:
                url = policy.owner.contact
            elif entry == "rota" and policy.rota is not None:
                duty = on_duty(policy.rota, now)
                who, url = duty.name, duty.contact
                relieved += [
                    AlertTarget(number, entry, one.name, url_of(one.contact))
                    for one in policy.rota.people
                    if one != duty
                ]
            targets.setdefault(url_of(url), AlertTarget(number, shown(entry), who, url_of(url)))
        found.append(Rung(seconds(step.after), tuple(targets.values()), tuple(relieved)))
    return tuple(found)


def url_of(contact: str) -> str:
    """A contact as a URL: an e-mail address alone is one."""
    return f"mailto:{contact}" if ":" not in contact and "@" in contact else contact


def shown(channel: str) -> str:
    """A channel without its secrets: what is shown, logged, and kept in an alert.

    Variables stand as they are written. Without one a path may be a secret, and so may the host
    of whatever is neither HTTP nor mail: six digits of a digest tell one from another.
    """
    scheme, separated, rest = channel.partition("://")
    if not separated:
        return channel.partition("?")[0]
    user, at, place = rest.rpartition("@")
    if at and "${" not in user:
        user = "***"
    if "${" in channel or scheme in ("alertmanager", "alertmanagers"):
        return f"{scheme}://{user}{at}{place.partition('?')[0]}"
    mark = fingerprint(channel)[-6:]
    if not scheme.endswith(("http", "https")):
        return f"{scheme}://…{mark}"
    host, _, path = place.partition("/")
    return f"{scheme}://{user}{at}{host}" + (f"/…{mark}" if path else "")


_VARIABLE = re.compile(r"\$\{(\w+)\}", re.ASCII)


def variables(channel: str) -> tuple[str, ...]:
    """The names of the environment variables in a channel: `${NAME}`."""
    return tuple(_VARIABLE.findall(channel))


# ---------------------------------------------------------------- when


def passed(
    alert: Alert, levels: Sequence[Rung], elapsed_s: float, since_s: float | None, now: float
) -> float:
    """For how long an alert has been open by now, in its own time.

    Args:
        alert: it.
        levels: those of its endpoint.
        elapsed_s: for how long it had been, when this process last looked.
        since_s: seconds since then by a monotonic clock. None: this process has not looked yet.
        now: Unix time. It only tells the gap between two processes, up to the next level.
    """
    if since_s is not None:
        return elapsed_s + max(since_s, 0.0)
    ahead = (rung.after_s for rung in levels if rung.after_s > alert.elapsed_s)
    most = min(ahead, default=alert.elapsed_s + LONGEST_RETRY_S)
    return min(alert.elapsed_s + max(now - alert.seen, 0.0), most)


def due(
    alert: Alert,
    levels: Sequence[Rung],
    elapsed_s: float,
    *,
    now: float,
    lease_s: float,
    anew: bool = False,
) -> tuple[tuple[AlertTarget, Kind], ...]:
    """What must be sent now.

    Args:
        alert: it.
        levels: those of its endpoint.
        elapsed_s: its own time.
        now: Unix time, for claims that ran out.
        lease_s: the longest that a claim can be: one that seems to end later is from before a
            clock was set back, and is over.
        anew: try what failed at once: a process that has just begun may know what the one before
            it did not, such as a password.
    """
    kind: Kind = "told" if alert.open else "resolved"
    own_s = inf if anew else elapsed_s
    return tuple(
        (target, kind)
        for target in wanted(alert, levels, elapsed_s)
        if _waits(_of(alert, target, kind), own_s, now, lease_s)
    )


def wanted(alert: Alert, levels: Sequence[Rung], elapsed_s: float) -> tuple[AlertTarget, ...]:
    """Whom there is something left to tell, now or later."""
    if alert.open:
        if alert.acknowledged_by:
            return ()
        found, kind = _reached(alert, levels, elapsed_s, "told"), "told"
    elif alert.told or alert.acknowledged_by or alert.level == "warn":
        found, kind = list(_knowing(alert, levels)), "resolved"
    else:  # a page that no one has heard yet is heard once, with its end
        found, kind = _reached(alert, levels, elapsed_s, "resolved"), "resolved"
    return tuple(t for t in found if not _done(alert, _of(alert, t, kind)))


def _reached(
    alert: Alert, levels: Sequence[Rung], elapsed_s: float, kind: str
) -> list[AlertTarget]:
    """Everyone of the levels whose time has come, and of those behind a level that is dead."""
    found: list[AlertTarget] = []
    fell = False
    for number, rung in enumerate(levels):
        climbs = number == 0 or (alert.level == "page" and alert.open)
        if not fell and not (climbs and elapsed_s >= rung.after_s):
            break
        mine = [t for t in rung.targets if alert.channel != t.channel]
        found += mine
        fell = all(_is_dead(_of(alert, target, kind)) for target in mine)
    return found


def _knowing(alert: Alert, levels: Sequence[Rung]) -> Iterable[AlertTarget]:
    """Those who were told, as far as the policy still knows them."""
    known = {(d.level, d.channel, d.who) for d in alert.told}
    targets = (t for rung in levels for t in (*rung.targets, *rung.relieved))
    return (t for t in targets if (t.level, t.channel, t.who) in known)


def _of(alert: Alert, target: AlertTarget, kind: str) -> Delivery | None:
    return next(
        (
            d
            for d in alert.deliveries
            if (d.level, d.channel, d.kind) == (target.level, target.channel, kind)
        ),
        None,
    )


def _is_dead(delivery: Delivery | None) -> bool:
    return delivery is not None and is_dead(delivery)


def is_dead(delivery: Delivery) -> bool:
    """Whether its channel has failed so often that others must be told instead."""
    return delivery.state != "delivered" and delivery.failures >= DEAD_AFTER


def _done(alert: Alert, delivery: Delivery | None) -> bool:
    if delivery is None:
        return False
    known = any(d.state == "delivered" for d in alert.deliveries)
    gave_up = known and delivery.kind == "resolved" and delivery.failures >= NOTICES
    return delivery.state == "delivered" or gave_up


def _waits(delivery: Delivery | None, elapsed_s: float, now: float, lease_s: float) -> bool:
    if delivery is None:
        return True
    if delivery.state == "sending":
        return not 0 < delivery.until - now <= lease_s
    return elapsed_s >= delivery.due_s


def finished(alert: Alert, levels: Sequence[Rung], elapsed_s: float) -> bool:
    """Whether nothing is left to do: it is over, and every recipient knows."""
    return not alert.open and not wanted(alert, levels, elapsed_s)


# ---------------------------------------------------------------- deliveries


def claim(
    alert: Alert,
    target: AlertTarget,
    kind: Kind,
    *,
    elapsed_s: float,
    now: float,
    lease_s: float,
    by: str,
    anew: bool = False,
) -> Alert:
    """Claim the sending; return the same alert when another process sends it, or nothing is due."""
    old = _of(alert, target, kind)
    stands = alert.open if kind == "told" else not alert.open
    if not stands or (kind == "told" and alert.acknowledged_by):
        return alert
    own_s = inf if anew else elapsed_s
    if old is not None and (old.state == "delivered" or not _waits(old, own_s, now, lease_s)):
        return alert
    fresh = Delivery(
        level=target.level,
        channel=target.channel,
        kind=kind,
        state="sending",
        who=target.who,
        failures=old.failures if old else 0,
        fault=old.fault if old else "",
        by=by,
        until=now + lease_s,
    )
    return _with(replace(alert, elapsed_s=elapsed_s, seen=now), fresh)


def claimed(alert: Alert, target: AlertTarget, kind: Kind, *, by: str, until: float) -> bool:
    """Whether this very claim is the one that stands."""
    mine = _of(alert, target, kind)
    return mine is not None and (mine.state, mine.by, mine.until) == ("sending", by, until)


def record(
    alert: Alert,
    target: AlertTarget,
    kind: Kind,
    *,
    fault: str,
    elapsed_s: float,
    now: float,
    at: str,
) -> Alert:
    """Write down how it went; `fault` is empty when it was delivered."""
    old = _of(alert, target, kind)
    failures = 0 if not fault else (old.failures if old else 0) + 1
    wait_s = min(FIRST_RETRY_S * 2.0 ** min(failures - 1, 10), LONGEST_RETRY_S) if fault else 0.0
    done = Delivery(
        level=target.level,
        channel=target.channel,
        kind=kind,
        who=target.who,
        at=at,
        state="failed" if fault else "delivered",
        failures=failures,
        fault=fault,
        due_s=elapsed_s + wait_s,
    )
    return _with(replace(alert, elapsed_s=max(elapsed_s, alert.elapsed_s), seen=now), done)


def _with(alert: Alert, delivery: Delivery) -> Alert:
    key = (delivery.level, delivery.channel, delivery.kind)
    rest = tuple(d for d in alert.deliveries if (d.level, d.channel, d.kind) != key)
    return replace(alert, deliveries=(*rest, delivery))
