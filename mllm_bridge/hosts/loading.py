"""Load a host and its processor from a folder, with every key accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoProcessor, PreTrainedModel, ProcessorMixin

from cloc.model_folders import UNREADABLE, in_one_line, refusing_code
from mllm_bridge.hosts.family import HostFamily


def load_host(folder: Path, family: HostFamily, device: str) -> PreTrainedModel:
    """A host in evaluation mode, every key accounted for.

    Raises:
        ValueError: keys are missing, left over, or of another shape.
    """
    model, wrong = load_with_report(folder, family, {})
    if wrong:
        raise ValueError(f"host: {folder} does not hold just its own weights: {wrong}")
    return model.eval().to(device)


def load_with_report(folder: Path, family: HostFamily, how: dict[str, Any]) -> tuple[PreTrainedModel, str]:
    """A host, and in words what did not find its place; `how` goes to `from_pretrained`.

    Raises:
        ValueError: it cannot be loaded at all.
    """
    try:
        with refusing_code(folder):
            model, info = family.model_class.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are in the info, by name
                **how,
            )
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(f"host: {folder} cannot be loaded: {in_one_line(error)}") from error
    wrong = {name: sorted(map(str, keys)) for name, keys in info.items() if keys}
    return model, "; ".join(f"{name}: {len(keys)}, as {keys[0]}" for name, keys in wrong.items())


def load_processor(folder: Path) -> ProcessorMixin:
    """The processor of a host.

    Raises:
        ValueError: there is none, or it has no image processor and tokenizer.
    """
    if not any((folder / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise ValueError(
            f"host: {folder} holds no processor (expected processor_config.json or preprocessor_config.json); "
            "save its processor into the folder: processor.save_pretrained(folder)"
        )
    try:
        with refusing_code(folder):
            processor = AutoProcessor.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (ValueError, *UNREADABLE) as error:
        raise ValueError(f"host: the processor in {folder} cannot be read: {in_one_line(error)}") from error
    if not all(hasattr(processor, part) for part in ("image_processor", "tokenizer")):
        raise ValueError(
            f"host: {folder} holds a {type(processor).__name__}, expected a processor with an image processor and a "
            "tokenizer; save the whole processor into the folder: processor.save_pretrained(folder)"
        )
    return processor
