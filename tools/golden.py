"""What must stay equal bit for bit when code is moved: weights, shards, a rendered world, a swap, figures.

`python tools/golden.py --out FILE` makes tiny worlds, sets and runs with a fixed seed (about two minutes of one core)
and writes their hashes and figures as JSON; with `--against FILE` it says what differs from an earlier file, and ends
with exit code 1 where something does. Hashes depend on the machine and the versions of the libraries, so that only
files of one machine can be compared; they are kept outside the repository. Another checkout is measured with
`PYTHONPATH=CHECKOUT python tools/golden.py`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", COLUMNS="120")

CHANGING = {
    "commit",
    "time",
    "seconds",
    "versions",
    "version",
    "machine",
    "sha256",
    "elapsed",
    "model_sha256",
    "threads",
}
"""Fields of JSON that say when, where and by which code something was made; files are hashed themselves."""
TOKENIZER = {"tokenizer.json", "vocab.json", "merges.txt"}
STEPS = 20
DETECTOR = {"width": 16, "strides": [8, 16, 32], "num_convs": 1, "anchor_scale": 4.0, "definitions": False}
SWIN = {"style": "swin", "image_size": 64, "patch_size": 4, "width": 8, "heads": 1, "depths": [1, 1, 1, 1], "window": 2}


def digest(data: bytes) -> str:
    """The first 16 digits of the sha256."""
    return hashlib.sha256(data).hexdigest()[:16]


def without_changing(found: Any) -> Any:
    """JSON without the fields that differ from run to run."""
    if isinstance(found, dict):
        return {key: without_changing(value) for key, value in found.items() if key not in CHANGING}
    return [without_changing(value) for value in found] if isinstance(found, list) else found


def hash_file(path: Path) -> str:
    """Of a file's bytes; of JSON, without the fields that differ from run to run."""
    data = path.read_bytes()
    if path.suffix == ".json" and path.name not in TOKENIZER:
        data = json.dumps(without_changing(json.loads(data)), sort_keys=True).encode()
    return digest(data.replace(str(Path.cwd()).encode(), b"."))


def hash_folder(folder: Path, leave_out: str = r"$^") -> dict[str, str]:
    """The hash of every file by its path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    named = {path.relative_to(folder).as_posix(): path for path in files}
    return {name: hash_file(path) for name, path in named.items() if not re.search(leave_out, name)}


def list_members(folder: Path) -> dict[str, str]:
    """The hash of all photos, all captions and all JSON of a set's shards: says which of them changed."""
    found: dict[str, list[bytes]] = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as opened:
            for member in opened:
                found.setdefault(member.name.rpartition(".")[2], []).append(opened.extractfile(member).read())
    return {f"all .{ending}": digest(b"\0".join(parts)) for ending, parts in sorted(found.items())}


def hash_weights(path: Path) -> dict[str, Any]:
    """Of the tensors of a safetensors file, and their names with shapes."""
    from safetensors.numpy import load_file

    tensors = load_file(path)
    whole = hashlib.sha256()
    for name in sorted(tensors):
        whole.update(name.encode() + str(tensors[name].dtype).encode() + tensors[name].tobytes())
    return {"weights": whole.hexdigest()[:16], "keys": sorted(f"{k} {list(v.shape)}" for k, v in tensors.items())}


def call(main: Callable[[list[str]], int], *arguments: object) -> None:
    """A command, in this process and without its output.

    Raises:
        RuntimeError: it ended with another code than 0.
    """
    told = io.StringIO()
    with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
        code = main([str(argument) for argument in arguments])
    if code != 0:
        raise RuntimeError(
            f"{main.__module__} {' '.join(map(str, arguments))}: exit code {code}: {told.getvalue()[-600:]}"
        )


def render_world() -> dict[str, Any]:
    """A world of tiny scenes of every kind."""
    from cloc.scenes.__main__ import main

    counts = {"train": 64, "detection": 24, "grounding": 24, "pairs": 24, "val": 8, "refcoco": 8, "conversations": 6}
    options = [f"--{name}={count}" for name, count in {**counts, "single": 4, "size": 48, "shard-size": 18}.items()]
    call(main, "--out", "data/scenes", *options)
    return hash_folder(Path("data/scenes"))


def source(kind: str, folder: str, size: Any) -> dict[str, Any]:
    """An entry of `data` of a run's configuration."""
    weight = {} if kind == "regions" else {"weight": 1}
    more = {} if size is None else {"image_size": size}
    return {"path": f"data/scenes/{folder}", "kind": kind, "batch_size": 4, **weight, **more}


def train(name: str, objective: str, data: list[dict], model: dict | None = None, **more: dict) -> dict[str, Any]:
    """A run of a few steps; its losses, its weights, and the files of its export."""
    from cloc import pretrain

    raw = {
        "run": {"name": name, "workers": 0, "device": "cpu", "seed": 3},
        "objective": objective,
        "data": data,
        "model": {
            "embed_dim": 16,
            "vision": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2},
            "text": {"width": 16, "layers": 1, "heads": 2, "context": 16},
            **(model or {}),
        },
        "optim": {"lr": 1e-3, "warmup_steps": 2},
        "loss": {"regions_per_image": 3, **more.pop("loss", {})},
        "train": {"steps": STEPS, "checkpoint_every": 8, "log_every": 1, **more.pop("train", {})},
        **more,
    }
    Path(f"{name}.yaml").write_text(json.dumps(raw))
    call(pretrain.main, "--config", f"{name}.yaml")
    return read_run(Path("runs") / name)


