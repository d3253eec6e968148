"""The commands of the lab and of the server side."""
