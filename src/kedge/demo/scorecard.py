"""The quality of the answers by the labels of the replayed flights.

Releases are compared on the same days only: the season alone moves the share of late flights
from 13 to 33 per cent, far more than any release does. So the figures beside each other come
from epochs in which both releases answered, that is, from the canary.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kedge.demo.figures import AnswerScore, AnswerScores
from kedge.demo.flights import NO_LABEL

FEWEST = 20
"""Answers a release needs within an epoch to be compared there."""


def quality(
    release: NDArray[np.str_],
    epoch: NDArray[np.int64],
    p_late: NDArray[np.float64],
    label: NDArray[np.int8],
) -> AnswerScores:
    """Score the answers: per release over everything it answered, and side by side."""
    known = label != NO_LABEL
    release, epoch, p_late, label = release[known], epoch[known], p_late[known], label[known]
    names = sorted(set(release.tolist()))
    shared = np.zeros(len(release), dtype=bool)
    for number in set(epoch.tolist()):
        here = epoch == number
        counts = [int((here & (release == name)).sum()) for name in names]
        if sum(count >= FEWEST for count in counts) > 1:
            shared |= here
    return AnswerScores(
        all={name: score(p_late[release == name], label[release == name]) for name in names},
        side_by_side={
            name: score(p_late[mine], label[mine])
            for name in names
            if (mine := shared & (release == name)).any()
        },
        without_label=int((~known).sum()),
    )


def score(p_late: NDArray[np.float64], label: NDArray[np.int8]) -> AnswerScore:
    """Log loss, share right at 0.5, and the actual against the predicted lateness."""
    said = np.clip(p_late, 1e-6, 1 - 1e-6)
    loss = -np.where(label == 1, np.log(said), np.log1p(-said))
    return AnswerScore(
        flights=len(label),
        late=round(float(label.mean()), 4),
        said_late=round(float(p_late.mean()), 4),
        called_late=round(float((p_late > 0.5).mean()), 4),
        right=round(float(((p_late > 0.5) == label).mean()), 4),
        log_loss=round(float(loss.mean()), 4),
    )
