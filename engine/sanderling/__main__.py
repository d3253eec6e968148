"""`python -m sanderling` runs the command `sanderling`."""

from sanderling.cli import main

main()
