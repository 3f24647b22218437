"""Synthetic chest slices with exact lung masks."""
