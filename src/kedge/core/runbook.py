"""The runbook of an endpoint: the commands of an incident, the people on duty, the times.

Theory of operation
-------------------
* It is generated from the row and from the ledger's measurements, and from nothing else. So it
  names the live releases, and it cannot promise what the product cannot do.
* The *way back* is what an operator does at three in the morning, from top to bottom. Its seconds
  add up to less than ten minutes. Steps that only some incidents need come after it.
* Every line in a block of commands can be typed as it stands; a test does.
* `digest` covers all its sources. Another policy, production or way back makes it stale.
"""

from __future__ import annotations

import html
import shlex
from collections.abc import Iterable, Mapping

import msgspec

from kedge.core.alerts.alerts import on_duty, rungs
from kedge.core.codec import fingerprint
from kedge.core.diagnosis.summary import DiagnosisSummary
from kedge.core.links import PageLinks
from kedge.core.release.ways_back import returned
from kedge.core.stored.notes import DrillResult, ReceiptNote
from kedge.core.values import Stage, State, Value

MOST_S = 600.0
"""Time limit of the whole way back: a rollback is promised within ten minutes."""
READ_S = 60.0
"""Time in which a person who was asleep reads a screen of text, at two hundred words a minute, and
finds the keyboard."""
DECIDE_S = 120.0
"""Time of the decision to roll back. It is long, because it is the only step that needs thought."""
TYPE_S = 15.0
"""Time to type a line of this page."""
FLIP_S = 1.0
"""Time from a rollback's command to the last ack while the way back is loaded: kedge's own aim."""
DIAGNOSE_S = 30.0
"""Time to diagnose a hundred thousand requests, on two cores."""

PEOPLE_S = READ_S + DECIDE_S + TYPE_S + READ_S + TYPE_S + DIAGNOSE_S
"""Time of the way back without the rollback itself: see, decide, type, check, diagnose."""

# ---------------------------------------------------------------- values


class Took(Value, frozen=True):
    """How long an operation last took, as the ledger recorded it."""

    seconds: float
    at: str


class RunbookStep(Value, frozen=True, kw_only=True):
    """One step. Its `commands` can be typed as they stand."""

    title: str
    why: str
    commands: tuple[str, ...] = ()
    after: str = ""
    """What the operator sees if it worked."""
    expected_s: float | None = None
    measured: Took | None = None


class Person(Value, frozen=True):
    """A person to call, and from when on."""

    when: str
    who: str


class Site(Value, frozen=True):
    """The place where an operator types the commands of a runbook."""

    host: str = ""
    config: str | None = None
    """The absolute path of kedge.toml. None: the commands name none."""
    public_url: str = ""
    """The address of the dashboard, for links; empty: there are none."""

    @property
    def directory(self) -> str:
        """The directory of kedge.toml."""
        return self.config.rpartition("/")[0] or "/" if self.config is not None else ""

    @property
    def links(self) -> PageLinks:
        """The addresses of the dashboard's pages."""
        return PageLinks(self.public_url)

    def typed(self, command: str) -> str:
        """Return a command in a form that works in every directory of the host."""
        if self.config is None:
            return command
        return f"kedge --config {shlex.quote(self.config)} {command.removeprefix('kedge ')}"


ANYWHERE = Site()
"""The site of commands that name no file: an operator types them beside kedge.toml."""


class Runbook(Value, frozen=True, kw_only=True):
    """The instructions for incidents at one endpoint."""

    endpoint: str
    made_at: str
    digest: str
    live: str
    """The live releases at the time of generation, in words."""
    people: tuple[Person, ...]
    way_back: tuple[RunbookStep, ...]
    more: tuple[RunbookStep, ...]
    site: Site = ANYWHERE
    link: str = ""
    """Its page of the dashboard; empty without `[server] public_url`."""

    @property
    def expected_s(self) -> float:
        """Seconds of the whole way back, including a person's reading and typing."""
        return sum(step.expected_s or 0.0 for step in self.way_back)


def configuration_digest(state: State) -> str:
    """Return the digest of a runbook's sources: policy, production, and the way back.

    A drill is over in seconds, so the row counts as it is without one.
    """
    state = returned(state)
    digests = {
        role: state.releases[number].digest if number in state.releases else None
        for role, number in (("production", state.production), ("back", state.back))
    }
    return fingerprint({"policy": state.policy, **digests})


