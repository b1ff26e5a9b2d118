"""The version of the kit, written into every export."""

__version__ = "0.1.0"
