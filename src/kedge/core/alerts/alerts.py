"""Alerts: their opening, escalation, delivery and end. Pure functions over values.

Theory of operation
-------------------
* An alert has a key. While one is open, the same condition at the same endpoint opens no second
  one.
* An alert has its own time: the seconds that it has been open, by a monotonic clock. Only the
  gap between two processes is measured by the wall clock, and adds one level at most (`passed`).
  A clock that jumps back silences no alert, and one that jumps forward sends none too early.
* A page escalates until it is acknowledged; a warning goes to the first level. If all channels of a
  level are dead, the next level follows at once.
* A delivery is claimed, sent, then recorded. A claim expires, so that another process sends again
  what a dead process may have sent: delivery is at least once. The faster process claims; the other
  one waits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple

from msgspec import UNSET
from msgspec.structs import replace

from kedge.core.codec import fingerprint
from kedge.core.links import NO_LINKS, PageLinks
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import UNNAMED_OWNER, Contact, Policy, Rota, Value

if TYPE_CHECKING:  # importing it loads NumPy, and a rollback must not wait for that
    from kedge.core.automation import Decision

DEAD_AFTER = 3
"""Failures in a row after which a channel is dead: one may be a lost packet, two a restart."""
FIRST_RETRY_S = 2.0
LONGEST_RETRY_S = 300.0
"""Longest pause between retries. They come after 2, 4, 8 seconds and so on, and never stop."""
NOTICES = 12
"""Attempts to send an announcement, or the end of an alert to a recipient of its opening: about half
an hour."""

Level = Literal["warn", "page"]
Kind = Literal["told", "resolved"]
Ending = Literal["resolved", "continued"]
"""How an alert ends: the condition is over, or an operator continued in spite of it."""
MessageStatus = Literal["firing", "resolved", "continued", "announced", "test"]
"""What a message says of its alert. An announcement has none, nor has a test."""
WORDS = ("owner", "rota")
"""Words in an escalation's `to` that stand for a person: the owner, or who is on duty then."""

# ---------------------------------------------------------------- values


class Topic(StrEnum):
    """Topic of an alert: the first word of its key, and the name that Alertmanager gets."""

    FAILING = "failing"
    BROKEN = "broken"
    BLIND = "blind"
    WAITING = "waiting"
    ROLLED_BACK = "rolled_back"
    PROMOTED = "promoted"
    """The topic of announcements alone."""
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
    """A topic that only a later version of kedge knows."""

    @classmethod
    def _missing_(cls, _value: object) -> Topic:
        """Read a later version's topic, so that one unknown alert does not hide the others."""
        return cls.OTHER


class Raise(Value, frozen=True, kw_only=True):
    """A condition that opens an alert.

    `key` is its identity and is never taken apart; `topic`, `subject`, `step` and `channel` say
    what it is about.
    """

    key: str
    topic: Topic
    level: Level
    lasts: Literal["condition", "event", "channel"]
    summary: str
    """One line, which stays the same while the condition does."""
    detail: str = ""
    subject: int | None = None
    """The release that it is about."""
    step: str = ""
    """Where in a rollout that release waits, such as "25 %"."""
    channel: str = ""
    """The channel that does not deliver."""
    after_s: float = 0.0
    """Seconds that it has to last before an alert is sent."""


class Delivery(Value, frozen=True, kw_only=True):
    """One message to one channel: claimed, delivered, or failed and to be retried."""

    level: int
    channel: str
    """As it is shown: without secrets, and unchanged while the policy is unchanged."""
    kind: Kind = "told"
    state: Literal["sending", "delivered", "failed"]
    who: str = ""
    """The person on duty, where the channel is "rota"."""
    failures: int = 0
    fault: str = ""
    due_s: float = 0.0
    """When it is retried, in the alert's own time."""
    by: str = ""
    until: float = 0.0
    """When the claim expires, Unix time."""
    at: str = ""


