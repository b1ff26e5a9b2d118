"""A finished folder to hand over, and how to find one.

`export.json` is written last, so that its existence means that the folder is complete.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PreTrainedTokenizerBase

from cloc.command import printable
from cloc.data.concepts import DICTIONARY, ConceptDictionary
from cloc.disk import atomic_dir, disk_errors
from cloc.export.reference import make_reference
from cloc.files import read_object
from cloc.models.detection_processing import make_detection_image_processor
from cloc.models.modeling import ClocModel
from cloc.models.processing import ClocProcessor, image_processor
from cloc.towers.tower import PREFIX_TOKENS, image_side
from cloc.version import __version__

CARD = "export.json"


def hash_file(path: Path) -> str:
    """Hex digest of a file, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_commit() -> str:
    """The commit of the kit's own checkout, with `-dirty` where files differ from it; `unknown` without git."""
    folder = Path(__file__).resolve().parent
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")


def read_card(folder: Path) -> dict[str, Any]:
    """The `export.json` of a finished export.

    Raises:
        ValueError: the folder is no finished export of this kit.
    """
    path = Path(folder) / CARD
    if not path.is_file():
        raise ValueError(f"{folder}: no export ({CARD} is missing); expected a folder such as runs/NAME/export")
    card = read_object(path, "the card of an export", "export the run again")
    if card.get("schema") != 1:
        raise ValueError(f"{path}: expected an object with schema 1; export the run again with this version of the kit")
    for name in ("time", "objective", "model_sha256", "version"):
        if not isinstance(card.get(name, ""), str):
            raise ValueError(f"{path}: expected a text in {name}, got {card[name]!r:.60}; export the run again")
    return card


def find_newest_export(runs: Path = Path("runs"), objective: str | None = None) -> Path:
    """The newest complete export below `runs`, by the time in its card.

    Args:
        runs: folder of runs.
        objective: `clip`, `cloc`, ...; None for any but `clip`, which is only the baseline.

    One that was exported before its run's end never counts: it is used where its path is given.

    Raises:
        ValueError: there is none; the message names the command that makes one.
    """
    cards = {}
    for path in Path(runs).glob(f"*/export/{CARD}"):
        try:
            cards[path.parent] = read_card(path.parent)
        except ValueError as error:
            print(printable(f"warning: left out: {error}"), file=sys.stderr)
    fits = {
        f: c
        for f, c in cards.items()
        if not c.get("unfinished") and (c["objective"] != "clip" if objective is None else c["objective"] == objective)
    }
    if not fits:
        wanted = "objective=cloc" if objective is None else f"objective={objective}"
        raise ValueError(
            f"{runs}: no finished export with {wanted}; make one with `deepspeed cloc/pretrain.py {wanted}`"
        )
    return max(fits, key=lambda folder: fits[folder]["time"])


def find_next_free(path: Path) -> Path:
    """NAME, else NAME-2, NAME-3, ...: the first that does not exist."""
    number, candidate = 2, path
    while candidate.exists():
        candidate = path.with_name(f"{path.name}-{number}")
        number += 1
    return candidate


def find_next_numbered(runs: Path, stem: str) -> Path:
    """runs/STEM-1, runs/STEM-2, ...: the first that does not exist."""
    number = 1
    while (Path(runs) / f"{stem}-{number}").exists():
        number += 1
    return Path(runs) / f"{stem}-{number}"


def save_vision_tower(model: ClocModel, state: Mapping[str, torch.Tensor], folder: Path) -> None:
    """Write the tower as a plain transformers vision model that needs no import of ours.

    A ViT's keys carry the `vision_model.` prefix: transformers before 5.6 has that level, later versions map it.
    """
    folder.mkdir(parents=True)
    tower = model.vision.tower
    inside = "vision.tower."
    weights = {k.removeprefix(inside): v for k, v in state.items() if k.startswith(inside)}
    if tower.config.model_type in PREFIX_TOKENS:
        weights = {f"vision_model.{name}": value for name, value in weights.items()}
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        config = {**tower.config.to_dict(), "architectures": [type(tower).__name__]}
        config = {k: v for k, v in config.items() if not k.startswith("_")}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    else:  # the library itself knows which names its earlier versions had
        tower.save_pretrained(folder, state_dict=weights)
    image_processor(image_side(tower.config)).save_pretrained(folder)


