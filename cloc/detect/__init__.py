"""Boxes for names on images: `python -m cloc.detect`."""
