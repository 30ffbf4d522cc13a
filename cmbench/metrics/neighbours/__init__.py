"""Nearest neighbours, for precision, recall, density, coverage and AuthPct."""
