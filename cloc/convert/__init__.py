"""Official layouts in, shards out: a file for each format, and what all share (job, drafts, photos, writing)."""
