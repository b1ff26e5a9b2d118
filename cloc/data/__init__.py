"""Sealed room: shards, converters, rendered scenes, and the way from a shard to a batch."""
