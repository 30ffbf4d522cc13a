"""Degradations of cold diffusion, one file each."""
