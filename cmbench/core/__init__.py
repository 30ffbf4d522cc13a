"""What everything stands on: components, loading, randomness, digests, files, errors."""
