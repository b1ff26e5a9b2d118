"""The formats of `python -m cloc.convert`: a row each, with its arguments and the function that converts."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloc.convert.coco import convert_coco
from cloc.convert.finehard import PHRASES as FINEHARD_PHRASES
from cloc.convert.finehard import convert_finehard
from cloc.convert.flickr30k_entities import convert_flickr30k_entities
from cloc.convert.goldg import convert_goldg
from cloc.convert.grit import convert_grit
from cloc.convert.llava import COORDINATES, convert_llava
from cloc.convert.lvis import convert_lvis
from cloc.convert.objects365 import convert_objects365
from cloc.convert.odvg import convert_odvg
from cloc.convert.pairs import convert_pairs
from cloc.convert.refcoco import convert_refcoco
from cloc.convert.visual_genome import convert_visual_genome
from cloc.formats.flickr30k_entities import SPLITS
from cloc.formats.grit import PHRASES as GRIT_PHRASES
from cloc.formats.visual_genome import FILES

_PHOTOS = "where the photos lie: a folder, a tar or a folder of tars, Parquet"


@dataclass(frozen=True)
class Argument:
    """One flag of a format.

    Attributes:
        flag: such as `--images`; the converter's parameter of that name gets its value.
        help: one line.
        settings: further arguments of `add_argument`.
    """

    flag: str
    help: str
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Format:
    """One subcommand.

    Attributes:
        help: one line.
        convert: gets the arguments by name, and those that all formats share.
        arguments: its own.
        name: default of `--name`, None where the converter has a name of its own for each split.
    """

    help: str
    convert: Callable[..., dict[str, Any]]
    arguments: tuple[Argument, ...]
    name: str | None

    def add_to(self, parser: argparse.ArgumentParser) -> None:
        """Add the flags of this format."""
        for argument in self.arguments:
            parser.add_argument(argument.flag, help=argument.help, **argument.settings)
        if self.name is not None:
            parser.add_argument("--name", default=self.name, help="name of the set in its card (default: %(default)s)")


def _make_photos(help_: str = _PHOTOS, many: bool = False, required: bool = True) -> Argument:
    settings: dict[str, Any] = {"type": Path, "required": required, "metavar": "PLACE"}
    return Argument("--images", help_, settings | ({"nargs": "+"} if many else {}))


def _make_file(flag: str, help_: str, many: bool = False, required: bool = True) -> Argument:
    settings: dict[str, Any] = {"type": Path, "required": required, "metavar": "FILE"}
    return Argument(flag, help_, settings | ({"nargs": "+"} if many else {}))


def _make_folder(flag: str, help_: str) -> Argument:
    return Argument(flag, help_, {"type": Path, "required": True, "metavar": "DIR"})


def _make_choice(flag: str, help_: str, choices: tuple[str, ...]) -> Argument:
    return Argument(flag, f"{help_} (default: {choices[0]})", {"choices": choices, "default": choices[0]})


_ALLOW = Argument("--allow-evaluation-split", "convert a split that benchmarks are scored on", {"action": "store_true"})

FORMATS: Mapping[str, Format] = {
    "coco": Format(
        "COCO instances and captions, 2014 or 2017",
        convert_coco,
        (
            _make_photos(),
            _make_file("--instances", "instances_*.json"),
            _make_file("--captions", "captions_*.json; without it no image has a caption", required=False),
            Argument("--limit", "only the first N images of the file (default: all)", {"type": int, "metavar": "N"}),
            Argument("--masks", "write the objects' masks too, to prompt with them", {"action": "store_true"}),
        ),
        "coco",
    ),
    "lvis": Format(
        "LVIS v1 or v0.5, as detection data",
        convert_lvis,
        (
            _make_photos("where COCO's train2017, val2017 or both lie: folders, tars, Parquet", many=True),
            _make_file("--annotations", "lvis_v1_*.json"),
        ),
        "lvis",
    ),
    "objects365": Format(
        "Objects365 v2, as detection data",
        convert_objects365,
        (
            _make_photos("folder of images/ or of the patches, or tars, or Parquet"),
            _make_file("--annotations", "zhiyuan_objv2_*.json"),
            _make_file("--names", "rows id,name,corrected name for the misspelt categories", required=False),
        ),
        "objects365",
    ),
    "odvg": Format(
        "ODVG JSON lines (Grounding DINO): detection or grounding rows",
        convert_odvg,
        (_make_photos(), _make_file("--annotations", "*.jsonl, one image a line")),
        "odvg",
    ),
    "goldg": Format(
        "GoldG (MDETR): captions of Flickr30k and GQA with boxes for their phrases",
        convert_goldg,
        (
            _make_photos("where GQA's or Flickr30k's photos lie: folders, tars, Parquet", many=True),
            _make_file("--annotations", "final_mixed_train_no_coco.json or final_flickr_separateGT_train.json"),
        ),
        "goldg",
    ),
    "flickr30k_entities": Format(
        "Flickr30k Entities: captions with marked phrases and boxes",
        convert_flickr30k_entities,
        (
            _make_folder("--root", "folder that holds Sentences, Annotations and train.txt"),
            _make_photos("where the photos ID.jpg lie: a folder, tars, Parquet"),
            _make_choice("--split", "which list of photos", SPLITS),
            _ALLOW,
        ),
        None,
    ),
    "grit": Format(
        "GRIT (Kosmos-2): captions with boxes for their phrases",
        convert_grit,
        (
            _make_photos("folder with KEY.jpg or KEY[:5]/KEY.jpg, or img2dataset's tars or Parquet"),
            _make_file("--rows", ".parquet files, or JSON lines", many=True),
            _make_choice("--phrases", "which boxes to take", ("both", *GRIT_PHRASES)),
        ),
        "grit",
    ),
    "visual_genome": Format(
        "Visual Genome: region descriptions, or objects",
        convert_visual_genome,
        (
            _make_folder("--root", "folder that holds image_data.json and region_descriptions.json or objects.json"),
            _make_photos("VG_100K and VG_100K_2, or the folder of both; tars; Parquet", many=True),
            _make_choice("--regions", "what a region is", tuple(FILES)),
        ),
        "visual_genome",
    ),
    "refcoco": Format(
        "RefCOCO, RefCOCO+ or RefCOCOg: boxes with expressions",
        convert_refcoco,
        (
            _make_folder(
                "--root", "folder that holds refcoco/refs(unc).p and instances.json, or annotations_only/REC_*.jsonl"
            ),
            _make_choice("--dataset", "which", ("refcoco", "refcoco+", "refcocog")),
            Argument("--split", "train, val, testA, testB or test (default: train)", {"default": "train"}),
            _make_photos(
                _PHOTOS + " (default: ROOT/images/mscoco/images/train2014, then ROOT/../coco/train2014)", required=False
            ),
            _ALLOW,
        ),
        None,
    ),
    "finehard": Format(
        "FineHARD (FG-CLIP): regions with short and long texts and hard negatives",
        convert_finehard,
        (
            _make_photos("folder of coyo_image_0 and so on, tars, or Parquet"),
            _make_file("--rows", "jsonfiles/*.json, JSON lines, or .parquet", many=True),
            _make_choice("--phrases", "which text of a box", tuple(FINEHARD_PHRASES)),
        ),
        "finehard",
    ),
    "pairs": Format(
        "photos with a text beside each, or img2dataset's tars or Parquet",
        convert_pairs,
        (_make_folder("--images", "folder of KEY.jpg and KEY.txt, or of tars or Parquet files of them"),),
        "pairs",
    ),
    "llava": Format(
        "LLaVA's conversations: captions, and rounds that speak of one box",
        convert_llava,
        (
            _make_photos("folder that the image paths start from, tars, or Parquet", many=True),
            _make_file("--conversations", "LLaVA's JSON"),
            _make_choice(
                "--coordinates", "what 0 to 1 means: of the photo padded to a square, or of the photo", COORDINATES
            ),
        ),
        "llava",
    ),
}
