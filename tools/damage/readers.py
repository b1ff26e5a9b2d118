"""Every kind of input: a small valid world, how it is damaged, and who reads it."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from random import Random
from typing import Any

from tools.damage.annotations import ANNOTATIONS
from tools.damage.models import MODELS
from tools.damage.pictures import encoded, good, picture
from tools.damage.running import COUNTED, OK, Reader, WrongError
from tools.damage.scores import SCORES
from tools.damage.values import document, hurt, lines

SAMPLES = 6


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    """A plain tar of (name, content)."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def meta(number: int) -> dict[str, Any]:
    """The JSON of a sample of 24 x 18 pixels."""
    regions = [
        {"box": [1, 2, 11.5, 12], "phrase": "a red ring", "score": 0.5, "category_id": 3},
        {"box": [3, 2, 20, 16], "phrase": "dog"},
    ]
    head = {"schema": 1, "image_id": number, "width": 24, "height": 18, "caption": "a dog in a red ring"}
    return {**head, "captions": ["a dog in a red ring", "one dog"], "regions": regions, "source": {"dataset": "x"}}


def members(number: int) -> dict[str, bytes]:
    """The files of a good sample."""
    image = good(Random(number))
    ending = {b"\x89": "png", b"R": "webp"}.get(image[:1], "jpg")
    told = meta(number)
    return {ending: image, "json": json.dumps(told).encode(), "txt": told["caption"].encode()}


def read_image(state: Any, random: Random, folder: Path) -> str:
    """A photo alone."""
    from cloc.images import decode, place

    data = picture(random)
    (folder / "photo").write_bytes(data)
    placed = place(decode(data), 32)
    if placed.size != (32, 32) or placed.mode != "RGB":
        raise WrongError(f"placed as {placed.size}, {placed.mode}")
    return OK


def read_all(place: Path, known: int | None = None) -> str:
    """Every sample of a set as training takes it; `known` were there before it was damaged."""
    from cloc.data.loader import Source, StepBatches
    from cloc.data.tables import open_samples
    from cloc.tokenizer import clip_tokenizer

    samples = open_samples(place)
    if samples.num_samples == 0:
        raise ValueError(f"{place}: nothing in it")
    steps = StepBatches([Source(samples, samples.num_samples)], clip_tokenizer(), 32, 3, 0, 0, 1, 0, 1)
    batch = steps.batch(0)
    kept, skipped = len(batch.pixel_values), sum(batch.skipped.values())
    if kept + skipped < samples.num_samples:
        raise WrongError(f"{samples.num_samples - kept} samples lost, {skipped} counted")
    return COUNTED if skipped else OK


def read_sample(state: Any, random: Random, folder: Path) -> str:
    """One sample of a tar: its photo, its JSON, its caption, its names."""
    found: list[tuple[str, bytes]] = []
    for number in range(SAMPLES):
        files = dict(members(number))
        key = f"{number:06d}"
        if number == 3:
            way = random.random()
            ending = next(name for name in files if name not in ("json", "txt"))
            if way < 0.25:
                files[ending] = picture(random)
            elif way < 0.75:
                files["json"] = document(meta(number), random)
            elif way < 0.85:
                files["txt"] = hurt(files["txt"], random)
            elif way < 0.92:
                del files[random.choice(list(files))]
            else:
                key = random.choice(
                    ["a.b", "../x", "/abs", "", ".", "x" * 300, "é\u0301", "0" * 6, "dir/000003", "000002"]
                )
        found += [(f"{key}.{ending}", data) for ending, data in files.items()]
    write_tar(folder / "000000.tar", found)
    return read_all(folder)


def make_set(world: Path) -> Path:
    """A set of two shards with its card."""
    from cloc.data.shards import write_shards
    from cloc.structures import Sample

    made = []
    for number in range(SAMPLES):
        image = encoded_photo(number)
        made.append(Sample.from_json(f"{number:06d}", image, "png", "a dog in a red ring", meta(number)))
    card = {"name": "x", "kind": "regions", "rendered": False, "licence": "CC0", "made": {"by": "test"}}
    card["categories"] = [{"id": 3, "name": "ring", "definition": "a circle", "frequency": "f"}]
    write_shards(iter(made), world / "set", card, 4)
    return world / "set"