def measured(notes: Iterable[tuple[str, object]]) -> dict[str, Took]:
    """Return the durations of the last rollback, drill and diagnosis in the ledger's notes.

    Args:
        notes: the time and body of each note, newest first.
    """
    found: dict[str, Took] = {}
    for at, body in notes:
        match body:
            case ReceiptNote(command="rollback", total_ms=took):
                found.setdefault("rollback", Took(took / 1e3, at))
            case DrillResult(ok=True, dry=False, total_s=took):
                found.setdefault("drill", Took(took, at))
            case DiagnosisSummary(took_s=float(took)):
                found.setdefault("diagnose", Took(took, at))
    return found


def runbook(
    state: State, took: Mapping[str, Took], *, at: str, now: float, site: Site = ANYWHERE
) -> Runbook:
    """Return the runbook of this endpoint.

    Args:
        state: the row.
        took: the last durations; see `measured`.
        at: the instant, RFC 3339 in UTC, as the page prints it.
        now: the same as Unix time, for the people on duty.
        site: the place where an operator types the commands.
    """
    state = returned(state)
    return Runbook(
        endpoint=state.endpoint,
        made_at=at,
        digest=configuration_digest(state),
        live=_live(state),
        people=_people(state, now),
        site=site,
        link=site.links.ready(state.endpoint),
        way_back=_complete(_way_back(state, took), site),
        more=_complete(_more(state, took), site),
    )


def _complete(steps: tuple[RunbookStep, ...], site: Site) -> tuple[RunbookStep, ...]:
    """Return the steps with commands that can be typed in any directory."""
    return tuple(
        msgspec.structs.replace(step, commands=tuple(map(site.typed, step.commands)))
        for step in steps
    )


# ---------------------------------------------------------------- live releases and people on duty


def _named(state: State, number: int | None) -> str:
    if number is None:
        return "none"
    release = state.releases.get(number)
    return f"r{number} (v{release.version})" if release is not None else f"r{number}"


def _live(state: State) -> str:
    parts = [
        f"production {_named(state, state.production)}",
        f"way back {_named(state, state.back)}",
    ]
    if state.candidate is not None:
        parts.append(f"candidate {_named(state, state.candidate)}, {state.stage.value}")
    return ", ".join(parts)


def _people(state: State, now: float) -> tuple[Person, ...]:
    policy = state.policy
    found = []
    if policy.owner is not None:
        found.append(Person("owner", f"{policy.owner.name}, {policy.owner.contact}"))
    if policy.rota is not None:
        duty = on_duty(policy.rota, now)
        found.append(Person("on duty when this was made", f"{duty.name}, {duty.contact}"))
        found += [
            Person("in the rota", f"{one.name}, {one.contact}")
            for one in policy.rota.people
            if one != duty
        ]
    for rung in rungs(policy, now):
        to = ", ".join(t.channel + (f" ({t.who})" if t.who else "") for t in rung.targets)
        when = f"after {_long(rung.after_s)}" if rung.after_s else "at once"
        found.append(Person(f"told {when}", to))
    return tuple(found)


# ---------------------------------------------------------------- steps


def _way_back(state: State, took: Mapping[str, Took]) -> tuple[RunbookStep, ...]:
    name = state.endpoint
    return (
        RunbookStep(
            title="See what is wrong",
            expected_s=READ_S,
            why=(
                "The alerts show what was seen, and `kedge ack` with an alert's number acknowledges"
                " it. The status shows what is live and what a rollback would restore."
            ),
            commands=(f"kedge alerts {name}", f"kedge status {name}"),
            after=_landing(state),
        ),
        RunbookStep(
            title="Decide",
            expected_s=DECIDE_S,
            why=(
                "When in doubt go back: it costs nothing that cannot be undone. When the newest"
                " finding is that the world or the data changed, going back fixes nothing, and"
                " the last part of this page is the way."
            ),
        ),
        RunbookStep(
            title="Go back",
            expected_s=TYPE_S + _flip_s(state),
            measured=took.get("rollback"),
            why=_goes(state),
            commands=(f"kedge rollback {name}",),
            after=(
                "An ack of every replica, and exit code 0. Exit code 3 names the silent "
                "replicas; all others have rolled back."
            ),
        ),
        RunbookStep(
            title="Check",
            expected_s=READ_S,
            why="Which release answers now, and whether every replica follows.",
            commands=(f"kedge status {name}", f"kedge history {name} --limit 5"),
            after=(
                "Production is what the receipt says, every replica serves its epoch, and the "
                "callers' complaint is gone."
            ),
        ),
        RunbookStep(
            title="Ask why",
            expected_s=TYPE_S + DIAGNOSE_S,
            measured=took.get("diagnose"),
            why=(
                "Model, features, data, world, or noise: with the evidence, and whether going back "
                "was right."
            ),
            commands=(f"kedge diagnose {name} --since 2h",),
            after="A finding. If it speaks against the rollback, go forward again (below).",
        ),
    )


