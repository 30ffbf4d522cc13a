"""Contract tests and oracles."""
