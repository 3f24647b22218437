"""Phantoms: synthetic chest slices with exact lung masks."""
