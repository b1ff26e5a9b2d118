"""Vectors of images and boxes on disk: `python -m cloc.embed`."""
