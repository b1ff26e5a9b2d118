"""The tower that goes in: where it comes from, and what it is, found by a dry forward."""
