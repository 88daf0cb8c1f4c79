"""Terminal output: the only module that prints; its output cannot control a terminal.

Other people write ids, segment values and reasons. Unescaped, they could set the title, clear the
screen, hide text, or write lines that look like kedge's own.
"""

from __future__ import annotations

import re
import sys
from collections.abc import MutableMapping
from typing import Any

import click
import msgspec

_INVISIBLE = (
    "\x7f-\x9f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f"
    "\ufeff\ufff9-\ufffb\ud800-\udfff"
)
"""DEL and C1, soft hyphen, marks and overrides of direction, zero width, separators, surrogates."""
_CONTROL = re.compile(f"[\x00-\x08\x0b-\x1f{_INVISIBLE}]")
"""Characters that no text must contain; tabs and line ends are kedge's own."""
_IN_VALUE = re.compile(f"[\x00-\x1f{_INVISIBLE}]")
"""Characters that no value within a line must contain."""


def printable(text: str) -> str:
    """Return a text with every control character escaped as in JSON."""
    return _CONTROL.sub(_spelled, text)


def one_line(value: Any) -> Any:
    """Return a value, struct or tuple with control characters and line ends escaped in strings."""
    if type(value) is str:  # not an enum, whose spellings are kedge's own
        return _IN_VALUE.sub(_spelled, value)
    if isinstance(value, dict):
        return {one_line(key): one_line(item) for key, item in value.items()}
    if isinstance(value, list):
        return [one_line(item) for item in value]
    if isinstance(value, tuple):
        items = [one_line(item) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if isinstance(value, msgspec.Struct):
        fields = {name: one_line(getattr(value, name)) for name in value.__struct_fields__}
        return msgspec.structs.replace(value, **fields)
    return value


def indented(message: str) -> str:
    """Return a message with further lines indented, so that they do not look like kedge's own."""
    return message.replace("\n", "\n       ")


def show(text: str, *, err: bool = False) -> None:
    """Print a text for people; to stderr with `err`."""
    click.echo(printable(text), err=err)


def show_page(text: str) -> None:
    """Print a long text; on a terminal, one screen at a time."""
    if sys.stdout.isatty():
        click.echo_via_pager(printable(text))
    else:
        click.echo(printable(text))


def show_json(raw: bytes) -> None:
    """Print a JSON document; it also escapes C1 and similar characters, which changes no value."""
    click.echo(printable(raw.decode()))


def clear() -> None:
    """Clear the screen if the output is a terminal."""
    click.clear()


def clean_event(_: Any, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Escape control characters in a log event that is rendered for a terminal."""
    for key, value in event.items():
        text = value if isinstance(value, str) else repr(value)
        event[key] = printable(text) if key == "exception" else one_line(text)
    return event


def _spelled(found: re.Match[str]) -> str:
    return f"\\u{ord(found[0]):04x}"
