"""The work of each command: runs a suite, trains, edits, searches time points, estimates costs."""