def encoded_photo(number: int) -> bytes:
    """A good PNG of 24 x 18 pixels."""
    from PIL import Image

    return encoded(Image.frombytes("RGB", (24, 18), Random(number).randbytes(24 * 18 * 3)), "PNG")


def check(place: Path, changed: bool) -> str:
    """`cloc.check` of a set; a file that differs from the card's sha256 is told."""
    from cloc.check.__main__ import check as look

    found, _ = look(place, progress=False)
    if found.counts["samples"] < SAMPLES and not found.faults:
        raise WrongError(f"{found.counts['samples']} samples of {SAMPLES}, and no fault is told")
    if changed and not found.faults:
        raise WrongError("a shard has other bytes than its card says, and no fault is told")
    return COUNTED if found.faults else OK


def hostile_header(random: Random) -> bytes:
    """Blocks of a tar that claim absurd sizes or names, nest, or are links and devices."""
    info = tarfile.TarInfo(random.choice(["000009.jpg", "../../x.jpg", "/etc/x", "a" * 99, "000000.json"]))
    info.size = random.choice([0, 10, 2**33, 2**62])
    info.type = random.choice([b"0", b"1", b"2", b"3", b"5", b"6", b"7", b"S", b"L", b"K", b"x", b"g", b"Z"])
    info.linkname = random.choice(["", "../../../etc/passwd", "000000.json"])
    block = bytearray(info.tobuf(random.choice([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])))
    way = random.randrange(4)
    if way == 0:
        return bytes(block) * random.choice([1, 50, 3000])
    if way == 1:
        digits = b"9" * random.choice([5, 4000, 2_000_000])
        record = b" size=" + digits + b"\n"
        text = str(len(record) + 8).encode() + record
        pax = tarfile.TarInfo("pax")
        pax.type, pax.size = b"x", len(text)
        return pax.tobuf(tarfile.USTAR_FORMAT) + text + bytes(-len(text) % 512) + bytes(block)
    if way == 2:
        long = tarfile.TarInfo("././@LongLink")
        long.type, long.size = b"L", 2**40
        return long.tobuf(tarfile.GNU_FORMAT) + bytes(block)
    return bytes(block) + random.randbytes(512)


def read_tar(state: Path, random: Random, folder: Path) -> str:
    """A shard of a set with a card."""
    place = folder / "set"
    shutil.copytree(state, place)
    shard = sorted(place.glob("*.tar"))[random.randrange(2)]
    before = shard.read_bytes()
    if random.random() < 0.5:
        after = hurt(before, random)
    else:
        at = 512 * random.randrange(len(before) // 512 - 1)
        after = before[:at] + hostile_header(random) + before[at:]
    shard.write_bytes(after)
    first = check(place, after != before)
    return max(first, read_all(place), key=(OK, COUNTED).index)


def read_card(state: Path, random: Random, folder: Path) -> str:
    """The card of a set."""
    place = folder / "set"
    shutil.copytree(state, place)
    card = place / "dataset.json"
    card.write_bytes(document(json.loads(card.read_bytes()), random))
    first = check(place, False)
    return max(first, read_all(place), key=(OK, COUNTED).index)


def read_table(state: Any, random: Random, folder: Path) -> str:
    """A Parquet file of samples."""
    import pyarrow
    from pyarrow import parquet

    rows = []
    for number in range(SAMPLES):
        told = meta(number)
        image = picture(random) if number == 3 and random.random() < 0.5 else encoded_photo(number)
        regions = json.dumps(told["regions"])
        if number == 4:
            regions = document(told["regions"], random).decode("utf-8", "replace")
        rows.append({"image": image, "caption": told["caption"], "regions": regions, "width": 24, "height": 18})
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "0.parquet")
    if random.random() < 0.4:
        (folder / "0.parquet").write_bytes(hurt((folder / "0.parquet").read_bytes(), random))
    return read_all(folder)


CONFIG: dict[str, Any] = {
    "run": {"name": "tiny", "workers": 0, "device": "cpu", "seed": 1},
    "data": [
        {"path": "x", "batch_size": 8, "kind": "regions"},
        {"path": "y", "batch_size": 4, "kind": "detection", "weight": 1},
    ],
    "model": {
        "embed_dim": 16,
        "vision": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2, "style": "clip"},
        "text": {"width": 16, "layers": 1, "heads": 2, "context": 16},
        "detector": {"width": 16, "strides": [8, 16, 32], "num_convs": 1, "anchor_scale": 4.0},
    },
    "objective": "joint",
    "optim": {"lr": 1e-3, "warmup_steps": 2},
    "loss": {"regions_per_image": 3},
    "train": {"steps": 6, "checkpoint_every": 100, "log_every": 2},
}  # fmt: skip


