"""Evidence about two releases: bets on bad units, the judge that keeps them, its verdicts."""
