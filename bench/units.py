"""The judge by units for one step of one simulated run: alarm, certificate, floor. NumPy only.

Written from the rules, not from the product's code, so that two ways to count can be compared. A
caller counts once in each restart, with the share that the hash gives by design; restarts, rows and
steps are joined by a weighted union bound. The certificate bets once per caller on bad events capped
at c (the candidate's) and c / (1 + margin) (production's), at looks that are fixed beforehand.

Times are seconds since the step began; events are in order of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log

import numpy as np
from numpy.typing import NDArray
from worlds import Floats, Ints, Mask

RESTART_S = 600.0
PER_DAY = 144
ALARM = np.geomspace(1.2, 16.0, 20)
LOOKS = tuple(RESTART_S * 2 ** (k / 2) for k in range(23))
"""Up to 14 days."""
MOST = 1_024
"""No cap is larger."""


@dataclass(frozen=True)
class Design:
    """Every constant of the judge, so that a variant can be tried."""

    alpha: float = 0.01
    segment_stake: float = 0.2
    ramp: float = 0.9
    """Of the promise, what the declared steps have together."""
    firsts: float = 0.9
    """Of a row's promise: bets on first bad events; the rest has the counts."""
    min_bad: int = 8
    seconds: int = 3
    """Separate seconds in which the candidate was bad, before an alarm."""
    burst_least: int = 1
    burst_sigmas: float = 4.5
    settled_s: float = 1.0
    """Seconds of production's bad units that are taken to have been, at least."""
    burst_keeps: float = 1.0
    """Of what could be expected in that second, how much still counts as usual."""
    known: int = 100_000
    """Callers that are distinguished: up to so many, bets on the realised numbers are added."""
    count_caps: tuple[int, ...] = (1, 4, 16, 64, 256, 1024)
    count_bets: tuple[float, ...] = (0.02, 0.1, 0.3, 0.8)
    count_wide: tuple[float, ...] = (0.05, 0.2, 0.8)
    centre: float = 0.3
    proof_caps: tuple[int, ...] = (1, 5, 25)
    proof_bets: tuple[float, ...] = (0.15, 0.4, 0.9)


@dataclass(frozen=True)
class Seen:
    """One row of one step: bad events of newcomers, and their identities."""

    t: Floats
    unit: Ints
    arm: NDArray[np.int8]
    share: float
    """Of the newcomers, the candidate's by design."""
    burst: Mask | None = None
    side: NDArray[np.int8] | None = None
    """(callers,) the arm of each newcomer; None for requests without an entity."""
    first: Floats | None = None
    """(callers,) when each asked first."""

    def only(self, keep: Mask) -> Seen:
        """Return the same with these events only."""
        return Seen(
            self.t[keep],
            self.unit[keep],
            self.arm[keep],
            self.share,
            None if self.burst is None else self.burst[keep],
            self.side,
            self.first,
        )


def stake(k: int) -> float:
    """Return the share of restart `k`: half at once, a quarter over the first day, the rest for ever."""
    if k == 0:
        return 0.5
    day = k // PER_DAY
    return 0.25 / (PER_DAY - 1) if day == 0 else 0.25 / (day * (day + 1) * PER_DAY)


def life(k: int) -> float:
    """Return how long restart `k` lives: those on a day for ever, on an hour a day, others an hour."""
    return inf if k % PER_DAY == 0 else 86_400.0 if k % 6 == 0 else 3_600.0


def log_mean(x: Floats) -> Floats:
    """Return the logarithm of the mean of exponentials over the last axis."""
    most = x.max(-1, keepdims=True)
    most = np.where(np.isfinite(most), most, 0.0)
    with np.errstate(divide="ignore"):
        return np.asarray(most[..., 0] + np.log(np.exp(x - most).mean(-1)))


def tolerated(share: float, r0: float) -> float:
    """Return the share of bad events that a candidate `r0` times as bad has."""
    return share * r0 / (1 + share * (r0 - 1))


# ---------------------------------------------------------------- bursts


