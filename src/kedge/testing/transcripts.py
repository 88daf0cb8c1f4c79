"""Transcripts: commands with the effect of each, replayed on the pure core.

A transcript is a text file of blocks with a blank line between them, as in etcd's raft:

    # what this is about
    canary v2 --weight 1
    ----
    canary_started release=r2 weight=1% salt=flights/3
    [3] canary production=r1 candidate=r2 weight=1% back=-

Commands are the CLI's words, without the endpoint. Some prepare the scene and change no row:
`register v2 --needs dep_delay:float32,origin:string? --gives p_late:float32` and `transformation 2`
(which later releases are made with). A trace is the events or the refusal, then the row in one
line. `replay` writes every trace again: when the text is unchanged, the transcript still holds.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import NamedTuple

import msgspec

from kedge.core.codec import fingerprint
from kedge.core.release.commands import (
    Abort,
    AnyCommand,
    AnyEvent,
    Canary,
    Certify,
    Configure,
    Drill,
    Fail,
    Follow,
    Freeze,
    Hold,
    Pause,
    Promote,
    Resume,
    Return,
    Rollback,
    SetWeight,
    Shadow,
    Thaw,
)
from kedge.core.release.guards import buckets, per_cent
from kedge.core.release.machine import apply, decide
from kedge.core.routing import bucket, compile_plan, key_of
from kedge.core.values import BUCKETS, Field, Placement, Policy, Refusal, Release, State
from kedge.testing.samples import AT, GIVES, NEEDS, endpoint, fields, release

RULE = "----"
FLAGS = ("full", "production", "no-lease", "auto")
BARE: dict[str, type[Pause | Abort | Freeze | Thaw | Follow | Hold | Return]] = {
    "pause": Pause,
    "abort": Abort,
    "freeze": Freeze,
    "thaw": Thaw,
    "follow": Follow,
    "hold": Hold,
    "return": Return,
}


class CommandLine(NamedTuple):
    """Parsed command line."""

    verb: str
    words: list[str]
    options: dict[str, str]

    @property
    def word(self) -> str:
        """The only argument."""
        (word,) = self.words
        return word


def replay(transcript: str) -> str:
    """Run every command of a transcript; return the transcript with the resulting traces."""
    story = Story()
    return "\n\n".join(_replayed(story, block) for block in _blocks(transcript)) + "\n"


def _blocks(transcript: str) -> list[str]:
    return [block.strip("\n") for block in transcript.split("\n\n") if block.strip()]


def _replayed(story: Story, block: str) -> str:
    head = block.split("\n" + RULE, 1)[0]
    commands = [line for line in head.splitlines() if line and not line.startswith("#")]
    if not commands:
        return block
    (command,) = commands
    return "\n".join([head, RULE, *story.tell(command)])


def read(line: str) -> CommandLine:
    """Parse a command line."""
    verb, *rest = shlex.split(line)
    words: list[str] = []
    options: dict[str, str] = {}
    parts = iter(rest)
    for part in parts:
        name = part.removeprefix("--")
        if name == part:
            words.append(part)
        else:
            options[name] = "yes" if name in FLAGS else next(parts)
    return CommandLine(verb, words, options)


class Story:
    """One endpoint, its registered versions, and the row as the commands left it."""

    def __init__(self) -> None:
        self.state: State = endpoint()
        self._needs: dict[int, str] = {}
        self._gives: dict[int, str] = {}
        self._transformation = 1
        self._verbs: dict[str, Callable[[CommandLine], Iterator[str]]] = {
            "register": self._register,
            "transformation": self._transform,
            "status": self._status,
            "route": self._route,
        }

    def tell(self, text: str) -> list[str]:
        """Run one command and return the lines of its trace."""
        line = read(text)
        return list(self._verbs.get(line.verb, self._command)(line))

    def _register(self, line: CommandLine) -> Iterator[str]:
        number = int(line.word.removeprefix("v"))
        self._needs[number] = line.options.get("needs", NEEDS)
        self._gives[number] = line.options.get("gives", GIVES)
        told = f" and gives {self._gives[number]}" if "gives" in line.options else ""
        yield f"{line.word} needs {self._needs[number]}{told}"

    def _transform(self, line: CommandLine) -> Iterator[str]:
        self._transformation = int(line.word)
        yield f"releases are made with transformation {self._transformation}"

    def _command(self, line: CommandLine) -> Iterator[str]:
        command = self._asked(line)  # first: naming a version makes its release
        outcome = decide(self.state, command, AT)
        if isinstance(outcome, Refusal):
            yield f"refused {outcome.code}: {outcome.message}"
            yield f"hint: {outcome.hint}"
        else:
            for event in outcome:
                self.state = apply(self.state, event)
                yield told(event)
        yield row(self.state)

    def _asked(self, line: CommandLine) -> AnyCommand:
        """Translate the CLI's words into a command."""
        override = line.options.get("override")
        match line.verb:
            case "apply":
                return self._configure(line.words)
            case "promote":
                named = self._release(line.word) if line.words else None
                return Promote(
                    release=named,
                    full="full" in line.options,
                    override=override,
                    equivalence=line.options.get("equivalence"),
                )
            case "shadow":
                sample = buckets(float(line.options.get("sample", "100")))
                return Shadow(release=self._release(line.word), sample=sample, override=override)
            case "canary":
                weight = buckets(float(line.options["weight"]))
                return Canary(
                    release=self._release(line.word),
                    weight=weight,
                    override=override,
                    auto="auto" in line.options,
                )
            case "certify":
                return Certify(release=self._release(line.word))
            case "drill":
                return Drill(until=float(line.options.get("until", "10")))
            case "set-weight":
                return SetWeight(weight=buckets(float(line.word)), override=override)
            case "resume":
                return Resume(override=override)
            case "fail":
                return Fail(release=self._release(line.word), reason=line.options["reason"])
            case "pause" if "failure" in line.options:
                return Pause(failure=line.options["failure"])
            case "rollback":
                to = line.options.get("to")
                return msgspec.convert(
                    {
                        "command": "rollback",
                        "production": "production" in line.options,
                        "to": int(to.removeprefix("r")) if to else None,
                        "axis": line.options.get("axis"),
                    },
                    Rollback,
                )
            case verb:
                return BARE[verb]()

    def _release(self, label: str) -> int:
        """Return the number of the release that a version makes today; `r3` names it directly."""
        number = int(label[1:])
        if label.startswith("r"):
            return number
        for known in self.state.releases.values():
            made = (known.version, known.transformation, known.placement)
            if made == (number, self._transformation, self._placement):
                return known.number
        return self._make(number).number

    def _make(self, version: int) -> Release:
        made = release(
            len(self.state.releases) + 1,
            version=version,
            needs=self._needs[version],
            gives=self._gives[version],
            transformation=self._transformation,
            placement=self._placement,
        )
        self.state = msgspec.structs.replace(
            self.state, releases={**self.state.releases, made.number: made}
        )
        return made

    @property
    def _placement(self) -> Placement:
        declared = self.state.policy.runtime
        return Placement.PROCESS if declared == "process" else Placement.INLINE

    def _configure(self, words: list[str]) -> Configure:
        """Read the words of a policy.

        `apply audience=customer steps=1,5 fields=x:float32 answers=y:float32 runtime=process`
        """
        raw = msgspec.to_builtins(self.state.policy)
        for word in words:
            key, _, value = word.partition("=")
            if key in ("fields", "answers"):
                raw[key] = msgspec.to_builtins(fields(value))
            elif key == "steps":
                raw["canary"]["steps"] = [float(step) for step in value.split(",")]
            else:
                raw[key] = value
        policy = msgspec.convert(raw, Policy)
        return Configure(policy=policy, digest=fingerprint(policy), diff=tuple(words))

    def _status(self, _: CommandLine) -> Iterator[str]:
        state = self.state
        yield row(state)
        yield f"back_model={_label(state.back_model)} back_features={_label(state.back_features)}"
        yield f"served={_labels(state.served)} condemned={_labels(state.condemned)}"
        yield f"fields={_named(state.fields)} answers={_named(state.answers or ())}"

    def _route(self, line: CommandLine) -> Iterator[str]:
        """Read `route N14228 - --draw 17 --asked r1 --no-lease`; a dash is a keyless request."""
        plan = compile_plan(self.state, lease="no-lease" not in line.options)
        asked = line.options.get("asked")
        for word in line.words:
            entity = None if word == "-" else word
            choice = plan.choose(
                entity,
                int(line.options.get("draw", BUCKETS - 1)),
                int(asked.removeprefix("r")) if asked else None,
            )
            where = self._bucket(entity) if entity else "no entity"
            copied = f", copied to {_label(choice.shadow)}" if choice.shadow else ""
            yield (
                f"{word} ({where}): {choice.arm} {_label(choice.release)}, {choice.reason}{copied}"
            )

    def _bucket(self, entity: str) -> str:
        salt = self.state.salt
        return f"bucket {bucket(key_of(salt), entity)}" if salt else "no rollout"


