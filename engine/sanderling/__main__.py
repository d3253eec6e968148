"""`python -m sanderling` is the command `sanderling`."""

from sanderling.cli.app import main

main()
