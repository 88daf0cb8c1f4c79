"""What commands show on a real terminal, and what a live view leaves behind."""

from __future__ import annotations

import itertools
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.cells import cell_len

from kedge.cli.blocks import Paragraph, Screen
from kedge.cli.context import Context
from kedge.cli.screen.live import LiveView
from kedge.config.load import load
from kedge.core.errors import Unavailable
from kedge.operations.progress import Progress
from kedge.operations.setup import apply_policies, create_workplace
from kedge.workspace import Workplace
from support.terminal import ASKING, COLOUR, CONTROL, kedge, shown, terminal

KEDGE = [sys.executable, "-m", "kedge"]
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"
SHOWN, HIDDEN = "\x1b[?25h", "\x1b[?25l"


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    (folder / "kedge.toml").write_text("[endpoints.churn]\n[endpoints.risk]\n")
    create_workplace(folder / ".kedge")
    apply_policies(Workplace(folder / ".kedge"), load(folder / "kedge.toml"))
    return folder


def counting(
    fails: int = -1, error: Exception | None = None, lines: int = 1
) -> Callable[[], object]:
    """A live view of a number that grows; reading one of them fails."""
    numbers = itertools.count()

    def read() -> Screen:
        number = next(numbers)
        if number == fails:
            raise error or ValueError("a bug")
        return [Paragraph(f"number {number}")] * lines

    return LiveView("kedge status", read, lambda: 0.0).run


LOCKED = Unavailable("the ledger is locked", code="ledger_locked")

# ---------------------------------------------------------------- one result


@pytest.mark.parametrize("columns", [60, 80, 200])
def test_status_is_a_table_with_a_line_for_each_endpoint(two: Path, columns: int) -> None:
    told = shown(two, ["status"], columns=columns)
    assert COLOUR.search(told)
    head, *lines = COLOUR.sub("", told).splitlines()
    assert head.split()[:2] == ["ENDPOINT", "PRODUCTION"]
    assert [line.split()[0] for line in lines[:2]] == ["churn", "risk"]
    assert max(map(cell_len, (head, *lines))) <= columns
    assert not CONTROL.search(COLOUR.sub("", told))


def test_the_table_says_the_same_without_colour_and_on_a_terminal_that_cannot_do_any(
    two: Path,
) -> None:
    coloured = COLOUR.sub("", shown(two, ["status"]))
    without = shown(two, ["status"], NO_COLOR="1")
    assert not re.search("\x1b\\[[0-9;]*3[0-9]", without)
    assert COLOUR.sub("", without) == coloured
    assert shown(two, ["status"], TERM="dumb") == coloured


@pytest.mark.parametrize("forced, drawn", [(None, False), ("1", True), ("", False)])
def test_a_pipe_gets_text_unless_colour_is_asked_for(
    two: Path, forced: str | None, drawn: bool
) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in ASKING}
    environ |= {"FORCE_COLOR": forced} if forced is not None else {}
    done = subprocess.run(
        [*KEDGE, "status"], cwd=two, env=environ, check=True, capture_output=True, text=True
    )
    assert bool(COLOUR.search(done.stdout)) == drawn
    assert ("ENDPOINT" in done.stdout) == drawn


@pytest.mark.parametrize("words, expected", [("['status']", True), ("['status', '--json']", False)])
def test_rich_is_imported_for_a_screen_only(two: Path, words: str, expected: bool) -> None:
    script = (
        "import os, sys\nfrom kedge.__main__ import run\n"
        f"sys.argv[1:] = {words}\n"
        "try:\n    run()\nfinally:\n    print('rich is', 'rich.table' in sys.modules)\n"
    )

    def work() -> None:
        os.chdir(two)
        os.execv(sys.executable, [sys.executable, "-c", script])

    with terminal(work) as one:
        one.end()
        assert f"rich is {expected}" in one.shown


# ---------------------------------------------------------------- a live view


