"""Conversations about scenes in LLaVA's JSON: `id`, `image`, `conversations` of {from: human | gpt, value}.

`image` is relative to the world's folder (LLaVA's image folder). Each file comes twice, with the same images, questions
and answers: `conversations*.json` writes the box that a question points at as coordinates, its twin
`conversations_regions*.json` as a `<region>` placeholder with the boxes in `regions` (xyxy pixels, in the order of the
placeholders).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cloc.scenes.questions import KINDS, PLACE, Turn, make_evaluation_turns, make_training_turns
from cloc.scenes.render import Scene, render_scene
from cloc.scenes.training import encode_jpeg
from cloc.scenes.world import WorldSpec, list_categories, make_scene_rng
from cloc.structures import Box

LLAVA = "llava"
"""The folder of the conversations."""

_CHANCE_STREAM = 2 << 32


def write_box(box_xyxy: Box, side: int, spec: WorldSpec) -> str:
    """A box as `[x0, y0, x1, y1]` in the world's coordinates.

    Args:
        box_xyxy: pixels.
        side: of the scene in pixels; scenes are square, so that a padded square is the same.
        spec: `unit` gives three digits of 0 to 1, `thousand` whole numbers from 0 to 1000, `bins` from 0 to bins - 1
            (the nearest of that many equally spaced lines, the first and the last at the borders).
    """
    shares = [value / side for value in box_xyxy]
    if spec.coordinates == "unit":
        return f"[{', '.join(f'{share:.3f}' for share in shares)}]"
    steps = 1000 if spec.coordinates == "thousand" else spec.bins - 1
    return f"[{', '.join(str(round(share * steps)) for share in shares)}]"


def make_conversation(spec: WorldSpec, name: str, image: str, side: int, turns: Sequence[Turn], regions: bool) -> dict:
    """One entry of a file.

    Args:
        spec: the world.
        name: id of the entry.
        image: path below the world's folder.
        side: of the scene in pixels.
        turns: questions and answers.
        regions: `<region>` placeholders for coordinates in questions; answers hold coordinates in any case.
    """
    values = []
    for i, turn in enumerate(turns):
        asked = "" if turn.asked_box is None else "<region>" if regions else write_box(turn.asked_box, side, spec)
        found = "" if turn.answer_box is None else write_box(turn.answer_box, side, spec)
        head = "<image>\n" if i == 0 else ""
        values.append({"from": "human", "value": head + turn.question.replace(PLACE, asked)})
        values.append({"from": "gpt", "value": turn.answer.replace(PLACE, found)})
    entry = {"id": name, "image": image, "conversations": values, "kinds": [turn.kind for turn in turns]}
    if regions:
        entry["regions"] = [list(turn.asked_box) for turn in turns if turn.asked_box is not None]
    return entry


def write_conversations(spec: WorldSpec, root: Path, progress: bool = True) -> Counter[str]:
    """Write `llava/` with training scenes of its own and questions about the evaluation scenes in `coco/val2017`.

    The answers to training's yes/no questions take turns, so that half are yes; held-out scenes have one of each.

    Returns:
        Conversations and questions written, by kind.
    """
    folder, counts = root / LLAVA, Counter[str]()
    (folder / "images").mkdir(parents=True, exist_ok=True)
    entries: dict[str, list[dict[str, Any]]] = {"conversations": [], "conversations_regions": []}
    for index in tqdm(range(spec.conversations), desc="writing conversations", unit="scene", disable=not progress):
        scene, image = render_scene(spec, index, LLAVA), f"{LLAVA}/images/{index + 1:012d}.jpg"
        (root / image).write_bytes(encode_jpeg(scene.image, spec.quality))
        turns = make_training_turns(spec, scene, index % 2 == 0, make_scene_rng(spec, LLAVA, index + _CHANCE_STREAM))
        counts.update(conversations=1, **{f"{turn.kind}_questions": 1 for turn in turns})
        for name, listed in entries.items():
            listed.append(
                make_conversation(spec, f"llava-{index + 1:012d}", image, spec.size, turns, "regions" in name)
            )
    held_out: dict[str, list[dict[str, Any]]] = {f"{name}_val": [] for name in entries}
    for index in tqdm(range(spec.val), desc="writing held-out questions", unit="scene", disable=not progress):
        questions = _make_held_out(spec, render_scene(spec, index, "val"))
        counts["held_out_questions"] += len(questions)
        for name, listed in held_out.items():
            listed += [
                {**make_conversation(spec, key, image, spec.size, [turn], "regions" in name), **more}
                for key, image, turn, more in questions
            ]
    for name, listed in {**entries, **held_out}.items():
        _write_json(folder / f"{name}.json", listed)
    _write_json(folder / "card.json", _make_card(spec, counts))
    return counts


def _make_held_out(spec: WorldSpec, scene: Scene) -> list[tuple[str, str, Turn, dict[str, Any]]]:
    """(id, image, turn, further fields of the entry) of each question about an evaluation scene."""
    rng, known = make_scene_rng(spec, "val", scene.index + _CHANCE_STREAM), list_categories(spec)
    image, found = f"coco/val2017/{scene.index + 1:012d}.jpg", []
    for i, turn in enumerate(make_evaluation_turns(spec, scene, rng)):
        more: dict[str, Any] = {}
        if turn.category_id is not None:
            more = {"category_id": turn.category_id, "caption_only": known[turn.category_id - 1].caption_only}
        box = turn.asked_box or turn.answer_box
        if box is not None:
            more["box"] = list(box)
        found.append((f"val-{scene.index + 1:012d}-{i:02d}", image, turn, more))
    return found


def _make_card(spec: WorldSpec, counts: Counter[str]) -> dict[str, Any]:
    last = {"unit": 1, "thousand": 1000, "bins": spec.bins - 1}[spec.coordinates]
    return {
        "schema": 1,
        "rendered": True,
        "made": spec.made(),
        "image_folder": "the world's folder, above this one",
        "kinds": list(KINDS),
        "coordinates": {
            "convention": spec.coordinates,
            "format": "[x0, y0, x1, y1]",
            "from": 0,
            "to": last,
            "digits": 3 if spec.coordinates == "unit" else 0,
            "frame": "the image, which is square",
        },
        "regions": "xyxy pixels of the image, one for each <region>, in order",
        "counts": dict(sorted(counts.items())),
    }


def _write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
