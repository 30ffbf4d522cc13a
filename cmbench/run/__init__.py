"""What a command does: runs a suite, trains, edits, searches time points, forecasts costs."""
