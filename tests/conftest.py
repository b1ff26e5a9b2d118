"""What the tests of the core share: a tiny rendered world, a tiny config, hand-made samples, and several processes."""

from __future__ import annotations

import io
import os
import random
import socket
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts: tiny models, and forks must find no thread pool
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a name that is nobody's is refused here, whatever the network says

import numpy as np
import pytest
import torch
from PIL import Image

for name in "CLOC_DATA RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE LOCAL_SIZE MASTER_ADDR COLUMNS".split():
    os.environ.pop(name, None)  # of whoever starts the tests: they set their own
REPOSITORY = Path(__file__).resolve().parent.parent
THREADS = torch.get_num_threads()
ONE_THREAD = max(2, len(os.sched_getaffinity(0)))
"""As LOCAL_WORLD_SIZE: each process takes one core, so that tests do not wait for threads on a busy machine."""
HANGS = 600.0
"""Seconds after which processes that should be done are held to wait for each other; a slow machine is far below."""


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item) -> None:
    """Noise without a seed of its own is the same whatever ran before, in the fixtures as well."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002  what libraries draw from
    torch.manual_seed(0)


def pytest_terminal_summary(terminalreporter) -> None:
    """The last lines of a run: how many tests were skipped, by reason."""
    reasons = Counter(str(report.longrepr[-1]).removeprefix("Skipped: ") for report in _skipped(terminalreporter))
    terminalreporter.write_line(f"skipped: {sum(reasons.values())}")
    for reason, count in sorted(reasons.items()):
        terminalreporter.write_line(f"  {count:4d}  {reason}")


def _skipped(terminalreporter) -> list:
    return [report for report in terminalreporter.stats.get("skipped", []) if isinstance(report.longrepr, tuple)]


@pytest.fixture(scope="session")
def sample_data() -> Path:
    """The folder of sample photos: $CLOC_SAMPLE_DATA, else `shared/data` beside the checkout."""
    folder = Path(os.environ.get("CLOC_SAMPLE_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "coco").is_dir():
        pytest.skip("no sample photos: set CLOC_SAMPLE_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def spine_world(tmp_path_factory) -> Path:
    """A data root with a rendered world of 64 small scenes in four shards."""
    from cloc.scenes import WorldSpec, ensure_scenes

    root = tmp_path_factory.mktemp("spine") / "data"
    spec = WorldSpec(train=64, val=6, refcoco=6, size=48, shard_size=18)
    ensure_scenes(root / "scenes", spec, workers=1, progress=False)
    return root


@pytest.fixture(scope="session")
def spine_shards(spine_world) -> Path:
    """The training shards of the tiny world."""
    return spine_world / "scenes" / "train"


@pytest.fixture
def spine_raw(spine_shards) -> Callable[..., dict]:
    """Makes a tiny run's config as plain data; keyword arguments `a__b=c` change one field."""

    def make(**changes: object) -> dict:
        raw = {
            "run": {"name": "tiny", "workers": 0, "device": "cpu"},
            "data": [{"path": str(spine_shards), "batch_size": 8}],
            "model": {
                "embed_dim": 16,
                "vision": {"image_size": 32, "patch_size": 8, "width": 32, "layers": 2, "heads": 2},
                "text": {"width": 16, "layers": 1, "heads": 2, "context": 16},
            },
            "optim": {"lr": 1e-3, "warmup_steps": 2},
            "loss": {"regions_per_image": 3},
            "train": {"steps": 6, "checkpoint_every": 100, "log_every": 2},
        }
        for name, value in changes.items():
            *parents, last = name.split("__")
            place = raw
            for part in parents:
                place = place.setdefault(part, {})
            place[last] = value
        return raw

    return make


@pytest.fixture
def spine_config(spine_raw) -> Callable[..., object]:
    """The same as a checked `Config`."""
    from cloc.config import parse_config

    return lambda **changes: parse_config(spine_raw(**changes))


@pytest.fixture(autouse=True)
def torch_as_at_the_start():
    """A run in an earlier test took its share of the cores and asked for equal bits; rows say how many threads."""
    if torch.get_num_threads() != THREADS:
        torch.set_num_threads(THREADS)
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def spine_tokenizer() -> Callable[..., object]:
    """The tokenizer of a config, made once for each kind: tests must not change it."""
    from cloc import factory

    kept = {}

    def make(config):
        kind = config.model.text.tokenizer, config.model.text.context
        if kind not in kept:
            kept[kind] = factory.make_tokenizer(config)
        return kept[kind]

    return make


@pytest.fixture
def spine_model(spine_config, spine_tokenizer) -> Callable[..., object]:
    """Makes a tiny `ClocModel` with random weights."""
    from cloc import factory

    def make(**changes: object):
        config = spine_config(**changes)
        return factory.make_model(config, spine_tokenizer(config))[0]

    return make


