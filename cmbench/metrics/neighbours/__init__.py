"""Nearest neighbours for precision, recall, density and coverage."""
