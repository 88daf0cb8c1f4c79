"""Routing: the release that answers a request. Compiled per epoch, chosen in two microseconds.

Theory of operation
-------------------
* A rollout has a salt. An entity's bucket is blake2b-64(entity, key = salt) modulo 10,000.
  blake2b is in the standard library, keyed by design, and the same on every platform and in
  every process. `tests/vectors/routing.json` publishes golden vectors, and changing a bucket
  is a breaking release. Python's own `hash()` differs between processes and is never used.
* A bucket belongs to the candidate when it is *below* the weight. So a larger weight only
  adds entities, and a smaller one only takes some away: no entity flaps.
* A request without an entity is split by a number that the edge draws for it. It is never hashed as
  an empty key, which would send every such caller to the same arm.
* The callers held back after a promotion have the highest buckets of the rollout's own salt. They
  never saw the candidate while its share grew.
* The salt is fixed for a rollout and differs between rollouts, so the same callers are not affected
  by every canary.
* `compile_plan` builds every possible answer; `choose` allocates only its digest.
* Deliberately absent: weights in per cent (an edge's unit), time, and load.
"""

from __future__ import annotations

from enum import StrEnum
from hashlib import blake2b

from kedge.core.release.ways_back import returned
from kedge.core.values import BUCKETS, Arm, Stage, State, Value


class Reason(StrEnum):
    """The reason for the release of a request. The reference explains each value."""

    PRODUCTION = "production"
    """There is no canary."""
    WEIGHT = "weight"
    """The entity's bucket is within the canary's weight."""
    OUTSIDE_WEIGHT = "outside_weight"
    """The entity's bucket is outside the canary's weight."""
    KEYLESS = "keyless"
    """The request has no entity; a drawn number is within the canary's weight."""
    KEYLESS_OUTSIDE = "keyless_outside"
    """The request has no entity; a drawn number is outside the canary's weight."""
    ASKED = "asked"
    """A tester named the release."""
    LEASE = "lease_expired"
    """This gateway lost the ledger too long ago to give a candidate its share."""
    FAILOVER = "failover"
    """The candidate failed or was late, so production answered."""
    BREAKER = "breaker_open"
    """The breaker withheld the request from the candidate, so production answered."""
    HELD_BACK = "held_back"
    """After a promotion: the caller is within the share that stays on the previous release."""
    PINNED = "pinned"
    """An operator pinned this host by hand while the ledger was unavailable."""


class Choice(Value, frozen=True):
    """The answering release, the reason, and the release that silently gets a copy, if any."""

    arm: Arm
    release: int
    reason: Reason
    shadow: int | None = None


class Plan(Value, frozen=True):
    """Compiled routing of one epoch."""

    epoch: int
    key: bytes
    weight: int
    sample: int
    held_from: int
    """The bucket from which callers are held back on the previous release; BUCKETS: none."""
    inside: Choice
    outside: Choice
    keyless_inside: Choice
    keyless_outside: Choice
    shadowed: Choice | None
    held: Choice | None
    asked: dict[int, Choice]

    def choose(self, entity: str | None, draw: int, asked: int | None = None) -> Choice:
        """Return the arm of one request.

        Args:
            entity: the caller's entity; None or "" if there is none.
            draw: a number drawn uniformly from 0..9,999 for this request.
            asked: the release number that a tester requested.

        Raises:
            KeyError: `asked` is not live on this endpoint.
        """
        if asked is not None:
            return self.asked[asked]
        if self.weight:
            if entity:
                return self.inside if bucket(self.key, entity) < self.weight else self.outside
            return self.keyless_inside if draw < self.weight else self.keyless_outside
        if self.held is not None:
            at = bucket(self.key, entity) if entity else draw
            return self.held if at >= self.held_from else self.outside
        if self.shadowed is not None:
            at = draw if not entity or self.sample == BUCKETS else bucket(self.key, entity)
            if at < self.sample:
                return self.shadowed
        return self.outside


def bucket(key: bytes, entity: str) -> int:
    """Return the entity's bucket, 0..9,999, under a rollout's key."""
    return hashed(key, entity) % BUCKETS


def hashed(key: bytes, entity: str) -> int:
    """Return the entity's 64-bit hash under a rollout's key."""
    # A lone surrogate (a header can hold one) must not fail a request: it has a bucket too.
    digest = blake2b(entity.encode(errors="surrogatepass"), digest_size=8, key=key).digest()
    return int.from_bytes(digest)


def unit_of(key: bytes, entity: str) -> tuple[int, int]:
    """Return a caller's identity in evidence: 63 bits of its hash, and its bucket."""
    found = hashed(key, entity)
    return found >> 1, found % BUCKETS  # a signed 64-bit column holds the first


def key_of(salt: str) -> bytes:
    """Return a rollout's salt as a blake2b key: its digest, since a key has at most 64 bytes."""
    return blake2b(salt.encode(), digest_size=32).digest()


def compile_plan(state: State, *, lease: bool = True) -> Plan:
    """Compile the row into a plan.

    Args:
        state: a row with something in production.
        lease: whether this gateway can give a candidate a share. Without a lease, production
            answers everything and nothing is mirrored.

    Raises:
        ValueError: nothing is in production.
    """
    if state.production is None:
        raise ValueError(f"{state.endpoint} has nothing in production: there is nothing to route")
    candidate = state.candidate if lease else None
    canary = state.stage is Stage.CANARY and candidate is not None
    mirrored = state.mirrored if lease else None
    held = state.held if lease else None

    def production(reason: Reason, copied: int | None = None) -> Choice:
        return Choice(
            arm=Arm.PRODUCTION,
            release=state.production,  # type: ignore[arg-type]
            reason=reason,
            shadow=copied,
        )

    def answered(reason: Reason) -> Choice:
        return Choice(arm=Arm.CANDIDATE, release=candidate, reason=reason)  # type: ignore[arg-type]

    asked = {
        number: Choice(arm=Arm.PREVIOUS, release=number, reason=Reason.ASKED)
        for number in (state.back, returned(state).production)
        if number is not None
    }
    asked[state.production] = production(Reason.ASKED)
    if candidate is not None:
        asked[candidate] = answered(Reason.ASKED)
    lost = state.stage is Stage.CANARY and not lease
    plain = Reason.LEASE if lost else Reason.OUTSIDE_WEIGHT if canary else Reason.PRODUCTION
    return Plan(
        epoch=state.epoch,
        key=key_of(state.salt),
        weight=state.weight if canary else 0,
        sample=mirrored[1] if mirrored else 0,
        inside=answered(Reason.WEIGHT) if canary else production(plain),
        outside=production(plain),
        keyless_inside=answered(Reason.KEYLESS) if canary else production(plain),
        keyless_outside=production(Reason.KEYLESS_OUTSIDE if canary else plain),
        shadowed=production(Reason.PRODUCTION, mirrored[0]) if mirrored else None,
        held_from=BUCKETS - state.holdback if held is not None else BUCKETS,
        held=(
            None
            if held is None
            else Choice(arm=Arm.PREVIOUS, release=held, reason=Reason.HELD_BACK)
        ),
        asked=asked,
    )
