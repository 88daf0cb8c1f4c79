"""Contacts: the owner of an endpoint and the ways to reach them, as kedge.toml declares them.

An owner must be a person, who can be called. A name is refused if it contains a word for a group
(team, squad, on-call, ...). It is also refused if it consists only of words for a group's work
(SRE, ML platform, data science). The same rule applies to the part of an address before its @.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from msgspec import UNSET

from kedge.core.alerts.alerts import WORDS, url_of
from kedge.core.time.durations import seconds
from kedge.core.time.instants import read_instant
from kedge.core.values import Contact, Policy, Rota

if TYPE_CHECKING:
    from kedge.config.model import Alerts

GROUP = frozenset(
    {
        "team",
        "teams",
        "squad",
        "group",
        "groups",
        "crew",
        "guild",
        "department",
        "dept",
        "committee",
        "oncall",
        "everyone",
        "everybody",
        "rota",
        "distribution",
        "mailinglist",
    }
)
"""Words for a group. A name or an address that contains one is that of a group."""
WORK = frozenset(
    {
        "admin",
        "admins",
        "administrators",
        "ai",
        "all",
        "alert",
        "alerts",
        "analytics",
        "api",
        "backend",
        "business",
        "contact",
        "core",
        "data",
        "dev",
        "developers",
        "devops",
        "duty",
        "eng",
        "engineering",
        "engineers",
        "frontend",
        "hello",
        "help",
        "helpdesk",
        "info",
        "infra",
        "infrastructure",
        "it",
        "list",
        "ml",
        "mlops",
        "models",
        "model",
        "monitoring",
        "noc",
        "operations",
        "ops",
        "owner",
        "owners",
        "pager",
        "paging",
        "platform",
        "product",
        "production",
        "release",
        "releases",
        "research",
        "science",
        "scientists",
        "security",
        "service",
        "services",
        "site",
        "sre",
        "support",
        "sysadmin",
        "systems",
        "tech",
        "the",
        "and",
        "of",
        "on",
        "call",
    }
)
"""Words for a group's work. A name or an address that consists only of these is that of a group."""
TOKENS = frozenset(
    {
        "discord",
        "msteams",
        "opsgenie",
        "pagerduty",
        "pover",
        "pushover",
        "slack",
        "sns",
        "splunk",
        "tgram",
        "twilio",
        "victorops",
        "wxteams",
        "zulip",
    }
)
"""Channels whose URL always holds a secret. It must be a variable: the ledger stores policies."""
TOKEN_HOSTS = (
    "hooks.slack.com",
    "discord.com",
    "discordapp.com",
    "webhook.office.com",
    "hooks.zapier.com",
    "api.telegram.org",
    "chat.googleapis.com",
)
"""Hosts whose webhooks accept every caller that knows their path."""
OWN = (
    "http",
    "https",
    "webhook+http",
    "webhook+https",
    "alertmanager",
    "alertmanagers",
    "alertmanager-webhook+http",
    "alertmanager-webhook+https",
)
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*)://(\S+)")
_MAIL = re.compile(r"(?:mailto:)?([^\s@:/?]+)@([^\s@:/?]+)(?:\?\S*)?")


def is_group(name: str) -> bool:
    """Return whether a name, or the part of an address before its @, is that of a group."""
    words = re.findall(r"[^\W\d_]+", name.lower())
    joined = re.search(r"\bon[ _-]?call\b", name.lower()) is not None
    return joined or bool(GROUP & {*words}) or (bool(words) and {*words} <= WORK)


def judge_people(policy: Policy, place: str, faults: list[str]) -> None:
    """Check the owner, the escalation and the rota of a policy."""
    if policy.owner is not None:
        _judge_contact(policy.owner, f"{place}.owner", faults)
    if policy.rota is not None:
        _judge_rota(policy.rota, f"{place}.rota", faults)
    named = {"owner": policy.owner, "rota": policy.rota}
    people = {word for word, who in named.items() if who is not None}
    delays: list[float] = []
    for number, step in enumerate(policy.escalation):
        at = f"{place}.escalation[{number}]"
        try:
            delays.append(seconds(step.after))
        except ValueError as error:
            faults.append(f"{at}.after: {error}")
        if not step.to:
            faults.append(f"{at}.to: must name at least one recipient")
        _judge_recipients(step.to, people, place, f"{at}.to", faults)
    _judge_announce(policy, people, place, faults)
    if any(later <= sooner for sooner, later in pairwise(delays)):
        faults.append(f"{place}.escalation: `after` must grow from level to level")
    announced = () if policy.announce is UNSET else policy.announce.to
    used = {*announced, *(entry for step in policy.escalation for entry in step.to)}
    if "owner" in used and policy.owner is not None and policy.owner.contact.strip():
        _judge_channel(policy.owner.contact, f"{place}.owner.contact", faults)


