"""Feature schemas and the versions of code that implement them, in the ledger's database."""

from __future__ import annotations

from sqlalchemy import Connection, func, select
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core import codec
from kedge.core.errors import Refused
from kedge.core.features.schema import Schema, TransformVersion, refuse_change

_schema, _version = tables.feature_schema, tables.transform_version


class SqlFeatures:
    """Insert-only schemas and versions: numbers are never reused; equal bundles are one version."""

    def __init__(self, database: Database) -> None:
        """Use a database from `open_ledger`."""
        self._database = database

    def schemas(self) -> tuple[Schema, ...]:
        """Return every declared schema, by name."""
        query = (
            select(_schema.c.spec).where(_schema.c.spec.is_not(None)).order_by(_schema.c.schema_id)
        )

        def work(connection: Connection) -> tuple[Schema, ...]:
            return tuple(codec.decode(spec, Schema) for spec in connection.execute(query).scalars())

        return self._database.read(work)

    def schema(self, name: str) -> Schema:
        """Return one schema.

        Raises:
            Refused: `unknown_schema`.
        """
        found = {schema.name: schema for schema in self.schemas()}
        if name not in found:
            raise Refused(
                f"no schema {name} is declared",
                code="unknown_schema",
                hint=f"known are: {', '.join(found) or 'none; kedge features apply FILE'}",
            )
        return found[name]

    def versions(self, schema: str) -> tuple[TransformVersion, ...]:
        """Return the transformation versions of a schema, in order of number."""
        query = (
            select(_version.c.version, _version.c.code_digest)
            .where(_version.c.schema_id == schema)
            .order_by(_version.c.version)
        )

        def work(connection: Connection) -> tuple[TransformVersion, ...]:
            rows = connection.execute(query).all()
            return tuple(TransformVersion(schema, row.version, row.code_digest) for row in rows)

        return self._database.read(work)

    def heads(self) -> dict[str, int]:
        """Return the head of each schema, by schema; schemas without a head are excluded."""
        query = select(_schema.c.schema_id, _schema.c.head).where(_schema.c.head.is_not(None))

        def work(connection: Connection) -> dict[str, int]:
            return {row.schema_id: row.head for row in connection.execute(query)}

        return self._database.read(work)

    def add(self, schema: Schema, digest: str) -> tuple[TransformVersion, bool]:
        """Declare the schema if it is new, and number the bundle; return whether it is new.

        The first version is the schema's head.

        Raises:
            Refused: `schema_changed`: the schema is known with another declaration.
        """

        def work(connection: Connection) -> tuple[TransformVersion, bool]:
            spec = codec.encode(schema)
            row = {"schema_id": schema.name, "spec": spec, "contract_digest": schema.digest}
            connection.execute(insert(_schema).on_conflict_do_nothing(), row)
            known = connection.execute(
                select(_schema.c.spec).where(_schema.c.schema_id == schema.name)
            ).scalar()
            if known is None:  # a model named the schema before its declaration
                connection.execute(
                    _schema.update()
                    .where(_schema.c.schema_id == schema.name)
                    .values(spec=spec, contract_digest=schema.digest)
                )
            else:
                refuse_change(codec.decode(known, Schema), schema)
            mine = _version.c.schema_id == schema.name
            number = connection.execute(
                select(_version.c.version).where(mine, _version.c.code_digest == digest)
            ).scalar()
            if number is not None:
                return TransformVersion(schema.name, number, digest), False
            number = (
                connection.execute(select(func.max(_version.c.version)).where(mine)).scalar() or 0
            ) + 1
            connection.execute(
                _version.insert(),
                {
                    "schema_id": schema.name,
                    "version": number,
                    "code_digest": digest,
                },
            )
            if number == 1:
                first = _schema.update().where(_schema.c.schema_id == schema.name)
                connection.execute(first.values(head=1))
            return TransformVersion(schema.name, number, digest), True

        return self._database.write(work)
