"""The kernel inception distance: its value and error theory."""
