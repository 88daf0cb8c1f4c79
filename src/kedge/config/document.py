"""Document kedge.toml: the template of a new file, and the addition of an endpoint to a file."""

from __future__ import annotations

import json
import subprocess
import tomllib
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from kedge.config.contacts import is_group
from kedge.config.places import Toml
from kedge.core.errors import Refused
from kedge.core.values import UNNAMED_OWNER
from kedge.system.durable import write_atomically

SCHEMA_NAME = "kedge.schema.json"
"""The file in the state directory that editors check kedge.toml with."""
OUTPUT_LINE = 'output = {kind = "exact", tolerance = 1e-6}'
"""The output that `kedge init` writes while no version is registered."""
HEAD = """\
#:schema {schema}
# kedge.toml: what this machine serves and how its releases are rolled out.
# Bring a change into force with `kedge apply`; kedge help reference/config explains every key.
# `kedge config check` finds faults with their lines. What several endpoints share: [defaults].

[server]
host = "127.0.0.1"
port = {port}

"""
ENDPOINT = """\
[endpoints.{name}]
# "customer": a candidate needs a passed shadow window before any caller sees it, unless
# --override "reason" says why not. "internal": a canary may come first.
audience = "customer"
# It passes after so much healthy time and so many compared answers. A week holds every weekday; an
# hour is enough to try kedge out.
# shadow = {{window = "7d", min_pairs = 1000}}
owner = {{name = {owner}, contact = {contact}}}
# Who is sent an alert, and who next: kedge help alerts. Without it none is sent.
# escalation = [{{after = "0s", to = ["owner"]}}]

# What callers are promised to get. Left out, it is what the first production release gives.
# answers = {{score = {{dtype = "float64"}}, label = {{dtype = "int64"}}}}

# The request contract. Left out, it is taken from the first production release; write it here
# to let callers send more than today's model needs.
# fields = {{dep_delay = {{dtype = "float32", nullable = true}}, origin = {{dtype = "string"}}}}
# A model that raises on some values has bounds: age = {{dtype = "float64", range = [0, 120]}}.

# Who is routed as one unit: a field, or the header kedge-entity.
# entity = "customer_id"

# How two answers are compared, and which output a label (kedge outcomes) is about. "exact" compares
# every output and reads the class or the value that the signature leaves no doubt about;
# `kedge register` prints what it read, and the line to declare. The other forms:
# output = {{kind = "class", label = "label"}} # a class: words or whole numbers
# output = {{kind = "binary", score = "score", threshold = 0.5}}       # yes or no by a probability
# output = {{kind = "score", value = "prediction", tolerance = 0.5}}   # a number
output = {{kind = "exact", tolerance = 1e-6}}

[endpoints.{name}.canary]
steps = [1, 5, 25, 50]   # per cent; `kedge promote` walks them
"""
TEMPLATE = HEAD + ENDPOINT
"""The file that `kedge init` writes where no kedge.toml exists."""
SHORT = """\
[endpoints.{name}]
audience = "customer"   # "internal": a canary may come before a passed shadow window
owner = {{name = {owner}, contact = {contact}}}
output = {{kind = "exact", tolerance = 1e-6}}
canary = {{steps = [1, 5, 25, 50]}}   # per cent; `kedge promote` walks them
"""
"""The table that `kedge init` adds to an existing file, without the keys of `[defaults]`."""


def write_block(name: str, defaults: Collection[str], output: str = OUTPUT_LINE) -> str:
    """Return the table of a further endpoint.

    Args:
        name: the endpoint.
        defaults: the keys that `[defaults]` has; the endpoint inherits them.
        output: the line that says how answers are compared.
    """
    owner, contact = owner_from_git()
    text = SHORT.format(name=name, owner=owner, contact=contact).replace(OUTPUT_LINE, output)
    lines = [line for line in text.splitlines() if line.partition(" =")[0] not in defaults]
    return "\n".join(lines) + "\n"


def append(text: str, name: str, block: str) -> str:
    """Return kedge.toml with an endpoint appended; the text before it stays identical.

    Args:
        text: the current file, valid TOML without this endpoint.
        name: the endpoint.
        block: its table.

    Raises:
        Refused: `config_closed`: the table of endpoints cannot be extended, such as an inline one.
    """
    end = "\r\n" if "\r\n" in text else "\n"
    gap = end if text.endswith("\n") or not text else end * 2
    grown = text + gap + block.replace("\n", end)
    before = tomllib.loads(text.removeprefix("\ufeff"))
    after: Toml = {}
    with suppress(tomllib.TOMLDecodeError):
        after = tomllib.loads(grown.removeprefix("\ufeff"))
    tables = after.get("endpoints")
    added = tables.pop(name, None) if isinstance(tables, dict) else None
    if added is None or {"endpoints": {}, **before} != after:
        raise Refused(
            f"[endpoints.{name}] cannot be added at the end of this file",
            code="config_closed",
            hint=f"add it by hand, then kedge apply:\n{block}",
        )
    return grown


def write(path: Path, text: str) -> None:
    """Replace the whole of kedge.toml; its mode stays, and a link keeps its target.

    Raises:
        OSError: it cannot be written.
    """
    target = path.resolve()
    mode = target.stat().st_mode & 0o7777 if target.exists() else 0o600
    write_atomically(target, text.encode(), mode=mode)


def owner_from_git() -> tuple[str, str]:
    """Return the owner that `init` writes: git's user as TOML strings, or a placeholder."""
    found = []
    for key, otherwise in (
        ("user.name", UNNAMED_OWNER.name),
        ("user.email", UNNAMED_OWNER.contact),
    ):
        try:
            asked = subprocess.run(  # noqa: S603 - a fixed command
                ["git", "config", "--get", key],  # noqa: S607
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=5,
                check=False,
            )
            told = asked.stdout.strip()
            # A build machine's git user may be "CI": that is no owner, but must not stop init.
            found.append(otherwise if not told or is_group(told.partition("@")[0]) else told)
        except (OSError, subprocess.TimeoutExpired):
            found.append(otherwise)
    return quoted(found[0]), quoted(f"mailto:{found[1]}")


def quoted(text: str) -> str:
    """Return a TOML string. JSON's escapes are valid in TOML except for surrogates and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
