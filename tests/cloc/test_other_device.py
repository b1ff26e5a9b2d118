"""Off the CPU: every tensor lies where it has to, and the losses are the CPU's. Which kernels give equal bits there."""

import json
import shutil

import numpy as np
import pretend
import pytest
import torch
import yaml
from transformers import AutoProcessor

import cloc
from cloc import device, pretrain
from cloc.scenes import WorldSpec, ensure_scenes

NO_EQUAL_BITS = (
    "deform_conv2d_backward", "scatter_reduce", "grid_sampler_2d_backward", "upsample_bicubic2d_backward",
    "upsample_bilinear2d_backward", "adaptive_avg_pool2d_backward", "adaptive_max_pool2d_backward", "histc", "aten.put",
    "median", "reflection_pad", "nll_loss2d", "ctc_loss", "_embedding_bag_backward",
)  # fmt: skip
"""What `torch.use_deterministic_algorithms` says of CUDA, with torchvision's own."""
BEFORE_TORCH_2_15 = {"upsample_bicubic2d_backward"}
"""Named by `make_deterministic` as such: whether it is seen depends on the version of torch."""
DETECTOR = {"width": 16, "strides": [8, 16, 32], "num_convs": 1, "anchor_scale": 4.0, "definitions": False}
SWIN = {"style": "swin", "image_size": 64, "patch_size": 4, "width": 8, "heads": 1, "depths": [1, 1, 1, 1], "window": 2}
CLOC = {
    "all kinds of prompts": {"model__prompter": {"prompts": ["box", "point"]}, "train__activation_checkpointing": True},
    "cached": {"train__accumulation": 2, "train__accumulation_mode": "cached", "loss__form": "sigmoid"},
    "RoI-Align": {"model__prompter": {"kind": "roi_align"}, "loss__grounding": 0.0, "loss__chunk": 3},
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    spec = WorldSpec(train=12, detection=12, grounding=12, pairs=12, val=2, refcoco=2, size=48, shard_size=6)
    return ensure_scenes(tmp_path_factory.mktemp("other") / "world", spec, workers=1, progress=False).parent


@pytest.fixture
def joint(world):
    """What makes a tiny run one of all kinds of data."""

    def source(kind, folder, size):
        return {"path": str(world / folder), "kind": kind, "batch_size": 3, "weight": 1, "image_size": size}

    sizes = [[32, 64], [48, 64]]
    data = [
        source("detection", "detection", sizes),
        source("grounding", "grounding", sizes),
        source("pairs", "pairs", 32),
    ]
    regions = {"path": str(world / "train"), "kind": "regions", "batch_size": 3, "weight": 1}
    return {"objective": "joint", "data": [regions, *data], "model__detector": DETECTOR}


@pytest.fixture(scope="module")
def elsewhere():
    """Does a function of `pretend` on the other device; gives its answer and which operations ran there."""
    context = torch.multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=pretend.serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()  # so that its end is the end of the line

    def ask(work, *arguments):
        ours.send((work, arguments))
        answer, seen = ours.recv()
        assert seen is not None, answer
        return answer, seen

    yield ask
    ours.send(None)
    process.join()


@pytest.fixture
def train(spine_raw, elsewhere, tmp_path):
    """Trains on a device; gives the losses of all steps and which operations ran off the CPU."""

    def run(where, *more, **changes):
        folder = tmp_path / where
        file = folder.with_suffix(".yaml")
        file.write_text(yaml.safe_dump(spine_raw(train__checkpoint_every=4, **changes)))
        call = ["--config", str(file), "--runs", str(folder), *more]
        code, seen = (pretrain.main(call), {}) if where == "cpu" else elsewhere(pretend.train, call)
        assert code == 0
        lines = [json.loads(line) for line in (folder / "tiny" / "metrics.jsonl").read_text().splitlines()]
        return {line["step"]: line["loss"] for line in lines}, seen

    return run


def no_equal_bits(seen):
    return {name for name in NO_EQUAL_BITS for operation in seen if name in operation}


def test_the_device_refuses_what_an_accelerator_refuses(elsewhere):
    (added, joined, read, rest), _ = elsewhere(pretend.refused)
    assert added == "aten.add.Tensor: expected all tensors on pretend, found some of the CPU ((3,))"
    assert joined.startswith("aten.cat.default: expected all tensors on pretend")
    assert "use Tensor.cpu()" in read
    assert rest == "[2.0]"


@pytest.mark.parametrize("name", CLOC)
def test_cloc_trains_off_the_cpu_with_the_same_losses_and_equal_bits(name, train):
    (there, seen), (here, _) = (train(where, **CLOC[name]) for where in ("pretend", "cpu"))
    assert there == pytest.approx(here, rel=1e-4)
    assert len(there) == 6
    assert sum(seen.values()) > 1000
    assert no_equal_bits(seen) == set()


@pytest.mark.parametrize("tower", ["swin", pytest.param("vit", marks=pytest.mark.slow)])
def test_a_detector_trains_off_the_cpu(tower, train, joint, elsewhere, spine_picture, tmp_path):
    changes = {**joint, "model__vision": SWIN} if tower == "swin" else joint
    (there, seen), (here, _) = (train(where, **changes) for where in ("pretend", "cpu"))
    assert there == pytest.approx(here, rel=1e-3)
    assert no_equal_bits(seen) - BEFORE_TORCH_2_15 == {"deform_conv2d_backward", "scatter_reduce"}
    folder, image, names = tmp_path / "cpu" / "tiny" / "export", spine_picture(50, 40), ["cat", "dog"]
    model, processor = cloc.ClocForObjectDetection.from_pretrained(folder).eval(), AutoProcessor.from_pretrained(folder)
    (here,) = model.detect([image], names, processor, limit=7, threshold=0.0)
    there, _ = elsewhere(pretend.detect, str(folder), image, names)
    assert there["scores"] == pytest.approx(np.asarray(here["scores"]).tolist(), rel=1e-3)
    np.testing.assert_allclose(there["boxes"], here["boxes"], atol=0.1)


def test_a_run_goes_on_off_the_cpu(train, tmp_path):
    whole, _ = train("pretend")
    run = tmp_path / "pretend" / "tiny"
    shutil.rmtree(run / "export")
    shutil.rmtree(run / "checkpoints" / "step-6")
    assert (run / "checkpoints" / "step-4").is_dir()
    again, _ = train("pretend", "--resume", "auto")
    assert again == whole


def test_an_export_reads_regions_off_the_cpu(train, elsewhere, tmp_path, spine_picture):
    train("cpu")
    folder = str(tmp_path / "cpu" / "tiny" / "export")
    asked = AutoProcessor.from_pretrained(folder)(
        images=spine_picture(50, 40), boxes=[[(2, 3, 30, 20)]], text=["a cat"]
    )
    found, seen = elsewhere(pretend.read, folder, dict(asked))
    assert sum(seen.values()) > 100
    for there, here in zip(found, pretend.read(folder, dict(asked), "cpu"), strict=True):
        torch.testing.assert_close(torch.tensor(there), torch.tensor(here), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("asked", "told"), [("nonsense", "Expected one of cpu, cuda"), ("cuda:99", "torch sees")])
def test_a_device_that_is_not_there_is_said(asked, told):
    with pytest.raises(
        ValueError, match=rf"run\.device: '{asked}' cannot be used here \({told}.*\); use cpu, or leave"
    ):
        device.find_device(asked, "run.device")


@pytest.mark.parametrize(("name", "warns"), [("cpu", False), ("cuda", True)])
def test_only_a_cpu_is_held_to_equal_bits(name, warns):
    device.make_deterministic(name)
    assert torch.are_deterministic_algorithms_enabled()
    assert torch.is_deterministic_algorithms_warn_only_enabled() == warns
