"""What keeps the repository, and is in no distribution."""
