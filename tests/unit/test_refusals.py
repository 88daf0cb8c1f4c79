"""The words of a refusal, one promise a test."""

import re
from string import Formatter

import pytest

from kedge.core.release.refusals import REFUSALS

KNOWN = {
    "endpoint",
    "stage",
    "release",
    "candidate",
    "production",
    "fields",
    "answers",
    "failure",
    "share",
    "left",
    "drilled",
}


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refusal_says_what_is_the_case_and_what_to_do_instead(code: str) -> None:
    message, hint = REFUSALS[code]
    named = {name for text in (message, hint) for _, name, _, _ in Formatter().parse(text) if name}
    assert re.fullmatch("[a-z_]+", code)
    assert message
    assert hint
    assert named <= KNOWN
    assert not message.endswith(".")
