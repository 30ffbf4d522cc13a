"""Training distances, one file each."""
