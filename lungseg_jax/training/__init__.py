"""From a configuration to the checkpoints of a run."""
