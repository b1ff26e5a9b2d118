"""From what `--model` names to a loaded model: its architecture decides how it is read."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from benchmarks.predictors.clip_regions import CropReadout, RoiAlignReadout, ValueReadout
from benchmarks.predictors.contract import LoadedModel
from benchmarks.predictors.detector import A_LEVEL, ClocDetector
from benchmarks.predictors.encoder import (
    EncoderReadout,
    LoadedExport,
    PrompterReadout,
    find_export_folder,
    load_export,
    name_export,
)
from benchmarks.predictors.fitting import check_readout
from benchmarks.predictors.hf_detectors import GROUNDED, OWL, GroundedDetector, OwlDetector
from benchmarks.predictors.hf_encoders import ENCODERS, HfCrop
from benchmarks.predictors.kosmos import FAMILY as KOSMOS
from benchmarks.predictors.kosmos import Kosmos
from benchmarks.predictors.mllm import QUESTION, REGION_QUESTION, TransformersMllm, declares_box_format, find_box_format
from benchmarks.predictors.region_mllm import RegionMllm, has_regions
from cloc.export import CARD, read_card
from cloc.files import read_object
from cloc.model_folders import refusing_code

OUR_DETECTOR = "ClocForObjectDetection"


def load_model(
    place: Path | str,
    device: str,
    batch_size: int,
    coordinates: str | None = None,
    question: str = QUESTION,
    boxes_a_level: int = A_LEVEL,
    region_question: str = REGION_QUESTION,
) -> LoadedModel:
    """Load a model and its readouts.

    Args:
        place: a folder, or a name on the hub (the only case that uses the network).
        device: where the model shall lie.
        batch_size: images or crops a forward.
        coordinates: how an MLLM writes a place, one of `CONVENTIONS`; None: as its folder declares, else 0-1.
        question: how an MLLM is asked for the box of a phrase, with `{}` where the phrase goes.
        boxes_a_level: (box, name) pairs of each level of our detector that reach the suppression.
        region_question: how an MLLM with region tokens is asked what is in a box, with `{}` for the region.

    Raises:
        ValueError: the folder is no export and no model of a known family.
    """
    model = _load(place, device, batch_size, coordinates, question, boxes_a_level, region_question)
    for readout in model.predictors:
        check_readout(readout, place)
    return model


def _load(
    place: Path | str,
    device: str,
    batch_size: int,
    coordinates: str | None,
    question: str,
    boxes_a_level: int,
    region_question: str,
) -> LoadedModel:
    folder = find_export_folder(place) if isinstance(place, Path) else None
    config = _config(place if folder is None else folder)
    family, classes = str(config.get("model_type")), config.get("architectures")
    source, label = (place, str(place)) if folder is None else (folder, name_export(folder))
    sha256 = _weights(folder)
    if folder is not None and isinstance(classes, list) and OUR_DETECTOR in classes:
        card = read_card(folder)
        readouts = [ClocDetector(folder, device, batch_size, boxes_a_level)]
        return LoadedModel(
            label, card.get("model_sha256"), readouts, folder, f"objective {card.get('objective')}, detector"
        )
    if family in OWL:
        return LoadedModel(label, sha256, [OwlDetector(str(source), device, batch_size)], folder, f"{family}, detector")
    if family in GROUNDED:
        return LoadedModel(
            label, sha256, [GroundedDetector(str(source), device, batch_size)], folder, f"{family}, detector"
        )
    if family in ENCODERS:
        return LoadedModel(label, sha256, [HfCrop(str(source), device, batch_size)], folder, f"{family}, encoder")
    if family == KOSMOS:
        if coordinates is not None:
            raise ValueError(f"--coordinates {coordinates}: Kosmos-2 writes cells of its own; leave the option out")
        kosmos = Kosmos(str(source), device, batch_size, None if question == QUESTION else question)
        return LoadedModel(label, sha256, [kosmos], folder, f"{family}, mllm, coordinates {kosmos.box_format.name}")
    if family in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
        box_format = find_box_format(folder, coordinates)
        assumed = coordinates is None and not declares_box_format(folder)
        description = f"{family}, mllm, coordinates {box_format.name}{' (assumed: it declares none)' * assumed}"
        if folder is not None and has_regions(folder):
            with_regions = RegionMllm(folder, device, batch_size, box_format, question, region_question)
            return LoadedModel(label, sha256, [with_regions], folder, f"{description}, with region tokens")
        readout = TransformersMllm(str(source), device, batch_size, box_format, question)
        return LoadedModel(label, sha256, [readout], folder, description)
    if folder is None or not ((folder / CARD).is_file() or family == "cloc"):
        known = ", ".join((*ENCODERS, *OWL, *GROUNDED))
        raise ValueError(
            f"{place}: expected an export of this kit, a model of {known}, or an image-text-to-text model; its "
            f"model_type is {family!r}"
        )
    loaded = load_export(folder, device, batch_size)
    return LoadedModel(loaded.label, loaded.sha256, make_readouts(loaded), folder, f"objective {loaded.objective}")


def _config(source: Path | str) -> dict[str, Any]:
    if isinstance(source, Path):
        return read_object(source / "config.json", "a model's config", "export it again, or name another model")
    from transformers import AutoConfig

    try:
        with refusing_code(source):
            return AutoConfig.from_pretrained(source, trust_remote_code=False).to_dict()
    except OSError as error:
        raise ValueError(
            f"--model {source}: no folder of that name, and not to be had from the hub ({error})"
        ) from error


def _weights(folder: Path | None) -> str | None:
    """SHA-256 of a folder's one weights file; None where it has none or several."""
    file = None if folder is None else folder / "model.safetensors"
    if file is None or not file.is_file():
        return None
    with file.open("rb") as raw:
        return hashlib.file_digest(raw, "sha256").hexdigest()


CLIP_ONLY = (RoiAlignReadout, ValueReadout, CropReadout)


def make_readouts(loaded: LoadedExport) -> list[EncoderReadout]:
    """The Prompter's readout where there is a Prompter; else three, of which a comparison takes the best."""
    if loaded.model.has_prompter:
        return [PrompterReadout(loaded)]
    return [readout(loaded) for readout in CLIP_ONLY]
