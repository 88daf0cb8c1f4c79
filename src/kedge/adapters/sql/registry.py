"""Registry: numbers of model versions and releases, in the ledger's database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.generations import note_read
from kedge.adapters.sql.rows import automation_of, entry_of, policy_of
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core import codec
from kedge.core.errors import Refused
from kedge.core.features.generations import runs_of
from kedge.core.names import check_name
from kedge.core.release.commands import Promoted, RolledBack
from kedge.core.time.durations import seconds
from kedge.core.time.instants import stamp
from kedge.core.values import Bundle, Field, ModelVersion, Policy, Release, Signature

_version, _release, _ledger = tables.model_version, tables.release, tables.ledger


class SqlRegistry:
    """Model versions and releases, numbered from 1 in the order of registration.

    A number is never reused, not even after `remove`.
    """

    def __init__(self, database: Database) -> None:
        """Use a database from `open_ledger`; the ledger of the same thread may share it."""
        self._database = database

    def add(self, version: ModelVersion) -> ModelVersion:
        """Register a version under the next number; `version.number` is ignored.

        Return the existing version if its model has the digest already, unless that version was
        removed: then it is a new version. A feature schema becomes known with the first version
        that names it.

        Raises:
            Refused: `bad_name`.
        """
        check_name(version.model)

        def work(connection: Connection) -> ModelVersion:
            known = connection.execute(
                select(_version.c.body).where(
                    _version.c.model == version.model,
                    _version.c.digest == version.digest,
                    _version.c.removed_at.is_(None),
                )
            ).scalar()
            if known is not None:
                return codec.decode(known, ModelVersion)
            highest = select(func.max(_version.c.number)).where(_version.c.model == version.model)
            number = (connection.execute(highest).scalar() or 0) + 1
            _once(connection, tables.artifact, {"digest": version.digest, "size": version.size})
            if version.schema is not None:
                _once(connection, tables.feature_schema, {"schema_id": version.schema})
            numbered = msgspec.structs.replace(version, number=number)
            row = {
                "model": version.model,
                "number": number,
                "digest": version.digest,
                "schema_id": version.schema,
                "body": codec.encode(numbered),
            }
            connection.execute(_version.insert(), row)
            return numbered

        return self._database.write(work)

    def versions(self, model: str) -> tuple[ModelVersion, ...]:
        """Return a model's versions that were not removed, in order of number."""
        query = (
            select(_version.c.body)
            .where(_version.c.model == model, _version.c.removed_at.is_(None))
            .order_by(_version.c.number)
        )

        def work(connection: Connection) -> tuple[ModelVersion, ...]:
            bodies = connection.execute(query).scalars()
            return tuple(codec.decode(body, ModelVersion) for body in bodies)

        return self._database.read(work)

    def release(
        self, bundle: Bundle, *, raw: tuple[Field, ...] = (), code: str | None = None
    ) -> Release:
        """Return the release with exactly this bundle; create it if there is none.

        Args:
            bundle: the parts of the release.
            raw: the fields that its transformation takes from the request, if it has one.
            code: the digest of that transformation's source.

        Raises:
            Refused: `unknown_version`: there is no such version, or it was removed;
                `generation_gone`: a run that its transformation reads is not ready;
                `digest_mismatch`: its bytes differ; `pin`: it was made for another feature schema,
                or the schema has no such transformation.
        """
        digest = codec.fingerprint(bundle)

        def work(connection: Connection) -> Release:
            version = _registered(connection, bundle)
            known = connection.execute(
                select(_release.c.body).where(
                    _release.c.endpoint == bundle.endpoint, _release.c.digest == digest
                )
            ).scalar()
            if known is not None:
                return codec.decode(known, Release)
            highest = select(func.max(_release.c.number)).where(
                _release.c.endpoint == bundle.endpoint
            )
            number = (connection.execute(highest).scalar() or 0) + 1
            release = _made(bundle, version, number, digest)
            if code is not None:
                taken = Signature(inputs=raw, outputs=version.signature.outputs)
                release = msgspec.structs.replace(release, signature=taken, code=code)
            _refuse_unpinned(connection, bundle, version)
            if bundle.generation is not None:
                runs = runs_of(bundle.generation)
                note_read(connection, bundle.schema, bundle.transformation, runs)
            connection.execute(_release.insert(), _release_row(release))
            return release

        return self._database.write(work)

    def remove(self, model: str, number: int, *, now: float) -> None:
        """Remove a version: it is no longer listed, and no release can be made from it.

        Its protection is derived from the rows and the ledger, never set by hand. Nothing is
        deleted: the version is marked permanently, and its releases stay for the history, though no
        state names them. Its bytes may be deleted. The same bytes registered again are a new
        version. A version that is already removed or unknown is refused.

        Raises:
            Refused: `protected`: a release of it is live, or a way back, or was production
                inside the endpoint's window. The error names the release and the endpoint.
                `unknown_version`.
        """

        def work(connection: Connection) -> None:
            held = select(_release.c.endpoint, _release.c.number).where(
                _release.c.model == model, _release.c.version == number
            )
            for row in connection.execute(held).all():
                _refuse_protected(connection, f"{model} v{number}", row.endpoint, row.number, now)
            marked = connection.execute(
                _version.update()
                .where(
                    _version.c.model == model,
                    _version.c.number == number,
                    _version.c.removed_at.is_(None),
                )
                .values(removed_at=now)
            )
            if marked.rowcount == 0:
                raise _unknown(model, number)

        self._database.write(work)


