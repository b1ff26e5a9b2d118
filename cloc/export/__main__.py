"""An export in the layout of another library: `python -m cloc.export --format open_clip runs/cloc/export my-clip`.

What is written is read back by the library it is for and compared with the export before the folder appears.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
from transformers import AutoModel, AutoTokenizer, CLIPVisionModel
from transformers.utils.logging import disable_progress_bar

from cloc import command
from cloc.disk import atomic_dir, disk_errors
from cloc.export import read_card
from cloc.export.open_clip import write_open_clip
from cloc.export.timm import write_timm
from cloc.model_folders import refuse_links, refusing_unreadable
from cloc.models.modeling import ClocModel
from cloc.towers.tower import encode, image_side

TOLERANCE = 1e-4
"""Largest difference between the export's outputs and those of the folder written, over their own largest value."""


def load_export(folder: Path) -> ClocModel:
    """A finished export's model, in fp32 on the CPU.

    Raises:
        ValueError: the folder is no finished export, or its weights cannot be read.
    """
    read_card(folder)
    with refusing_unreadable(folder):
        model = AutoModel.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
        )
    return model.eval()


@torch.no_grad()
def to_transformers(export: Path, out: Path) -> str:
    """The export as it is: `AutoModel` after `import cloc`."""
    shutil.copytree(export, out, dirs_exist_ok=True)
    model = load_export(export)
    pixels = _pictures(model)
    _equal(load_export(out).get_image_features(pixels), model.get_image_features(pixels), "image features")
    return f"import cloc; AutoModel.from_pretrained({str(out)!r})"


@torch.no_grad()
def to_clip_vision_model(export: Path, out: Path) -> str:
    """The tower alone as plain `CLIPVisionModel`, for code that knows nothing of this kit."""
    kind = read_card(export)["tower"]
    if kind != "clip_vision_model":
        raise ValueError(
            f"{export}: its tower is a {kind}, which no CLIPVisionModel can hold; {export / kind} is the tower alone "
            "as a plain transformers model, --format timm gives it to timm"
        )
    shutil.copytree(export / kind, out, dirs_exist_ok=True)
    model = load_export(export)
    pixels = _pictures(model)
    theirs = CLIPVisionModel.from_pretrained(
        out, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=torch.float32
    ).eval()
    _equal(theirs(pixels).pooler_output, encode(model.vision.tower, pixels)[1], "pooled vector")
    return f"CLIPVisionModel.from_pretrained({str(out)!r})"


@torch.no_grad()
def to_open_clip(export: Path, out: Path) -> str:
    """Both towers for open_clip, without the Prompter."""
    model = load_export(export)
    with refusing_unreadable(export):
        tokenizer = AutoTokenizer.from_pretrained(export, trust_remote_code=False, local_files_only=True)
    theirs = write_open_clip(model, tokenizer, out)
    pixels = _pictures(model)
    _equal(theirs.encode_image(pixels, normalize=True), model.get_image_features(pixels), "image features")
    ids = tokenizer("a photo of a cat", padding="max_length", return_tensors="pt").input_ids
    _equal(theirs.encode_text(ids, normalize=True), model.get_text_features(ids), "text features")
    return f"open_clip.create_model_and_transforms({'local-dir:' + str(out)!r})"


@torch.no_grad()
def to_timm(export: Path, out: Path) -> str:
    """The tower alone for timm, without projection, Prompter and text tower."""
    model = load_export(export)
    theirs = write_timm(model.vision.tower, out)
    pixels = _pictures(model)
    _equal(theirs(pixels), encode(model.vision.tower, pixels)[1], "pooled vector")
    return f"timm.create_model({'local-dir:' + str(out)!r}, pretrained=True)"


FORMATS: dict[str, Callable[[Path, Path], str]] = {
    "transformers": to_transformers,
    "clip_vision_model": to_clip_vision_model,
    "open_clip": to_open_clip,
    "timm": to_timm,
}
"""Name to the function that writes it and tells the line that loads it."""


def convert(export: Path, name: str, out: Path) -> str:
    """Write `export` in another layout.

    Args:
        export: a finished export.
        name: one of `FORMATS`.
        out: the new folder; it appears when it is complete and its outputs are equal.

    Returns:
        The line of Python that loads it.

    Raises:
        ValueError: the folder is no export, `out` exists, or the format cannot hold this tower.
    """
    read_card(export)
    if out.exists():
        raise ValueError(f"{out}: already there; give another folder")
    if out.resolve().is_relative_to(export.resolve()):
        raise ValueError(f"{out} lies in {export}, which is read; give another folder")
    refuse_links(export, "export")
    with atomic_dir(out) as part, disk_errors(out):
        line = FORMATS[name](export, part)
    return line.replace(*(repr(str(path))[1:-1] for path in (part, out)))  # as the line has them, escaped


def _pictures(model: ClocModel) -> torch.Tensor:
    side = image_side(model.config.vision_config.tower)
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


def _equal(theirs: torch.Tensor, ours: torch.Tensor, what: str) -> None:
    difference = float((theirs - ours).abs().max() / ours.abs().max())
    if not difference <= TOLERANCE:
        raise ValueError(f"{what}: the folder written differs from the export by {difference:.2g}; it is not kept")


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    parser = argparse.ArgumentParser(
        prog="python -m cloc.export",
        description="Write a finished export in the layout of another library, and check that it gives equal outputs.",
        epilog="transformers: the export itself. clip_vision_model: the tower alone as plain CLIPVisionModel. "
        "open_clip: both towers, for open_clip.create_model_and_transforms('local-dir:OUT'). "
        "timm: the tower alone, for timm.create_model('local-dir:OUT', pretrained=True). "
        "Only transformers holds the Prompter.",
    )
    parser.add_argument("model", type=Path, metavar="MODEL", help="a finished export, such as runs/cloc/export")
    parser.add_argument("out", type=Path, metavar="OUT", help="the new folder")
    parser.add_argument("--format", choices=sorted(FORMATS), required=True, help="the library that will read it")
    options = parser.parse_args(arguments)
    disable_progress_bar()
    return command.run(lambda: _convert(options))


def _convert(options: argparse.Namespace) -> None:
    line = convert(options.model, options.format, options.out)
    print(command.printable(f"wrote {options.out}, read back with equal outputs; load it with\n  {line}"))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
