"""What is said about a model before its weights are loaded: its type, its licence, the hash of its weights."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import ModelCard, try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoProcessor, PreTrainedConfig
from yaml import YAMLError

from cloc.model_folders import refusing_code

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def load_config(name: str, role: str) -> PreTrainedConfig:
    """The config of a folder or hub name.

    Args:
        name: folder or hub name.
        role: `detector` or `captioner`, for the message.

    Raises:
        ValueError: there is none.
    """
    try:
        with refusing_code(name):
            return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"--{role} {name}: expected a transformers folder or a hub name ({reason}); without a network, "
            "download the model elsewhere and give its folder"
        ) from error


def load_model(auto: Any, name: str, role: str, precision: str) -> tuple[Any, Any]:
    """(model, processor) of a folder or hub name; safetensors only, and no code of theirs.

    Args:
        auto: class of transformers for this task, such as `AutoModelForImageTextToText`.
        name: folder or hub name.
        role: `detector` or `captioner`, for the message.
        precision: fp32, bf16 or fp16.

    Raises:
        ValueError: weights or processor cannot be loaded.
    """
    try:
        with refusing_code(name):
            model = auto.from_pretrained(name, dtype=DTYPES[precision], use_safetensors=True, trust_remote_code=False)
            processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, KeyError, SafetensorError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"--{role} {name}: weights or processor cannot be loaded ({reason})") from error
    return model, processor


def describe_model(name: str, config: PreTrainedConfig) -> dict[str, Any]:
    """Name, type, revision or hash of the weights, and the licence that the model's card states."""
    folder = Path(name)
    facts = {"name": folder.name if folder.is_dir() else name, "type": config.model_type}
    facts["licence"] = _read_licence(name)
    if folder.is_dir():
        facts["weights_sha256"] = _hash_weights(folder)
    else:
        facts["revision"] = getattr(config, "_commit_hash", None)
    return facts


def _hash_weights(folder: Path) -> str:
    """One hash over all safetensors files, in the order of their names."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise ValueError(
            f"{folder}: expected weights in *.safetensors, found none; other formats can run code and are not loaded; "
            "save the model again with save_pretrained"
        )
    whole = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            whole.update(hashlib.file_digest(opened, "sha256").digest())
    return whole.hexdigest()


def _read_licence(name: str) -> str:
    """The licence field of the model's card; read from the folder or from the local cache, never over the network."""
    path = Path(name) / "README.md" if Path(name).is_dir() else None
    if path is None:
        try:
            cached = try_to_load_from_cache(name, "README.md")
        except HFValidationError:
            cached = None
        path = Path(cached) if isinstance(cached, str) else None
    if path is None or not path.is_file():
        return "not stated (no model card at hand)"
    try:
        licence = ModelCard.load(path, ignore_metadata_errors=True).data.license
    except (ValueError, YAMLError):
        licence = None
    return str(licence) if licence else "not stated in the model card"
