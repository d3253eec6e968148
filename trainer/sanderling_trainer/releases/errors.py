"""What can be wrong with a repository, a key, or a release."""

from sanderling.errors import SanderlingError


class ReleaseError(SanderlingError):
    """A repository or a key cannot be created or read, or a release cannot be published."""