FIELDS = ("optim.lr", "data.0.path", "a.b", "run", "data.9.x", "model.vision.width")
VALUES = ("x", 1e400, [1], {}, "", "[", "{", "!!python/x", "9" * 5000)


def bomb() -> str:
    """YAML whose aliases write out to 9^7 values."""
    pairs = zip("abcdefg", "bcdefgh", strict=True)
    return "a: &a [x]\n" + "".join(f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in pairs)


def read_config(state: Any, random: Random, folder: Path) -> str:
    """The configuration of a run, as JSON (which is YAML) or as YAML, and an override."""
    import yaml

    from cloc.config import load_config

    text, way = document(CONFIG, random), random.random()
    if way < 0.4:
        text = hurt(yaml.safe_dump(CONFIG).encode(), random)
    elif way < 0.43:
        text = bomb().encode()
    (folder / "config.yaml").write_bytes(text)
    overrides = [f"{random.choice(FIELDS)}={random.choice(VALUES)}"] if random.random() < 0.3 else []
    load_config(str(folder / "config.yaml"), overrides)
    return OK


def read_conversations(state: Path, random: Random, folder: Path) -> str:
    """Conversations in LLaVA's layout, for tuning."""
    from mllm_bridge.conversations.reading import read_conversations as read

    entries = []
    for number in range(8):
        turns = [{"from": "human", "value": "<image>\nWhat is in <region>?"}, {"from": "gpt", "value": "A ring."}]
        entries.append({"id": number, "image": f"{number % 2}.png", "conversations": turns, "regions": [[1, 2, 9, 9]]})
    as_lines = random.random() < 0.5
    name = "c.jsonl" if as_lines else "c.json"
    (folder / name).write_bytes(lines(entries, random) if as_lines else document(entries, random))
    found = read(folder / name, state)
    if len(found) + sum(found.skipped.values()) < len(entries) - 4:  # up to four may have been cut out
        raise WrongError(f"{len(found)} conversations of {len(entries)}, {dict(found.skipped)} told")
    return COUNTED if found.skipped else OK


def two_photos(world: Path) -> Path:
    """Two photos."""
    for number in range(2):
        (world / f"{number}.png").write_bytes(encoded_photo(number))
    return world


def read_boxes(state: Any, random: Random, folder: Path) -> str:
    """Boxes to prompt with, for `cloc.embed`."""
    from cloc.embed.prompt_boxes import read_prompt_boxes

    entries = [{"image": f"{n}.png", "boxes": [[1, 2, 9, 9], [0, 0, 20, 18]]} for n in range(4)]
    (folder / "boxes.jsonl").write_bytes(lines(entries, random))
    _, dropped = read_prompt_boxes(folder / "boxes.jsonl")
    return COUNTED if sum(dropped.values()) else OK


def nothing(world: Path) -> None:
    """No files are needed."""


def quiet_cache(world: Path) -> None:
    """Tables are cached below the world, not in the user's home."""
    os.environ["HF_DATASETS_CACHE"] = str(world / "cache")
    import datasets

    datasets.config.HF_DATASETS_CACHE = world / "cache"
    datasets.disable_progress_bars()


READERS: tuple[Reader, ...] = (
    Reader("image", 200, nothing, read_image),
    Reader("sample", 150, nothing, read_sample),
    Reader("tar", 80, make_set, read_tar),
    Reader("card", 60, make_set, read_card),
    Reader("table", 8, quiet_cache, read_table),
    Reader("config", 90, nothing, read_config),
    Reader("conversations", 60, two_photos, read_conversations),
    Reader("boxes", 30, nothing, read_boxes),
    *ANNOTATIONS,
    *SCORES,
    *MODELS,
)


def plan(count: int, readers: list[Reader]) -> list[tuple[Reader, int]]:
    """So many inputs, shared out among the readers."""
    whole = sum(reader.share for reader in readers)
    return [(reader, n) for reader in readers for n in range(max(1, round(count * reader.share / whole)))]
