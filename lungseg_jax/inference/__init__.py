"""Segmentation with trained networks, and the uncertainty of their masks."""
