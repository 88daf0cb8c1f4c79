"""Help: pages of the documentation, examples for every command, and completion for shells."""

from __future__ import annotations

from typing import Literal

import click

from kedge.cli.completion import SHELLS
from kedge.cli.context import Context, prints, verb
from kedge.cli.pages import COMMANDS, PAGES
from kedge.cli.root import ALIASES, COMPLETING, MEANT
from kedge.cli.topics import HelpTopic, explain_code, find_topic, list_topics
from kedge.core.errors import Refused
from kedge.core.names import nearest
from kedge.core.values import Value
from kedge.system.terminal import show_page


class ListedTopic(Value, frozen=True):
    """One page in a list of the documentation's pages."""

    topic: str
    """The topic, as `kedge help` takes it."""
    title: str
    section: str
    """The heading of its section."""


class HelpText(Value, frozen=True):
    """A page of the documentation, the help of a command, or the meaning of an error code."""

    topic: str
    """The requested topic."""
    text: str


class CompletionScript(Value, frozen=True):
    """A script that makes a shell complete commands and endpoints."""

    shell: Literal["bash", "zsh", "fish"]
    script: str


def _topics(_: click.Context, __: click.Parameter, begins: str) -> list[str]:
    return [topic.name for topic in list_topics() if topic.name.startswith(begins)]


@click.command("help")
@click.argument("topic", nargs=-1, shell_complete=_topics)
@verb
@prints(HelpText | list[ListedTopic])
def show_help(context: Context, topic: tuple[str, ...]) -> None:
    """Show a page of the documentation, or list the topics."""
    if topic:
        word = " ".join(topic)
        text = _explain(word)
        if context.as_json:
            context.out(HelpText(word, text), "")
        else:
            show_page(text)
        return
    topics = list_topics()
    told = [ListedTopic(one.name, one.title, one.section) for one in topics]
    context.out(told, _list(topics))


def _explain(word: str) -> str:
    """Return a page, the help of a command, or the meaning of an error code.

    Raises:
        Refused: `unknown_topic`.
    """
    root = click.get_current_context().find_root()
    commands = {*COMMANDS, *PAGES}
    word, _, anchor = word.partition("#")
    word = ALIASES.get(word, word)
    page = find_topic(word)
    if page is not None:
        more = f"\n\nOptions and examples: kedge {word} --help" if word in commands else ""
        return page.read(anchor).rstrip() + more
    if word in commands:
        ctx = root
        for name in word.split():
            assert isinstance(ctx.command, click.Group)
            command = ctx.command.get_command(ctx, name)
            assert command is not None
            ctx = click.Context(command, info_name=name, parent=ctx)
        return ctx.get_help()
    told = explain_code(word)
    if told:
        return "\n".join(f"- {line}" for line in told)
    near = MEANT.get(word.lower()) or nearest(
        word, [*(topic.name for topic in list_topics()), *commands]
    )
    raise Refused(
        f"no topic {word[:80]}",
        code="unknown_topic",
        hint=(f"did you mean kedge help {near}? " if near else "") + "kedge help lists the topics",
    )


def _list(topics: list[HelpTopic]) -> str:
    """Return the topics as text, under the headings of the documentation."""
    width = max((len(topic.name) for topic in topics), default=0)
    lines = ["kedge help TOPIC shows a page; TOPIC may also be a command or an error code"]
    heading = ""
    for topic in topics:
        if topic.section != heading:
            heading = topic.section
            lines += ["", f"{heading}:"]
        lines.append(f"  {topic.name:{width}}  {topic.title}")
    return "\n".join(lines)


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@verb
@prints(CompletionScript)
def completion(context: Context, shell: Literal["bash", "zsh", "fish"]) -> None:
    """Print what makes SHELL complete commands and endpoints."""
    root = click.get_current_context().find_root().command
    script = SHELLS[shell](root, {}, "kedge", COMPLETING).source()
    context.out(CompletionScript(shell, script), script)