def row(state: State) -> str:
    """Return one line with the live parts of a row."""
    parts = [f"[{state.epoch}] {state.stage}", f"production={_label(state.production)}"]
    if state.candidate is not None:
        share = f"weight={_share(state.weight)}" if state.weight else ""
        copies = f"sample={_share(state.sample)}" if state.sample else ""
        parts += [f"candidate={_label(state.candidate)}", share or copies or "weight=0%"]
    parts += ["paused"] if state.paused else []
    parts += ["auto"] if state.automation.auto else []
    parts += ["frozen"] if state.automation.frozen else []
    parts += ["restored"] if state.unconfirmed else []
    parts += ["follows"] if state.follow else []
    parts += [f"left={_label(state.drill.left)}"] if state.drill is not None else []
    parts.append(f"back={_label(state.back)}")
    parts += [f"condemned={_labels(state.condemned)}"] if state.condemned else []
    failed = state.automation.failures
    parts += (
        [f"failed={','.join(f'r{f.candidate}/r{f.production}' for f in failed)}"] if failed else []
    )
    return " ".join(parts)


def told(event: AnyEvent) -> str:
    """Return one line that describes an event."""
    parts = [str(event.__struct_config__.tag)]
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if value is not None and name in SHOWN:
            parts.append(f"{name}={SHOWN[name](value)}")
    return " ".join(parts)


def _label(number: int | None) -> str:
    return "-" if number is None else f"r{number}"


def _labels(numbers: tuple[int, ...]) -> str:
    return ",".join(_label(number) for number in numbers) or "-"


def _share(weight: int) -> str:
    return f"{per_cent(weight):g}%"


def _named(declared: tuple[Field, ...]) -> str:
    return ",".join(f"{f.name}:{f.dtype}{'?' * f.nullable}" for f in declared) or "-"


SHOWN: dict[str, Callable[..., str]] = {
    "release": _label,
    "replaced": _label,
    "production": _label,
    "left": _label,
    "weight": _share,
    "sample": _share,
    "previously": _share,
    "salt": str,
    "axis": str,
    "override": repr,
    "equivalence": repr,
    "reason": repr,
    "fields": _named,
    "answers": _named,
    "diff": " ".join,
}
"""Fields of an event that a trace shows, each with its format. Instants, digests and policies are
noise."""
