"""What every command shares: where kedge.toml is, which endpoint is meant, how to print and to fail.

Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 written but not acknowledged,
4 something that is needed cannot be reached. A failure ends with a `hint:`.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge.system.terminal import indented, one_line, show, show_json

if TYPE_CHECKING:
    from kedge.config.model import Settings
    from kedge.core.errors import KedgeError
    from kedge.core.features.generations import Online
    from kedge.core.features.schema import FeatureLimits
    from kedge.core.release.commands import AnyCommand
    from kedge.engine.submission import Gate
    from kedge.workspace import Workplace

DONE, REFUSED, USAGE, NOT_ACKNOWLEDGED, UNAVAILABLE = 0, 1, 2, 3, 4


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
        from kedge.config.locate import find_config

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
        from kedge.config.load import load
        from kedge.config.locate import no_kedge_here

        if not self.config.exists():
            raise no_kedge_here(self.config, named=self._named is not None)
        return load(self.config)

    @property
    def state_dir(self) -> Path:
        """Where the ledger is. A damaged kedge.toml must not keep anyone from rolling back."""
        from kedge.config.model import STATE_DIR
        from kedge.core.errors import BadConfig

        try:
            where = self.settings.server.state_dir
        except BadConfig:
            where = STATE_DIR
        return (self.config.parent / where).absolute()

    @property
    def fence(self) -> str:
        """What becomes of a model that cannot be fenced. A damaged kedge.toml must not hinder a rollback."""
        from kedge.config.model import Server
        from kedge.core.errors import BadConfig

        try:
            return self.settings.server.fence
        except BadConfig:
            return Server().fence

    @property
    def gateway_url(self) -> str:
        """Where the gateway listens by kedge.toml; by default where that cannot be read."""
        from kedge.config.model import Server
        from kedge.core.errors import BadConfig
        from kedge.runtime.announcement import get_url

        try:
            server = self.settings.server
        except BadConfig:
            server = Server()
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
        from kedge.core.errors import BadConfig
        from kedge.core.features.schema import FeatureLimits

        try:
            return self.settings.features.limits
        except BadConfig:
            return FeatureLimits()

    def place(self, *, patience_s: float = 5.0) -> Workplace:
        """The state directory, opened.

        Raises:
            KedgeError: there is none, as `check_here` has it.
        """
        from kedge.core.values import ActorKind
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
        )

    def check_here(self) -> None:
        """Raise where there is no state directory to work on."""
        from kedge.config.locate import check_here

        check_here(self.config, self.state_dir, named=self._named is not None)

    def configured(self) -> Collection[str]:
        """The endpoints of kedge.toml; none where it is damaged, which must not keep anyone from rolling back."""
        from kedge.core.errors import BadConfig

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
            import msgspec

            show_json(msgspec.json.encode(data))
        elif text:
            show(text)


def _exit_code(error: KedgeError) -> int:
    from kedge.core.errors import BadConfig, NotAcknowledged, Unavailable, Usage

    kinds = (
        (BadConfig, USAGE),
        (Usage, USAGE),
        (NotAcknowledged, NOT_ACKNOWLEDGED),
        (Unavailable, UNAVAILABLE),
    )
    return next((code for kind, code in kinds if isinstance(error, kind)), REFUSED)


def fail(error: KedgeError, *, as_json: bool) -> int:
    """Print an error, with its hint, and return the exit code. A closed terminal changes no exit code."""
    with contextlib.suppress(OSError):
        if as_json:
            import msgspec

            told = {
                "code": error.code,
                "message": str(error),
                "hint": error.hint,
                **error.details,
            }
            show_json(msgspec.json.encode({"error": told}))
        else:
            show(f"error: {indented(str(error))}", err=True)
        if error.hint:
            show(f"hint: {error.hint}", err=True)
    return _exit_code(error)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command its --json. Errors leave it as they are: `cli.root` prints them."""

    @click.option("--json", "as_json", is_flag=True, help="Print data as one JSON document.")
    @click.pass_obj
    @functools.wraps(function)
    def run(context: Context, /, *args: Any, as_json: bool, **kwargs: Any) -> None:
        context.as_json = as_json
        function(context, *args, **kwargs)

    return run


# ---------------------------------------------------------------- which endpoint


