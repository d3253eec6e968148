"""The lab's and the operators' commands."""
