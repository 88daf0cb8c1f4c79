"""Generations of precomputed values, in the ledger's database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Integer, cast, func, select
from sqlalchemy.dialects.sqlite import insert

from kedge.adapters.sql import tables
from kedge.adapters.sql.sqlite.connection import Database
from kedge.core.errors import Refused
from kedge.core.features.generations import Run, Standing, generation_of

_table = tables.generation
_RUN = _table.c.generation.op("NOT GLOB")("*[^0-9]*")
"""Condition of a run: a view's run is a number; a release's generation is the runs' labels."""


class SqlGenerations:
    """Runs of views. A run's number is never reused, and a dropped run stays dropped."""

    def __init__(self, database: Database) -> None:
        """Use a database from `open_ledger`."""
        self._database = database

    def runs(self) -> dict[Run, Standing]:
        """Return every run with its standing, in order."""
        query = select(_table).where(_RUN)

        def work(connection: Connection) -> dict[Run, Standing]:
            rows = connection.execute(query).all()
            found: dict[Run, Standing] = {
                Run(row.schema_id, row.transformation, int(row.generation)): row.state
                for row in rows
            }
            return dict(sorted(found.items()))

        return self._database.read(work)

    def begin(self, schema: str, transformation: int) -> Run:
        """Create a run of a materialised version. No reader uses it before it is `ready`."""
        mine = (_table.c.schema_id == schema) & (_table.c.transformation == transformation) & _RUN

        def work(connection: Connection) -> Run:
            newest = select(func.max(cast(_table.c.generation, Integer))).where(mine)
            number = (connection.execute(newest).scalar() or 0) + 1
            connection.execute(
                _table.insert(),
                {
                    "schema_id": schema,
                    "transformation": transformation,
                    "generation": str(number),
                    "state": "building",
                },
            )
            return Run(schema, transformation, number)

        return self._database.write(work)

    def stand(self, run: Run, standing: Standing) -> None:
        """Set the standing of a run."""

        def work(connection: Connection) -> None:
            connection.execute(_table.update().where(_is(run)).values(state=standing))

        self._database.write(work)


def note_read(
    connection: Connection, schema: str | None, transformation: int | None, runs: Sequence[Run]
) -> None:
    """Record the runs that a release reads, as part of the transaction that makes it.

    Raises:
        Refused: `generation_gone`: one of the runs is not ready, or was dropped.
    """
    for run in runs:
        standing = connection.execute(select(_table.c.state).where(_is(run))).scalar()
        if standing != "ready":
            raise Refused(
                f"{run.label} is {standing or 'unknown'}: no release can read it",
                code="generation_gone",
                hint=f"kedge features status {run.schema} lists what is ready",
            )
    row = {
        "schema_id": schema,
        "transformation": transformation,
        "generation": generation_of(runs),
        "state": "ready",
    }
    connection.execute(insert(_table).on_conflict_do_nothing(), row)


def _is(run: Run) -> ColumnElement[bool]:
    return (
        (_table.c.schema_id == run.schema)
        & (_table.c.transformation == run.transformation)
        & (_table.c.generation == str(run.number))
    )
