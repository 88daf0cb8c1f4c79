"""What may name an endpoint: it becomes a part of paths, URLs and commands."""

import pytest

from kedge.core.errors import Refused
from kedge.core.names import check_name, is_name


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
def test_what_could_be_a_path_an_option_or_a_line_is_refused(name: str) -> None:
    with pytest.raises(Refused) as refused:
        check_name(name)
    assert refused.value.code == "bad_name"
