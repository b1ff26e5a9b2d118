"""WebDataset shards. In come `Sample`s, out go tars with a `dataset.json` card, and back.

A folder of shards appears under its name only when it is whole: tars and card are made in a folder of another name,
which is renamed at the end.
"""

from cloc.data.shards.card import CARD, KINDS, ShardEntry, find_made, read_card, write_card
from cloc.data.shards.read import ShardIndex, ShardSet
from cloc.data.shards.write import write_shard, write_shards

__all__ = [
    "CARD",
    "KINDS",
    "ShardEntry",
    "ShardIndex",
    "ShardSet",
    "find_made",
    "read_card",
    "write_card",
    "write_shard",
    "write_shards",
]
