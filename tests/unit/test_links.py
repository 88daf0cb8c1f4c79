"""PageLinks to the dashboard: the public URL in one spelling, and paths that any name survives."""

from __future__ import annotations

import inspect
from urllib.parse import unquote, urlsplit

import pytest

from kedge.config.load import read
from kedge.core import links
from kedge.core.errors import BadConfig
from kedge.core.links import PageLinks, host_of, quote, read_public_url

PUBLIC = "https://kedge.example.org/models"


@pytest.mark.parametrize(
    "text, spelled",
    [
        ("https://kedge.example.org", "https://kedge.example.org"),
        ("https://kedge.example.org/", "https://kedge.example.org"),
        ("HTTPS://Kedge.Example.ORG/Models//", "https://kedge.example.org/Models"),
        ("https://kedge.example.org/a/b/", "https://kedge.example.org/a/b"),
        ("http://10.0.0.7:08081", "http://10.0.0.7:8081"),
        ("http://[2001:DB8::1]:8081/x", "http://[2001:db8::1]:8081/x"),
    ],
)
def test_a_public_url_has_one_spelling(text: str, spelled: str) -> None:
    assert read_public_url(text) == spelled
    assert read_public_url(spelled) == spelled
    assert read(f'[server]\npublic_url = "{text}"\n').server.links.public_url == spelled


@pytest.mark.parametrize(
    "text",
    [
        "",
        "kedge.example.org",
        "ftp://kedge.example.org",
        "https://",
        "https:///models",
        "https://ada:secret@kedge.example.org",
        "https://ada@kedge.example.org",
        "https://kedge.example.org?token=x",
        "https://kedge.example.org#top",
        "https://kedge.example.org/a b",
        "https://kedge.example.org/a\nb",
        "https://kedge.example.org\n",
        "https://kedge.example.org/../x",
        "https://kedge.example.org/a//b",
        "https://kedge.example.org/./x",
        "https://kedge.example.org:0",
        "https://kedge.example.org:70000",
        "https://kedge.example.org:port",
        "https://-kedge.example.org",
        "https://kédge.example.org",
        "https://[::1",
        "javascript://kedge.example.org/%0aalert(1)",
        f"https://kedge.example.org/{'x' * 600}",
    ],
)
def test_what_is_no_address_of_a_dashboard_is_a_fault_of_its_line(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        read_public_url(text)
    spelled = text.replace("\n", "\\n")
    with pytest.raises(BadConfig) as raised:
        read(f'[server]\npublic_url = "{spelled}"\n')
    assert "server.public_url" in raised.value.faults[0]
    assert ":2" in raised.value.faults[0]


def test_an_endpoint_of_any_name_stays_one_part_of_a_path() -> None:
    for name in ("flights", "a/b", "a b", "..", "é?x=1#y", "%2e", "a\\b"):
        assert unquote(quote(name)) == name
        path = urlsplit(PageLinks(PUBLIC).endpoint(name)).path
        assert path.split("/")[:4] == ["", "models", "endpoints", quote(name)]
        assert not path.endswith(("/..", "/.")) or name == ".."


def test_no_public_url_gives_no_link_at_all() -> None:
    assert {PageLinks().to(path) for path in ("", "alerts", "endpoints/x")} == {""}
    assert PageLinks().alert("flights", 3) == PageLinks().decision("flights", 3) == ""


def test_the_host_of_a_public_url_is_as_requests_name_it() -> None:
    assert host_of("https://kedge.example.org:8443/models") == "kedge.example.org"
    assert host_of("http://[2001:db8::1]/x") == "2001:db8::1"
    assert host_of("") == ""


def test_no_path_has_a_fragment_which_a_login_would_lose() -> None:
    filled = {"endpoint": "flights", "seq": 3, "number": 3, "segment": "a=b", "act": "pause"}
    for name, make in inspect.getmembers(links, inspect.isfunction):
        if name.endswith("_path"):
            given = inspect.signature(make).parameters
            path = make(**{each: filled.get(each, "x") for each in given})
            assert "#" not in path
            assert not path.startswith("/")
