"""Proof: how sure and how large a change must be before a diagnosis names a cause."""

Z = 3.5
"""Standard errors from which an effect is believed: once in 4,000 healthy cases, one-sided. The
judge has spent its error already, and a diagnosis asks five questions."""
FLOOR = 0.05
"""Of the reference's loss: a smaller change is nobody's incident."""
PROOF_LEVEL = 0.99
"""Of the intervals whose upper end must be below what is tolerated, for noise to be proven."""
WORLD_MARGIN = 0.25
"""Of the reference's loss: the rise by the world that noise has to exclude. Five times the floor,
since two windows hold different requests: with 2,000 labels now and 4,000 before the standard
error is about 4 % of the loss (an outcome's own chance, which no adjustment removes), so 2.6 of
them and room for an estimate that is 3.5 off make 24 %. The release's contrast is paired, has a
tenth of that error, and is held to the floor."""
HINT = 3.0
"""Standard errors from which a rise by the world is no noise, unless surely below the floor."""
LOST = 0.05
"""Of the log: with more torn or dropped, what is left may be what was easy to write."""
