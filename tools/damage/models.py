"""Folders of models: checkpoints, exports, hosts, and the headers of safetensors."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from tools.damage.running import OK, Reader, call
from tools.damage.values import document, hurt

WEIGHTS = ".safetensors"


@cache
def _tiny_run() -> tempfile.TemporaryDirectory:
    """Made once for all kinds that need it."""
    made = tempfile.TemporaryDirectory(prefix="damage-run-")
    train_tiny(Path(made.name))
    return made


def tiny_run(world: Path) -> Path:
    """The folder with a finished run."""
    return Path(_tiny_run().name)


def train_tiny(world: Path) -> None:
    """A run of a few steps with two checkpoints, on a rendered world."""
    from cloc import pretrain
    from cloc.scenes import WorldSpec, ensure_scenes

    spec = WorldSpec(train=8, val=2, refcoco=2, size=32, shard_size=8)
    data = ensure_scenes(world / "scenes", spec, workers=1, progress=False).parent / "train"
    raw = {
        "run": {"name": "tiny", "workers": 0, "device": "cpu"},
        "data": [{"path": str(data), "batch_size": 4}],
        "model": {
            "embed_dim": 8,
            "vision": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "heads": 2},
            "text": {"width": 8, "layers": 1, "heads": 2, "context": 16},
        },
        "optim": {"lr": 1e-3, "warmup_steps": 1},
        "loss": {"regions_per_image": 2},
        "train": {"steps": 4, "checkpoint_every": 2, "keep_checkpoints": 2, "log_every": 1},
    }
    (world / "config.yaml").write_text(json.dumps(raw))
    call(pretrain.main, "--config", world / "config.yaml", "--runs", world / "runs")


def copy_of(source: Path, to: Path) -> None:
    """A copy of a folder, weights as hard links."""

    def link(one: str, other: str) -> None:
        os.link(one, other) if one.endswith(WEIGHTS) else shutil.copy(one, other)

    shutil.copytree(source, to, copy_function=link)


def damage_file(path: Path, random: Random) -> None:
    """JSON in its structure or its bytes, safetensors in the header or its bytes, others in their bytes."""
    data = path.read_bytes()
    if path.suffix == ".json":
        data = document(json.loads(data), random)
    elif path.suffix == WEIGHTS and random.random() < 0.6:
        data = damaged_header(data, random)
    else:
        data = hurt(data, random)
    path.unlink()  # it may be a hard link
    path.write_bytes(data)


def damaged_header(data: bytes, random: Random) -> bytes:
    """Weights whose header says something else."""
    (length,) = struct.unpack("<Q", data[:8])
    header = document(json.loads(data[8 : 8 + length]), random)
    told = random.choice([len(header)] * 6 + [0, 1, 2**31, 2**63, 10**8 + 1])
    return struct.pack("<Q", told) + header + data[8 + length :]


def resume(state: Path, random: Random, folder: Path) -> str:
    """A run whose newest checkpoint (or both, or the config) is damaged, started again."""
    from cloc import pretrain

    run = folder / "runs" / "tiny"
    shutil.copytree(state / "runs" / "tiny", run)
    shutil.rmtree(run / "export")
    files = sorted(path for path in (run / "checkpoints" / "step-4").iterdir() if path.is_file())
    if random.random() < 0.2:
        files += sorted((run / "checkpoints" / "step-2").iterdir())
    for path in random.sample(files, 1 if random.random() < 0.8 else 2):
        damage_file(path, random)
    call(pretrain.main, "--config", state / "config.yaml", "--runs", folder / "runs", "--resume", "auto")
    return OK


def use_export(state: Path, random: Random, folder: Path) -> str:
    """An export with a damaged file, used on a photo."""
    from PIL import Image

    from cloc.embed.__main__ import main

    copy_of(state / "runs" / "tiny" / "export", folder / "export")
    files = [path for path in sorted((folder / "export").iterdir()) if path.suffix in (".json", WEIGHTS)]
    damage_file(random.choice(files), random)
    Image.new("RGB", (20, 30), "red").save(folder / "a.png")
    call(main, folder / "a.png", "--model", folder / "export", "--out", folder / "v.parquet", "--device", "cpu")
    return OK


def tiny_host(world: Path) -> Path:
    """A tiny LLaVA."""
    from mllm_bridge.hosts.tiny import make_tiny

    return make_tiny(world / "host")


def open_host(state: Path, random: Random, folder: Path) -> str:
    """A host with a damaged file, opened as a swap does."""
    from mllm_bridge.swap.plan import open_host as read

    copy_of(state, folder / "host")
    files = [path for path in sorted((folder / "host").iterdir()) if path.suffix == ".json"]
    files = [path for path in files if path.name != "tokenizer.json"] + [folder / "host" / "config.json"] * 3
    damage_file(random.choice(files), random)
    read(folder / "host")
    return OK


def use_tower(state: Path, random: Random, folder: Path) -> str:
    """A tower with a damaged config or weights, loaded to go into a host."""
    from mllm_bridge.encoder import load_encoder

    copy_of(state / "runs" / "tiny" / "export" / "clip_vision_model", folder / "tower")
    files = [path for path in sorted((folder / "tower").iterdir()) if path.suffix in (".json", WEIGHTS)]
    damage_file(random.choice(files), random)
    load_encoder(folder / "tower", folder)
    return OK


def small_weights(world: Path) -> bytes:
    """A small safetensors file."""
    import numpy as np
    from safetensors.numpy import save

    tensors = {"a.weight": np.ones((3, 4), np.float32), "b": np.zeros(5, np.int64), "c": np.ones((2, 2), np.float16)}
    return save(tensors, {"format": "pt"})


def read_header(state: bytes, random: Random, folder: Path) -> str:
    """The header of weights, and then the weights."""
    from mllm_bridge.weights import tensorfile
    from mllm_bridge.weights.stored import hash_stored

    file = folder / "model.safetensors"
    file.write_bytes(damaged_header(state, random) if random.random() < 0.7 else hurt(state, random))
    for tensor in tensorfile.read_header(file)[0].values():
        hash_stored(tensor)
    return OK


MODELS = (
    Reader("checkpoint", 6, tiny_run, resume),
    Reader("export", 10, tiny_run, use_export),
    Reader("host", 40, tiny_host, open_host),
    Reader("tower", 12, tiny_run, use_tower),
    Reader("safetensors", 60, small_weights, read_header),
)
