"""Whether the parts of a model's folder belong together: said in one line before anything is measured, since weights
that are missing would be drawn at random, and a processor of another model prepares other pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from transformers import AutoProcessor
from transformers.models.auto.processing_auto import PROCESSOR_MAPPING_NAMES

from cloc.model_folders import UNREADABLE, refusing_unreadable

_MEND = "copy the whole folder again, or name another model"


def load_hf_model(kind: Any, place: str, device: str, same_processor: bool = True, **how: Any) -> tuple[Any, Any]:
    """A model of transformers and its processor.

    Args:
        kind: class with `from_pretrained`.
        place: folder or hub name.
        device: where the model shall lie.
        same_processor: whether the processor must be of the class that transformers pairs with the model.
        how: further arguments of `from_pretrained`.

    Raises:
        ValueError: something cannot be read, or is of another model than the rest.
    """
    with refusing_unreadable(place):
        model, info = kind.from_pretrained(
            place,
            trust_remote_code=False,
            use_safetensors=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **how,
        )
        processor = AutoProcessor.from_pretrained(place, trust_remote_code=False)
    lacking = sorted(map(str, [*info["missing_keys"], *(one[0] for one in info["mismatched_keys"])]))
    family = model.config.model_type
    if lacking:
        raise ValueError(
            f"{place}: {len(lacking):,} weights of its {family} are not in its files, or of another size (the first: "
            f"{lacking[0]}); config and weights are of different models; {_MEND}"
        )
    wanted = PROCESSOR_MAPPING_NAMES.get(family)
    if same_processor and wanted and wanted not in [one.__name__ for one in type(processor).__mro__]:
        raise ValueError(f"{place}: expected a {wanted} beside a {family}, got a {type(processor).__name__}; {_MEND}")
    text = getattr(model.config, "text_config", model.config)
    rows, known = getattr(text, "vocab_size", None), getattr(processor, "tokenizer", ())
    if same_processor and isinstance(rows, int) and len(known) > rows + max(8, rows // 50):  # a few may be added
        raise ValueError(
            f"{place}: its tokenizer knows {len(known):,} tokens, its model {rows:,}; they are of different models; "
            f"{_MEND}"
        )
    return model.to(device).eval(), processor


def check_readout(readout: Any, place: object) -> None:
    """Ask a readout about one small picture, so that parts that do not work together show before the data is read.

    Raises:
        ValueError: they do not.
    """
    image = Image.new("RGB", (48, 32), (120, 90, 60))
    try:
        with torch.inference_mode():
            for name, lists in _questions(readout, image):
                getattr(readout, name)(*lists)
    except (*UNREADABLE, ValueError) as error:
        reason = (str(error) or type(error).__name__).strip().splitlines()[0]
        raise ValueError(
            f"{place}: its model and its processor do not work together ({type(error).__name__}: {reason}); {_MEND}"
        ) from error


def _questions(readout: Any, image: Image.Image) -> list[tuple[str, Sequence[Any]]]:
    kind = getattr(readout, "kind", "encoder")
    if kind == "detector":
        return [("detect", ([image], ["a thing"], 1))]
    if kind == "mllm":
        return [("answer", ([image], ["What is it?"], 1))]
    return [("encode_texts", (["a thing"],)), ("encode_images", ([image],))]
