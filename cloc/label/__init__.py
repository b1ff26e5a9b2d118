"""Data engine (VESL, CLOC Sec. 4): image-text shards in, region-text shards out.

Captions, phrases, boxes, filters: one file each. `shard.py` labels one shard, `job.py` all of them.
"""
