"""A shadow whose evidence is stored, without processes: names and values in it have markup."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from contract.sql_world import POLICY, World, world
from kedge.core.evidence.rules import METHOD
from kedge.core.evidence.windows import Agreement, Differing, DisagreeingPair, Window
from kedge.core.release.commands import Promote, Shadow
from kedge.core.values import Contact, Rota
from kedge.workspace import Workplace

SCRIPT = "<img src=x onerror=alert(1)>"
SEGMENT = f"origin={SCRIPT}"
EXAMPLE = "0190a0a0-0000-7000-8000-000000000000/0"
SECONDS = 90


@dataclass
class Shadowed:
    """r1 is production and r3 its shadow, with counts of the last minute and a half."""

    world: World
    place: Workplace
    began: int
    written: int = 0

    def write(self, seconds: int) -> None:
        """Write the counts of so many further seconds."""
        salt, first = self.world.row().salt, self.written
        self.written += seconds
        self.place.windows.write(
            [window(self.began + n, n, salt) for n in range(first, self.written)]
        )

    @property
    def state_dir(self) -> Path:
        return self.world.state_dir


def make_shadowed(directory: Path) -> Shadowed:
    """Make the state directory of such a comparison. Names and values in it have markup."""
    made = world(directory)
    people = (Contact(f"Grace {SCRIPT}", "grace@example.org"),)
    made.configure(
        msgspec.structs.replace(
            POLICY,
            segments=("x",),
            owner=Contact(f"Ada {SCRIPT}", "ada@example.org"),
            rota=Rota(start="2026-01-01T00:00:00Z", people=people),
        )
    )
    made.do(Promote(release=1))
    made.do(Shadow(release=3))
    place = Workplace(made.state_dir)
    began = int(time.time()) - SECONDS - 5
    shadowed = Shadowed(made, place, began)
    shadowed.write(SECONDS)
    return shadowed


def window(at: int, number: int, salt: str) -> Window:
    pair = DisagreeingPair(EXAMPLE, (SEGMENT,), SCRIPT, "0.2", (Differing("y", f"7{SCRIPT}", "8"),))
    return Window(
        replica="w0",
        number=number,
        endpoint="flights",
        production=1,
        candidate=3,
        salt=salt,
        at=at,
        weight=0,
        paired=True,
        method=METHOD,
        exposed={"": (20, 20), SEGMENT: (8, 8)},
        bad={"errors": {"": (0, 1), SEGMENT: (0, 1)}},
        agreement={"": Agreement(20, 18), SEGMENT: Agreement(8, 6)},
        examples=(pair,) if number == 1 else (),
        mirrored=20,
        copied=20,
    )
