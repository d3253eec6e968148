"""From a policy checkpoint to a sealed bundle. Reads checkpoints as files, without the trainer."""
