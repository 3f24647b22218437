"""Evaluation of ensembles and masks against labels, and tuning on validation slices."""
