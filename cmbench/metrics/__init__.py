"""Metrics on features, one file each."""
