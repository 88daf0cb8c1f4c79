"""The callers' side over HTTP: bounded connections and who is believed."""
