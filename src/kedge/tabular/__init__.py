"""Tables: Parquet, CSV and JSON lines as other tools write them. The one place that knows DuckDB."""