class Alert(Value, frozen=True, kw_only=True):
    """An alert for the recipients. `number` is its name: `kedge ack 17`."""

    number: int
    endpoint: str
    key: str
    """Its identity: a second condition with this key opens no alert while this one is open."""
    topic: Topic
    level: Level
    """A warning goes to the first level only; a page escalates until it is acknowledged."""
    lasts: Literal["condition", "event", "channel"]
    """What ends it: the condition's end, an acknowledgement, or a delivery by its channel."""
    summary: str
    detail: str = ""
    subject: int | None = None
    """The release that it is about."""
    step: str = ""
    """Where in a rollout that release waits, such as "25 %"."""
    channel: str = ""
    """The channel that does not deliver."""
    times: int = 1
    """How often the event occurred while it was open."""
    opened_at: str
    elapsed_s: float = 0.0
    """Seconds that it had been open at `seen`."""
    seen: float = 0.0
    """Unix time at which `elapsed_s` was recorded."""
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
        """Return whether the alert is not over."""
        return not self.resolved_at

    @property
    def id(self) -> tuple[str, str, int]:
        """The endpoint, that it is an alert, and its number."""
        return (self.endpoint, "alert", self.number)

    @property
    def told(self) -> tuple[Delivery, ...]:
        """Return the deliveries that arrived."""
        return tuple(d for d in self.deliveries if d.kind == "told" and d.state == "delivered")


class SuccessAnnouncement(Alert, frozen=True, kw_only=True):
    """News of a success: sent once to each of its channels, and nothing to acknowledge.

    `number` is that of the ledger's entry, so that an entry has one announcement at most. It is not
    an alert: it is listed nowhere, and no level follows another.
    """

    @property
    def id(self) -> tuple[str, str, int]:
        """The endpoint, that it is an announcement, and the number of its entry."""
        return (self.endpoint, "announcement", self.number)


class AlertTarget(NamedTuple):
    """A channel of a level, and its URL, in which variables are not filled in yet."""

    level: int
    channel: str
    who: str
    url: str


class Rung(NamedTuple):
    """One level of an escalation, resolved."""

    after_s: float
    targets: tuple[AlertTarget, ...]
    relieved: tuple[AlertTarget, ...] = ()
    """People of the rota who are not on duty now, but may have been when the alert opened."""


class Sight(NamedTuple):
    """The patrol's newest observation."""

    decisions: Mapping[str, tuple[int, Decision]] = {}
    """By endpoint: the epoch that it decided on, and the decision."""
    fault: str = ""
    """Why the patrol could not observe; empty when it could."""
    replicas: tuple[Raise, ...] = ()
    """Conditions that replicas report of themselves, for every endpoint."""
    unready: Mapping[str, tuple[str, ...]] = {}
    """By endpoint: the checks of its readiness that fail; without those that were never checked."""
    faults: Mapping[str, str] = {}
    """By endpoint: why this endpoint alone could not be observed."""

    def fault_at(self, endpoint: str) -> str:
        """Return why the patrol could not observe an endpoint; empty when it could."""
        return self.fault or self.faults.get(endpoint, "")


class Message(Value, frozen=True, kw_only=True):
    """The message that a channel sends."""

    status: MessageStatus
    number: int
    endpoint: str
    key: str
    topic: Topic
    level: Level | Literal["info"]
    summary: str
    detail: str
    opened_at: str
    resolved_at: str = ""
    reason: str = ""
    head: str = ""
    """The ledger's newest entry at the opening: an outside copy, which `kedge doctor --head`
    compares."""
    link: str = ""
    """Its page of the dashboard; empty without `[server] public_url`."""
    runbook: str = ""
    """The page with the endpoint's runbook; empty without `[server] public_url`."""

    @property
    def title(self) -> str:
        """Return the message in one line."""
        word: str = self.level if self.status == "firing" else self.status
        if self.status == "announced":
            word = self.topic.replace("_", " ")
        number = f" (#{self.number})" if self.number else ""
        return f"[kedge {word}] {self.endpoint}: {self.summary}{number}"

    @property
    def text(self) -> str:
        """Return the whole message, for people."""
        if self.status == "announced":
            lines = [self.summary, f"at: {self.opened_at}", *filter(None, [self.detail])]
        else:
            lines = [self.detail or self.summary, f"opened: {self.opened_at}"]
        if self.status == "resolved":
            lines.append(f"resolved: {self.resolved_at}: {self.reason}")
        elif self.status == "continued":
            lines.append(f"{self.resolved_at}: {self.reason}")
        elif self.status == "firing" and self.number:
            lines.append(f"kedge ack {self.number} --by NAME acknowledges it")
        lines += [f"dashboard: {self.link}"] if self.link else []
        if self.runbook and self.status == "firing":
            lines.append(f"runbook: {self.runbook}")
        if self.head:
            lines.append(f"ledger head: {self.head}")
        return "\n".join(lines)


