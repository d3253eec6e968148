"""From a policy checkpoint to a sealed bundle. Reads the checkpoint as files; refuses to import the trainer."""
