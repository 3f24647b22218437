"""Trained ensembles: loading, prediction, averaging and export."""
