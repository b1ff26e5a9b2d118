"""Batches through loading processes, in order."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.utils.data import DataLoader, IterableDataset


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread, as in a loading process; with another number sums are made in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _start_worker(_: int) -> None:
    """A worker takes one core, and leaves SIGTERM and Ctrl-C to its parent, which saves and then ends it."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def make_loader(batches: IterableDataset, workers: int) -> DataLoader:
    """Numbered batches through `workers` processes, which take them in turn; 0 makes them in the training process."""
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        worker_init_fn=_start_worker if workers else None,
        multiprocessing_context="fork" if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
