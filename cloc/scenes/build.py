"""Making a whole world on disk: training shards and evaluation files, each whole or absent, `world.json` last."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from cloc.data.shards.card import find_made
from cloc.disk import LOCK, locked, write_text
from cloc.files import read_object
from cloc.scenes.detection_samples import SHUFFLED, is_shuffled_made, list_folder_plans, shuffle_captions
from cloc.scenes.evaluation import ZEROSHOT, write_coco_and_lvis, write_refcoco, write_single
from cloc.scenes.llava import LLAVA, write_conversations
from cloc.scenes.training import LICENCE, list_card_categories, list_counted_categories, write_folder
from cloc.scenes.world import WorldSpec

WORLD_CARD = "world.json"
EVALUATION_PARTS = ("coco", "lvis", "refcoco")
MARK = "RENDERED.txt"
"""In each evaluation folder of ours: tells a reader what the pictures are, and us that the folder may be replaced."""


def ensure_scenes(out: Path, spec: WorldSpec, workers: int = 2, progress: bool = True) -> Path:
    """Render a world where it is missing; one that is there with equal parameters is left alone.

    Args:
        out: data root of the world, such as `data/scenes`.
        spec: its parameters.
        workers: processes; the files do not depend on it.
        progress: show bars.

    Returns:
        The folder of the training shards, `out/train`; `out` where the world has no such folder.

    Raises:
        ValueError: `out` holds a world with other parameters, or files of another kind; nothing is overwritten.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    out, made = Path(out), spec.made()
    if not (_is_whole(out, spec) and _is_training_made(out, spec)):
        _refuse_other_files(out, spec)
        with locked(out, f"{out}: another process is rendering it; wait for it, or give another folder"):
            try:
                if not (_is_whole(out, spec) and _is_training_made(out, spec)):  # another one may have been quicker
                    _make(out, spec, made, workers, progress)
            finally:
                (out / LOCK).unlink()
    return out / "train" if spec.train > 0 else out


def _make(out: Path, spec: WorldSpec, made: dict[str, Any], workers: int, progress: bool) -> None:
    cards = {
        plan.name: find_made(out / plan.name, made) or write_folder(spec, plan, out / plan.name, workers, progress)
        for plan in list_folder_plans(spec)
    }
    if spec.shuffle_captions and not is_shuffled_made(spec, out / SHUFFLED):
        shuffle_captions(spec, out / "pairs", out / SHUFFLED)
    parts = out / ".evaluation.part"
    shutil.rmtree(parts, ignore_errors=True)
    boxes = cards.get("detection", cards.get("train"))  # LVIS counts the images that detectors are trained on
    listed = list_counted_categories(spec, {}, {}) if boxes is None else list_card_categories(spec, boxes)
    counts = {"coco": write_coco_and_lvis(spec, parts, listed, progress)}
    counts["refcoco"] = write_refcoco(spec, parts, progress)
    if spec.conversations > 0:
        counts[LLAVA] = write_conversations(spec, parts, progress)
    if spec.num_single > 0:
        counts[ZEROSHOT] = write_single(spec, parts, progress)
    for name in _list_parts(spec):
        (parts / name / MARK).write_text("Rendered scenes of this kit, no photographs.\n", encoding="utf-8")
        shutil.rmtree(out / name, ignore_errors=True)  # of an interrupted run: the world's card was not there yet
        os.replace(parts / name, out / name)
    parts.rmdir()
    world = {
        "schema": 1,
        "rendered": True,
        "licence": LICENCE,
        "made": made,
        "counts": {name: card["counts"] for name, card in cards.items()}
        | {name: dict(sorted(count.items())) for name, count in counts.items()},
    }
    write_text(out / WORLD_CARD, json.dumps(world, indent=1) + "\n")


def read_world(out: Path) -> dict[str, Any] | None:
    """The card of a whole world, None where there is none."""
    path = Path(out) / WORLD_CARD
    return read_object(path, "the card of a world", "render it again") if path.is_file() else None


def _list_parts(spec: WorldSpec) -> tuple[str, ...]:
    """The folders beside the training shards."""
    more = ((LLAVA, spec.conversations), (ZEROSHOT, spec.num_single))
    return (*EVALUATION_PARTS, *(name for name, count in more if count > 0))


def _is_whole(out: Path, spec: WorldSpec) -> bool:
    """Whether `out` is a whole world made this way."""
    world = read_world(out)
    if world is None:
        return False
    there, made = world.get("made", {}), spec.made()
    if there != made:
        usual = WorldSpec()  # what a card does not name has its default
        different = [
            f"{k} {there.get(k, getattr(usual, k, None))!r} there, {made.get(k, getattr(usual, k, None))!r} asked"
            for k in dict.fromkeys((*made, *there))
            if there.get(k) != made.get(k)
        ]
        raise ValueError(
            f"{out} holds a world with other parameters ({'; '.join(different)}); it is not overwritten: "
            "give another --out, or remove the folder"
        )
    return all((out / name).is_dir() for name in _list_parts(spec))


def _is_training_made(out: Path, spec: WorldSpec) -> bool:
    """Whether each folder of training shards is there."""
    names = [plan.name for plan in list_folder_plans(spec)] + [SHUFFLED] * spec.shuffle_captions
    return all(find_made(out / name, spec.made()) for name in names)


def _refuse_other_files(out: Path, spec: WorldSpec) -> None:
    """Evaluation folders without our mark are someone's own."""
    others = [name for name in _list_parts(spec) if (out / name).exists() and not (out / name / MARK).is_file()]
    if others:
        raise ValueError(
            f"{out} already holds {', '.join(others)}, which this program did not write; "
            "give another --out, so that nothing is overwritten"
        )
