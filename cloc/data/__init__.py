"""The training loader: shards, the order of samples, prompts, concepts, and the way from a shard to a batch."""
