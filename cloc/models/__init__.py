"""Sealed room: the transformers classes and the parts they are made of. Knows neither data, losses nor the run's config."""
