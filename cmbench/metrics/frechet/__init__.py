"""The Frechet distance: its value, moments, reference and error theory."""
