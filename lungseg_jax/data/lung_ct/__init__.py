"""The tfds builder `lung_ct`."""
