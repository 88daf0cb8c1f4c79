"""Question about chance: whether it is proven that there is no cause."""

from __future__ import annotations

from kedge.core.diagnosis.advice import excluded
from kedge.core.diagnosis.case import Case, DiagnosisAnswer
from kedge.core.diagnosis.contrast import FLOOR, HINT, PROOF_LEVEL, WORLD_MARGIN, Mean
from kedge.core.diagnosis.findings import Cause, Finding


def chance(case: Case, known: DiagnosisAnswer) -> DiagnosisAnswer:
    """Ask whether it is proven that neither the release nor the world made it worse."""
    facts, release, world = case.facts, known.contrast, known.rise
    # Without a second release, only the world can have changed since its own reference.
    alone = facts.old is None and facts.reference_of == "new"
    well = alone or (release is not None and case.is_below(release, FLOOR))
    if well and world is not None and (known.spell or _is_harmless(case, world)):
        return DiagnosisAnswer(findings=(_noise(case, release, world, known.spell),))
    logs = (f"log {lack.log}" for lack in known.missing)
    told = "; ".join(filter(None, (known.spell, *logs)))
    said = told or "no cause was found, and none is excluded"
    return DiagnosisAnswer(findings=(Finding(cause=Cause.CANNOT_TELL, statement=said),))


def _is_harmless(case: Case, world: Mean) -> bool:
    """Return whether two windows prove that the world made nothing worse."""
    if world.z >= HINT and not case.is_below(world, FLOOR):
        return False
    return case.is_below(world, WORLD_MARGIN)


def _noise(case: Case, release: Mean | None, world: Mean, spell: str) -> Finding:
    """Return the finding of noise, with the changes that are excluded."""
    usual = case.floor / FLOOR
    tops = [
        max(found.interval(PROOF_LEVEL)[1] / usual, 0) if found is not None else None
        for found in (release, world)
    ]
    return Finding(cause=Cause.NOISE, statement=excluded(tops[0], tops[1], spell))
