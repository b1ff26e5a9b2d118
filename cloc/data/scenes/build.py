"""Making a whole world on disk: training shards and evaluation files, each whole or absent, `world.json` last."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from cloc.data.scenes.evaluation import write_coco_and_lvis, write_refcoco
from cloc.data.scenes.training import LICENCE, write_training
from cloc.data.scenes.world import WorldSpec
from cloc.data.shards.card import already_made

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
        The folder of the training shards, `out/train`.

    Raises:
        ValueError: `out` holds a world with other parameters, or files of another kind; nothing is overwritten.
    """
    if workers < 1:
        raise ValueError(f"workers: expected at least 1, got {workers}")
    out = Path(out)
    train, made = out / "train", spec.made()
    if _whole(out, made) and already_made(train, made):
        return train
    _refuse_strangers(out)
    card = already_made(train, made) or write_training(spec, train, workers, progress)
    parts = out / ".evaluation.part"
    shutil.rmtree(parts, ignore_errors=True)
    counts = {"coco": write_coco_and_lvis(spec, parts, card["categories"], progress)}
    counts["refcoco"] = write_refcoco(spec, parts, progress)
    for name in EVALUATION_PARTS:
        (parts / name / MARK).write_text("Rendered scenes of this kit, no photographs.\n", encoding="utf-8")
        shutil.rmtree(out / name, ignore_errors=True)  # of an interrupted run: the world's card was not there yet
        os.replace(parts / name, out / name)
    parts.rmdir()
    listed = {name: dict(sorted(count.items())) for name, count in counts.items()}
    world = {
        "schema": 1,
        "rendered": True,
        "licence": LICENCE,
        "made": made,
        "counts": {"train": card["counts"], **listed},
    }
    temporary = out / f"{WORLD_CARD}.part"
    temporary.write_text(json.dumps(world, indent=1) + "\n", encoding="utf-8")
    temporary.replace(out / WORLD_CARD)
    return train


def read_world(out: Path) -> dict[str, Any] | None:
    """The card of a whole world, None where there is none."""
    path = Path(out) / WORLD_CARD
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def _whole(out: Path, made: dict[str, Any]) -> bool:
    """Whether `out` is a whole world made this way."""
    world = read_world(out)
    if world is None:
        return False
    there = world.get("made", {})
    if there != made:
        different = [f"{k} {there.get(k)!r} there, {made.get(k)!r} asked" for k in made if there.get(k) != made.get(k)]
        raise ValueError(
            f"{out} holds a world with other parameters ({'; '.join(different)}); it is not overwritten: "
            "give another --out, or remove the folder"
        )
    return all((out / name).is_dir() for name in EVALUATION_PARTS)


def _refuse_strangers(out: Path) -> None:
    """Evaluation folders without our mark are someone's own."""
    strangers = [name for name in EVALUATION_PARTS if (out / name).exists() and not (out / name / MARK).is_file()]
    if strangers:
        raise ValueError(
            f"{out} already holds {', '.join(strangers)}, which this program did not write; "
            "give another --out, so that nothing is overwritten"
        )