def _landing(state: State) -> str:
    if state.back is None:
        return "There is no way back yet."
    return (
        f"The way back is {_named(state, state.back)}, and ready on every replica; where it is cold"
        " the rollback loads it first."
    )


def _flip_s(state: State) -> float:
    """Return the seconds of a rollback: more if the way back would have to be loaded."""
    back = state.releases.get(state.back) if state.back is not None else None
    return FLIP_S + (back.load_s if back is not None else 0.0)


def _goes(state: State) -> str:
    production = _named(state, state.production)
    if state.stage is Stage.CANARY:
        return (
            f"It takes the share of {_named(state, state.candidate)} to zero and condemns it; "
            f"production stays {production}."
        )
    if state.back is None:
        return "There is no way back yet: kedge refuses, and says what can be done instead."
    return (
        f"Production goes from {production} to {_named(state, state.back)}; {production} is"
        " condemned."
    )


def _always(name: str) -> tuple[RunbookStep, ...]:
    return (
        RunbookStep(
            title="If automation interferes",
            why=(
                "Nothing promotes or rolls back by itself until it is thawed; your own commands"
                " work."
            ),
            commands=(f"kedge freeze {name}",),
        ),
        RunbookStep(
            title="When automation may act again",
            why="The patrol promotes and rolls back again as the policy says.",
            commands=(f"kedge thaw {name}",),
        ),
        RunbookStep(
            title="If the finding is the world or the data",
            why=(
                "Do not go back: the release before is as bad. Fix the source of the data; or"
                " retrain or re-threshold, and register the result. If the change is permanent,"
                " accept it as the new reference."
            ),
            commands=(f'kedge accept {name} --reason "the world changed for good"',),
        ),
    )


def _more(state: State, took: Mapping[str, Took]) -> tuple[RunbookStep, ...]:
    name = state.endpoint
    found = []
    if state.stage is Stage.CANARY and state.back is not None:
        found.append(
            RunbookStep(
                title="If production itself is at fault, in the middle of a canary",
                why=f"It goes to {_named(state, state.back)}, and the rollout ends.",
                commands=(f"kedge rollback {name} --production",),
            )
        )
    for axis, number in (("features", state.back_features), ("model", state.back_model)):
        if number is not None:
            found.append(
                RunbookStep(
                    title=f"If only the {axis} went wrong",
                    why=f"It goes to {_named(state, number)}: the other half stays.",
                    commands=(f"kedge rollback {name} --axis {axis}",),
                )
            )
    if state.production is not None and state.back is not None:
        found.append(
            RunbookStep(
                title="If going back was wrong",
                why=(
                    f"Naming {_named(state, state.production)} pardons it and takes it into"
                    " production again."
                ),
                commands=(f"kedge rollback {name} --to r{state.production}",),
            )
        )
    if state.back is not None:
        found.append(
            RunbookStep(
                title="If the ledger cannot be reached (exit code 4)",
                why=(
                    "Run it on each host: it pins that host. When the ledger is back, the command"
                    " is submitted and the pin ends; the status reports it if that failed."
                ),
                commands=(f"kedge rollback {name} --local", f"kedge status {name}"),
            )
        )
    found += _always(name)
    if state.back is not None:
        found.append(
            RunbookStep(
                title="Before the next time",
                measured=took.get("drill"),
                why="Practise, and check what is not ready.",
                commands=(f"kedge drill {name}", f"kedge check {name}"),
            )
        )
    return tuple(found)


