"""Valid names of an endpoint, which become parts of paths, URLs and commands."""

import pytest

from kedge.core.errors import Refused
from kedge.core.names import (
    check_name,
    check_segment,
    get_known,
    is_name,
    nearest,
    unknown_endpoint,
)


@pytest.mark.parametrize("name", ["f", "flights", "Flights-2_x", "a" * 40])
def test_a_name_is_taken(name: str) -> None:
    check_name(name)
    assert is_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../x",
        "a/b",
        "a\\b",
        "1a",
        "-a",
        "_a",
        "a b",
        "a\n",
        "a\t",
        "a" * 41,
        "é",
        "a.b",
        "e'--",
        "a\0",
    ],
)
def test_a_name_that_could_be_a_path_an_option_or_a_line_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        check_name(name)
    assert refused.value.code == "bad_name"


@pytest.mark.parametrize(
    "text, near",
    [
        ("chrun", "churn"),
        ("CHURN", "churn"),
        ("chur", "churn"),
        ("Risk", "risk"),
        ("nope", ""),
        ("", ""),
    ],
)
def test_the_nearest_name_is_found_whatever_its_case(text: str, near: str) -> None:
    assert nearest(text, ["churn", "risk"]) == near


def test_an_unknown_endpoint_has_one_wording() -> None:
    found = unknown_endpoint("chrun", ["risk", "churn"])
    assert (str(found), found.code) == ("no endpoint chrun", "unknown_endpoint")
    assert found.hint.startswith("did you mean churn? known are: churn, risk; ")
    assert unknown_endpoint("nope", ["churn"]).hint.startswith("known are: churn; ")
    assert "kedge init NAME" in unknown_endpoint("nope", []).hint
    assert "kedge apply" in unknown_endpoint("image", ["churn"], configured=True).hint
    assert "write the endpoint before v1: churn v1" in unknown_endpoint("v1", ["churn"]).hint
    assert "before r12: churn r12" in unknown_endpoint("r12", ["risk", "churn"]).hint
    assert get_known({"churn": 1}, "churn") == 1
    with pytest.raises(Refused, match=r"^no endpoint risk$"):
        get_known({"churn": 1}, "risk")


def test_a_segment_names_a_field_by_which_the_evidence_is_split() -> None:
    for good in ("country=DE", "country=", "a=b=c"):
        check_segment(good, ["country", "a=b"], "churn")
    for bad in ("contry=DE", "country", "", "=DE", "a=c"):
        with pytest.raises(Refused) as refused:
            check_segment(bad, ["country", "a=b"], "churn")
        assert (refused.value.code, refused.value.hint) == (
            "unknown_segment",
            "write FIELD=VALUE; the fields are: country, a=b",
        )
    with pytest.raises(Refused) as none:
        check_segment("country=DE", [], "churn")
    assert none.value.hint.startswith('segments = ["FIELD"] under [endpoints.churn]')
