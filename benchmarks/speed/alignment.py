"""What the aligned focal loss of a training step costs in memory as the names grow: in chunks, beside the whole matrix.

One photo on a canvas of 1344 x 800 pixels, class features of 256, forward and backward. Each measurement has a process
of its own, since a process never gives back its peak. Run by the task `detection_speed`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise

from benchmarks.speed.timing import COST, call_in_process, read_peak_mib, read_resident_mib
from benchmarks.tasks.contract import Score

ANCHORS = sum(-(-800 // stride) * -(-1344 // stride) for stride in (8, 16, 32, 64, 128))
"""Places of the head on that canvas."""
WIDTH, POSITIVES = 256, 150
CONCEPTS = (1203, 5000, 20_000)
WHOLE = 1203
"""Names at which the whole matrix is measured as well; at 20,000 it would need 17 times as much."""


@dataclass(frozen=True)
class Cost:
    """One forward and backward pass.

    Attributes:
        mib: peak of resident memory over that before the pass, gradients included.
        seconds: wall clock.
        loss: to see that both ways compute the same.
    """

    mib: float
    seconds: float
    loss: float


def measure_alignment(split: str, repeats: int) -> list[Score]:
    """Extra peak at each number of names, and its slope; a peak is measured once, whatever `repeats` says.

    Raises:
        RuntimeError: a measurement's process died, or the two ways disagree.
    """
    chunked = {count: _apart("focal_alignment", count) for count in CONCEPTS}
    whole = _apart("focal_alignment_plain", WHOLE)
    if abs(whole.loss - chunked[WHOLE].loss) > 1e-4 * abs(whole.loss):
        raise RuntimeError(
            f"detection_speed: the alignment in chunks is {chunked[WHOLE].loss}, of the whole matrix {whole.loss}"
        )
    protocol = f"{ANCHORS}-anchors/width-{WIDTH}/fp32/forward-backward/peak-over-inputs"
    rows = [
        _row(split, f"{count}-names/{protocol}", f"alignment_{name}", value)
        for count, cost in chunked.items()
        for name, value in (("extra_mib", cost.mib), ("seconds", cost.seconds))
    ]
    rows += [
        _row(split, f"{WHOLE}-names/{protocol}", "alignment_whole_matrix_extra_mib", whole.mib),
        _row(split, f"{WHOLE}-names/{protocol}", "alignment_memory_over_whole_matrix", chunked[WHOLE].mib / whole.mib),
    ]
    for low, high in pairwise(CONCEPTS):
        slope = 1000 * (chunked[high].mib - chunked[low].mib) / (high - low)
        rows.append(_row(split, f"{low}-to-{high}-names/{protocol}", "alignment_mib_per_thousand_names", slope))
    return rows


def _row(split: str, protocol: str, name: str, value: float) -> Score:
    return Score(split, protocol, name, value=value, num_examples=1, no_constant=COST)


def _apart(name: str, concepts: int) -> Cost:
    return call_in_process(f"{name} with {concepts} names", "memory for 3 GiB", measure, name, concepts, ANCHORS)


def measure(name: str, concepts: int, anchors: int) -> Cost:
    """One pass of `cloc.focal_alignment` or its plain twin on made-up features, in this process."""
    import torch

    import cloc

    function = getattr(cloc, name)
    torch.manual_seed(0)
    features, texts = torch.randn(anchors, WIDTH), torch.randn(concepts, WIDTH)
    leaves = [
        features.requires_grad_(),
        texts.requires_grad_(),
        torch.tensor(WIDTH**-0.5, requires_grad=True),
        torch.tensor(-4.6, requires_grad=True),
    ]
    positives = min(POSITIVES, anchors, concepts)
    rows = torch.arange(positives)
    small = [features[:64], texts[:positives], *leaves[2:]]
    torch.autograd.grad(function(*small, rows[:1], rows[:1]), leaves)
    before, start = read_resident_mib(), time.perf_counter()
    loss = function(*leaves, rows, rows)
    torch.autograd.grad(loss, leaves)
    seconds = time.perf_counter() - start
    return Cost(read_peak_mib() - before, seconds, float(loss.detach()))
