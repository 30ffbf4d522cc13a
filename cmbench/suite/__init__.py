"""Suites: the YAML specification and the plan built from it."""
