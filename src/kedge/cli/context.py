"""Context of a command: the place of kedge.toml, and the output.

It imports little: `kedge help` and `kedge up` import it first, and a command of another host's
control needs neither kedge.toml nor the workspace.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from kedge.cli.screen.bar import Bar
from kedge.config.locate import check_here, find_config, no_kedge_here
from kedge.core.codec import encode
from kedge.core.errors import BadConfig, Refused, Unavailable
from kedge.system.imports import quick_imports
from kedge.system.terminal import (
    is_drawn,
    is_movable,
    one_line,
    show,
    show_drawn,
    show_json,
)

if TYPE_CHECKING:
    from kedge.cli.blocks import Screen
    from kedge.cli.remote import Remote
    from kedge.cli.uploads import NamedFiles, NamedResult
    from kedge.config.model import ServerSettings, Settings
    from kedge.core.features.generations import Online
    from kedge.core.features.schema import FeatureLimits
    from kedge.core.links import PageLinks
    from kedge.workspace import Workplace

Result = TypeVar("Result")


class Shown(NamedTuple):
    """A result in each of its forms."""

    data: object
    """The document of --json."""
    text: str
    """The text for a pipe or a file."""
    screen: Screen | None = None
    """The blocks for a terminal; None: the text."""
    note: str = ""
    """A message beside it."""


class Context:
    """The context that every command shares: the configuration, and the output."""

    def __init__(self, config: Path | None = None, acting_as: str = "person") -> None:
        self._named = config
        self.acting_as = acting_as
        """A value of `ActorKind`: the kind of actor in the entries of this command."""
        self.expect: int | None = None
        """The epoch that the caller of control saw; None: any."""
        self.allowed_by = ""
        """The token that allowed the request to control; empty for a command on this machine."""
        self.as_json = False
        self.insecure = False
        """Whether plain http to another host is accepted."""
        self.document: Any = None
        """The type of the document that the command prints."""
        self._warned = False

    @functools.cached_property
    def remote(self) -> Remote | None:
        """The server of KEDGE_SERVER, on which the command runs; None: it runs on this machine."""
        if not os.environ.get("KEDGE_SERVER"):
            return None
        from kedge.cli.remote import connect

        return connect(os.environ, insecure=self.insecure)

    @property
    def named_actor(self) -> str:
        """The actor of a correction, with the token that allowed it if the command came to control."""
        from kedge.workspace import actor

        return f"{actor()} ({self.allowed_by})" if self.allowed_by else actor()

    def result(
        self,
        local: Callable[[], Result],
        files: Callable[[], Mapping[str, NamedFiles]] | None = None,
        writes: NamedResult | None = None,
    ) -> Result:
        """Return the command's result: of the server if there is one, else of `local`.

        Args:
            local: does the work on this machine.
            files: names the files that the command reads, by parameter; they are uploaded first.
            writes: what the command writes; it is downloaded at the end.
        """
        if self.remote is None:
            return local()
        ctx = click.get_current_context()
        name, sent = name_command(ctx), None
        if files is not None:
            from kedge.cli.uploads import RESULT, send_files

            sent = send_files(self.remote, name, ctx.params.get("endpoint"), files(), self.say)
            if writes is not None:
                sent[writes.parameter] = RESULT
        found: Result = self.remote.run(ctx, name, self.document, sent)
        if sent is not None and writes is not None:
            from kedge.cli.uploads import fetch_results

            fetch_results(self.remote, sent["upload"], writes.path, self.say)
        return found

    @functools.cached_property
    def config(self) -> Path:
        """The path of kedge.toml: of --config or KEDGE_CONFIG, else the nearest one here or above.

        If there is none, it is the path that `kedge init` would write.

        Raises:
            BadConfig: `foreign_config`: it belongs to another user; `no_directory`: the working
                directory was deleted.
        """
        return find_config() if self._named is None else self._named.absolute()

    @property
    def config_here(self) -> Path:
        """The path of kedge.toml for a new file: of --config, else in the working directory."""
        return self._named.absolute() if self._named is not None else Path("kedge.toml").absolute()

    @functools.cached_property
    def settings(self) -> Settings:
        """The checked settings of kedge.toml.

        Raises:
            BadConfig: it has faults; `no_kedge_here`: there is none here or above.
        """
        from kedge.config.load import load

        if not self.config.exists():
            raise no_kedge_here(self.config, named=self._named is not None)
        return load(self.config)

    @property
    def _server(self) -> ServerSettings:
        """The settings of [server]; the defaults if kedge.toml is damaged, so that a rollback works."""
        from kedge.config.model import ServerSettings

        try:
            return self.settings.server
        except BadConfig:
            return ServerSettings()

    @property
    def damage(self) -> BadConfig | None:
        """The faults of a kedge.toml that exists and cannot be used; None without any."""
        try:
            _ = self.settings
        except BadConfig as error:
            return error if error.code == BadConfig.code else None
        return None

    @property
    def state_dir(self) -> Path:
        """The state directory. A damaged kedge.toml must not prevent a rollback."""
        return (self.config.parent / self._server.state_dir).absolute()

    @property
    def fence(self) -> str:
        """The setting `fence`."""
        return self._server.fence

    @property
    def loopback(self) -> bool:
        """Whether only this machine reaches the gateway; the gate sees where gateways listen, too."""
        return self._server.loopback

    @property
    def gateway_url(self) -> str:
        """The gateway's URL."""
        from kedge.runtime.announcement import get_url

        return get_url(self._server.host, self._server.port)

    @property
    def links(self) -> PageLinks:
        """The addresses of the dashboard's pages."""
        return self._server.links

    @property
    def online(self) -> Online:
        """The lookup of values by key, with the rules for missing values.

        Raises:
            BadConfig: kedge.toml is damaged or incomplete.
        """
        return self.settings.online.opened(self.config.parent, self.state_dir)

    @property
    def feature_limits(self) -> FeatureLimits:
        """The limits of the process that runs features files; none if kedge.toml is damaged."""
        from kedge.core.features.schema import FeatureLimits

        try:
            return self.settings.features.limits
        except BadConfig:
            return FeatureLimits()

    def place(self, *, patience_s: float = 5.0, warns: bool = True) -> Workplace:
        """Open the state directory.

        Args:
            patience_s: how long a statement waits for other writers.
            warns: whether a damaged kedge.toml is reported: its settings are not used then.

        Raises:
            KedgeError: there is none, as in `check_here`.
        """
        # Imported only here: `kedge help` works on every system, and an image of `kedge up` whose
        # imports fail keeps its workers.
        from kedge.core.values import ActorKind

        if self.remote is not None:
            raise local_only(name_command(click.get_current_context()))
        self.check_here()
        if warns:
            self._warn()
        limits, fence = self.feature_limits, self.fence
        with quick_imports():  # it imports the database library when it is made
            from kedge.workspace import Workplace, site_of

            return Workplace(
                self.state_dir,
                patience_s=patience_s,
                actor=ActorKind(self.acting_as),
                token=self.allowed_by,
                limits=limits,
                fence=fence,
                site=site_of(self.config, self.links),
                online=lambda: self.online,
            )

    def check_here(self) -> None:
        """Raise if there is no state directory to work on.

        Raises:
            BadConfig: also if kedge.toml is damaged, since it could name another directory.
        """
        try:
            check_here(self.config, self.state_dir, named=self._named is not None)
        except Unavailable as error:
            if error.code == "no_state" and self.damage is not None:
                raise self.damage from None
            raise

    def _warn(self) -> None:
        """Report once that the settings of a damaged kedge.toml are not used."""
        damage = self.damage
        if damage is not None and not self._warned:
            self._warned = True
            others = len(damage.faults) - 1
            more = f" (and {others} more: kedge config check)" if others else ""
            self.say(
                f"warning: {one_line(damage.faults[0])}{more}; this command uses the default"
                f" settings, and the state directory {one_line(str(self.state_dir))}"
            )

    def configured(self) -> Collection[str]:
        """Return the endpoints of kedge.toml; none if it is damaged, so that a rollback works."""
        try:
            return self.settings.endpoints.keys()
        except BadConfig:
            return ()

    @functools.cached_property
    def say(self) -> Callable[[str], None]:
        """The function that prints a message to stderr, so that stdout has only data.

        On a terminal it also draws the progress of long work, as a bar.
        """
        return self._bar or functools.partial(show, err=True)

    @functools.cached_property
    def _bar(self) -> Bar | None:
        return Bar() if is_movable(sys.stderr) else None

    def clear(self) -> None:
        """Remove what shows progress, before the result or an error."""
        if self._bar is not None:
            self._bar.clear()

    def out(self, data: object, text: str, screen: Screen | None = None) -> None:
        """Print data: as JSON with --json, on a terminal as a screen if there is one, else as text.

        Only a screen imports rich: piped output does not wait for it.
        """
        self.clear()
        if self.as_json:
            show_json(encode(data))
        elif screen is not None and is_drawn(sys.stdout):
            from kedge.cli.screen.draw import draw
            from kedge.cli.screen.live import get_width

            show_drawn(draw(screen, get_width()))
        elif text:
            show(text)

    def repeat(self, read: Callable[[], Shown], clock: Callable[[], float], *, again: bool) -> None:
        """Print a result once, or each second until Ctrl-C.

        Args:
            read: reads the result.
            clock: Unix time.
            again: whether to repeat. On a terminal, its second screen shows the newest result.
        """

        def show() -> Shown:
            shown = read()
            self.out(shown.data, shown.text, shown.screen)
            if shown.note:
                self.say(shown.note)
            return shown

        def look() -> Screen:
            shown = read()
            assert shown.screen is not None
            return shown.screen

        if not again:
            show()
        elif self.as_json or not is_drawn(sys.stdout) or not is_movable(sys.stdout):
            repeat(show)
        else:
            from kedge.cli.screen.live import LiveView

            LiveView(f"kedge {' '.join(sys.argv[1:])}", look, clock).run()


