"""Readers of released weights: file formats, and the authors' names of parameters."""
