"""`detection_speed`: one photo of 800 x 1333 pixels, 1,203 names, to 300 boxes, beside two public detectors.

All with random weights, on this machine, in turn in one run, from the photo to the boxes in its pixels. Names are
encoded before, where a model allows it (ours, OWLv2); their time is a row of its own. Grounding DINO reads names with
the image, 31 passes for all; one is timed and taken 31 times. Then the memory of many names, at inference and in the
alignment loss, and training images a second. Only when asked for by name; each part has a name of its own, too
(`detection_speed_training`). `--limit N`: so many repeats instead of 3.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from benchmarks.data_roots import FoundSet
from benchmarks.predictors.contract import Predictor
from benchmarks.speed import detection_models as made
from benchmarks.speed.detection_memory import memory_scores
from benchmarks.tasks.contract import COST, Measured, Options, Score, Task, expect

REPEATS = 3
PARTS = {
    "inference": f"swin-t/{made.SHORT}x{made.LONG}/{made.NUM_NAMES}-names",
    "memory": f"{made.SHORT}x{made.LONG}",
    "alignment": "focal-alignment",
    "training": "swin-t",
}
"""By name: the split."""


class DetectionSpeed(Task):
    """Seconds and memory, not accuracy.

    Args:
        part: one of `PARTS`; None for all of them.
    """

    needs = "nothing: it makes its models and a photo; 3 GB of disk for a while"
    bare = False
    timed = True

    def __init__(self, part: str | None = None) -> None:
        self.name = "detection_speed" if part is None else f"detection_speed_{part}"
        self.parts = tuple(PARTS) if part is None else (part,)

    def places(self, roots: Sequence[Path]) -> list[Path]:
        """See `Task.places`."""
        return []

    def find(self, roots: Sequence[Path]) -> list[FoundSet]:
        """See `Task.find`."""
        return [FoundSet(part, PARTS[part], Path(), dict, needs_model=False) for part in self.parts]

    def self_check(self) -> None:
        """See `Task.self_check`."""
        names = made.made_up_names()
        expect("detection_speed: different names", len(set(names)), made.NUM_NAMES)
        expect("detection_speed: ratios", _ratios({"a": [2.0, 4.0], "b": [1.0, 2.0]}, "b"), {"a": 2.0})

    def run(self, predictor: Predictor | None, dataset: object, found: FoundSet, options: Options) -> Measured:
        """See `Task.run`."""
        repeats = options.limit or REPEATS
        # Heavy imports (the planner, the engine) wait until a part is asked for.
        from benchmarks.speed.alignment import alignment_scores
        from benchmarks.speed.detection_training import training_scores

        works: dict[str, Callable[[str, int], list[Score]]] = {
            "inference": inference_scores,
            "memory": memory_scores,
            "alignment": alignment_scores,
            "training": training_scores,
        }
        return Measured("made-up-photos", True, works[found.dataset](found.split, repeats))


def inference_scores(split: str, repeats: int) -> list[Score]:
    """Seconds from the photo to its boxes, and of the names."""
    from benchmarks.predictors.detector import ClocDetector
    from benchmarks.predictors.hf_detectors import GroundedDetector, OwlDetector, name_chunks

    names, photo = made.made_up_names(), made.made_up_photo()
    with tempfile.TemporaryDirectory(prefix="detection-speed-") as work:
        folders = {name: Path(work) / name for name in ("ours", "owlv2", "grounding_dino")}
        made.write_cloc(folders["ours"])
        made.write_owlv2(folders["owlv2"])
        made.write_grounding_dino(folders["grounding_dino"])
        ours, owl = ClocDetector(folders["ours"], "cpu", 1), OwlDetector(str(folders["owlv2"]), "cpu", 1)
        grounded = GroundedDetector(str(folders["grounding_dino"]), "cpu", 1)
    chunks = name_chunks(names, grounded.processor.tokenizer, grounded.model.config.max_text_len)
    expect("detection_speed: passes of Grounding DINO", len(chunks), made.NUM_PASSES)
    works = {
        "ours": lambda: ours.detect([photo], names),
        "owlv2": lambda: owl.detect([photo], names),
        "grounding_dino_pass": lambda: grounded.detect([photo], chunks[0]),
    }
    first = {name: _seconds(work) for name, work in works.items()}  # names are encoded here, and kept
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            seconds[name].append(_seconds(work))
    text = {name: max(0.0, first[name] - median(seconds[name])) for name in ("ours", "owlv2")}
    return _rows(split, seconds, text, repeats)


def _rows(split: str, seconds: dict[str, list[float]], text: dict[str, float], repeats: int) -> list[Score]:
    protocol = f"photo-to-300-boxes/names-kept/random-weights/fp32/median-of-{repeats}-in-turn"
    figures = {f"{name}_seconds": median(values) for name, values in seconds.items()}
    ratios = _ratios(seconds, "ours")
    rows = [
        Score(split, protocol, name, value=value, num_examples=repeats, no_constant=COST)
        for name, value in figures.items()
    ]
    rows += [
        Score(split, protocol, f"{name}_over_ours", value=value, num_examples=repeats, no_constant=COST)
        for name, value in ratios.items()
    ]
    whole = f"{protocol}/{made.NUM_PASSES}-times-one-pass"
    for name, value in (
        ("grounding_dino_seconds", figures["grounding_dino_pass_seconds"]),
        ("grounding_dino_over_ours", ratios["grounding_dino_pass"]),
    ):
        rows.append(Score(split, whole, name, value=made.NUM_PASSES * value, num_examples=repeats, no_constant=COST))
    told = "names-alone/first-call-minus-later-ones"
    return rows + [
        Score(split, told, f"{name}_text_seconds", value=value, num_examples=1, no_constant=COST)
        for name, value in text.items()
    ]


def _ratios(seconds: dict[str, list[float]], own: str) -> dict[str, float]:
    """Median over the repeats of each other's time over our own of the same turn."""
    return {
        name: median(a / b for a, b in zip(values, seconds[own], strict=True))
        for name, values in seconds.items()
        if name != own
    }


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
