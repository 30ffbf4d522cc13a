"""Suites: the YAML specification and the plan made of it."""
