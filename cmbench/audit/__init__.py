"""Checks whether a number can be trusted: compare, explain, verify, disclose."""