def settled(design: Design, seen: Seen) -> Seen:
    """Return the events with the candidate's bursts as one event each.

    More than K bad callers in a second are one event at a share of one half. K grows with what
    production's last ten minutes let expect. Only the candidate's are thinned, which lowers its
    evidence in every case.
    """
    none = np.zeros(len(seen.t), dtype=np.bool_)
    cand = np.flatnonzero(seen.arm == 1)
    if not len(cand):
        return Seen(seen.t, seen.unit, seen.arm, seen.share, none, seen.side, seen.first)
    second = seen.t.astype(np.int64)[cand]
    production = seen.t[seen.arm == 0]
    start = np.flatnonzero(np.r_[True, np.diff(second) > 0])
    group = np.repeat(np.arange(len(start)), np.diff(np.r_[start, len(second)]))
    span = int(seen.unit.max()) + 1
    once = np.sort(group * span + seen.unit[cand])
    once = once[np.r_[True, np.diff(once) > 0]] // span
    distinct = np.bincount(once, minlength=len(start))
    now = second[start]
    recent = np.searchsorted(production, now) - np.searchsorted(
        production, np.maximum(now - 600, 0)
    )
    expected = 3 * seen.share / (1 - seen.share) * recent / np.clip(now, design.settled_s, 600)
    over = distinct > design.burst_least + np.floor(
        expected + design.burst_sigmas * np.sqrt(expected)
    )
    if not over.any():
        return Seen(seen.t, seen.unit, seen.arm, seen.share, none, seen.side, seen.first)
    rank = np.arange(len(cand)) - start[group]
    kept = np.floor(expected * design.burst_keeps)[group]
    keep = ~none
    keep[cand[over[group] & (rank > kept)]] = False
    none[cand[over[group] & (rank == kept)]] = True
    return Seen(seen.t, seen.unit, seen.arm, seen.share, none, seen.side, seen.first).only(keep)


def proving(seen: Seen) -> Seen:
    """Return the events without production's bursts: those prove nothing for the candidate."""
    prod = np.flatnonzero(seen.arm == 0)
    if not len(prod):
        return seen
    t = seen.t[prod]
    now = np.floor(t)
    mean = (np.searchsorted(t, now) - np.searchsorted(t, np.maximum(now - 600, 0))) / np.clip(
        now, 30, 600
    )
    many = np.searchsorted(t, now + 1) - np.searchsorted(t, now)
    keep = np.ones(len(seen.t), dtype=np.bool_)
    keep[prod[many > 1 + np.floor(mean + 3.5 * np.sqrt(mean))]] = False
    return seen.only(keep)


# ---------------------------------------------------------------- the alarm


def last_bad(t: Floats, unit: Ints) -> Floats:
    """Return for each event when its caller was bad before; -inf for the first time."""
    small = len(unit) and unit.max() < 2**16  # NumPy sorts those by radix
    order = np.argsort(unit.astype(np.uint16) if small else unit, kind="stable")
    found = np.full(len(t), -inf)
    same = unit[order][1:] == unit[order][:-1]
    found[order[1:][same]] = t[order[:-1][same]]
    return found


def firsts(design: Design, seen: Seen, needed: float, r0: float = 1.0) -> float:
    """Return when the bets on first bad events sound; infinite if never.

    Args:
        design: the constants.
        seen: with bursts settled.
        needed: log 1/alpha less the logarithms of all weights but the restart's.
        r0: the rate ratio that is tolerated.
    """
    t = seen.t
    if not len(t):
        return inf
    share = tolerated(seen.share, r0)
    last = None
    if seen.side is not None:
        last = last_bad(t, seen.unit)
        some = (
            last < t // RESTART_S * RESTART_S
        )  # a restart begins between: the others count nowhere
        seen, t, last = seen.only(some), t[some], last[some]
    burst = seen.burst if seen.burst is not None else np.zeros(len(t), dtype=np.bool_)
    base, half = np.log1p(share * (ALARM - 1)), np.log1p(max(share, 0.5) * (ALARM - 1))
    odds = log(1 / share)
    found, k = inf, -1
    while (k + 1) * RESTART_S <= min(t[-1], found):
        k += 1
        begin = k * RESTART_S
        i, j = np.searchsorted(t, [begin, min(begin + life(k), found)])
        need = needed - log(stake(k))
        if int(seen.arm[i:j].sum()) < max(design.min_bad, need / odds):
            continue
        arm, odd, when = seen.arm[i:j], burst[i:j], t[i:j]
        if last is not None:
            new = last[i:j] < begin
            arm, odd, when = arm[new], odd[new], when[new]
        at = np.flatnonzero(arm)
        c = np.arange(1, len(at) + 1)
        able = c >= max(design.min_bad, int(need / odds))
        at, c = at[able], c[able]
        if not len(at):
            continue
        at, c = _near(at, c, share, need)
        if not len(at):
            continue
        bursts = np.cumsum(odd)[at]
        plain = at + 1 - bursts
        wealth = log_mean(
            c[:, None] * np.log(ALARM) - plain[:, None] * base - bursts[:, None] * half
        )
        hit = np.flatnonzero((wealth >= need) & _spread(when[arm == 1], c, design.seconds))
        if len(hit):
            found = min(found, float(when[at[hit[0]]]))
    return found


