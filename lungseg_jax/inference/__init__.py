"""Masks from trained networks, with how far to trust them."""
