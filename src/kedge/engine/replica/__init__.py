"""The replica: it follows the ledger, and writes what this process observed."""
