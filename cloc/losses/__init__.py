"""Features in, named and unweighted losses out. Knows neither models, data nor the run's config."""