def get_context(ctx: click.Context) -> Context:
    """Return the context of this command line; the first call makes it from `kedge`'s options."""
    root = ctx.find_root()
    if not isinstance(root.obj, Context):
        root.obj = Context(root.params.get("config"), root.params.get("acting_as", "person"))
        root.obj.expect = root.params.get("expect")
        root.obj.allowed_by = root.params.get("allowed_by", "")
        root.obj.insecure = root.params.get("insecure", False)
    return root.obj


def name_command(ctx: click.Context) -> str:
    """Return the words of a command without `kedge`, such as "features hold"."""
    names: list[str] = []
    while ctx.parent is not None:
        names.append(ctx.command.name or "")
        ctx = ctx.parent
    return " ".join(reversed(names))


def local_only(name: str) -> Refused:
    """Return the refusal of a command that works only on the host of the state directory."""
    return Refused(
        f"kedge {name} works only on the host of the state directory",
        code="local_only",
        hint="run it there, without KEDGE_SERVER",
    )


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Add --json to a command. It does not catch errors: `cli.root` prints them."""

    @click.option("--json", "as_json", is_flag=True, help="Print data as one JSON document.")
    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, *args: Any, as_json: bool, **kwargs: Any) -> None:
        context = get_context(ctx)
        context.as_json = as_json
        context.document = getattr(function, "document", None)
        name = name_command(ctx)
        if context.remote is not None and not context.remote.has(name, ctx.params):
            raise local_only(name + (" --local" if ctx.params.get("local") else ""))
        try:
            function(context, *args, **kwargs)
        finally:
            context.clear()

    return run


def prints(document: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Declare the type of the document that a command prints with --json; None: it prints none.

    docs/reference/json.md is generated from it, and the tests compare the output with it.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        function.document = document  # type: ignore[attr-defined]
        return function

    return declare


def override(function: Callable[..., None]) -> Callable[..., None]:
    """Add --override REASON to a verb; --force is its older spelling, and hidden."""

    @click.option(
        "--override",
        metavar="REASON",
        callback=_reason,
        help="Override the rules; the reason is recorded.",
    )
    @click.option("--force", metavar="REASON", callback=_reason, hidden=True)
    @functools.wraps(function)
    def run(*args: Any, override: str | None, force: str | None, **kwargs: Any) -> None:
        function(*args, override=force if override is None else override, **kwargs)

    return run


def _reason(_: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    if given is not None and not given.strip():
        raise click.BadParameter("a reason is required; the ledger records it", param=parameter)
    return given


def end_in_order() -> None:
    """Make SIGTERM end this command as an exception does, so that it cleans up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def repeat(show: Callable[[], object]) -> None:
    """Call `show` each second until Ctrl-C."""
    ended = threading.Event()

    def end(*_: object) -> None:
        # Python drops an exception raised inside a destructor, and Ctrl-C may arrive in one.
        ended.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    with contextlib.suppress(KeyboardInterrupt):
        while not ended.is_set():
            show()
            ended.wait(1)