def read_run(folder: Path) -> dict[str, Any]:
    """Losses, weights and files of a finished run."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {
        "losses": [line["loss"] for line in lines],
        **hash_weights(folder / "export" / "model.safetensors"),
        "export": hash_folder(folder / "export", r"^model\.safetensors$|README"),
    }


def resume(name: str) -> dict[str, Any]:
    """The same run again from its checkpoint before the last."""
    from cloc import pretrain

    folder = Path("runs") / name
    shutil.rmtree(folder / "export")
    shutil.rmtree(folder / "checkpoints" / f"step-{STEPS}")
    call(pretrain.main, "--config", f"{name}.yaml", "--resume", "auto")
    return read_run(folder)


def train_detector(objective: str, model: dict | None = None) -> dict[str, Any]:
    """A run on boxes, phrases and pairs (and regions where it is a joint one)."""
    sizes = [[32, 64], [48, 64]]
    data = [
        source("detection", "detection", sizes),
        source("grounding", "grounding", sizes),
        source("pairs", "pairs", 32),
    ]
    if objective == "joint":
        data.insert(0, {**source("regions", "train", None), "weight": 1})
    name = objective if model is None else f"{objective}_swin"
    return train(name, objective, data, {"detector": DETECTOR, **(model or {})})


def convert_coco() -> dict[str, Any]:
    """A set of made photos in COCO's layout, with a crowd, a box outside its photo, and a photo that is not there."""
    import numpy as np
    from PIL import Image

    from cloc.convert.__main__ import main

    rng, images, annotations, captions = np.random.default_rng(0), [], [], []
    Path("photos").mkdir()
    for number in range(12):
        width, height = (int(side) for side in rng.integers(40, 90, 2))
        coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
        name = f"{number:012d}.jpg"
        coarse.resize((width, height), Image.Resampling.BICUBIC).save(Path("photos") / name, quality=90)
        images.append({"id": number + 1, "file_name": name, "width": width, "height": height})
        captions.append({"id": number, "image_id": number + 1, "caption": f"a cat and {number} dogs"})
        for _ in range(number % 4):
            x, y = (round(float(value), 2) for value in rng.uniform(0, 20, 2))
            corners = [x, y, x + 18.5, y, x + 18.5, y + 15, x, y + 15]
            entry = {"id": len(annotations) + 1, "image_id": number + 1, "category_id": 1 + len(annotations) % 2}
            entry |= {"bbox": [x, y, 18.5, 15], "area": 277.5, "iscrowd": 0, "segmentation": [corners]}
            annotations.append(entry)
    images.append({"id": 99, "file_name": "gone.jpg", "width": 50, "height": 50})
    annotations[0]["bbox"] = [70.0, 60.0, 50.0, 50.0]
    mask = {"counts": [0, images[3]["width"] * images[3]["height"]], "size": [images[3]["height"], images[3]["width"]]}
    annotations[-1] |= {"iscrowd": 1, "segmentation": mask}
    categories = [{"id": 1, "name": "cat"}, {"id": 2, "name": "hot dog"}]
    told = {"images": images, "annotations": annotations, "categories": categories}
    Path("instances.json").write_text(json.dumps(told))
    Path("captions.json").write_text(json.dumps({"images": images, "annotations": captions}))
    files = ["--images", "photos", "--instances", "instances.json", "--captions", "captions.json"]
    found = {}
    for name, more in {"plain": [], "masks": ["--masks"]}.items():
        call(main, "coco", *files, *more, "--out", f"coco-{name}", "--workers", 1)
        found[name] = hash_folder(Path(f"coco-{name}")) | list_members(Path(f"coco-{name}"))
    return found


