"""Image and volume files."""
