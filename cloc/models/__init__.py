"""Sealed room: the transformers classes and their parts. Knows neither data, losses nor the run's config."""
