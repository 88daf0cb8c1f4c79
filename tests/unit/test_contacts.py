"""The owner of an endpoint and the contacts: the valid forms in kedge.toml."""

from __future__ import annotations

import re

import pytest

from kedge.config.contacts import is_group
from kedge.config.load import read
from kedge.config.model import Alerts
from kedge.core.errors import BadConfig

ENDPOINT = "[endpoints.flights]\n"


def faults(text: str) -> list[str]:
    """What is wrong with an endpoint's table, without its place."""
    with pytest.raises(BadConfig) as refused:
        read(ENDPOINT + text)
    place = r"kedge\.toml:\d+: endpoints\.flights\."
    return [re.sub(f"^{place}", "", fault) for fault in refused.value.faults]


@pytest.mark.parametrize(
    "name",
    [
        "the platform team",
        "ML-Platform Team",
        "oncall",
        "On-Call",
        "on call",
        "SRE",
        "sre-team",
        "ml",
        "Data Science",
        "DevOps",
        "ops@example.org".partition("@")[0],
        "alerts",
        "fraud squad",
        "Release Engineering",
        "everyone",
        "MLOps group",
        "data-eng",
        "all",
    ],
)
def test_a_group_is_known_as_one(name: str) -> None:
    assert is_group(name)


@pytest.mark.parametrize(
    "name",
    [
        "Ada Lovelace",
        "ada",
        "Data Okonkwo",
        "Ben Ops",
        "J. Platform-Smith",
        "Teamo Saari",
        "Oncu Kaya",
        "李 小龙",
        "Nobody Yet",
        "O'Neill",
        "Alla",
        "Sreeja",
        "ada.ops",
    ],
)
def test_a_person_is_not_taken_for_a_group(name: str) -> None:
    assert not is_group(name)


def test_an_owner_without_a_name_or_contact_is_refused_and_so_is_a_group() -> None:
    assert faults('owner = {name = " ", contact = ""}') == [
        "owner.name: is empty",
        "owner.contact: is empty",
    ]
    name, contact = faults('owner = {name = "the ML team", contact = "mailto:ml-team@x.org"}')
    assert name.startswith("owner.name: 'the ML team' is a group; name the one person")
    assert contact.startswith("owner.contact: 'mailto:ml-team@x.org' looks like a mailing list")


def test_every_fault_of_an_escalation_is_reported_at_once() -> None:
    found = faults(
        'escalation = [{after = "5m", to = ["owner", "rota", "@ada", "http://"]}, {after = "1m", to = []}]\n'
        'rota = {start = "monday", each = "0s", people = []}'
    )
    assert sorted(fault.split(": ")[0] for fault in found) == [
        "escalation",
        *["escalation[0].to"] * 3,
        "escalation[1].to",
        "rota.each",
        "rota.people",
        "rota.start",
    ]


def test_a_rota_is_of_people_with_an_address_and_starts_at_an_instant() -> None:
    (zone,) = faults(
        'rota = {start = "2026-11-23T09:00:00", people = [{name = "Ada", contact = "ada@x.org"}]}'
    )
    assert zone.startswith("rota.start: 2026-11-23T09:00:00 has no time zone")
    group, channel = faults(
        'rota = {start = "2026-11-23T09:00:00Z", people = [{name = "SRE", contact = "telephone"}]}'
    )
    assert group.startswith("rota.people[0].name: 'SRE' is a group")
    assert channel.startswith("rota.people[0].contact: 'telephone' is not a channel")


@pytest.mark.parametrize(
    "channel",
    [
        "https://ada:secret@x.org/hook",
        "slack://A/B/C/#ops",
        "pagerduty://A@B",
        "tgram://123/4",
        "https://hooks.slack.com/services/T/B/X",
        "webhook+https://acme.webhook.office.com/x",
    ],
)
def test_a_secret_in_a_channel_is_refused_since_a_policy_is_in_the_ledger(channel: str) -> None:
    (fault,) = faults(f'escalation = [{{after = "0s", to = ["{channel}"]}}]')
    assert "a secret stands in the" in fault
    assert "secret@" not in fault


@pytest.mark.parametrize(
    "channel",
    [
        "https://ada:${PASSWORD}@x.org/hook",
        "slack://${SLACK}/#ops",
        "mailto:ada@x.org",
        "ada@x.org",
        "alertmanager://localhost:9093",
        "alertmanager-webhook+http://x.org/a",
        "webhook+https://x/y",
        "ntfy://topic",
        "https://${HOOK}",
        "https://hooks.slack.com/services/${HOOK}",
    ],
)
def test_a_channel_that_can_be_reached_is_taken(channel: str) -> None:
    policy = read(f'{ENDPOINT}escalation = [{{after = "0s", to = ["{channel}"]}}]')
    assert policy.endpoints["flights"].escalation[0].to == (channel,)


def test_a_policy_without_an_owner_is_taken_and_one_that_names_it_needs_one() -> None:
    read(ENDPOINT)
    (fault,) = faults('escalation = [{after = "0s", to = ["owner"]}]')
    assert fault == "escalation[0].to: there is no endpoints.flights.owner"
    (fault,) = faults(
        'owner = {name = "Ada", contact = "desk 4"}\nescalation = [{after = "0s", to = ["owner"]}]'
    )
    assert fault.startswith("owner.contact: 'desk 4' is not a channel")


def test_how_mail_is_sent_is_checked_too() -> None:
    with pytest.raises(BadConfig) as refused:
        read('[alerts]\nsmtp = "mail.x.org"\nsender = "kedge"\ntimeout = "2h"')
    assert [f.split(": ")[1] for f in refused.value.faults] == [
        "alerts.smtp",
        "alerts.sender",
        "alerts.timeout",
    ]
    assert read('[alerts]\ntimeout = "2s"').alerts == Alerts(timeout="2s")
