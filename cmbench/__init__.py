"""cmbench: evaluate and benchmark few-step image generators."""

__version__ = "0.1.0"
