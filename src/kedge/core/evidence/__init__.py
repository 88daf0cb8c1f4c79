"""Evidence about two releases: bets on bad units, the judge that places them, its verdicts."""
