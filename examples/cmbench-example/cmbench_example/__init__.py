"""A model family, a sampler and a suite for cmbench."""
