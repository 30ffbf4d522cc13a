"""Engines run a plan's jobs; one file per kind of work and per engine."""
