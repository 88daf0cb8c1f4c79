"""Terminal output: the only module that prints; its output cannot control a terminal.

Other people write ids, segment values and reasons. Unescaped, they could set the title, clear the
screen, hide text, or write lines that look like kedge's own. Unencodable, they could end a command
after it has changed the row: what a stream's encoding lacks is escaped too.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TextIO

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
_COLOUR = re.compile("(\x1b\\[[0-9;]*m)")
"""A sequence that changes the colour of the text after it, and nothing else."""
_ASCII = str.maketrans("\u2026\u2014\u2013\u2501\u2500", "~--=-")
"""kedge's own signs for a terminal that has only ASCII: ellipsis, dashes, and the lines of a bar.
Each is one column wide, so that tables stay aligned."""
FIXED_TERMINALS = frozenset({"", "dumb", "unknown"})
"""Values of TERM for terminals whose cursor cannot be moved."""
PLAIN_SIZE = os.terminal_size((80, 24))
"""Columns and lines if the output is no terminal: a file, a pipe, a log."""


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
    click.echo(fit(printable(text), sys.stderr if err else sys.stdout), err=err)


def fit(text: str, stream: TextIO, environ: Mapping[str, str] = os.environ) -> str:
    """Return a text in which every character is one that a stream can show."""
    encoding = stream.encoding or "ascii"
    if text.isascii() or (encoding.lower() == "utf-8" and not _is_ascii(stream, environ)):
        return text
    text = text.translate(_ASCII)
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return "".join(_encodable(one, encoding) for one in text)
    return text


def _is_ascii(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Return whether a stream is a terminal whose locale names no encoding."""
    named = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG", "")
    if named == "C.UTF-8" and not environ.get("LC_ALL"):
        named = environ.get("LANG", "")  # LC_CTYPE is Python's own: it replaces "C"
    return named in ("", "C", "POSIX") and stream.isatty()


def _encodable(character: str, encoding: str) -> str:
    """Return a character, or its escape as in JSON."""
    try:
        character.encode(encoding)
    except UnicodeEncodeError:
        raw = character.encode("utf-16-be")
        return "".join(f"\\u{raw[at : at + 2].hex()}" for at in range(0, len(raw), 2))
    return character


def show_page(text: str) -> None:
    """Print a long text; on a terminal, one screen at a time."""
    if sys.stdout.isatty():
        click.echo_via_pager(fit(printable(text), sys.stdout))
    else:
        show(text)


def show_drawn(text: str) -> None:
    """Print a text with colours; every other control character in it is escaped."""
    # Colours were left out already where the terminal has none.
    click.echo(fit(_keep_colours(text), sys.stdout), color=True)


def _keep_colours(text: str) -> str:
    parts = _COLOUR.split(text)
    parts[::2] = map(printable, parts[::2])
    return "".join(parts)


def is_drawn(stream: TextIO) -> bool:
    """Return whether a stream gets tables and colours: as rich decides it, without its import."""
    compatible = os.environ.get("TTY_COMPATIBLE", "")
    if compatible in ("0", "1"):
        return compatible == "1"
    forced = os.environ.get("FORCE_COLOR")
    return stream.isatty() if forced is None else forced != ""


def is_movable(stream: TextIO) -> bool:
    """Return whether a stream is a terminal whose cursor can be moved, for a live view."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in FIXED_TERMINALS


def get_size() -> os.terminal_size:
    """Return the columns and lines of the terminal; COLUMNS and LINES replace them."""
    return shutil.get_terminal_size(PLAIN_SIZE)


def enter_screen() -> None:
    """Change to the terminal's second screen, without a cursor; `leave_screen` undoes it."""
    _steer("\x1b[?1049h\x1b[?25l\x1b[2J")


def leave_screen() -> None:
    """Change back to the first screen, as it was."""
    _steer("\x1b[?2026l\x1b[?25h\x1b[?1049l")


def paint(lines: Sequence[str]) -> None:
    """Write drawn lines over the screen: at once where the terminal can, and never cleared before.

    A line must be narrower than the screen. What follows it is erased.
    """
    body = "\x1b[K\r\n".join(map(_keep_colours, lines))
    _steer(f"\x1b[?2026h\x1b[H{body}\x1b[K\x1b[J\x1b[?2026l")


def _steer(sequence: str) -> None:
    """Write a control sequence of kedge's own."""
    sys.stdout.write(fit(sequence, sys.stdout))
    sys.stdout.flush()


def rewrite(line: str) -> None:
    """Write a line over the last one on stderr, which must be a terminal; empty: erase it."""
    sys.stderr.write(fit(f"\r\x1b[K{printable(line)}", sys.stderr))
    sys.stderr.flush()


def show_json(raw: bytes) -> None:
    """Print a JSON document; it also escapes C1 and similar characters, which changes no value."""
    show(raw.decode())


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