def label_pairs() -> dict[str, Any]:
    """Regions by a random OWLv2 for the world's pairs."""
    import torch
    from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

    from cloc.label.__main__ import main
    from cloc.tokenizer import load_tokenizer

    torch.manual_seed(0)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {**small, "vocab_size": 49408, "max_position_embeddings": 16}
    vision = {**small, "image_size": 32, "patch_size": 8}
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16))
    model.eval().save_pretrained("owl")
    tokenizer = load_tokenizer("clip")
    tokenizer.model_max_length = 16
    Owlv2Processor(Owlv2ImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained("owl")
    options = ["--detector", "owl", "--score", 0.0, "--size", 32, "--max-boxes", 5, "--device", "cpu"]
    call(main, "--shards", "data/scenes/pairs", "--out", "labelled", *options)
    return hash_folder(Path("labelled")) | list_members(Path("labelled"))


def bare_swap() -> dict[str, Any]:
    """The newest export with regions in a tiny LLaVA that is made on the way."""
    from mllm_bridge.swap import command as swap

    call(swap.main, "--encoder", "runs/cloc/export", "--out", "swapped", "--device", "cpu")
    return hash_folder(Path("swapped"), r"\.md$")


def score() -> dict[str, Any]:
    """The rows of a small scoring of regions and of detection."""
    from benchmarks import cli

    found = {}
    for model, other, tasks in (
        ("cloc", "clip", ["region_recognition", "region_retrieval", "refcoco", "zeroshot", "retrieval"]),
        ("detclip", "joint", ["coco", "lvis", "region_recognition"]),
    ):
        names = [f"runs/{one}/export" for one in (model, other)]
        call(
            cli.main, *tasks, "--data", "data", "--model", names[0], "--against", names[1], "--out", f"scores-{model}",
            "--device", "cpu",
        )  # fmt: skip
        for row in json.loads(Path(f"scores-{model}/results.json").read_text())["rows"]:
            key = " ".join(str(row[part]) for part in ("model", "task", "dataset", "split", "predictor", "metric"))
            figures = [row[part] for part in ("value", "num_examples", "num_skipped", "ci95")]
            words = [row[part] for part in ("chance", "constant", "reason")]
            found[f"{key} {digest(str(row['protocol']).encode())}"] = {"figures": figures, "words": words}
    return found


PARTS: dict[str, Callable[[], dict[str, Any]]] = {
    "world": render_world,
    "convert coco": convert_coco,
    "clip": lambda: train("clip", "clip", [source("regions", "train", None)]),
    "cloc": lambda: train("cloc", "cloc", [source("regions", "train", None)]),
    "cloc resumed": lambda: resume("cloc"),
    "cloc cached sigmoid": lambda: train(
        "cloc_cached", "cloc", [source("regions", "train", None)], {"prompter": {"prompts": ["box", "point"]}},
        loss={"form": "sigmoid"}, train={"accumulation": 2, "accumulation_mode": "cached"},
    ),
    "detclip": lambda: train_detector("detclip"),
    "detclip swin": lambda: train_detector("detclip", {"vision": SWIN}),
    "joint": lambda: train_detector("joint"),
    "joint resumed": lambda: resume("joint"),
    "labelled pairs": label_pairs,
    "bare swap": bare_swap,
    "scores": score,
}  # fmt: skip


def measure(names: list[str]) -> dict[str, Any]:
    """Every part, in a folder of its own; one that fails says so in place of its figures."""
    found: dict[str, Any] = {}
    before = Path.cwd()
    with tempfile.TemporaryDirectory(prefix="golden-") as folder:
        os.chdir(folder)
        try:
            for name in names:
                print(f"{name} ...", file=sys.stderr, flush=True)
                try:
                    found[name] = PARTS[name]()
                except (RuntimeError, ValueError, TypeError, KeyError, OSError, AttributeError, ImportError):
                    found[name] = {"failed": traceback.format_exc(limit=-2)}
        finally:
            os.chdir(before)
    return found


def flatten(found: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """(path, leaf) of nested dictionaries."""
    if isinstance(found, dict):
        for key, value in found.items():
            yield from flatten(value, f"{name} / {key}" if name else str(key))
    else:
        yield name, found


def compare(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """What differs: of each kind of leaf (such as the words of scores) how many, and the first few."""
    one, two = dict(flatten(old)), dict(flatten(new))
    kinds: dict[str, list[str]] = {}
    for name in sorted({*one, *two}):
        before, after = one.get(name, "missing"), two.get(name, "missing")
        if before == after:
            continue
        if isinstance(before, list) and isinstance(after, list) and name.endswith("keys"):
            before, after = sorted({*before} - {*after}), sorted({*after} - {*before})
        elif isinstance(before, list) and isinstance(after, list) and name.endswith("losses"):
            at = next((i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]), "its end")
            before, after = f"from step {at}: {before[-1]}", after[-1]
        gone = " (gone)" if after == "missing" else " (new)" if before == "missing" else ""
        kind = f"{name.partition(' / ')[0]} / ... / {name.rpartition(' / ')[2]}" if name.startswith("scores") else ""
        kinds.setdefault(kind + gone, []).append(f"{name}: {before} -> {after}"[:400])
    lines = []
    for kind, found in kinds.items():
        shown = found if not kind.strip() else found[:3]
        lines += shown if len(shown) == len(found) else [*shown, f"... {len(found)} of {kind} in all"]
    return lines


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where something differs from the earlier file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write what was found")
    parser.add_argument("--against", type=Path, metavar="FILE", help="an earlier file to compare with")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="PART", help=f"of {', '.join(PARTS)}")
    options = parser.parse_args(arguments)
    found = measure(options.only or list(PARTS))
    if options.out is not None:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    if options.against is None:
        return 0
    earlier = json.loads(options.against.read_text())
    lines = compare({name: earlier.get(name, "missing") for name in found}, found)
    print("\n".join(lines) or f"equal: {len(dict(flatten(found)))} hashes and figures")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
