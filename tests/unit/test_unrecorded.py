"""Unrecorded predictions: how many of how many, and why, in one sentence."""

from __future__ import annotations

from kedge.core.evidence.unrecorded import BY_RECORDS, BY_WORKERS, CAUSES, sentence


def test_every_cause_has_its_words() -> None:
    assert set(CAUSES) == {*BY_WORKERS, *BY_RECORDS}


def test_a_sentence_says_how_many_of_how_many_and_why_the_largest_first() -> None:
    assert sentence(200, {"tester": 1, "sampling": 180, "retry": 0}) == (
        "181 of 200 predictions are not recorded: 180 because nothing was compared, and their entity is "
        "not in log.sample; 1 because a tester named the release"
    )
    assert sentence(0, {"id_reused": 39}).startswith(
        "39 of 39 predictions are not recorded: 39 because"
    )


def test_where_all_are_recorded_nothing_is_said_and_a_later_cause_is_shown_as_it_is() -> None:
    assert sentence(200, {}) == sentence(200, {"sampling": 0}) == ""
    assert sentence(5, {"of_a_newer_kedge": 2}).endswith("2 because of_a_newer_kedge")