# ---------------------------------------------------------------- an alert's life


def channel_key(channel: str) -> str:
    """Return the key of the alert about a channel."""
    return f"{Topic.CHANNEL}:{channel}"


def dead_channel(endpoint: str, delivery: Delivery) -> Raise:
    """Return the alert about a channel that does not deliver."""
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
    """Return a new alert. `at` is RFC 3339, `now` is Unix time of the same instant."""
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
    """Return the alert with a repeated condition: an event is counted, the newest words stand."""
    if alert.lasts == "event":
        return replace(alert, times=alert.times + 1, summary=found.summary, detail=found.detail)
    if alert.summary == found.summary:
        return alert
    return replace(alert, summary=found.summary, detail=found.detail)


def acknowledge(alert: Alert, *, by: str, at: str) -> Alert:
    """Acknowledge the alert: no further level is sent. An alert about an event is then over."""
    if not alert.open or alert.acknowledged_by:
        return alert
    known = replace(alert, acknowledged_by=by, acknowledged_at=at)
    if alert.lasts == "event":
        return resolve(known, reason=f"{by} has seen it", at=at)
    return known


def resolve(alert: Alert, *, reason: str, at: str, ended: Ending = "resolved") -> Alert:
    """Return the alert, resolved."""
    if not alert.open:
        return alert
    return replace(alert, resolved=reason, resolved_at=at, ended=ended)


def message(alert: Alert, kind: Kind, links: PageLinks = NO_LINKS) -> Message:
    """Return the message about an alert, with the addresses of its pages."""
    if isinstance(alert, SuccessAnnouncement):
        return Message(
            status="announced",
            number=0,
            endpoint=alert.endpoint,
            key=alert.key,
            topic=alert.topic,
            level="info",
            summary=alert.summary,
            detail=alert.detail,
            opened_at=alert.opened_at,
            link=links.decision(alert.endpoint, alert.number),
        )
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
        link=links.alert(alert.endpoint, alert.number),
        runbook=links.ready(alert.endpoint),
    )


# ---------------------------------------------------------------- whom


