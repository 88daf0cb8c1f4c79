"""What every verb of the command line shares: where things are, how to print, how to fail.

Exit codes: 0 done, 1 refused, 2 usage or configuration, 3 written but not acknowledged,
4 something that is needed cannot be reached. A failure ends with a `hint:`.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kedge.terminal import indented, one_line, show, show_json

if TYPE_CHECKING:
    from kedge.core.commands import AnyCommand
    from kedge.core.errors import KedgeError
    from kedge.core.features import FeatureLimits
    from kedge.core.generations import Online
    from kedge.engine.control import Gate
    from kedge.settings import Settings
    from kedge.wiring import Workplace

DONE, REFUSED, USAGE, NOT_ACKNOWLEDGED, UNAVAILABLE = 0, 1, 2, 3, 4


class Context:
    """What every verb knows: where the configuration is, and how to print."""

    def __init__(self, config: Path, acting_as: str = "person") -> None:
        self.config = config
        self.acting_as = acting_as
        """A value of `ActorKind`: what the entries of this command say of who wrote them."""
        self.as_json = False

    @functools.cached_property
    def settings(self) -> Settings:
        """kedge.toml, checked."""
        from kedge.settings import load

        return load(self.config)

    @property
    def state_dir(self) -> Path:
        """Where the ledger is. A damaged kedge.toml must not keep anybody from rolling back."""
        from kedge.core.errors import BadConfig
        from kedge.settings import STATE_DIR

        try:
            where = self.settings.server.state_dir
        except BadConfig:
            where = STATE_DIR
        return (self.config.parent / where).absolute()

    @property
    def fence(self) -> str:
        """What becomes of a model that cannot be fenced. A damaged kedge.toml must not hinder a rollback."""
        from kedge.core.errors import BadConfig
        from kedge.settings import Server

        try:
            return self.settings.server.fence
        except BadConfig:
            return Server().fence

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
        from kedge.core.features import FeatureLimits

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
        from kedge.wiring import Workplace

        self.check_here()
        kind = ActorKind(self.acting_as)
        return Workplace(
            self.state_dir,
            patience_s=patience_s,
            actor=kind,
            limits=self.feature_limits,
            fence=self.fence,
        )

    def check_here(self) -> None:
        """Raise where there is no state directory to work on."""
        from kedge.engine.locate import check_here

        check_here(self.config, self.state_dir)

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
    from kedge.core.errors import BadConfig, NotAcknowledged, Unavailable

    kinds = ((BadConfig, USAGE), (NotAcknowledged, NOT_ACKNOWLEDGED), (Unavailable, UNAVAILABLE))
    return next((code for kind, code in kinds if isinstance(error, kind)), REFUSED)


def verb(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb its --json, and turn errors into words, a hint and an exit code."""

    @click.option("--json", "as_json", is_flag=True, help="Print data as one JSON document.")
    @click.pass_obj
    @functools.wraps(function)
    def run(context: Context, /, *args: Any, as_json: bool, **kwargs: Any) -> None:
        from kedge.core.errors import KedgeError

        context.as_json = as_json
        try:
            function(context, *args, **kwargs)
        except KedgeError as error:
            if as_json:
                import msgspec

                body = {
                    "code": error.code,
                    "message": str(error),
                    "hint": error.hint,
                    **error.details,
                }
                show_json(msgspec.json.encode({"error": body}))
            else:
                show(f"error: {indented(str(error))}", err=True)
            if error.hint:
                show(f"hint: {error.hint}", err=True)
            sys.exit(_exit_code(error))

    return run


def override(function: Callable[..., None]) -> Callable[..., None]:
    """Give a verb --override REASON; --force is its older spelling, and hidden."""

    @click.option("--override", metavar="REASON", callback=_reason,
                  help="Do it although the rules say no; logged.")  # fmt: skip
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
    from kedge.readying import gate_of

    try:
        loopback = context.settings.server.loopback
    except BadConfig:
        loopback = True  # the gate sees where gateways listen, too
    return gate_of(place, lambda: context.online, loopback=loopback, say=say)


def submit(
    context: Context, endpoint: str, make: Callable[[Workplace], AnyCommand], reason: str = "", *,
    finding: bool = False,
) -> None:  # fmt: skip
    """Submit a command and print its receipt; with `finding`, the newest diagnosis of what was left.

    Where a replica is silent the same is printed, and then the fault: the row has moved.
    """
    from kedge.core.commands import Promote
    from kedge.engine.control import Silent
    from kedge.report import finding_text, receipt_data, receipt_text
    from kedge.verbs import probe
    from kedge.wiring import actor

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
        from kedge.verbs import finding_beside

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
