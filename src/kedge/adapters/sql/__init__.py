"""The ledger, the registry, the roster and the evidence in SQLite, and their wake-up."""