@pytest.fixture
def spine_export(spine_config, spine_tokenizer, tmp_path) -> Callable[..., Path]:
    """Makes a finished export of an untrained tiny model."""
    from cloc import factory
    from cloc.export import write_export

    def make(name: str = "tiny", **changes: object) -> Path:
        config = spine_config(**changes)
        tokenizer = spine_tokenizer(config)
        model = factory.make_model(config, tokenizer)[0]
        state = {k: v.detach().clone() for k, v in model.state_dict().items()}
        facts = {"objective": config.objective, "steps": 0, "samples": 0, "seed": 0, "licence": "unknown"}
        data = [{"path": "scenes", "name": "scenes", "kind": "regions", "samples": 64, "rendered": True, "note": ""}]
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        return write_export(model, state, tokenizer, run, facts, data)

    return make


def picture(width: int, height: int, seed: int = 0) -> Image.Image:
    """A smooth colour picture, so that a resize has something to agree on."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.fixture
def spine_picture() -> Callable[..., Image.Image]:
    """Makes a smooth colour picture of a given size."""
    return picture


@pytest.fixture
def spine_sample() -> Callable[..., object]:
    """Makes a `Sample` by hand: regions as (box, phrase) pairs; `meta` replaces fields of its KEY.json."""
    from cloc.structures import Sample

    def make(key="a", size=(40, 30), regions=(), caption="a caption", kind="PNG", seed=0, meta=None, **extras):
        buffer = io.BytesIO()
        picture(*size, seed=seed).save(buffer, kind)
        entries = [{"box": list(box), "phrase": phrase} for box, phrase in regions]
        told = {"schema": 1, "width": size[0], "height": size[1], "caption": caption, "regions": entries, **extras}
        ending = {"PNG": "png", "JPEG": "jpg", "WEBP": "webp"}[kind]
        return Sample.from_json(key, buffer.getvalue(), ending, caption, {**told, **(meta or {})})

    return make


def _one_rank(rank: int, world: int, port: int, work: Callable, out: Path, env: dict[str, str]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "LOCAL_WORLD_SIZE": ONE_THREAD}
    os.environ.update({k: str(v) for k, v in place.items()})
    os.environ.update(env, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), OMP_NUM_THREADS="1")
    torch.set_num_threads(1)
    try:
        torch.save({"result": work(rank)}, out / f"{rank}.pt")
    except BaseException:
        torch.save({"error": traceback.format_exc()}, out / f"{rank}.pt")
        raise


@pytest.fixture(scope="session")
def spine_warm() -> None:
    """What every run imports and makes at its start, once for all the forks of these tests."""
    import deepspeed  # noqa: F401

    from cloc.scenes import make_preset
    from cloc.tokenizer import clip_tokenizer

    clip_tokenizer()
    make_preset("detection")  # its emoji are drawn once in a process


@contextmanager
def kept_port() -> Iterator[int]:
    """A port that nobody else is given meanwhile: bound and not listened at, so that only who names it can have it."""
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.fixture
def spine_port() -> Iterator[int]:
    """A port for the processes of this test."""
    with kept_port() as port:
        yield port


@pytest.fixture
def spine_ranks(spine_warm, tmp_path) -> Callable[..., list]:
    """Runs `work(rank)` in several forked processes and returns what each returned."""
    calls = []

    def run(world: int, work: Callable, **env: str) -> list:
        out = tmp_path / f"ranks-{len(calls)}"
        out.mkdir()
        calls.append(out)
        context = torch.multiprocessing.get_context("fork")
        with kept_port() as port:
            ranks = [context.Process(target=_one_rank, args=(r, world, port, work, out, env)) for r in range(world)]
            for process in ranks:
                process.start()
            until = time.monotonic() + HANGS
            for process in ranks:
                process.join(max(0.0, until - time.monotonic()))
        for process in ranks:
            if process.is_alive():
                process.kill()
        found = [torch.load(out / f"{r}.pt") if (out / f"{r}.pt").exists() else {} for r in range(world)]
        wrong = [f"rank {r}: {f.get('error', 'no answer')}" for r, f in enumerate(found) if "result" not in f]
        assert not wrong, "\n".join(wrong)
        return [f["result"] for f in found]

    return run


@pytest.fixture
def spine_group(spine_ranks) -> Callable[..., list]:
    """The same inside a gloo process group."""

    def run(world: int, work: Callable) -> list:
        def inside(rank: int):
            torch.distributed.init_process_group("gloo")
            try:
                return work(rank)
            finally:
                torch.distributed.destroy_process_group()

        return spine_ranks(world, inside)

    return run