# ---------------------------------------------------------------- making a release


def _registered(connection: Connection, bundle: Bundle) -> ModelVersion:
    found = connection.execute(
        select(_version.c.body).where(
            _version.c.model == bundle.model,
            _version.c.number == bundle.version,
            _version.c.removed_at.is_(None),
        )
    ).scalar()
    if found is None:
        raise _unknown(bundle.model, bundle.version)
    version = codec.decode(found, ModelVersion)
    if version.digest != bundle.model_digest:
        raise Refused(
            f"{bundle.model} {version.label} is {version.digest}, not {bundle.model_digest}",
            code="digest_mismatch",
        )
    return version


def _refuse_unpinned(connection: Connection, bundle: Bundle, version: ModelVersion) -> None:
    """Refuse a release whose parts do not match; the database would refuse it, too.

    Raises:
        Refused: `pin`.
    """
    if version.schema != bundle.schema:
        raise Refused(
            f"{bundle.model} {version.label} was made for feature schema {version.schema}, "
            f"and the release names {bundle.schema}",
            code="pin",
        )
    table = tables.transform_version
    known = select(table.c.version).where(
        table.c.schema_id == bundle.schema, table.c.version == bundle.transformation
    )
    if bundle.transformation is not None and connection.execute(known).first() is None:
        raise Refused(
            f"feature schema {bundle.schema} has no transformation {bundle.transformation}",
            code="pin",
            hint="kedge features status lists them",
        )
    if bundle.generation is not None and bundle.transformation is None:
        raise Refused(f"generation {bundle.generation} needs a transformation", code="pin")


def _made(bundle: Bundle, version: ModelVersion, number: int, digest: str) -> Release:
    return Release(
        endpoint=bundle.endpoint,
        number=number,
        digest=digest,
        model=bundle.model,
        version=bundle.version,
        model_digest=bundle.model_digest,
        flavour=version.flavour,
        signature=version.signature,
        placement=bundle.placement,
        schema=bundle.schema,
        transformation=bundle.transformation,
        generation=bundle.generation,
        trusted=version.trusted,
        load_s=version.load_s,
    )


def _release_row(release: Release) -> dict[str, object]:
    return {
        "endpoint": release.endpoint,
        "number": release.number,
        "digest": release.digest,
        "model": release.model,
        "version": release.version,
        "schema_id": release.schema,
        "transformation": release.transformation,
        "generation": release.generation,
        "placement": release.placement.value,
        "body": codec.encode(release),
    }


def _once(connection: Connection, table: Any, row: Mapping[str, object]) -> None:
    connection.execute(insert(table).on_conflict_do_nothing(), row)


def _unknown(model: str, number: int) -> Refused:
    return Refused(
        f"{model} has no version v{number}",
        code="unknown_version",
        hint=f"kedge versions {model} lists what is registered",
    )


# ---------------------------------------------------------------- protection, derived


def _refuse_protected(
    connection: Connection, version: str, endpoint: str, number: int, now: float
) -> None:
    table = tables.endpoint
    row = connection.execute(select(table).where(table.c.endpoint == endpoint)).mappings().first()
    if row is None:
        return
    roles = [name for name in tables.POINTERS if row[name] == number]
    drill = automation_of(row["automation"]).drill
    if drill is not None and drill.left == number:
        roles.append("what a drill returns to")
    window = _window(connection, row["policy_digest"])
    if roles:
        why = f"it is {' and '.join(roles)} there"
    elif number in _in_production_since(connection, endpoint, now - seconds(window)):
        why = f"it was production there within the last {window}"
    else:
        return
    raise Refused(
        f"{version} is protected: r{number} of {endpoint} is made of it, and {why}",
        code="protected",
        hint="a rollback may need it; it can be removed once nothing leads back to it",
        details={"endpoint": endpoint, "release": number, "roles": roles},
    )


def _window(connection: Connection, policy_digest: str | None) -> str:
    if policy_digest is None:
        return Policy().back_window
    table = tables.policy
    body = connection.execute(select(table.c.body).where(table.c.digest == policy_digest))
    return policy_of(body.scalar_one()).back_window


def _in_production_since(connection: Connection, endpoint: str, since: float) -> set[int]:
    """Return releases that became production, or ceased to be it, after a time."""
    written = stamp(max(since, 0.0))
    flips = select(_ledger).where(
        _ledger.c.endpoint == endpoint,
        _ledger.c.at >= written,
        func.json_extract(_ledger.c.event, "$.event").in_(("promoted", "rolled_back")),
    )
    return set(_named(entry_of(row).event for row in connection.execute(flips).mappings()))


def _named(events: Iterable[Any]) -> Iterable[int]:
    for event in events:
        assert isinstance(event, Promoted | RolledBack)
        yield event.release
        before = event.replaced if isinstance(event, Promoted) else event.left
        if before is not None:
            yield before
