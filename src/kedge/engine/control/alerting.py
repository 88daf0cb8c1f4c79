"""Alerting loop: raises alerts and sends them until a recipient acknowledges.

Theory of operation
-------------------
* It runs beside the patrol, on a separate thread: a mail server that hangs delays no verdict.
  Only the leader's runs; if two ever run, the store lets one of them claim each message.
* Past events are read from the ledger, from the end of the last look: a patrol that is killed after
  a command loses no page. Lasting conditions come from the patrol's newest look.
* Each message is sent on a separate thread, eight at once at most; more wait for the next look.
  A claim is written before and the outcome after; an expired claim is sent again.
* Without the ledger nothing can be written, and that is itself an alert: from memory, by the
  policies that were read last. It gets its number when the ledger is back.
* Each part of a look, each entry and each message runs in a net: an alert that cannot be raised
  delays no message, and one message no other.
* Until a person confirms an endpoint that was restored from a backup, nothing is raised or sent
  for it, and the time of its alerts stands still.
* Deliberately absent: recipients and times. `core.alerts.alerts` decides them.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import structlog
from msgspec.structs import replace

from kedge.core import readiness
from kedge.core.alerts import alerts, conditions
from kedge.core.alerts.alerts import (
    Alert,
    AlertTarget,
    Ending,
    Kind,
    Raise,
    Rung,
    Sight,
    SuccessAnnouncement,
    Topic,
)
from kedge.core.alerts.announcements import announcement
from kedge.core.automation import Decision
from kedge.core.errors import KedgeError
from kedge.core.release.commands import AnyEvent
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.notes import AlertOpened, EvidenceLost
from kedge.core.stored.stories import story
from kedge.core.values import State
from kedge.engine.findings import finding_of
from kedge.engine.loop import Duty, Loop
from kedge.ports import AlertStore, Channels, Ledger

TICK_S = 0.5
NEWS = 500
"""Limit of entries of the ledger that are read at once."""
IN_FLIGHT = 8
BLIND_S = 10.0
"""Time without the ledger before the alert: a restore from a copy takes seconds."""
SINCE = 200
"""Limit of entries read for the actor that took a failing release further. It happened within this
look or the one before, and each move writes two or three entries."""
STEADY_S = 600.0
"""Time after which control counts as running again: as long as its ends are remembered."""
WRITE_S = 60.0
"""How often a waiting alert's own time is written: the most that a restart forgets if a clock was
set back meanwhile."""

AlertId = tuple[str, str, int]
"""`Alert.id`."""

log = structlog.get_logger("kedge.alerting")


class _Sent(NamedTuple):
    alert: Alert
    target: AlertTarget
    kind: Kind
    fault: str


class Alerting:
    """The alerts of one control."""

    def __init__(
        self,
        duty: Duty,
        *,
        store: AlertStore,
        ledger: Ledger,
        stamp: Callable[[], object],
        channels: Channels,
        sight: Callable[[], Sight],
        remembered: Callable[[], Mapping[str, State]],
        stands_in: bool = False,
    ) -> None:
        """Store the dependencies.

        Args:
            duty: of control; its `by` differs for each process.
            store: where alerts are stored.
            ledger: the rows and policies.
            stamp: returns a value that changes when the ledger may have changed.
            channels: the ways to recipients.
            sight: returns what the patrol saw last.
            remembered: returns the rows that this host stored, for when there is no ledger.
            stands_in: whether it runs in the stand-in, and reports that control keeps ending.
        """
        self._stands_in = stands_in
        self._began = duty.clock.monotonic()
        self._faults = duty.faults
        self._store = store
        self._ledger = ledger
        self._stamp = stamp
        self._channels = channels
        self._sight = sight
        self._clock = duty.clock
        self._by = duty.by
        self._lease_s = 2 * channels.timeout_s + 1
        self._remembered = remembered
        self._stamped: object = None
        self._states: Mapping[str, State] = {}
        self._live: dict[int, Alert] = {}
        self._announced: dict[int, SuccessAnnouncement] = {}
        """By number of the ledger's entry: the announcements that are still to be sent."""
        self._lost: dict[str, Alert] = {}
        """By endpoint: the alert that the ledger is unavailable. It has no number yet."""
        self._lost_at: float | None = None
        self._elapsed: dict[AlertId, float] = {}
        self._looked: float | None = None
        self._anew: set[AlertId] = set()
        """Alerts that are new to this process: a failed delivery is tried at once."""
        self._since: dict[tuple[str, str], float] = {}
        self._seen = self._marked = 0
        self._flying: set[tuple[AlertId, AlertTarget, Kind]] = set()
        self._landed: queue.SimpleQueue[_Sent] = queue.SimpleQueue()
        self._unwritten: list[_Sent] = []
        self.loop = Loop(duty, "alerting.look", self.look, every_s=TICK_S, forget=self._forget)
        self._net = self.loop.net

    def look(self) -> None:
        """Look once: raise, resolve and send what is due."""
        try:
            for name, part in (
                ("read", self._read),
                ("found_again", self._found_again),
                ("outcomes", self._write_outcomes),
                ("news", self._raise_news),
                ("conditions", self._raise_conditions),
            ):
                self._net.run(f"alerting.{name}", part, passing=(KedgeError,))
            self._faults.clear("alerting.ledger")
        except KedgeError as error:
            self._stamped = None
            self._faults.note("alerting.ledger", error)
            self._is_lost(f"{error.code}: {error}")
            self._write_outcomes_of_the_lost()
        self._net.run("alerting.time", self._pass_time)
        try:
            self._send_due()
        except KedgeError as error:
            self._stamped = None
            self._faults.note("alerting.ledger", error)

    def _forget(self) -> None:
        """Forget the state: another process leads, and the state would be outdated later."""
        self._stamped, self._looked, self._seen, self._marked = None, None, 0, 0
        self._elapsed.clear()
        self._since.clear()

    # ------------------------------------------------------------ gathering

    def _read(self) -> None:
        stamp = self._stamp()
        if stamp == self._stamped:
            return
        self._states = self._ledger.read().states
        self._live = {alert.number: alert for alert in self._store.live()}
        self._announced = {each.number: each for each in self._store.announcements()}
        self._stamped = stamp

    def _is_silenced(self, endpoint: str) -> bool:
        """Return whether alerts of an endpoint wait: restored, and not confirmed by a person."""
        state = self._states.get(endpoint)
        return state is not None and state.unconfirmed

    def _levels(self, alert: Alert) -> tuple[Rung, ...]:
        """Return the recipients of an alert, or the only level of an announcement."""
        state = self._states.get(alert.endpoint)
        if state is None:
            return ()
        levels = alerts.announced_to if isinstance(alert, SuccessAnnouncement) else alerts.rungs
        return levels(state.policy, self._clock.unix())

    def _channels_of(self, endpoint: str) -> set[str]:
        """Return every channel that the policy of an endpoint names."""
        state, now = self._states.get(endpoint), self._clock.unix()
        if state is None:
            return set()
        levels = (*alerts.rungs(state.policy, now), *alerts.announced_to(state.policy, now))
        return {target.channel for level in levels for target in level.targets}

    def _pass_time(self) -> None:
        """Advance each alert's own time; catch up on alerts that are known only from before."""
        now = self._clock.monotonic()
        since = None if self._looked is None else now - self._looked
        self._looked = now
        known = (*self._live.values(), *self._announced.values(), *self._lost.values())
        mine = {a.id: a for a in known if not self._is_silenced(a.endpoint)}
        self._anew = mine.keys() - self._elapsed.keys()
        self._elapsed = {
            key: alerts.passed(
                alert,
                self._levels(alert),
                self._elapsed.get(key, 0.0),
                since if key in self._elapsed else None,
                self._clock.unix(),
            )
            for key, alert in mine.items()
        }

    # ------------------------------------------------------------ raising, resolving

    def _raise(
        self,
        found: list[tuple[str, Raise]],
        seen: int | None = None,
        announced: Sequence[SuccessAnnouncement] = (),
    ) -> None:
        new = self._store.raise_all(
            found,
            by=self._by,
            at=self._clock.now(),
            now=self._clock.unix(),
            seen=seen,
            announced=announced,
        )
        for alert in new:
            log.warning(
                "alerting.opened",
                endpoint=alert.endpoint,
                alert=alert.number,
                level=alert.level,
                key=alert.key,
                summary=alert.summary,
            )
            self._live[alert.number] = alert

    def _resolve(self, alert: Alert, reason: str) -> None:
        at = self._clock.now()
        went_on = conditions.continued(alert, self._since_opened(alert))
        ended: Ending = "continued" if went_on else "resolved"
        reason = went_on or reason
        after = self._store.change(
            alert.number,
            lambda a: alerts.resolve(a, reason=reason, at=at, ended=ended),
            by=self._by,
            at=at,
        )
        if after is not None:
            self._live[alert.number] = after
        log.info(
            "alerting.resolved",
            endpoint=alert.endpoint,
            alert=alert.number,
            ended=ended,
            reason=reason,
        )

    def _since_opened(self, alert: Alert) -> Iterator[tuple[AnyEvent, str, str]]:
        """Yield the changes of the row since an alert was opened, newest first."""
        for entry in self._ledger.history(alert.endpoint, SINCE):
            if not isinstance(entry.event, Note):
                yield entry.event, entry.by, entry.reason
            elif (
                isinstance(entry.event.body, AlertOpened) and entry.event.body.alert == alert.number
            ):
                return

    def _raise_news(self) -> None:
        """Raise alerts for the entries of the ledger since the last look."""
        while entries := self._store.news(self._seen, NEWS):
            told: list[tuple[str, Raise]] = []
            announced: list[SuccessAnnouncement] = []
            for entry in entries:
                if self._is_silenced(entry.endpoint):
                    continue
                self._faults.attempt("alerting.entry", partial(_tell, entry, told))
                announce = partial(self._announce, entry, announced)
                self._faults.attempt("alerting.announcement", announce)
            self._seen = entries[-1].seq
            self._marked = self._marked or entries[0].seq
            if told or announced or self._seen - self._marked >= NEWS:
                # Also without alerts after enough entries: the next control begins to read here.
                self._raise(told, self._seen, announced)
                self._marked = self._seen

    def _announce(self, entry: Entry, announced: list[SuccessAnnouncement]) -> None:
        """Add the announcement of an entry, if the policy in force has one."""
        state = self._states.get(entry.endpoint)
        if state is None or isinstance(entry.event, Note):
            return
        found = announcement(
            entry.event,
            state.policy,
            seq=entry.seq,
            endpoint=entry.endpoint,
            at=entry.at,
            by=entry.by,
            reason=entry.reason,
            summary=story(entry.event),
            now=self._clock.unix(),
        )
        announced += [found] if found is not None else []

    def _raise_conditions(self) -> None:
        """Raise conditions that have lasted long enough; resolve those that are over."""
        sight, standing = self._sight(), set[tuple[str, str]]()
        fresh: list[tuple[str, Raise]] = []
        for state in self._states.values():
            if state.unconfirmed:
                continue
            at_one = partial(self._raise_at, state, sight, standing, fresh)
            place = f"alerting.conditions.{state.endpoint}"
            if not self._net.run(place, at_one, passing=(KedgeError,)):
                standing |= {key for key in self._since if key[0] == state.endpoint}
        if fresh:
            self._raise(fresh)
        self._since = {key: since for key, since in self._since.items() if key in standing}

    def _raise_at(
        self,
        state: State,
        sight: Sight,
        standing: set[tuple[str, str]],
        fresh: list[tuple[str, Raise]],
    ) -> None:
        """Find the conditions at one endpoint: those to raise, and those whose timers continue."""
        if self._stands_in:
            told = {a.endpoint for a in self._live.values() if a.open and a.topic is Topic.CONTROL}
            if state.endpoint not in told:
                fresh.append((state.endpoint, conditions.control_down(state)))
            return
        self._resolve_control(state.endpoint)
        now, fault = self._clock.monotonic(), sight.fault_at(state.endpoint)
        epoch, decision = sight.decisions.get(state.endpoint, (state.epoch, None))
        unseen = epoch != state.epoch or (state.compared is not None and decision is None)
        # A drill pauses the comparison: no condition ends because of it.
        if (unseen or state.drill is not None) and not fault:
            standing |= {key for key in self._since if key[0] == state.endpoint}
            return  # the patrol has not looked at this row yet
        open_ = {a.key: a for a in self._live.values() if a.open and a.endpoint == state.endpoint}
        unready = sight.unready.get(state.endpoint)
        found = (
            *conditions.conditions(state, decision, fault=fault),
            *sight.replicas,
            *readiness.raised(state, unready or ()),
        )
        for one in found:
            key = (state.endpoint, one.key)
            standing.add(key)
            since = self._since.setdefault(key, now)
            known = open_.get(one.key)
            new = known is None and now - since >= one.after_s
            if new or (known is not None and known.summary != one.summary):
                fresh.append((state.endpoint, one))
        if not fault:
            keys = {one.key for one in found}
            standing |= self._resolve_conditions(state, decision, keys, now, unready=unready)

    def _resolve_control(self, endpoint: str) -> None:
        """Resolve the stand-in's alert, once control has run for long enough."""
        if self._clock.monotonic() - self._began < STEADY_S:
            return
        for alert in tuple(self._live.values()):
            if alert.open and alert.topic is Topic.CONTROL and alert.endpoint == endpoint:
                self._resolve(alert, f"control has run for {STEADY_S / 60:g} minutes")

    def _resolve_conditions(
        self,
        state: State,
        decision: Decision | None,
        raised: set[str],
        now: float,
        *,
        unready: Sequence[str] | None,
    ) -> set[tuple[str, str]]:
        """Resolve what is over at an endpoint; return the timers of conditions that may be over."""
        waiting = set()
        here = [a for a in self._live.values() if a.open and a.endpoint == state.endpoint]
        for alert in here:
            reason = conditions.settled(alert, state, decision, raised)
            if alert.topic is Topic.UNREADY:
                reason = readiness.settled(unready)
            if alert.lasts == "channel":
                known = self._channels_of(state.endpoint)
                reason = "" if alert.channel in known else "no level names it now"
            if not reason:
                continue
            key = (state.endpoint, f"over {alert.key}")
            if now - self._since.setdefault(key, now) >= conditions.ends_after_s(alert):
                self._resolve(alert, reason)
            else:
                waiting.add(key)
        return waiting

    # ------------------------------------------------------------ without the ledger

    def _is_lost(self, fault: str) -> None:
        now = self._clock.monotonic()
        if self._lost_at is None:
            self._lost_at = now
            log.warning("alerting.blind", fault=fault)
        if now - self._lost_at < BLIND_S or self._lost:
            return
        self._states = self._states or self._remembered()
        found = Raise(
            key="ledger",
            topic=Topic.LEDGER,
            level="page",
            lasts="condition",
            detail=fault,
            summary="the ledger cannot be reached: no verdict, no rollback but --local",
        )
        at, unix = self._clock.now(), self._clock.unix()
        self._lost = {
            name: alerts.opened(found, name, at=at, now=unix)
            for name, state in self._states.items()
            if state.policy.escalation and not state.unconfirmed
        }

    def _found_again(self) -> None:
        """Store the alerts that were sent without the ledger, and resolve them: it is back."""
        if self._lost_at is None:
            return
        self._write_outcomes_of_the_lost()
        lasted = self._clock.monotonic() - self._lost_at
        for endpoint, alert in tuple(self._lost.items()):
            told = replace(alert, elapsed_s=self._elapsed.get(alert.id, 0.0))
            self._resolve(self._store.adopt(told, by=self._by), f"it is back after {lasted:.0f} s")
            del self._lost[endpoint]
        self._lost_at = None

    # ------------------------------------------------------------ sending

    def _send_due(self) -> None:
        alerts_ = (*self._lost.values(), *self._live.values(), *self._announced.values())
        sent = [
            self._faults.attempt("alerting.send", partial(self._send_one, alert), (KedgeError,))
            for alert in alerts_
        ]
        if all(sent):
            self._faults.clear("alerting.send")

    def _send_one(self, alert: Alert) -> None:
        """Send what is due of one alert, while a thread is free."""
        if self._is_silenced(alert.endpoint):
            return
        levels = self._levels(alert)
        elapsed = self._elapsed.get(alert.id, 0.0)
        now = self._clock.unix()
        anew = alert.id in self._anew
        for target, kind in alerts.due(
            alert, levels, elapsed, now=now, lease_s=self._lease_s, anew=anew
        ):
            if len(self._flying) >= IN_FLIGHT:
                return
            self._send(alert, target, kind, elapsed, now)
        flies = any(flight[0] == alert.id for flight in self._flying)
        if isinstance(alert, SuccessAnnouncement):
            if not flies and not alerts.wanted(alert, levels, elapsed):
                if alerts.is_lost(alert):
                    log.warning("alerting.announcement_lost", endpoint=alert.endpoint, of=alert.key)
                self._store.finish_announcement(alert.number)
                self._announced.pop(alert.number, None)
        elif alert.number and not flies and alerts.finished(alert, levels, elapsed):
            self._store.finish(alert.number)
            self._live.pop(alert.number, None)
        elif alert.open and not alert.acknowledged_by and elapsed - alert.elapsed_s >= WRITE_S:
            self._change(alert, lambda a: replace(a, elapsed_s=elapsed, seen=now))

    def _send(
        self, alert: Alert, target: AlertTarget, kind: Kind, elapsed: float, now: float
    ) -> None:
        flight = (alert.id, target, kind)
        if flight in self._flying:
            return
        until = now + self._lease_s
        after = self._change(
            alert,
            lambda a: alerts.claim(
                a,
                target,
                kind,
                elapsed_s=elapsed,
                now=now,
                lease_s=self._lease_s,
                by=self._by,
                anew=alert.id in self._anew,
            ),
        )
        if after is None or not alerts.claimed(after, target, kind, by=self._by, until=until):
            return
        self._flying.add(flight)
        # A daemon: control does not wait for a mail server when it is stopped. The claim expires,
        # and the process that leads then sends it again.
        thread = threading.Thread(target=self._fly, args=(after, target, kind), daemon=True)
        try:
            thread.start()
        except BaseException:
            self._flying.discard(flight)
            raise

    def _fly(self, alert: Alert, target: AlertTarget, kind: Kind) -> None:
        fault = "it could not be sent"

        def send() -> None:
            nonlocal fault
            try:
                self._channels.send(target.url, alerts.message(alert, kind, self._channels.links))
                fault = ""
            except KedgeError as error:
                fault = str(error)

        self._faults.attempt("alerting.channel", send)
        self._landed.put(_Sent(alert, target, kind, fault))

    def _change(self, alert: Alert, edit: Callable[[Alert], Alert]) -> Alert | None:
        """Change an alert in the store, or in memory without a ledger."""
        if not alert.number:
            after: Alert | None = edit(self._lost.get(alert.endpoint, alert))
            if after is not None and alert.endpoint in self._lost:
                self._lost[alert.endpoint] = after
            return after
        if isinstance(alert, SuccessAnnouncement):
            sent = self._store.change_announcement(alert.number, _as_announcement(edit))
            if sent is not None and alert.number in self._announced:
                self._announced[alert.number] = sent
            return sent
        after = self._store.change(alert.number, edit, by=self._by, at=self._clock.now())
        if after is not None and alert.number in self._live:
            self._live[alert.number] = after
        return after

    def _land(self) -> None:
        while not self._landed.empty():
            sent = self._landed.get()
            self._flying.discard((sent.alert.id, sent.target, sent.kind))
            self._unwritten.append(sent)
            if sent.fault:
                log.warning(
                    "alerting.failed",
                    endpoint=sent.alert.endpoint,
                    **{sent.alert.id[1]: sent.alert.number},
                    channel=sent.target.channel,
                    kind=sent.kind,
                    fault=sent.fault,
                )
            else:
                log.info(
                    "alerting.delivered",
                    endpoint=sent.alert.endpoint,
                    **{sent.alert.id[1]: sent.alert.number},
                    channel=sent.target.channel,
                    kind=sent.kind,
                )

    def _write_outcomes(self) -> None:
        """Record the outcomes of messages; those that cannot be written now wait, eight at most."""
        self._land()
        while self._unwritten:
            write = partial(self._write_outcome, self._unwritten[0])
            self._faults.attempt("alerting.outcome", write, (KedgeError,))
            self._unwritten.pop(0)

    def _write_outcomes_of_the_lost(self) -> None:
        self._land()
        mine = [sent for sent in self._unwritten if not sent.alert.number]
        self._unwritten = [sent for sent in self._unwritten if sent.alert.number]
        for sent in mine:
            self._record(sent)

    def _write_outcome(self, sent: _Sent) -> None:
        after = self._record(sent)
        if after is None or not after.number:
            return
        if not sent.fault:
            self._delivers(sent)
            return
        dead = next(
            (d for d in after.deliveries if alerts.is_dead(d) and d.channel == sent.target.channel),
            None,
        )
        key = (after.endpoint, alerts.channel_key(sent.target.channel))
        if dead is not None and key not in {(a.endpoint, a.key) for a in self._live.values()}:
            self._raise([(after.endpoint, alerts.dead_channel(after.endpoint, dead))])

    def _record(self, sent: _Sent) -> Alert | None:
        elapsed = self._elapsed.get(sent.alert.id, sent.alert.elapsed_s)
        now, at = self._clock.unix(), self._clock.now()
        return self._change(
            sent.alert,
            lambda a: alerts.record(
                a,
                sent.target,
                sent.kind,
                fault=sent.fault,
                elapsed_s=elapsed,
                now=now,
                at=at,
            ),
        )

    def _delivers(self, sent: _Sent) -> None:
        """Resolve the alert of a dead channel that delivers again."""
        for alert in tuple(self._live.values()):
            mine = (sent.alert.endpoint, sent.target.channel)
            if alert.open and (alert.endpoint, alert.channel) == mine:
                self._resolve(alert, "it delivers again")


def _as_announcement(
    edit: Callable[[Alert], Alert],
) -> Callable[[SuccessAnnouncement], SuccessAnnouncement]:
    """Return a change of an alert as one of an announcement, which stays one."""

    def change(before: SuccessAnnouncement) -> SuccessAnnouncement:
        after = edit(before)
        assert isinstance(after, SuccessAnnouncement)
        return after

    return change


def _tell(entry: Entry, told: list[tuple[str, Raise]]) -> None:
    """Add the alert that an entry raises."""
    found = _told_by(entry)
    if found is not None:
        told.append((entry.endpoint, found))


def _told_by(entry: Entry) -> Raise | None:
    """Return the alert that an entry of the ledger raises."""
    if not isinstance(entry.event, Note):
        return conditions.happened(entry.event, by=entry.by, actor=entry.actor, reason=entry.reason)
    if isinstance(entry.event.body, EvidenceLost):
        lost = entry.event.body
        return conditions.lost_evidence(lost.subject, entry.reason, lost.detail)
    try:
        finding = finding_of(entry)
    except KedgeError as error:
        log.warning("alerting.finding_unreadable", endpoint=entry.endpoint, fault=str(error))
        return None
    return conditions.found_by(finding) if finding is not None else None
