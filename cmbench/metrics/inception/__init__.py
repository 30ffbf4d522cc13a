"""The Inception Score: its value and error theory."""
