"""What every command shares: where kedge.toml is, and how to print.

It imports little: `kedge help` and `kedge up` read it before anything else.
"""

from __future__ import annotations

import contextlib
import functools
import signal
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge.config.load import load
from kedge.config.locate import check_here, find_config, no_kedge_here
from kedge.config.model import STATE_DIR, ServerSettings, Settings
from kedge.core.codec import encode
from kedge.core.errors import BadConfig
from kedge.core.features.generations import Online
from kedge.core.features.schema import FeatureLimits
from kedge.core.values import ActorKind
from kedge.runtime.announcement import get_url
from kedge.system.terminal import show, show_json

if TYPE_CHECKING:
    from kedge.workspace import Workplace


class Context:
    """What every command knows: where the configuration is, and how to print."""

    def __init__(self, config: Path | None = None, acting_as: str = "person") -> None:
        self._named = config
        self.acting_as = acting_as
        """A value of `ActorKind`: what the entries of this command say of who wrote them."""
        self.as_json = False

    @functools.cached_property
    def config(self) -> Path:
        """kedge.toml: the one that --config or KEDGE_CONFIG names, else the nearest one upwards from here.

        Where there is none it is the one that `kedge init` would write.

        Raises:
            BadConfig: `foreign_config`: it is of another user; `no_directory`: the working directory was deleted.
        """
        return find_config() if self._named is None else self._named.absolute()

    @property
    def config_here(self) -> Path:
        """kedge.toml as --config names it, else that of the working directory, for what begins anew there."""
        return self._named.absolute() if self._named is not None else Path("kedge.toml").absolute()

    @functools.cached_property
    def settings(self) -> Settings:
        """kedge.toml, checked.

        Raises:
            BadConfig: it has faults; `no_kedge_here`: there is none here or above.
        """
        if not self.config.exists():
            raise no_kedge_here(self.config, named=self._named is not None)
        return load(self.config)

    @property
    def state_dir(self) -> Path:
        """Where the ledger is. A damaged kedge.toml must not keep anyone from rolling back."""
        try:
            where = self.settings.server.state_dir
        except BadConfig:
            where = STATE_DIR
        return (self.config.parent / where).absolute()

    @property
    def fence(self) -> str:
        """What becomes of a model that cannot be fenced. A damaged kedge.toml must not hinder a rollback."""
        try:
            return self.settings.server.fence
        except BadConfig:
            return ServerSettings().fence

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens by kedge.toml; by default where that cannot be read."""
        try:
            server = self.settings.server
        except BadConfig:
            server = ServerSettings()
        return get_url(server.host, server.port)

    @property
    def online(self) -> Online:
        """Where values are looked up by key, and the rules for what is not there.

        Raises:
            BadConfig: kedge.toml is damaged, or says too little.
        """
        return self.settings.online.opened(self.config.parent, self.state_dir)

    @property
    def feature_limits(self) -> FeatureLimits:
        """Of the process in which features files run; a damaged kedge.toml sets none."""
        try:
            return self.settings.features.limits
        except BadConfig:
            return FeatureLimits()

    def place(self, *, patience_s: float = 5.0) -> Workplace:
        """The state directory, opened.

        Raises:
            KedgeError: there is none, as `check_here` has it.
        """
        # Only here: `kedge help` works on every system, and an image of `kedge up` that cannot
        # be imported keeps its workers.
        from kedge.workspace import Workplace

        self.check_here()
        kind = ActorKind(self.acting_as)
        return Workplace(
            self.state_dir,
            patience_s=patience_s,
            actor=kind,
            limits=self.feature_limits,
            fence=self.fence,
            config=self.config,
            online=lambda: self.online,
        )

    def check_here(self) -> None:
        """Raise where there is no state directory to work on."""
        check_here(self.config, self.state_dir, named=self._named is not None)

    def configured(self) -> Collection[str]:
        """The endpoints of kedge.toml; none where it is damaged, which must not keep anyone from rolling back."""
        try:
            return self.settings.endpoints.keys()
        except BadConfig:
            return ()

    def say(self, text: str) -> None:
        """Talk: to stderr, so that stdout stays data."""
        show(text, err=True)

    def out(self, data: object, text: str) -> None:
        """Data: as JSON when asked, else as text for people."""
        if self.as_json:
            show_json(encode(data))
        elif text:
            show(text)


def get_context(ctx: click.Context) -> Context:
    """Return what the commands of this line share, made of the options of `kedge` at the first call."""
    root = ctx.find_root()
    if not isinstance(root.obj, Context):
        root.obj = Context(root.params.get("config"), root.params.get("acting_as", "person"))
    return root.obj


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command its --json. Errors leave it as they are: `cli.root` prints them."""

    @click.option("--json", "as_json", is_flag=True, help="Print data as one JSON document.")
    @click.pass_context
    @functools.wraps(function)
    def run(ctx: click.Context, /, *args: Any, as_json: bool, **kwargs: Any) -> None:
        context = get_context(ctx)
        context.as_json = as_json
        function(context, *args, **kwargs)

    return run


def prints(document: object) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """State the type of the document that a command prints with --json; None: it prints none.

    docs/reference/json.md is made from it, and the tests hold what is printed against it.
    """

    def declare(function: Callable[..., None]) -> Callable[..., None]:
        function.document = document  # type: ignore[attr-defined]
        return function

    return declare


def override(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb --override REASON; --force is its older spelling, and hidden."""

    @click.option(
        "--override",
        metavar="REASON",
        callback=_reason,
        help="Do it although the rules say no; logged.",
    )
    @click.option("--force", metavar="REASON", callback=_reason, hidden=True)
    @functools.wraps(function)
    def run(*args: Any, override: str | None, force: str | None, **kwargs: Any) -> None:
        function(*args, override=force if override is None else override, **kwargs)

    return run


def _reason(_: click.Context, parameter: click.Parameter, given: str | None) -> str | None:
    if given is not None and not given.strip():
        raise click.BadParameter("a reason is needed: it stands in the ledger", param=parameter)
    return given


def end_in_order() -> None:
    """Let SIGTERM end this command as an exception does: what it has begun is cleaned up."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def repeat(show: Callable[[], None], *, again: bool) -> None:
    """Show something once, or each second until Ctrl-C."""
    if not again:
        show()
        return
    ended = threading.Event()

    def end(*_: object) -> None:
        # Python drops what is raised inside a destructor, and Ctrl-C may land in one.
        ended.set()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, end)
    with contextlib.suppress(KeyboardInterrupt):
        while not ended.is_set():
            show()
            ended.wait(1)
