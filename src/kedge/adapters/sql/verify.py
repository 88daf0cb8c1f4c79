"""Verification of the ledger for `kedge doctor`: each table is compared with all others."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec
from sqlalchemy import Connection, select, text

from kedge.adapters.sql import tables
from kedge.adapters.sql.chain_heads import goes_on_from
from kedge.adapters.sql.rows import Row, entry_of, hash_of, release_of, row_of
from kedge.core import codec
from kedge.core.codec import GENESIS
from kedge.core.errors import KedgeError
from kedge.core.release.commands import Restored
from kedge.core.release.machine import apply
from kedge.core.stored.ledger import Note
from kedge.core.values import Bundle, ModelVersion, Release, State

States = Callable[[Connection], dict[str, State]]


def faults(connection: Connection, states: States) -> list[str]:
    """Return every fault in words; [] if there is none."""
    found = [*_of_sqlite(connection), *_of_versions(connection), *_of_releases(connection)]
    try:
        stored = states(connection)
    except (KedgeError, msgspec.MsgspecError, ValueError) as error:
        return [*found, *_of_entries(connection, {}), f"the rows cannot be read: {error}"]
    folded = {name: State(endpoint=name, releases=s.releases) for name, s in stored.items()}
    found += _of_entries(connection, folded)
    for name, state in folded.items():
        found += _differences(state, stored.get(name, State(endpoint=name)))
    return found


def _of_sqlite(connection: Connection) -> Iterator[str]:
    for (line,) in connection.execute(text("PRAGMA integrity_check(10)")):
        if line != "ok":
            yield f"SQLite: {line}"
    for row in connection.execute(text("PRAGMA foreign_key_check")):
        yield f"{row[0]}, row {row[1]}: names a {row[2]} that does not exist"


def _of_entries(connection: Connection, folded: dict[str, State]) -> Iterator[str]:
    """Walk the chain, and fold each entry into `folded`, which then holds the end of history."""
    previous, seq = GENESIS, 0
    epochs: dict[str, int] = {}
    for row in connection.execute(select(tables.ledger).order_by(tables.ledger.c.seq)).mappings():
        seq = row["seq"] if goes_on_from(row, seq, previous) else seq + 1
        if row["seq"] != seq:
            yield f"entry {seq} is missing: the next is {row['seq']}"
            seq = row["seq"]
        if row["previous_hash"] != previous:
            yield f"entry {seq} is not chained to the entry before it"
        if row["hash"] != hash_of(row):
            yield f"entry {seq} was changed after it was written: its hash does not match"
        previous = row["hash"]
        yield from _of_entry(row, epochs, folded)


def _of_entry(row: Row, epochs: dict[str, int], folded: dict[str, State]) -> Iterator[str]:
    seq, name = row["seq"], row["endpoint"]
    try:
        event = entry_of(row).event
    except msgspec.MsgspecError as error:
        yield f"entry {seq} cannot be read: {error}"
        return
    expected = epochs.get(name, 0) + (0 if isinstance(event, Note) else 1)
    if isinstance(event, Restored):
        expected = max(event.epoch, expected)
    if row["epoch"] != expected:
        yield f"entry {seq} takes {name} to epoch {row['epoch']}; its entries say {expected}"
    epochs[name] = row["epoch"]
    if not isinstance(event, Note):
        folded[name] = apply(folded.get(name, State(endpoint=name)), event)


def _differences(folded: State, stored: State) -> Iterator[str]:
    """Yield the differences column by column, so that the fault names its cause."""
    mine, theirs = row_of(folded), row_of(stored)
    mine["condemned"], theirs["condemned"] = folded.condemned, stored.condemned
    for column, value in mine.items():
        if theirs[column] != value:
            yield f"{folded.endpoint}: {column} is {theirs[column]!r}; its entries say {value!r}"
    if folded.policy != stored.policy:
        yield f"{folded.endpoint}: the policy is not the one that came into force"


def _of_releases(connection: Connection) -> Iterator[str]:
    for row in connection.execute(select(tables.release).order_by(tables.release.c.id)).mappings():
        where = f"release r{row['number']} of {row['endpoint']}"
        try:
            release = release_of(row["body"])
        except msgspec.MsgspecError as error:
            yield f"{where} cannot be read: {error}"
            continue
        if (release.endpoint, release.number) != (row["endpoint"], row["number"]):
            yield f"{where} holds another release: r{release.number} of {release.endpoint}"
        if row["digest"] != release.digest or release.digest != codec.fingerprint(
            bundle_of(release)
        ):
            yield f"{where} was changed after it was made: its digest does not match"


def _of_versions(connection: Connection) -> Iterator[str]:
    table = tables.model_version
    for row in connection.execute(select(table)).mappings():
        where = f"model version v{row['number']} of {row['model']}"
        try:
            version = codec.decode(row["body"], ModelVersion)
        except msgspec.MsgspecError as error:
            yield f"{where} cannot be read: {error}"
            continue
        told = (version.model, version.number, version.digest, version.schema)
        if told != (row["model"], row["number"], row["digest"], row["schema_id"]):
            yield f"{where}: its columns are not those of the version that was registered"


def bundle_of(release: Release) -> Bundle:
    """Return a release's bundle: the part that its digest covers."""
    return Bundle(
        endpoint=release.endpoint,
        model=release.model,
        version=release.version,
        model_digest=release.model_digest,
        placement=release.placement,
        schema=release.schema,
        transformation=release.transformation,
        generation=release.generation,
    )
