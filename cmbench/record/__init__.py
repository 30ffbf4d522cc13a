"""Records: one JSON file per cell, with everything needed to trust and repeat it."""
