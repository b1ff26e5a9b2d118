"""Pure functions on arrays: no model, no file, no dataset. Each has a test worked out by hand."""
