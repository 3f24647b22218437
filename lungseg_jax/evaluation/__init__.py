"""Scores of masks against labels, and what is decided on validation slices."""
