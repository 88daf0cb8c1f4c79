"""Values as the ledger and the databases store them, and the reading of earlier formats."""
