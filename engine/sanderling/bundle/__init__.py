"""The bundle format: manifest, tensors, reader and writer."""
