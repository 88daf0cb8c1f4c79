"""Alembic's environment: runs the revisions on the connection from `create.migrate`."""

from __future__ import annotations

from alembic import context

from kedge.adapters.sql.tables import LEDGER


def run() -> None:
    """Upgrade the ledger to the newest revision, in the caller's transaction."""
    context.configure(
        connection=context.config.attributes["connection"],
        target_metadata=LEDGER,
        transactional_ddl=True,
        render_as_batch=True,
    )
    with context.begin_transaction():
        context.run_migrations()


# Alembic executes this file under this name. A plain import of it runs no migration.
if __name__ == "env_py":
    run()