def make_model_card(card: Mapping[str, Any]) -> str:
    """The README.md of an export."""
    sources = "\n".join(f"- `{s['path']}` ({s['kind']}, {s['samples']:,} samples){s['note']}" for s in card["data"])
    unfinished = card.get("unfinished")
    so_far = f" of {unfinished['steps']:,} (unfinished: exported before the run's end)" if unfinished else ""
    begins = ", ".join(f"{value:.4f}" for value in card["reference"]["image_embedding"][:4])
    return f"""---
library_name: transformers
license: {card["licence"]}
pipeline_tag: image-feature-extraction
---
# Vision encoder, objective `{card["objective"]}`

Made by mllm-vision-kit {card["version"]} (commit {card["commit"]}) on {card["time"][:10]}, after
{card["steps"]:,} steps{so_far} and {card["samples"]:,} samples from

{sources}

Images are padded to a square with the mean colour and resized to {card["image_size"]} px; boxes are given in pixels of
the original image. `AutoModel.from_pretrained(folder)` and `AutoProcessor.from_pretrained(folder)` work after
`import cloc`; `{card["tower"]}/` is the tower alone, for code that knows nothing of this kit.

Of the kit's reference picture (`cloc.export.reference`) the image embedding begins
{begins}: elsewhere other values mean that images are prepared in another way.

No figure of merit stands here: score the folder with `python benchmarks/run.py --model FOLDER`.
"""


def write_export(
    model: ClocModel,
    state: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    run: Path,
    facts: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    detection_size: tuple[int, int] | None = None,
    name: str = "export",
    dictionary: ConceptDictionary | None = None,
) -> Path:
    """Write `run/export`; it appears under its name when it is whole, in place of one that was there.

    Args:
        model: the trained model; its own weights may be scattered over ranks.
        state: the whole weights by name, fp32, on the CPU.
        tokenizer: its tokenizer.
        run: the run's folder.
        facts: objective, steps, samples, licence, seed; `unfinished` where it was made before the run's end.
        data: for each source path, kind, samples and a note for the model card.
        detection_size: (short, long) side in pixels of a detection image; None for an encoder without a detector.
        name: of the export's folder in there.
        dictionary: what concepts were read with in training; None where they were bare names.

    Returns:
        The folder.

    Raises:
        OSError: the disk is full or cannot be written; nothing of it is left.
    """
    final = run / name
    with atomic_dir(final, replace=True) as temporary, disk_errors(temporary):
        card = _write_files(model, state, tokenizer, temporary, facts, data, detection_size, dictionary)
        part = temporary / f"{CARD}.part"
        part.write_text(json.dumps(card, indent=1) + "\n", encoding="utf-8")
    (final / part.name).rename(final / CARD)
    return final


def _write_files(
    model: ClocModel,
    state: Mapping[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    temporary: Path,
    facts: Mapping[str, Any],
    data: Sequence[Mapping[str, Any]],
    detection_size: tuple[int, int] | None,
    dictionary: ConceptDictionary | None,
) -> dict[str, Any]:
    """Everything but the card, which is given."""
    model.config.objective = facts["objective"]
    model.save_pretrained(temporary, state_dict=dict(state))
    size = image_side(model.config.vision_config.tower)
    images = image_processor(size)
    if detection_size is not None:
        images = make_detection_image_processor(images, *detection_size, model.canvas_divisor)
    ClocProcessor(images, tokenizer).save_pretrained(temporary)
    images.save_pretrained(temporary)
    save_vision_tower(model, state, temporary / model.vision.tower.config.model_type)
    concepts = {}
    if detection_size is not None:
        concepts = {"concepts": {"form": "name" if dictionary is None else "name, definition"}}
    if dictionary is not None:
        dictionary.write(temporary / DICTIONARY)
        concepts["concepts"] |= {"file": DICTIONARY, "entries": len(dictionary), "sha256": dictionary.sha256()}
    files = {str(p.relative_to(temporary)): hash_file(p) for p in sorted(temporary.rglob("*")) if p.is_file()}
    now = datetime.datetime.now(datetime.UTC).isoformat()
    card = {
        "schema": 1,
        "time": now,
        "version": __version__,
        "commit": find_commit(),
        **facts,
        **concepts,
        "image_size": size,
        "tower": model.vision.tower.config.model_type,
        "data": list(data),
    }
    card |= {"model_sha256": files["model.safetensors"], "files": files, "reference": make_reference(temporary, images)}
    (temporary / "README.md").write_text(make_model_card(card), encoding="utf-8")
    return card