def _judge_recipients(
    to: Sequence[str], people: Collection[str], place: str, at: str, faults: list[str]
) -> None:
    """Check the channels of a list, and that a word in it stands for a person of the policy."""
    for entry in to:
        if entry not in WORDS:
            _judge_channel(entry, at, faults)
        elif entry not in people:
            faults.append(f"{at}: there is no {place}.{entry}")


def _judge_announce(policy: Policy, people: Collection[str], place: str, faults: list[str]) -> None:
    """Check what is announced, and that it reaches a channel."""
    announce = policy.announce
    if announce is UNSET:
        return
    at = f"{place}.announce"
    if not announce.events:
        faults.append(f'{at}.events: must name at least one of "promoted", "rolled_back"')
    if not announce.to and not policy.escalation:
        faults.append(f"{at}: has no recipient; give `to`, or {place}.escalation")
    _judge_recipients(announce.to, people, place, f"{at}.to", faults)


def _judge_contact(person: Contact, place: str, faults: list[str]) -> None:
    for what, given in (("name", person.name), ("contact", person.contact)):
        if not given.strip():
            faults.append(f"{place}.{what}: is empty")
    if is_group(person.name):
        faults.append(
            f"{place}.name: {person.name!r} is a group; name the one person who answers for it, "
            "and put the others into `escalation` or `rota`"
        )
    mail = _MAIL.fullmatch(person.contact)
    if mail is not None and is_group(mail[1]):
        faults.append(
            f"{place}.contact: {person.contact!r} looks like a mailing list; give the person's own "
            "address, and put the list into `escalation`"
        )


def _judge_rota(rota: Rota, place: str, faults: list[str]) -> None:
    try:
        read_instant(rota.start, zone_needed=True)
    except ValueError as error:
        faults.append(f"{place}.start: {error}")
    try:
        if seconds(rota.each) <= 0:
            faults.append(f"{place}.each: a turn takes longer than nothing")
    except ValueError as error:
        faults.append(f"{place}.each: {error}")
    if not rota.people:
        faults.append(f"{place}.people: must name at least one person")
    for number, person in enumerate(rota.people):
        at = f"{place}.people[{number}]"
        _judge_contact(person, at, faults)
        if person.contact.strip():
            _judge_channel(person.contact, f"{at}.contact", faults)


def _judge_channel(channel: str, place: str, faults: list[str]) -> None:
    """Check that a channel is an address or a URL, and contains no secret."""
    url = url_of(channel)
    if url.startswith("mailto:"):
        if _MAIL.fullmatch(url) is None:
            faults.append(f"{place}: {channel!r} is not an e-mail address")
        return
    found = _URL.fullmatch(url)
    if found is None:
        faults.append(
            f"{place}: {channel!r} is not a channel; write an e-mail address, a URL such as "
            'https://HOST/PATH, "owner" or "rota"'
        )
        return
    scheme, rest = found[1].lower(), found[2]
    if scheme in OWN and not rest.partition("/")[0].rpartition("@")[2]:
        faults.append(f"{place}: {scheme}:// has no host")
    user = rest.partition("/")[0].rpartition("@")[0]
    secret = user.partition(":")[2] if ":" in user else ""
    host = rest.partition("/")[0].rpartition("@")[2].partition(":")[0]
    known = scheme in TOKENS or host.lower().endswith(TOKEN_HOSTS)
    if (secret and "${" not in secret) or (known and "${" not in rest):
        faults.append(
            f"{place}: a secret stands in the {scheme} URL, and a policy is kept in the ledger; "
            "write ${NAME} for an environment variable of kedge up"
        )


def judge_alerts(alerts: Alerts, faults: list[str]) -> None:
    """Check [alerts]: the settings for mail."""
    if alerts.smtp is not None and not re.fullmatch(r"smtps?://\S+", alerts.smtp):
        faults.append("alerts.smtp: is smtp://HOST:PORT or smtps://HOST:PORT")
    if _MAIL.fullmatch(alerts.sender) is None:
        faults.append(f"alerts.sender: is an e-mail address; got {alerts.sender!r}")
    try:
        if not 0.1 <= seconds(alerts.timeout) <= 60:
            faults.append(f"alerts.timeout: is 100ms to 60s; got {alerts.timeout}")
    except ValueError as error:
        faults.append(f"alerts.timeout: {error}")
