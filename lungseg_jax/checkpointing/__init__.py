"""Training states and weights on disk, with checksums."""