class _Checked(click.Parameter):
    """A parameter that names an endpoint. It is checked before anything else: a typo never creates anything."""

    every = False
    """Whether none means all of them; else none means the only one."""
    needs_row = True
    """Whether an endpoint that only kedge.toml names is refused."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """Take the value, and replace it by an endpoint that there is.

        Raises:
            Refused: `unknown_endpoint`.
            Usage: `endpoint_needed`.
        """
        value, args = super().handle_parse_result(ctx, opts, args)
        if not ctx.resilient_parsing and not opts.get("help"):
            given = value if isinstance(value, str) else None
            if not given and isinstance(ctx.command, click.Group):
                given = None  # a command of the group was typed in its place
            ctx.params[self.name] = value = self._find(ctx, given)
        return value, args

    def _find(self, ctx: click.Context, given: str | None) -> str | None:
        from kedge.operations.known_endpoints import find_endpoint, only_endpoint

        if given is None and self.every:
            return None
        context = ctx.find_object(Context)
        assert context is not None
        if given is None:
            return only_endpoint(
                context.place(), context.configured, typed(ctx), needs_row=self.needs_row
            )

        def configured() -> Collection[str]:
            return context.configured() if self.needs_row else context.settings.endpoints.keys()

        return find_endpoint(context.place(), given, configured, needs_row=self.needs_row)


class EndpointArgument(_Checked, click.Argument):
    """ENDPOINT."""


class EndpointOption(_Checked, click.Option):
    """--endpoint ENDPOINT, of a command that is about all of them without it."""

    every = True


def endpoint(
    *, required: bool = False, every: bool = False, needs_row: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command its ENDPOINT.

    Args:
        required: whether it must be typed, because another argument follows it. Else the only one is meant.
        every: whether none means all of them.
        needs_row: whether one that only kedge.toml names is refused.
    """

    class Argument(EndpointArgument):
        pass

    Argument.every, Argument.needs_row = every, needs_row
    return click.argument(
        "endpoint", cls=Argument, required=required, is_eager=True, shell_complete=complete_endpoint
    )


def endpoint_option(help_text: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command its --endpoint."""
    return click.option(
        "--endpoint",
        cls=EndpointOption,
        is_eager=True,
        shell_complete=complete_endpoint,
        help=help_text,
    )


def typed(ctx: click.Context) -> str:
    """Return a command as it was typed, such as "kedge features hold"."""
    names = [ctx.info_name or ""]
    while ctx.parent is not None:
        ctx = ctx.parent
        names.append(ctx.info_name or "")
    return " ".join(reversed(names))


def complete_endpoint(ctx: click.Context, _: click.Parameter, begins: str) -> list[str]:
    """Return the endpoints that begin so, for a shell."""
    from kedge.core.errors import KedgeError
    from kedge.operations.known_endpoints import list_endpoints

    context = Context(ctx.find_root().params.get("config"))
    try:
        names = {*list_endpoints(context.place())[0], *context.configured()}
    except (KedgeError, OSError):
        return []
    return sorted(name for name in names if name.startswith(begins))


def complete_version(ctx: click.Context, _: click.Parameter, begins: str) -> list[str]:
    """Return the registered versions of the endpoint that was typed before, for a shell."""
    from kedge.core.errors import KedgeError

    context = Context(ctx.find_root().params.get("config"))
    try:
        versions = context.place().registry.versions(ctx.params.get("endpoint") or "")
    except (KedgeError, OSError):
        return []
    found = [f"v{version.number}" for version in versions]
    return [one for one in found if one.startswith(begins)]


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
    import signal

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def repeat(show: Callable[[], None], *, again: bool) -> None:
    """Show something once, or each second until Ctrl-C."""
    import contextlib
    import signal
    import threading

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


def gate_before(context: Context, place: Workplace, say: Callable[[str], None]) -> Gate:
    """What a release passes on its way into production."""
    from kedge.core.errors import BadConfig
    from kedge.operations.readiness.check import gate_of

    try:
        loopback = context.settings.server.loopback
    except BadConfig:
        loopback = True  # the gate sees where gateways listen, too
    return gate_of(place, lambda: context.online, loopback=loopback, say=say)


def submit(
    context: Context,
    endpoint: str,
    make: Callable[[Workplace], AnyCommand],
    reason: str = "",
    *,
    finding: bool = False,
) -> None:
    """Submit a command and print its receipt; with `finding`, the newest diagnosis of what was left.

    Where a replica is silent the same is printed, and then the fault: the row has moved.
    """
    from kedge.cli.text.report import finding_text, receipt_data, receipt_text
    from kedge.core.release.commands import Promote
    from kedge.engine.submission import Silent
    from kedge.operations.probe import probe
    from kedge.workspace import actor

    place = context.place()
    command = make(place)
    say = context.say if not context.as_json else lambda text: None
    gate = None
    if isinstance(command, Promote):  # no other command waits for its imports
        gate = gate_before(context, place, say)
    control = place.control(say, probe(place), gate)
    silent: Silent | None = None
    try:
        receipt = control.submit(endpoint, command, by=actor(), reason=reason)
    except Silent as error:
        receipt, silent = error.receipt, error
    data, text = receipt_data(receipt), receipt_text(one_line(receipt))
    if finding:  # only now: nothing delays the command
        from kedge.operations.rollback import finding_beside

        known = finding_beside(context.state_dir, endpoint, data["left"])
        data["finding"] = known
        text += f"\n{finding_text(one_line(known))}" if known is not None else ""
    if silent is None:
        context.out(data, text)
        return
    if context.as_json:  # one document on stdout: the fault's, and it has all of this
        silent.details |= data
    else:
        context.out(data, text)
    raise silent
