"""The announcement of `kedge up`."""

from __future__ import annotations

import pytest

from kedge.runtime.announcement import Announcement, get_url
from support.waiting import wait_until


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("::1", "http://[::1]:80"),
        ("::", "http://[::1]:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("fe80::2", "http://[fe80::2]:80"),
        ("gateway.example", "http://gateway.example:80"),
    ],
)
def test_the_printed_address_can_be_opened(host: str, url: str) -> None:
    """Nothing listens at 0.0.0.0 itself, and an IPv6 address needs brackets."""
    assert get_url(host, 80) == url


def spoken(answers: list[bool], deaths: dict[str, int]) -> list[str]:
    """What is said while the answers come in turn."""
    said: list[str] = []
    announcement = Announcement(
        answered=lambda: answers.pop(0) if len(answers) > 1 else answers[0],
        deaths=lambda: deaths,
        last_words=lambda name: f"{name} says no",
        serving="serving",
        say=said.append,
    )
    announcement.start()
    wait_until(lambda: "serving" in said or (said and not answers[0]), "a message")
    announcement.stop()
    return said


def test_serving_is_said_only_once_a_worker_answers() -> None:
    """And once."""
    assert spoken([False, False, True], {"w0": 1}) == ["serving"]


def test_a_worker_that_keeps_ending_is_named_with_its_last_words() -> None:
    """It may come to serve later."""
    assert spoken([False], {"w0": 3, "w1": 0}) == [
        "warning: nothing is served yet: w0 has ended 3 times: w0 says no"
    ]


def test_the_dashboard_is_named_once_control_is_ready() -> None:
    said: list[str] = []
    ready = ["", "dashboard: here"]
    announcement = Announcement(
        answered=lambda: True,
        deaths=dict,
        last_words=str,
        serving="serving",
        say=said.append,
        login=lambda: ready.pop(0) if len(ready) > 1 else ready[0],
    )
    announcement.start()
    wait_until(lambda: len(said) == 2, "both lines")
    announcement.stop()
    assert said == ["serving", "dashboard: here"]
