"""Scores of masks and of probabilities."""
