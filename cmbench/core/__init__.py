"""Foundations of all other packages: components, loading, randomness, digests, files, errors."""
