"""SQLite: connections, creation, versions, faults, wake-up and snapshots of its files."""
