"""Seconds from one photo of 800 x 1333 pixels and 1,203 names to 300 boxes, beside two public detectors.

All with random weights, on this machine, in turn in one run, from the photo to the boxes in its pixels. Names are
encoded before, where a model allows it (ours, OWLv2); their time is a row of its own. Grounding DINO reads names with
the image, 31 passes for all; one is timed and taken 31 times.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

from benchmarks.speed import detection_models as made
from benchmarks.speed.timing import find_ratio, make_cost_scores, time_call
from benchmarks.tasks.contract import Score, expect


def measure_inference(split: str, repeats: int) -> list[Score]:
    """Seconds from the photo to its boxes, and of the names."""
    from benchmarks.predictors.detector import ClocDetector
    from benchmarks.predictors.hf_detectors import GroundedDetector, OwlDetector, split_names

    names, photo = made.make_names(), made.make_photo()
    with tempfile.TemporaryDirectory(prefix="detection-speed-") as work:
        folders = {name: Path(work) / name for name in ("ours", "owlv2", "grounding_dino")}
        made.write_cloc(folders["ours"])
        made.write_owlv2(folders["owlv2"])
        made.write_grounding_dino(folders["grounding_dino"])
        ours, owl = ClocDetector(folders["ours"], "cpu", 1), OwlDetector(str(folders["owlv2"]), "cpu", 1)
        grounded = GroundedDetector(str(folders["grounding_dino"]), "cpu", 1)
    chunks = split_names(names, grounded.processor.tokenizer, grounded.model.config.max_text_len)
    expect("detection_speed: passes of Grounding DINO", len(chunks), made.NUM_PASSES)
    works = {
        "ours": lambda: ours.detect([photo], names),
        "owlv2": lambda: owl.detect([photo], names),
        "grounding_dino_pass": lambda: grounded.detect([photo], chunks[0]),
    }
    first = {name: time_call(work) for name, work in works.items()}  # names are encoded here, and kept
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, call in works.items():
            seconds[name].append(time_call(call))
    text = {name: max(0.0, first[name] - median(seconds[name])) for name in ("ours", "owlv2")}
    return make_scores(split, seconds, text, repeats)


def make_scores(split: str, seconds: dict[str, list[float]], text: dict[str, float], repeats: int) -> list[Score]:
    """Medians, ratios to ours of the same turn, Grounding DINO's passes together, and the names' own time."""
    protocol = f"photo-to-300-boxes/names-kept/random-weights/fp32/median-of-{repeats}-in-turn"
    medians = {f"{name}_seconds": median(values) for name, values in seconds.items()}
    ratios = {f"{name}_over_ours": ratio for name, ratio in find_ratios("ours", seconds).items()}
    all_passes = {
        "grounding_dino_seconds": made.NUM_PASSES * medians["grounding_dino_pass_seconds"],
        "grounding_dino_over_ours": made.NUM_PASSES * ratios["grounding_dino_pass_over_ours"],
    }
    texts = {f"{name}_text_seconds": value for name, value in text.items()}
    return [
        *make_cost_scores(split, protocol, medians | ratios, repeats),
        *make_cost_scores(split, f"{protocol}/{made.NUM_PASSES}-times-one-pass", all_passes, repeats),
        *make_cost_scores(split, "names-alone/first-call-minus-later-ones", texts, 1),
    ]


def find_ratios(own: str, seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Median over the repeats of each other's time over `own`'s of the same turn."""
    return {name: find_ratio(values, seconds[own]) for name, values in seconds.items() if name != own}
