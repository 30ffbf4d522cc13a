"""Official weights and statistics: the catalogue, and the download."""