def on_duty(rota: Rota, now: float) -> Contact:
    """Return the person on duty at this Unix time; before the start it is the first."""
    turns = int((now - read_instant(rota.start)) // seconds(rota.each))
    return rota.people[max(turns, 0) % len(rota.people)]


def find_on_call(policy: Policy, now: float) -> Contact | None:
    """Return the person whom an alert reaches at this Unix time; None: it reaches no named one.

    That is the person on duty. Without a rota it is the owner, if the escalation names them.
    """
    if policy.rota is not None and policy.rota.people:
        return on_duty(policy.rota, now)
    told = any("owner" in step.to for step in policy.escalation)
    return find_owner(policy) if told else None


def find_owner(policy: Policy) -> Contact | None:
    """Return the owner; None: none is named, or only the placeholder of `kedge init`."""
    return policy.owner if policy.owner != UNNAMED_OWNER else None


def rungs(policy: Policy, now: float) -> tuple[Rung, ...]:
    """Return the levels of a policy, with the people whom they name at this Unix time.

    A URL that a level names twice, once by its word, gets one message.
    """
    return tuple(
        _rung(number, seconds(step.after), step.to, policy, now)
        for number, step in enumerate(policy.escalation)
    )


def announced_to(policy: Policy, now: float) -> tuple[Rung, ...]:
    """Return the only level of announcements; none if the policy announces nothing."""
    if policy.announce is UNSET:
        return ()
    to = policy.announce.to or (policy.escalation[0].to if policy.escalation else ())
    return (_rung(0, 0.0, to, policy, now),) if to else ()


def _rung(number: int, after_s: float, to: Sequence[str], policy: Policy, now: float) -> Rung:
    """Return a level with the people whom its words name at this Unix time."""
    targets: dict[str, AlertTarget] = {}
    relieved: list[AlertTarget] = []
    for entry in to:
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
    return Rung(after_s, tuple(targets.values()), tuple(relieved))


def url_of(contact: str) -> str:
    """Return a contact as a URL: an e-mail address alone is one."""
    return f"mailto:{contact}" if ":" not in contact and "@" in contact else contact


def shown(channel: str) -> str:
    """Return a channel without its secrets, as it is shown, logged and stored in an alert.

    Variables stay as they are written. Without a variable, a path may be a secret. So may the host
    of a URL that is neither HTTP nor mail. Six digits of a digest distinguish them.
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
    """Return the names of the environment variables in a channel: `${NAME}`."""
    return tuple(_VARIABLE.findall(channel))


# ---------------------------------------------------------------- when


def passed(
    alert: Alert, levels: Sequence[Rung], elapsed_s: float, since_s: float | None, now: float
) -> float:
    """Return the seconds that an alert has been open, in its own time.

    Args:
        alert: it.
        levels: the levels of its endpoint.
        elapsed_s: seconds that it had been open when this process last looked.
        since_s: seconds since then by a monotonic clock. None: this process has not looked yet.
        now: Unix time. It only measures the gap between two processes, up to the next level.
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
    """Return the messages that must be sent now.

    Args:
        alert: the alert.
        levels: the levels of its endpoint.
        elapsed_s: its own time.
        now: Unix time, for expired claims.
        lease_s: the longest duration of a claim. A claim that seems to end later was made before a
            clock was set back, and is over.
        anew: retry failed deliveries at once. A process that has just started may have what the
            previous one lacked, such as a password.
    """
    kind: Kind = "told" if alert.open else "resolved"
    own_s = inf if anew else elapsed_s
    return tuple(
        (target, kind)
        for target in wanted(alert, levels, elapsed_s)
        if _waits(_of(alert, target, kind), own_s, now, lease_s)
    )


def wanted(alert: Alert, levels: Sequence[Rung], elapsed_s: float) -> tuple[AlertTarget, ...]:
    """Return the recipients who still need a message, now or later."""
    if alert.open:
        if alert.acknowledged_by:
            return ()
        found, kind = _reached(alert, levels, elapsed_s, "told"), "told"
    elif alert.told or alert.acknowledged_by or alert.level == "warn":
        found, kind = list(_knowing(alert, levels)), "resolved"
    else:  # a page that reached no recipient is sent once, with its end
        found, kind = _reached(alert, levels, elapsed_s, "resolved"), "resolved"
    return tuple(t for t in found if not _done(alert, _of(alert, t, kind)))


def _reached(
    alert: Alert, levels: Sequence[Rung], elapsed_s: float, kind: str
) -> list[AlertTarget]:
    """Return the targets of the levels that are due, and of those behind a dead level."""
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
    """Return the targets that got the alert and are still in the policy."""
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
    """Return whether its channel has failed so often that the next level must be sent."""
    return delivery.state != "delivered" and delivery.failures >= DEAD_AFTER


def _done(alert: Alert, delivery: Delivery | None) -> bool:
    if delivery is None:
        return False
    known = any(d.state == "delivered" for d in alert.deliveries)
    may_end = isinstance(alert, SuccessAnnouncement) or (known and delivery.kind == "resolved")
    gave_up = may_end and delivery.failures >= NOTICES
    return delivery.state == "delivered" or gave_up


def is_lost(sent: SuccessAnnouncement) -> bool:
    """Return whether a channel of an announcement never got it."""
    return any(delivery.state != "delivered" for delivery in sent.deliveries)


def _waits(delivery: Delivery | None, elapsed_s: float, now: float, lease_s: float) -> bool:
    if delivery is None:
        return True
    if delivery.state == "sending":
        return not 0 < delivery.until - now <= lease_s
    return elapsed_s >= delivery.due_s


def finished(alert: Alert, levels: Sequence[Rung], elapsed_s: float) -> bool:
    """Return whether the alert is over and every recipient knows."""
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
    """Claim the delivery; return the same alert if another process sends it or nothing is due."""
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
    """Return whether exactly this claim stands."""
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
    """Record the result of a delivery; `fault` is empty when it was delivered."""
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