# ---------------------------------------------------------------- as text


def _long(s: float) -> str:
    if s < 1:
        return f"{s * 1e3:.0f} ms"
    return f"{s:.0f} s" if s < 120 else f"{s / 60:.0f} min"


def _times(step: RunbookStep) -> str:
    parts = [f"expected {_long(step.expected_s)}"] if step.expected_s is not None else []
    if step.measured is not None:
        parts.append(f"last measured {_long(step.measured.seconds)} on {step.measured.at[:10]}")
    return ", ".join(parts)


def _foot(book: Runbook) -> str:
    return (
        f"Made {book.made_at[:19]}Z from the live configuration, digest {book.digest[:19]}. "
        f"kedge check {book.endpoint} reports when it is stale."
    )


def _head(book: Runbook) -> list[str]:
    """Return the lines at the top: the live releases, and where to type the commands."""
    site, lines = book.site, [f"Live: {book.live}."]
    if site.config is not None:
        typed = "each command below names it, and can be typed in any directory"
        lines.append(f"Log in to the host {site.host}. kedge.toml is in {site.directory}; {typed}.")
    if book.link:
        lines.append(f"Its page of the dashboard: {book.link}")
    return lines


def _sum(book: Runbook) -> str:
    return f"{_long(book.expected_s)} in all, of the {_long(MOST_S)} that it may take"


def markdown(book: Runbook) -> str:
    """Return the page as Markdown."""
    lines = [
        f"# Runbook: {book.endpoint}",
        "",
        *(f"{line}\n" for line in _head(book)),
        "## Who to call",
        "",
    ]
    lines += [f"- {one.when}: {one.who}" for one in book.people] or ["- no one is named"]
    lines += ["", f"## The way back: {_sum(book)}", ""]
    for number, step in enumerate(book.way_back, 1):
        lines += _markdown(f"{number}. {step.title}", step)
    lines += ["## And if not", ""]
    for step in book.more:
        lines += _markdown(step.title, step)
    return "\n".join([*lines, _foot(book), ""])


def _markdown(title: str, step: RunbookStep) -> list[str]:
    times = _times(step)
    lines = [f"### {title}" + (f" ({times})" if times else ""), "", step.why, ""]
    if step.commands:
        lines += ["```sh", *step.commands, "```", ""]
    return [*lines, f"Then: {step.after}", ""] if step.after else lines


STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:46rem;margin:2rem auto;padding:0"
    " 1rem}pre{background:#f2f2f2;padding:.7rem;overflow:auto;user-select:all}"
    "small{color:#555;font-weight:normal}footer{color:#555;border-top:1px"
    " solid #ccc;margin-top:2rem}"
)


def page(book: Runbook) -> str:
    """Return the page as self-contained HTML."""
    text = html.escape
    head = "".join(f"<p>{text(line)}</p>" for line in _head(book))
    people = "".join(f"<li>{text(p.when)}: {text(p.who)}</li>" for p in book.people)
    steps = "".join(_section(f"{n}. {s.title}", s) for n, s in enumerate(book.way_back, 1))
    more = "".join(_section(step.title, step) for step in book.more)
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8"><title>Runbook:'
        f" {text(book.endpoint)}"
        f"</title><style>{STYLE}</style>\n<h1>Runbook: {text(book.endpoint)}</h1>"
        f"{head}\n"
        f"<h2>Who to call</h2><ul>{people or '<li>no one is named</li>'}</ul>\n"
        f"<h2>The way back: {_sum(book)}</h2>\n{steps}<h2>And if not</h2>\n{more}"
        f"<footer>{text(_foot(book))}</footer></html>\n"
    )


def _section(title: str, step: RunbookStep) -> str:
    text, times = html.escape, _times(step)
    small = f" <small>{text(times)}</small>" if times else ""
    commands = "".join(f"<pre>{text(line)}</pre>" for line in step.commands)
    after = f"<p>Then: {text(step.after)}</p>" if step.after else ""
    head = f"<section><h3>{text(title)}{small}</h3><p>{text(step.why)}</p>"
    return f"{head}{commands}{after}</section>\n"
