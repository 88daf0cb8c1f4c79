"""Tables that other tools write: Parquet, CSV and JSON lines. Only this package knows DuckDB."""