def test_a_live_view_repaints_without_clearing_and_restores_the_terminal_at_ctrl_c(
    two: Path,
) -> None:
    with terminal(kedge(two, "status", "--watch")) as one:
        one.until(re.escape(ENTER + HIDDEN))
        one.until("2026l")
        again = one.until(r"\x1b\[\?2026h.*?\x1b\[\?2026l")
        assert "\x1b[H" in again[0]
        assert "\x1b[2J" not in again[0]
        one.type("\x03")
        assert one.end() == 0
        _, kept = one.shown.split(SHOWN + LEAVE)
        kept = COLOUR.sub("", kept)
        assert kept.split()[:2] == ["ENDPOINT", "PRODUCTION"], "the last result stays"
        assert "churn" in kept


def test_a_live_view_restores_the_terminal_when_it_is_ended_or_fails() -> None:
    with terminal(counting()) as one:
        one.until("number 0")
        one.kill(signal.SIGTERM)
        assert one.end() == 128 + signal.SIGTERM
        assert SHOWN + LEAVE in one.shown
    with terminal(counting(fails=1)) as one:
        assert one.end() == 1
        before, after = one.shown.split(SHOWN + LEAVE)
        assert "number 0" in before
        assert "ValueError: a bug" in after, "the fault is on the first screen"


def test_what_cannot_be_read_leaves_the_last_result_with_its_age() -> None:
    with terminal(counting(fails=1, error=LOCKED), columns=120) as one:
        one.until("number 0")
        one.until("it cannot be read: ledger_locked: the ledger is locked; the last result is 0 s")
        one.until("number 0")
        one.until("number 2")
        one.type("\x03")
        assert one.end() == 0
    with terminal(counting(fails=0, error=LOCKED)) as one:
        assert one.end() == 1
        assert ENTER not in one.shown


def test_a_live_view_follows_the_size_of_the_terminal() -> None:
    with terminal(counting(lines=30), lines=10) as one:
        cut = one.until(r"\x1b\[H(.*?)\.\.\. 23 more lines: make the window taller")
        assert cut[1].count("number") == 7
        one.resize(80, 40)
        while "more lines" in (all_ := one.until(r"\x1b\[H.*?\x1b\[J"))[0]:
            pass
        assert all_[0].count("number") == 30
        one.type("\x03")
        assert one.end() == 0


def test_ctrl_z_gives_the_terminal_back_until_it_continues() -> None:
    with terminal(counting()) as one:
        one.until("number 0")
        one.type("\x1a")
        one.until(re.escape(SHOWN + LEAVE))
        _, status = os.waitpid(one.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        one.kill(signal.SIGCONT)
        one.until(re.escape(ENTER))
        one.until("number")
        one.type("\x03")
        assert one.end() == 0


def test_where_the_cursor_cannot_be_moved_a_live_view_is_the_table_again_and_again(
    two: Path,
) -> None:
    with terminal(kedge(two, "status", "--watch"), TERM="dumb") as one:
        one.until("churn")
        one.until("ENDPOINT")
        one.type("\x03")
        assert one.end() == 0
        assert "\x1b" not in one.shown


# ---------------------------------------------------------------- progress


def working() -> None:
    """A command that reports progress and a message, and then fails."""
    context, now = Context(), itertools.count()
    work = Progress(context.say, lambda: float(next(now)), "rows made", 10)
    for number in range(5):
        work.add()
        if number == 2:
            context.say("a row was left out")
    context.out({}, "the result")
    work.add()
    context.clear()
    raise RuntimeError("a bug")


def test_long_work_draws_a_bar_that_makes_room_for_everything_else() -> None:
    with terminal(working, columns=60) as one:
        assert one.end() == 1
        shown = one.shown.replace("\r\n", "\n")
    assert re.search("\r\x1b\\[K 20% ━+─+  2 of 10 rows made; about [0-9]+ s left", shown)
    assert "\r\x1b[Ka row was left out\n\r\x1b[K 30% ━" in shown
    assert "\r\x1b[Kthe result\n" in shown
    assert "60% " in shown
    assert "\r\x1b[KTraceback" in shown


def test_where_nothing_can_be_drawn_long_work_says_a_line_at_a_time() -> None:
    with terminal(working, TERM="dumb") as one:
        one.end()
        assert "1 of 10 rows made" in one.shown
        assert "━" not in one.shown
        assert "\x1b" not in one.shown
