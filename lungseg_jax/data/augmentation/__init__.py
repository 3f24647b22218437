"""Augmentation: the patient's pose and diseases, and the scanner, at random."""
