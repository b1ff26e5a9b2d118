"""What it costs to put a tower into a large MLLM: peak memory and time of the swap beside a copy of the folder.

    python -m benchmarks.speed.swap --folder DIR

It needs twice the host's size on the disk, and removes what it made. The host has random weights and is written on the
spot, in several files; the swap runs as a process of its own (`python -m mllm_bridge.swap`), so its memory is its own.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from tqdm import tqdm
from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaImageProcessor, LlavaProcessor

from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, PreTrainedTokenizerFast  # isort: skip

from benchmarks.speed.timing import measure_command
from cloc.files import read_object
from cloc.tokenizer import clip_tokenizer

SHARD = 2 * 10**9
"""Bytes of a file of the host."""
TOWER: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "image_size": 336,
    "patch_size": 14,
}
BLOCK = 2**22
"""Random numbers drawn once and repeated: what is in the host's weights does not change what a swap costs."""


@dataclass(frozen=True, slots=True)
class SwapCost:
    """What one swap cost.

    Attributes:
        parameters: of the host.
        folder_bytes: of the host's folder.
        copy_seconds: of copying the folder, for comparison.
        seconds: of the whole command, from its start to its end.
        busy_seconds: of processor time in it, which other work on the machine does not stretch.
        peak_bytes: largest resident memory of its process.
        linked: files of weights that were linked instead of written.
    """

    parameters: int
    folder_bytes: int
    copy_seconds: float
    seconds: float
    busy_seconds: float
    peak_bytes: int
    linked: int


def write_host(folder: Path, layers: int) -> int:
    """Write a LLaVA with a Llama of width 2560 in bf16, in files of two gigabytes; how many parameters it has."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=clip_tokenizer().backend_tokenizer, extra_special_tokens=["<image>"], pad_token="<|endoftext|>"
    )
    text = LlamaConfig(
        hidden_size=2560,
        intermediate_size=6912,
        num_hidden_layers=layers,
        num_attention_heads=20,
        num_key_value_heads=20,
        vocab_size=len(tokenizer),
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**TOWER),
        text_config=text,
        image_token_index=cast(int, tokenizer.convert_tokens_to_ids("<image>")),
        dtype="bfloat16",
    )
    config.architectures = ["LlavaForConditionalGeneration"]
    with torch.device("meta"):
        shapes = {key: value.shape for key, value in LlavaForConditionalGeneration(config).state_dict().items()}
    block = torch.randn(BLOCK).mul_(0.02).to(torch.bfloat16)
    shard: dict[str, torch.Tensor] = {}
    weight_map, count = {}, 1
    for key, shape in tqdm(shapes.items(), desc="writing the host", unit="tensor"):
        size = shape.numel()
        shard[key] = block.repeat(-(-size // BLOCK))[:size].reshape(shape)
        weight_map[key] = f"model-{count:05d}.safetensors"
        if sum(value.nbytes for value in shard.values()) > SHARD:
            save_file(shard, folder / weight_map[key], metadata={"format": "pt"})
            shard, count = {}, count + 1
    if shard:
        save_file(shard, folder / f"model-{count:05d}.safetensors", metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")
    config.save_pretrained(folder)
    side = {"height": TOWER["image_size"], "width": TOWER["image_size"]}
    images = LlavaImageProcessor(do_pad=True, do_center_crop=False, size={"shortest_edge": 336}, crop_size=side)
    LlavaProcessor(
        images,
        tokenizer,
        patch_size=TOWER["patch_size"],
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    ).save_pretrained(folder)
    return sum(shape.numel() for shape in shapes.values())


def write_tower(folder: Path) -> Path:
    """A CLIP tower of ViT-B size with random weights, and its processor."""
    CLIPVisionModel(CLIPVisionConfig(**TOWER)).save_pretrained(folder)
    LlavaImageProcessor(do_pad=True, do_center_crop=False, size={"shortest_edge": 336}).save_pretrained(folder)
    return folder


def measure(work: Path, layers: int) -> SwapCost:
    """Make host and tower in `work`, copy the folder once, swap once, and say what both cost.

    Raises:
        RuntimeError: the swap failed; its own words are in the message.
    """
    host = work / "host"
    host.mkdir()
    parameters, tower = write_host(host, layers), write_tower(work / "tower")
    size = sum(path.stat().st_size for path in host.iterdir())
    start = time.perf_counter()
    shutil.copytree(host, work / "copy")
    os.sync()
    copied = time.perf_counter() - start
    shutil.rmtree(work / "copy")
    out = work / "out"
    words = ["-m", "mllm_bridge.swap", "--mllm", str(host), "--encoder", str(tower), "--out", str(out)]
    used = measure_command(words)
    files: dict[str, Any] = read_object(out / "swap_report.json")["files"]
    linked = sum(what == "linked" for what in files.values())
    return SwapCost(parameters, size, copied, used.seconds, used.busy_seconds, used.peak_bytes, linked)


def format_lines(cost: SwapCost) -> list[str]:
    """The cost for the screen, each figure beside its bar."""
    limit = 1.2 * cost.copy_seconds + 20
    return [
        f"host           {cost.parameters / 1e9:.2f} B parameters, {cost.folder_bytes / 1e9:.2f} GB",
        f"copying it     {cost.copy_seconds:.1f} s",
        f"swap           {cost.seconds:.1f} s (bar: 1.2 x copying + 20 s = {limit:.1f} s)",
        f"  of them busy {cost.busy_seconds:.1f} s of processor time",
        f"peak resident  {cost.peak_bytes / 1e9:.2f} GB (bar: 2 GB)",
        f"linked         {cost.linked} files",
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0 when both bars are met, 1 when one is not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.speed.swap",
        description="Swap the tower of a host of 3 B parameters with random weights, made here, and measure memory and "
        "time beside a copy of its folder.",
    )
    parser.add_argument("--folder", type=Path, help="where to work (default: the system's temporary folder)")
    parser.add_argument("--layers", type=int, default=38, help="of the language model (default: 38, 3.3 B parameters)")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=asked.folder, prefix="swap-speed-") as work:
        cost = measure(Path(work), asked.layers)
    print("\n".join(format_lines(cost)))
    return int(cost.peak_bytes > 2e9 or cost.seconds > 1.2 * cost.copy_seconds + 20)


if __name__ == "__main__":
    sys.exit(main())
