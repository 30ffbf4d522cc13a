"""Denoisers in sigma-space: preconditioning, noise schedules, conversions."""
