"""Our loader beside open_clip's WebDataset pipeline: images a second on one core, from the same shards.

Both read one epoch of rendered scenes in one process, from opening the shards to batches of tensors: ours with the
regions of each image, theirs with its own augmentation and tokenizer. Run by the task `speed`.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.speed.timing import find_ratio, make_cost_scores, take_in_turn, time_call
from benchmarks.tasks.contract import Score
from cloc.config import load_config
from cloc.data.dataloader import one_thread
from cloc.plan.timed_step import loaded_batches
from cloc.scenes import WorldSpec
from cloc.scenes.detection_samples import list_folder_plans
from cloc.scenes.training import write_folder

RECIPE = "configs/cloc_vit_b16.yaml"
SIZE = 224
SCENES, SCENE, SHARD = 256, 480, 64
"""How many, their side in pixels, and how many a shard."""
BATCH = 32
REPEATS = 3


def measure_loader(split: str) -> list[Score]:
    """The ratio, ours over theirs, and both rates.

    Raises:
        RuntimeError: the two did not give the same number of images.
    """
    with tempfile.TemporaryDirectory(prefix="loader-") as folder, one_thread():
        shards = write_scenes(Path(folder) / "train")
        works = {
            "ours": lambda: time_epoch("our", iterate_ours(shards)),
            "theirs": lambda: time_epoch("open_clip's", iterate_theirs(shards)),
        }
        seconds = take_in_turn(works, REPEATS)
    figures = {
        "loader_over_open_clip": find_ratio(seconds["theirs"], seconds["ours"]),
        "loader_images_per_second_per_core": SCENES / median(seconds["ours"]),
        "open_clip_images_per_second_per_core": SCENES / median(seconds["theirs"]),
    }
    protocol = f"{SCENES}-jpegs-of-{SCENE}px/to-{SIZE}px/M-4/one-epoch/one-process/median-of-{REPEATS}-rounds"
    return make_cost_scores(split, protocol, figures, REPEATS)


def write_scenes(out: Path) -> Path:
    """The shards that both read."""
    spec = WorldSpec(train=SCENES, size=SCENE, shard_size=SHARD)
    plan = next(plan for plan in list_folder_plans(spec) if plan.name == "train")
    out.parent.mkdir(parents=True, exist_ok=True)
    write_folder(spec, plan, out, workers=1, progress=False)
    return out


def time_epoch(whose: str, sizes: Iterator[int]) -> float:
    """Read to the end; that tokenizers were made before does not count."""
    seen: list[int] = []
    seconds = time_call(lambda: seen.extend(sizes))
    if sum(seen) != SCENES:
        raise RuntimeError(f"speed: {whose} loader gave {sum(seen)} images, the shards hold {SCENES}")
    return seconds


def iterate_ours(shards: Path) -> Iterator[int]:
    """Images of each batch of one epoch, with M = 4 regions."""
    fields = [f"data.0.path={shards}", f"data.0.batch_size={BATCH}", f"train.steps={SCENES // BATCH}"]
    sizes = [f"model.vision.image_size={SIZE}", "train.checkpoint_every=1", "optim.warmup_steps=0"]
    return (len(batch.pixel_values) for batch in loaded_batches(load_config(RECIPE, [*fields, *sizes])))


def iterate_theirs(shards: Path) -> Iterator[int]:
    """Images of each batch of one epoch of `open_clip_train`'s pipeline, as its training script sets it up."""
    import open_clip
    from open_clip.transform import PreprocessCfg, image_transform_v2
    from open_clip_train import data as their_data

    # webdataset 1.x ends each shard with an empty mapping, at which their grouping (written for 0.2) stops with an
    # error. Without that mark the stream is the one it was written for.
    expander = getattr(their_data.tar_file_expander, "func", their_data.tar_file_expander)
    their_data.tar_file_expander = partial(expander, eof_value=None)
    asked = Namespace(
        train_data="::".join(map(str, sorted(shards.glob("*.tar")))),
        train_num_samples=SCENES,
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=BATCH,
        world_size=1,
        workers=0,
    )
    transform = image_transform_v2(PreprocessCfg(size=SIZE), is_train=True)
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    info = their_data.get_wds_dataset(asked, transform, is_train=True, tokenizer=tokenizer)
    return (len(images) for images, _ in info.dataloader)
