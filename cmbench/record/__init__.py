"""Records: one JSON file per cell, with all that is needed to trust and repeat it."""
