"""Which sample comes when: a pure function of the seed and one global cursor.

Shards are permuted once an epoch, then samples within a window, so that reading stays nearly sequential. Nothing is
remembered between two positions, so a run continues exactly wherever it stopped, with any number of ranks and workers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np


def draw(*parts: object) -> np.random.Generator:
    """A random generator that depends on nothing but `parts` (numbers and strings)."""
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return np.random.default_rng(int.from_bytes(digest, "big"))


class Order:
    """Maps a global position to a sample.

    Args:
        shard_sizes: number of samples of each shard.
        seed: the run's seed.
        window: samples are permuted inside consecutive windows of this many positions.
    """

    def __init__(self, shard_sizes: Sequence[int], seed: int, window: int = 4096) -> None:
        self.num_samples = int(sum(shard_sizes))
        if self.num_samples == 0:
            raise ValueError("data: expected at least one sample, got shards that hold none")
        self._sizes, self._seed, self._window = np.asarray(shard_sizes), seed, window
        self._shards = lru_cache(maxsize=2)(self._shards_of_epoch)
        self._permutation = lru_cache(maxsize=4)(self._permutation_of_window)

    def _shards_of_epoch(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        shards = draw(self._seed, "shards", epoch).permutation(len(self._sizes))
        return shards, np.concatenate([[0], np.cumsum(self._sizes[shards])])

    def _permutation_of_window(self, epoch: int, window: int) -> np.ndarray:
        size = min(self._window, self.num_samples - window * self._window)
        return draw(self._seed, "window", epoch, window).permutation(size)

    def locate(self, position: int) -> tuple[int, int, int]:
        """Epoch, shard and index inside the shard of a global position (0, 1, 2, ... without end)."""
        epoch, local = divmod(position, self.num_samples)
        window, offset = divmod(local, self._window)
        local = window * self._window + int(self._permutation(epoch, window)[offset])
        shards, starts = self._shards(epoch)
        slot = int(np.searchsorted(starts, local, side="right")) - 1
        return epoch, int(shards[slot]), int(local - starts[slot])
