"""A labelling job in a process of its own: rendered photos, a random detector, workers that begin together.

What `labelling_runners` times and `labelling_kills` disturbs.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch
from PIL import Image
from transformers import Owlv2Config, Owlv2ForObjectDetection, Owlv2ImageProcessor, Owlv2Processor

from cloc.data.shards import write_shards
from cloc.label.job import label
from cloc.label.on_ray import LOCAL, connect_ray, run_ray
from cloc.label.proposals import Proposals, Proposer
from cloc.label.settings import LabelSettings
from cloc.label.shard import Labeller
from cloc.scenes import WorldSpec, render_scene
from cloc.structures import Sample
from cloc.tokenizer import load_tokenizer

RUNNERS = ("processes", "ray")
SIDE, PATCH, WIDTH, LAYERS = 224, 16, 192, 4
"""Of the detector: pixels of its input and of a patch, width and layers of its towers."""
CONTEXT = 16
DIFFERENT = 64
"""Scenes that are really rendered; the others show the same."""
BOXES = 20
"""An image, at most: a random detector finds something everywhere."""
PATIENCE = 600.0
"""Seconds that a loaded worker waits for the others."""


@dataclass(frozen=True)
class Job:
    """One labelling job.

    Attributes:
        source: image-text shards.
        detector: folder of the detector.
        out: folder to make.
        signs: folder where each worker that has loaded its models leaves its process id.
        runner: one of `RUNNERS`.
        workers: processes, or Ray's actors.
        waits: before each batch for the replacement of a lost worker, so that there is work left to disturb.
    """

    source: Path
    detector: Path
    out: Path
    signs: Path
    runner: str
    workers: int
    waits: bool = False

    @property
    def settings(self) -> LabelSettings:
        """What decides the labels."""
        return LabelSettings(str(self.detector), size=SIDE, max_boxes=BOXES)

    def run(self) -> None:
        """Label, and leave the file `finished` in `signs` before Ray is ended."""
        self.signs.mkdir(parents=True, exist_ok=True)
        on_ray = self.runner == "ray"
        runner = partial(run_ray, LOCAL, self.workers) if on_ray else None
        make = partial(load_together, self.settings, self.signs, self.workers, self.waits)
        with connect_ray(LOCAL, self.workers) if on_ray else nullcontext():
            label(self.source, self.out, self.settings, self.workers, runner, progress=False, make=make)
            (self.signs / "finished").touch()

    def start(self) -> BaseProcess:
        """The same in a process of its own."""
        process = multiprocessing.get_context("spawn").Process(target=self.run)
        process.start()
        return process

    def pids(self) -> list[int]:
        """The workers that have loaded their models, in the order in which they had."""
        signs = sorted(self.signs.glob("[0-9]*"), key=lambda sign: sign.stat().st_mtime_ns)
        return [int(sign.name) for sign in signs]

    def began(self) -> float | None:
        """When the last of the first workers had loaded its models (as of `time.time`); None before."""
        times = sorted(sign.stat().st_mtime for sign in self.signs.glob("[0-9]*"))
        return times[self.workers - 1] if len(times) >= self.workers else None


def load_together(settings: LabelSettings, signs: Path, workers: int, waits: bool, device: str) -> Labeller:
    """A labeller, once as many workers as there are have loaded one.

    Raises:
        RuntimeError: the others do not come.
    """
    labeller = Labeller.load(settings, device)
    (signs / str(os.getpid())).touch()
    wait = partial(_wait_for, signs, workers)
    wait()
    if waits:
        labeller.proposer = Waiting(labeller.proposer, wait)
    return labeller


@dataclass(frozen=True)
class Waiting:
    """A detector that waits before each batch."""

    proposer: Proposer
    wait: Callable[[], None]

    def propose(self, images: Sequence[Image.Image], phrases: Sequence[Sequence[str]]) -> list[Proposals]:
        """As `Proposer.propose`."""
        self.wait()
        return self.proposer.propose(images, phrases)


def _wait_for(signs: Path, workers: int) -> None:
    until = time.monotonic() + PATIENCE
    while len(list(signs.glob("[0-9]*"))) < workers:
        if time.monotonic() > until:
            raise RuntimeError(f"labelling: expected {workers} workers within {PATIENCE:.0f} s")
        time.sleep(0.05)


def hash_output(folder: Path) -> dict[str, str]:
    """Every file of a folder with the hash of its bytes."""
    return {path.name: sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def write_source(folder: Path, images: int, shard_size: int) -> Path:
    """Shards of rendered photos with a caption each; returns their folder."""
    card = {"name": "labelling", "kind": "pairs", "rendered": True, "licence": "rendered", "made": {"images": images}}
    write_shards(_samples(images), folder, card, shard_size)
    return folder


def _samples(images: int) -> Iterator[Sample]:
    world, scenes = WorldSpec(), []
    for index in range(min(images, DIFFERENT)):
        scene, buffer = render_scene(world, index, "train", SIDE), io.BytesIO()
        scene.image.save(buffer, "JPEG", quality=90)
        scenes.append(Sample("0", buffer.getvalue(), "jpg", SIDE, SIDE, scene.caption, ()))
    for number in range(images):
        yield replace(scenes[number % len(scenes)], key=f"{number:09d}")


def write_detector(folder: Path) -> Path:
    """A random OWLv2, of some 15 M parameters with its vocabulary; returns its folder."""
    torch.manual_seed(0)
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS}
    tower["num_attention_heads"] = WIDTH // 64
    tokenizer = load_tokenizer("clip")
    tokenizer.model_max_length = CONTEXT
    text = {**tower, "vocab_size": len(tokenizer), "max_position_embeddings": CONTEXT}
    vision = {**tower, "image_size": SIDE, "patch_size": PATCH}
    config = Owlv2Config(text_config=text, vision_config=vision, projection_dim=WIDTH)
    Owlv2ForObjectDetection(config).eval().save_pretrained(folder)
    pictures = Owlv2ImageProcessor(size={"height": SIDE, "width": SIDE})
    Owlv2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder
