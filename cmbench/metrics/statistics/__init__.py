"""Files of reference statistics, and their formats."""
