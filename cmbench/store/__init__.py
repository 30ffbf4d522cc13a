"""The cache of job outputs: content-addressed folders, leases, shared storage."""
