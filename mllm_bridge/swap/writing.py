"""Write the new host into a folder: weights key by key, config, processor, and the host's other files as they are."""

from __future__ import annotations

from pathlib import Path

import torch

from cloc.files import write_json
from mllm_bridge.encoder import Encoder
from mllm_bridge.swap.plan import Host, Plan
from mllm_bridge.weights.folders import copy_small_files
from mllm_bridge.weights.stored import write_replaced
from mllm_bridge.weights.tensorfile import NAMES, Stored

PASSED_ON = (".json", ".txt", ".model", ".jinja", ".spm")
"""Endings of the host's other files that go into the result (tokenizer, chat template, ...), as do its licences."""
VIDEO = "video_preprocessor_config.json"
REWRITTEN = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    VIDEO,
    "swap_report.json",
    "export.json",
)


def write_host(
    folder: Path, host: Host, plan: Plan, encoder: Encoder, seed: int | None, link: bool = True
) -> dict[str, str]:
    """Write everything but the report.

    Args:
        folder: exists and is empty.
        host: the host that the result is made from.
        plan: what config and processor say.
        encoder: the tower as it goes in; its tensors keep the type of their file, readers cast them to the host's.
        seed: of a fresh projector, None keeps the old one.
        link: hard links for the host's files of weights that stay as they are.

    Returns:
        What became of each of the host's files of weights (`weights.write_replaced`).
    """
    replaced: dict[str, str] = {}
    new: dict[str, dict[str, Stored | torch.Tensor]] = {}
    for name, tower in zip(host.family.towers, host.towers, strict=True):
        replaced.update(dict.fromkeys(tower.keys, name))
        prefix = tower.prefix_for(encoder.facts.model_type)
        new[name] = {prefix + own: tensor for own, tensor in encoder.stored.items()}
    if seed is not None:
        family, first = host.family, host.projector.keys[0]
        stored = host.weights.tensors[first].dtype
        dtype = next((dtype for dtype, name in NAMES.items() if name == stored), torch.float32)
        fresh = family.make_projector(family.model_class.config_class(**plan.config), seed)
        replaced.update(dict.fromkeys(host.projector.keys, family.projector))
        new[family.projector] = {host.projector.prefix + name: value.to(dtype) for name, value in fresh.items()}
    done = write_replaced(host.weights, folder, replaced, new, link)
    indexes = [path.name for path in host.folder.glob("*.index.json")]
    copy_small_files(host.folder, folder, PASSED_ON, (*REWRITTEN, *indexes))
    write_json(folder / "config.json", plan.config)
    # transformers 5 reads processor_config.json, older versions and serving engines preprocessor_config.json.
    plan.processor.to_json_file(folder / "processor_config.json")
    plan.processor.image_processor.to_json_file(folder / "preprocessor_config.json")
    if (host.folder / VIDEO).is_file():
        plan.processor.video_processor.to_json_file(folder / VIDEO)
    if isinstance(plan.processor.chat_template, str):
        (folder / "chat_template.jinja").write_text(plan.processor.chat_template, encoding="utf-8")
    return done
