"""Reference statistics files and their formats."""
