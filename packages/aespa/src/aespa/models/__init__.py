"""The networks, one part a file."""
