"""Slices and masks: files, checks, splits, preprocessing, augmentation."""