def _spread(when: Floats, c: Ints, seconds: int) -> Mask:
    """Return whether the first `c` bad events of the candidate lie in enough separate seconds."""
    second = np.floor(when)
    apart = np.cumsum(np.r_[True, np.diff(second) > 0])
    return np.asarray(apart[c - 1] >= seconds)


def _near(at: Ints, c: Ints, share: float, need: float) -> tuple[Ints, Ints]:
    """Return the events at which the best of all ratios would reach `need`: no mixture has more."""
    n = at + 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        best = c * np.log(c / (n * share)) + np.where(
            n > c, (n - c) * np.log((n - c) / (n * (1 - share))), 0.0
        )
    close = (c > n * share) & (best >= need)
    return at[close], c[close]


def _histogram(x: Ints) -> Ints:
    """Return how many callers have each count; counts beyond any cap are as good as the largest cap."""
    return np.bincount(np.minimum(x, MOST), minlength=1)


def counts(design: Design, seen: Seen, needed: float, end: float, r0: float = 1.0) -> float:
    """Return when the bets on capped counts of each caller sound, at looks; infinite if never."""
    if seen.side is None or seen.first is None or r0 != 1.0:
        return inf
    for n, look in enumerate(LOOKS):
        if look > end:
            break
        for begin in (0.0, LOOKS[n - 2]) if n > 1 else (0.0,):
            if _counted(design, seen, begin, look) >= needed + log(2 * len(LOOKS)):
                return look
    return inf


def _counted(design: Design, seen: Seen, begin: float, look: float) -> float:
    """Return the log e-value of the counts in one window: the mean over caps and bets."""
    assert seen.side is not None
    w, centre = seen.share, design.centre
    lam, wide = np.array(design.count_bets), np.array(design.count_wide)
    i, j = np.searchsorted(seen.t, [begin, look])
    x = np.bincount(seen.unit[i:j], minlength=len(seen.side))
    h1, h0 = (_histogram(x[seen.side == a]) for a in (1, 0))
    asked, realised = _realised(design, seen, look)
    p1, p0 = _present(h1, asked[1]), _present(h0, asked[0])
    v = asked[1] / max(asked[:2].sum(), 1)
    bet = wide * min(v, 1 - v) / max(centre, 1 - centre)
    rows = []
    for cap in design.count_caps:
        y1, y0 = (np.minimum(np.arange(len(h)), cap) / cap for h in (h1, h0))
        rows.append(
            h1 @ np.log1p(np.outer(y1, lam * (1 - w) / w)) + h0 @ np.log1p(-np.outer(y0, lam))
        )
        if realised:
            rows.append(
                p1 @ np.log1p(np.outer(y1 - centre, bet / v))
                + p0 @ np.log1p(-np.outer(y0 - centre, bet / (1 - v)))
            )
    return float(log_mean(np.concatenate(rows)))


def _realised(design: Design, seen: Seen, look: float) -> tuple[Ints, bool]:
    """Return how many newcomers of each arm asked by then, and whether bets may use that."""
    assert seen.side is not None
    assert seen.first is not None
    asked = np.bincount(seen.side[seen.first <= look], minlength=2)
    return asked, len(seen.side) <= design.known and min(asked[:2]) >= 2


