"""Conversations about photos, made from annotation files: captions, "what is in this box?", "where is this?".

In: COCO's instances (and captions), or Flickr30k Entities. Out: the layout of LLaVA that `mllm_bridge.tune` reads and
that rendered worlds have, in a folder: `conversations.json` with boxes as text in a declared convention, its twin
`conversations_regions.json` with `<region>` in the questions and `regions` in pixels, both for training (one
conversation a photo); `*_val.json`, one question an entry, about photos that training never shows; and `card.json`,
which says how boxes are written. Which photo is held out, and what is asked about it, is a pure function of the seed
and the photo's name.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cloc.box_text import BoxTextFormat
from cloc.formats.coco import read_coco
from cloc.formats.flickr30k_entities import list_photos, read_entities
from cloc.structures import Box
from mllm_bridge.conversations.reading import IMAGE, REGION

Kind = Literal["caption", "referring", "grounding"]
KINDS: tuple[Kind, ...] = ("caption", "referring", "grounding")
PLACE = "{place}"
QUESTIONS: dict[Kind, tuple[str, ...]] = {
    "caption": ("Describe the image briefly.", "Write a caption for this image.", "What does the image show?"),
    "referring": (f"What is in the box {PLACE}?", f"What is at {PLACE}?", f"Name what lies in {PLACE}."),
    "grounding": ("Where is {name}? Answer with its box.", "Give the box of {name}."),
}


@dataclass(frozen=True)
class Photo:
    """What can be asked about a photo.

    Attributes:
        name: of the file, below the folder of images.
        size: (width, height) in pixels.
        captions: of the whole image.
        named: (name, box as xyxy pixels), one box a row.
        synonyms: names of one box mean one thing (phrases of several captions), so any of them is an answer.
    """

    name: str
    size: tuple[int, int]
    captions: tuple[str, ...]
    named: tuple[tuple[str, Box], ...]
    synonyms: bool = False


@dataclass(frozen=True)
class Round:
    """A question and its answer; the box that is asked about or answered, if any, stands where `{place}` does."""

    kind: Kind
    question: str
    answer: str
    box: Box | None = None


def read_coco_photos(instances: Path, captions: Path | None, images: Path, dropped: Counter[str]) -> Iterator[Photo]:
    """The photos of COCO's files, or of any file of that layout; a crowd's box is asked about by nobody.

    Raises:
        ValueError: a file is missing or is no such file.
    """
    found = read_coco(instances, images, captions)
    dropped.update(found.dropped)
    for image in found.images:
        alone = ~image.crowd
        named = tuple(
            (found.categories[int(category)].name, tuple(map(float, box)))
            for category, box in zip(image.category_ids[alone], image.boxes_xyxy[alone], strict=True)
        )
        name = image.path.relative_to(images).as_posix()
        yield Photo(name, (image.width, image.height), image.captions, named)


def read_entities_photos(root: Path, split: str, dropped: Counter[str]) -> Iterator[Photo]:
    """The photos of a split of Flickr30k Entities. A phrase goes with the box of its entity, where it has just one.

    Raises:
        ValueError: the list or a folder is missing.
    """
    for photo in read_entities(root, list_photos(root, split), dropped):
        named = dict.fromkeys(
            (caption[mention.start : mention.end].lower(), tuple(map(float, boxes[0])))
            for caption, mentions in photo.captions
            for mention in mentions
            if len(boxes := photo.boxes_xyxy.get(mention.chain, [])) == 1
        )
        captions = tuple(caption for caption, _ in photo.captions)
        yield Photo(f"{photo.number}.jpg", (photo.width, photo.height), captions, tuple(named), synonyms=True)


def make_rounds(photo: Photo, kinds: Sequence[Kind], most: int, seed: int) -> list[Round]:
    """What is asked about a photo: a caption, and of each other kind at most `most`.

    A name is asked for its place only where it has one box, and a box for its name only where it has one (or where all
    that it has mean the same: then it is asked once).
    """
    draw = np.random.default_rng([seed, *_digest(photo.name)])
    rounds = []
    if "caption" in kinds and photo.captions:
        caption = photo.captions[draw.integers(len(photo.captions))]
        rounds.append(Round("caption", str(draw.choice(QUESTIONS["caption"])), caption))
    shuffled = [photo.named[number] for number in draw.permutation(len(photo.named))]
    names, boxes = Counter(name for name, _ in shuffled), Counter(box for _, box in shuffled)
    of_box = {box: (name, box) for name, box in shuffled if photo.synonyms or boxes[box] == 1}
    askable: dict[Kind, list[tuple[str, Box]]] = {
        "referring": list(of_box.values()),
        "grounding": [(name, box) for name, box in shuffled if names[name] == 1],
    }
    for kind, fitting in askable.items():
        if kind not in kinds:
            continue
        for number in draw.permutation(len(fitting))[:most]:
            name, box = fitting[number]
            question = str(draw.choice(QUESTIONS[kind]))
            asked = name if name.split()[0] in ("a", "an", "the", "his", "her", "their", "its") else f"the {name}"
            text = question.replace("{name}", asked)
            rounds.append(Round(kind, text, PLACE if kind == "grounding" else name, box))
    return [rounds[number] for number in draw.permutation(len(rounds))]


def held_out(name: str, share: float, seed: int) -> bool:
    """Whether a photo belongs to the held-out ones: by its name and the seed alone."""
    return np.random.default_rng([seed, 1, *_digest(name)]).random() < share


def _digest(name: str) -> list[int]:
    return list(hashlib.sha256(name.encode()).digest()[:8])


def make_entry(
    key: str, photo: Photo, rounds: Sequence[Round], box_format: BoxTextFormat, regions: bool
) -> dict[str, Any]:
    """One entry of a file; with `regions` a box in a question is a `<region>`, answers hold text in any case."""
    turns, boxes = [], []
    for number, one in enumerate(rounds):
        written = "" if one.box is None else box_format.write(one.box, photo.size)
        marked = regions and PLACE in one.question
        head = f"{IMAGE}\n" if number == 0 else ""
        question = one.question.replace(PLACE, REGION if marked else written)
        turns.append({"from": "human", "value": head + question})
        turns.append({"from": "gpt", "value": one.answer.replace(PLACE, written)})
        boxes += [list(one.box)] if marked and one.box is not None else []
    made = {"id": key, "image": photo.name, "conversations": turns, "kinds": [one.kind for one in rounds]}
    return {**made, "regions": boxes} if regions else made


def write_conversations(
    photos: Iterable[Photo],
    images: Path,
    out: Path,
    box_format: BoxTextFormat,
    kinds: Sequence[Kind] = KINDS,
    most: int = 4,
    share: float = 0.05,
    seed: int = 0,
    source: str = "",
) -> Counter[str]:
    """Write the files of a set of conversations.

    Args:
        photos: what they are made from.
        images: folder of the photos; one that is not there is counted as missing_image.
        out: an existing folder.
        box_format: how boxes are written as text.
        kinds: what is asked.
        most: rounds of a kind in one conversation.
        share: of the photos, held out.
        seed: of every draw.
        source: what is said in the card about where they come from.

    Returns:
        Conversations, held-out questions and rounds by kind; photos left out by reason.

    Raises:
        ValueError: not one conversation can be made.
    """
    files: dict[str, list[dict[str, Any]]] = {}
    counts = Counter[str]()
    for photo in photos:
        rounds = make_rounds(photo, kinds, most, seed)
        if not rounds or not (images / photo.name).is_file():
            counts["photos_without_a_question" if not rounds else "missing_image"] += 1
            continue
        aside = held_out(photo.name, share, seed)
        counts.update(f"{'held_out_' * aside}{one.kind}" for one in rounds)
        counts["held_out_questions" if aside else "conversations"] += len(rounds) if aside else 1
        for regions in (False, True):
            name = "conversations" + "_regions" * regions + "_val" * aside
            made = files.setdefault(name, [])
            if not aside:
                made.append(make_entry(photo.name, photo, rounds, box_format, regions))
                continue
            for number, one in enumerate(rounds):
                more = {} if one.box is None else {"box": list(one.box)}
                made.append({**make_entry(f"{photo.name}-{number}", photo, [one], box_format, regions), **more})
    if not counts["conversations"]:
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(counts.items())) or "no photo"
        raise ValueError(
            f"{images}: not one conversation can be made ({reasons}); give the folder that holds the photos"
        )
    for name, entries in files.items():
        _dump(out / f"{name}.json", entries)
    tops = {"unit": 1, "thousand": 1000, "bins": box_format.bins - 1, "pixels": None}
    convention = {"convention": box_format.scale, "to": tops[box_format.scale], "digits": box_format.digits}
    card = {
        "schema": 1,
        "made_from": source,
        "image_folder": str(images),
        "kinds": list(kinds),
        "seed": seed,
        "held_out": share,
        "coordinates": {**convention, "format": "[x0, y0, x1, y1]", "padded": box_format.padded},
        "places": asdict(box_format),
        "regions": "xyxy pixels of the image, one for each <region>, in order",
        "counts": dict(sorted(counts.items())),
    }
    _dump(out / "card.json", card)
    return counts


def _dump(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, allow_nan=False, indent=1) + "\n", encoding="utf-8")
