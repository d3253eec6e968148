"""`python -m sanderling` is the command `sanderling`."""

from sanderling.cli import main

main()