def _present(many: Ints, asked: int) -> Ints:
    """Return how many callers have each count, of those that asked at all."""
    many = many.copy()
    many[0] = max(asked - many[1:].sum(), 0)
    return many


def alarm(design: Design, seen: Seen, needed: float, end: float, r0: float = 1.0) -> float:
    """Return when the alarm of one row sounds; infinite if never."""
    calm = settled(design, seen)
    found = firsts(design, calm, needed - log(design.firsts), r0)
    assert calm.burst is not None
    rest = calm.only(~calm.burst)
    return min(found, counts(design, rest, needed - log(1 - design.firsts), min(end, found), r0))


# ---------------------------------------------------------------- the certificate


def certificate(design: Design, seen: Seen, margin: float, end: float) -> float:
    """Return when "not `margin` worse" is proven; infinite if never."""
    seen = proving(seen)
    # A ratio and a floor are two chances: each has half of alpha.
    needed, bets, small = log(2 / design.alpha), np.array(design.proof_bets), (1 + margin) / margin
    w, side = seen.share, seen.side
    if side is None or seen.first is None:
        up = np.log1p(bets * w / (1 - w) * min((1 + margin) / small, 1.0))
        down = np.log1p(-bets / small)
        n1 = np.cumsum(seen.arm)
        n0 = np.arange(1, len(n1) + 1) - n1
        if not len(n1):
            return inf
        hit = np.flatnonzero(log_mean(np.asarray(n0[:, None] * up + n1[:, None] * down)) >= needed)
        return float(seen.t[hit[0]]) if len(hit) else inf
    for look in LOOKS:
        if look > end:
            break
        if _certified(design, seen, margin, look) >= needed + log(len(LOOKS)):
            return look
    return inf


def _certified(design: Design, seen: Seen, margin: float, look: float) -> float:
    """Return the log e-value against "at least `margin` worse" of the counts since the step began."""
    assert seen.side is not None
    w, bets, centre = seen.share, np.array(design.proof_bets), design.centre
    x = np.bincount(seen.unit[: np.searchsorted(seen.t, look)], minlength=len(seen.side))
    h1, h0 = (_histogram(x[seen.side == a]) for a in (1, 0))
    asked, realised = _realised(design, seen, look)
    p1, p0 = _present(h1, asked[1]), _present(h0, asked[0])
    v = asked[1] / max(asked[:2].sum(), 1)
    bet = bets * min(v, 1 - v) / max(centre, 1 - centre)
    rows = []
    for times in design.proof_caps:
        cap = times * (1 + margin) / margin
        y1 = np.minimum(np.arange(len(h1)), cap) / cap
        y0 = np.minimum(np.arange(len(h0)) * (1 + margin), cap) / cap
        rows.append(
            h0 @ np.log1p(np.outer(y0, bets * w / (1 - w))) + h1 @ np.log1p(-np.outer(y1, bets))
        )
        if realised:
            rows.append(
                p0 @ np.log1p(np.outer(y0 - centre, bet / (1 - v)))
                + p1 @ np.log1p(-np.outer(y1 - centre, bet / v))
            )
    return float(log_mean(np.concatenate(rows)))


def below(bad: Ints, units: Ints, floor: float) -> Floats:
    """Return the evidence that a rate is below `floor`: binomial bets, and one on none at all."""
    s, n = np.asarray(bad, float)[:, None], np.asarray(units, float)[:, None]
    p = floor * np.geomspace(0.05, 0.8, 7)
    none = np.where(s > 0, -inf, -n * np.log1p(-floor))
    mixed = s * np.log(p / floor) + (n - s) * (np.log1p(-p) - np.log1p(-floor))
    return log_mean(np.concatenate([none, mixed], axis=1))


def floored(design: Design, when: Floats, bad: Mask, floor: float) -> float:
    """Return when first requests of the candidate prove a rate below `floor`; infinite if never.

    Args:
        design: the constants.
        when: the time of each caller's first request, in order.
        bad: whether it went bad.
        floor: the rate.
    """
    if not len(when):
        return inf
    log_e = below(np.cumsum(bad), np.arange(1, len(when) + 1), floor) - log(2)
    hit = np.flatnonzero(log_e >= log(1 / design.alpha))
    return float(when[hit[0]]) if len(hit) else inf
