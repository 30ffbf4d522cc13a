"""Official weights and statistics: catalogue, download, safe readers of foreign files."""
