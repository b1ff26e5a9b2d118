"""From an export folder to the model in memory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoProcessor

import cloc  # noqa: F401  registers the model classes
from cloc.export import read_card
from cloc.export.loading import weights_of
from cloc.export.reference import check_reference


@dataclass(frozen=True)
class LoadedExport:
    """An export, ready to be read.

    Attributes:
        label: name of its run, or of its folder.
        sha256: of model.safetensors, from export.json.
        objective: what it was trained with.
        model: `ClocModel` in evaluation mode, fp32.
        processor: `ClocProcessor`.
        device: where the model lies.
        batch_size: images or crops a forward.
    """

    label: str
    sha256: str | None
    objective: str
    model: Any
    processor: Any
    device: str
    batch_size: int


def export_folder(given: Path) -> Path:
    """The export that was meant: the folder itself, or `export/` in a run's folder.

    Raises:
        ValueError: there is none.
    """
    for folder in (given, given / "export"):
        if (folder / "config.json").is_file():
            return folder
    raise ValueError(
        f"{given}: expected an export (a folder with config.json), found none; "
        f"train one with `deepspeed cloc/pretrain.py` and give its folder, runs/NAME/export"
    )


def label_of(folder: Path) -> str:
    """A short name: that of the run where the folder is called export, else the folder's own."""
    folder = folder.resolve()
    return folder.parent.name if folder.name == "export" else folder.name


def load_export(given: Path, device: str = "cpu", batch_size: int = 64) -> LoadedExport:
    """Load an export in fp32.

    Raises:
        ValueError: no export, an unfinished one, one whose weights cannot be read or do not fill the model exactly, or
            one that does not give the reference picture's embedding (`cloc.export.reference`).
    """
    folder = export_folder(given)
    card = read_card(folder)
    # Sizes that differ are let through only to be refused below, in one message with the other kinds.
    how = {"output_loading_info": True, "ignore_mismatched_sizes": True}
    with weights_of(folder):
        model, info = AutoModel.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, **how
        )
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    odd = {kind: sorted(map(str, info[kind])) for kind in ("missing_keys", "unexpected_keys", "mismatched_keys")}
    if any(odd.values()):
        listed = "; ".join(f"{kind.replace('_', ' ')}: {keys[:3]}" for kind, keys in odd.items() if keys)
        raise ValueError(f"{folder}: the weights do not fill the model exactly ({listed}); export it again")
    check_reference(card, model.eval(), processor.image_processor, folder)
    return LoadedExport(
        label=label_of(folder),
        sha256=card.get("model_sha256"),
        objective=model.config.objective,
        model=model.to(device).eval(),
        processor=processor,
        device=device,
        batch_size=batch_size,
    )
