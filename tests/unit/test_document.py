"""kedge.toml as a document: additions change nothing else, and copies contain no secret."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from kedge.config.document import append, quoted, write, write_block
from kedge.config.load import read
from kedge.config.secrets import has_secret, scrub
from kedge.core.errors import Refused

MINE = """\
# mine
[server]   # this machine
port = 8080

[endpoints.wine]
audience   =  "internal"# kept as it is
"""


@pytest.mark.parametrize(
    "text",
    [MINE, MINE.rstrip("\n"), MINE.replace("\n", "\r\n"), "\ufeff" + MINE, "", "[endpoints]\n"],
)
def test_a_further_endpoint_leaves_everything_before_it_as_it_is(text: str) -> None:
    grown = append(text, "flights", write_block("flights", ()))
    assert grown.startswith(text)
    assert ("\r\n" in grown) == ("\r\n" in text)
    found = read(grown.removeprefix("\ufeff"))
    assert found.endpoints["flights"].canary.steps == (1, 5, 25, 50)
    assert set(found.endpoints) - {"flights"} == set(
        tomllib.loads(text.removeprefix("\ufeff")).get("endpoints", {})
    )


def test_it_takes_what_the_defaults_have_from_there() -> None:
    defaults = '[defaults]\nowner = {name = "Ada L", contact = "a@b.org"}\ncanary = {steps = [7]}\n'
    grown = append(defaults, "flights", write_block("flights", ("owner", "canary")))
    policy = read(grown).endpoints["flights"]
    assert (policy.canary.steps, policy.owner and policy.owner.name) == ((7.0,), "Ada L")
    assert grown.count("owner =") == 1


def test_a_file_that_cannot_be_added_to_is_refused_with_the_lines_to_add() -> None:
    with pytest.raises(Refused) as refused:
        append("endpoints = {wine = {}}\n", "flights", write_block("flights", ()))
    assert refused.value.code == "config_closed"
    assert "[endpoints.flights]" in refused.value.hint


def test_a_file_keeps_its_mode_and_a_link_still_leads_to_it(tmp_path: Path) -> None:
    real, link = tmp_path / "real.toml", tmp_path / "kedge.toml"
    real.write_text("old")
    real.chmod(0o640)
    link.symlink_to(real)
    write(link, "new\r\n")
    assert (link.is_symlink(), real.read_bytes(), real.stat().st_mode & 0o777) == (
        True,
        b"new\r\n",
        0o640,
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kedge.toml", "real.toml"]


def test_a_string_is_written_so_that_toml_reads_it_back() -> None:
    assert tomllib.loads(f"x = {quoted('a' + chr(127) + chr(34) + 'é')}")["x"] == 'a\x7f"é'


SECRETS = '''\
# once: smtp://kedge:oldword@mail
[alerts]
smtp = "smtp://kedge:hunter2@mail.example.org:25"   # relay
sender = "kedge@example.org"

[online]
store = "redis"
url = """redis://:s3cret@redis:6379"""

[endpoints.wine]
escalation = [{after = "0s", to = ["https://hooks.example.org/x?token=abcdef", "https://ada:${PASS}@example.org/a"]}]
'''


def test_secrets_are_taken_out_and_named_and_the_rest_stays() -> None:
    found = scrub(SECRETS)
    assert found is not None
    text, places = found
    assert set(places) == {"alerts.smtp", "online.url", "endpoints.wine.escalation[0].to[0]"}
    for secret in ("oldword", "hunter2", "s3cret", "abcdef"):
        assert secret not in text
    read_ = tomllib.loads(text)
    assert read_["alerts"] == {"sender": "kedge@example.org"}
    assert read_["online"] == {"store": "redis"}
    assert "set KEDGE_SMTP_URL instead" in text
    assert "set KEDGE_ONLINE_URL instead" in text
    assert "https://ada:${PASS}@example.org/a" in text, "a variable is no secret"
    assert scrub(text) == (text, ()), "once is enough"


@pytest.mark.parametrize(
    "text",
    [
        'alerts = {smtp = "smtp://a:hunter2@b"}\n',
        'alerts.smtp = "smtp://a:hunter2@b"\n',
        "broken = [smtp://a:hunter2@b",
    ],
)
def test_in_every_form_no_secret_is_left(text: str) -> None:
    found = scrub(text)
    assert found is not None
    assert "hunter2" not in found[0]


def test_one_that_hides_behind_an_escape_is_not_copied() -> None:
    assert scrub(r'x = "smtp://a:hunter2\u0040b"') is None
    assert not has_secret("https://host:8080/path@x")
    assert not has_secret("mailto:ada@example.org")
