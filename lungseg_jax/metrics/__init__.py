"""Metrics of masks, of probabilities and of uncertainty."""
