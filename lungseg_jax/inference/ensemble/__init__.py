"""The networks of a trained ensemble: loading, combining, sharing."""
