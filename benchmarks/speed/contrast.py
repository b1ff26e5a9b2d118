"""What the region contrast costs, in tiles beside the whole matrix: seconds and peak memory of forward and backward.

Each measurement has a process of its own, since a process never gives back its peak. Run by the task `speed`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

from benchmarks.speed.timing import call_in_process, make_cost_scores, read_peak_mib, read_resident_mib
from benchmarks.tasks.contract import Score

REGIONS = 16_384
WIDTH = 512
PAIRS = 2
PHRASES = 4
"""Regions that share a phrase, on average."""
THRESHOLD = 0.9
ALIKE = 0.01
"""How far two embeddings of one phrase lie apart, so that the cosine part of the filter has work to do."""


@dataclass(frozen=True)
class Cost:
    """One forward and backward pass.

    Attributes:
        seconds: wall clock.
        mib: peak of resident memory over that before the pass, gradients included.
        loss: the loss, to see that both ways compute the same.
        filtered: share of the negatives that were left out.
    """

    seconds: float
    mib: float
    loss: float
    filtered: float


def measure_contrast(split: str) -> list[Score]:
    """Ratios of the tiles to the whole matrix, `PAIRS` times in turn.

    Raises:
        RuntimeError: a measurement's process died, or the two ways disagree.
    """
    whole, tiled = [], []
    for _ in range(PAIRS):
        whole.append(_apart("contrast"))
        tiled.append(_apart("contrast_chunked"))
    if abs(whole[0].loss - tiled[0].loss) > 1e-4 * abs(whole[0].loss):
        raise RuntimeError(f"speed: the loss in tiles is {tiled[0].loss}, of the whole matrix {whole[0].loss}")
    protocol = (
        f"{REGIONS}x{WIDTH}/filter-{THRESHOLD}/{PHRASES}-a-phrase/fp32/forward-backward/median-of-{PAIRS}-pairs/"
        f"{os.environ.get('OMP_NUM_THREADS', 'all')}-threads"
    )
    pairs = list(zip(tiled, whole, strict=True))
    figures = {
        "contrast_memory_over_whole_matrix": median(a.mib / b.mib for a, b in pairs),
        "contrast_seconds_over_whole_matrix": median(a.seconds / b.seconds for a, b in pairs),
        "contrast_mib": median(a.mib for a in tiled),
        "contrast_seconds": median(a.seconds for a in tiled),
        "whole_matrix_mib": median(b.mib for b in whole),
        "whole_matrix_seconds": median(b.seconds for b in whole),
    }
    return make_cost_scores(split, protocol, figures, PAIRS)


def _apart(name: str) -> Cost:
    return call_in_process(name, f"memory for {3 * REGIONS**2 * 8 / 2**30:.0f} GiB", measure, name, REGIONS, WIDTH)


def measure(name: str, regions: int, width: int) -> Cost:
    """One pass of `cloc.contrast` or `cloc.contrast_chunked` on made-up regions, in this process."""
    import torch

    import cloc

    function: Callable = getattr(cloc, name)
    torch.manual_seed(0)
    ids = torch.randint(0, max(regions // PHRASES, 1), (regions,))
    phrases = torch.nn.functional.normalize(torch.randn(max(regions // PHRASES, 1), width), dim=-1)
    texts = torch.nn.functional.normalize(phrases[ids] + ALIKE * torch.randn(regions, width), dim=-1)
    rows = torch.nn.functional.normalize(texts + 2 * width**-0.5 * torch.randn(regions, width), dim=-1)
    text_ids = torch.where(torch.arange(regions) % 2 == 0, ids, ids + regions)  # half the pairs are left to the cosine
    leaves = [rows.requires_grad_(), texts.requires_grad_(), torch.tensor(20.0, requires_grad=True)]
    few = min(regions, 128)
    torch.autograd.grad(function(rows[:few], texts[:few], leaves[2], text_ids[:few], THRESHOLD).loss, leaves)
    before, start = read_resident_mib(), time.perf_counter()
    found = function(*leaves, text_ids, THRESHOLD)
    torch.autograd.grad(found.loss, leaves)
    seconds = time.perf_counter() - start
    return Cost(seconds, read_peak_mib() - before, float(found.loss.detach()), float(found.filtered))
