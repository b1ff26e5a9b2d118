"""One step is the same under ZeRO 0 and 3; a run under DeepSpeed goes on with other ranks, another stage, or none."""

import json
import shutil

import pytest
import torch
import yaml
from safetensors.torch import load_file

from cloc import comm, factory, pretrain
from cloc.train.stepper import DeepSpeedStepper, read_deepspeed

STEPS, AT = 8, 4
FIGURES = ("loss", "image_text", "region_text", "grounding", "gradient_norm")
pytestmark = pytest.mark.multiprocess


@pytest.fixture
def run(spine_raw, spine_ranks, tmp_path):
    """Runs a tiny config on some ranks under a ZeRO stage (None: plain torch)."""

    def start(folder, ranks, stage, *more):
        zero = "none" if stage is None else f"configs/deepspeed/zero{stage}.json"
        changes = {"train__steps": STEPS, "train__checkpoint_every": AT, "model__vision__layers": 1}
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(spine_raw(train__deepspeed=zero, **changes)))
        command = ["--config", str(tmp_path / "config.yaml"), "--runs", str(folder), *more]
        assert spine_ranks(ranks, lambda rank: pretrain.main(command)) == [0] * ranks

    return start


def figures(folder):
    entries = [json.loads(line) for line in (folder / "tiny" / "metrics.jsonl").read_text().splitlines()]
    return [[entry[name] for name in FIGURES] for entry in entries]


def cut(whole, folder):
    """The same run, as if it had been killed after step `AT`."""
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / "tiny" / "export")
    shutil.rmtree(folder / "tiny" / "checkpoints" / f"step-{STEPS}")


@pytest.mark.parametrize(
    ("first", "then"),
    [
        pytest.param((2, 2), (1, 1), id="2-ranks-zero2-to-1-zero1"),
        pytest.param((1, None), (2, 3), id="plain-to-2-ranks-zero3", marks=pytest.mark.slow),
    ],
)
def test_it_goes_on_elsewhere_with_the_same_losses(first, then, run, tmp_path):
    whole, moved = tmp_path / "whole", tmp_path / "moved"
    run(whole, *first)
    expected = figures(whole)
    cut(whole, moved)
    middle = moved / "tiny" / "checkpoints" / f"step-{AT}"
    kept = [load_file(middle / f"{name}.safetensors") for name in ("model", "optimizer")]
    assert {name.rpartition("/")[0] for name in kept[1]} == set(kept[0])
    assert {float(value) for name, value in kept[1].items() if name.endswith("/step")} == {AT}
    run(moved, *then, "--resume", str(moved / "tiny"))
    found = figures(moved)
    assert len(found) == STEPS
    assert found[:AT] == expected[:AT]
    for step, (one, other) in enumerate(zip(expected, found, strict=True)):
        assert other == pytest.approx(one, rel=2e-4), (step, FIGURES)
    last = [load_file(f / "tiny" / "checkpoints" / f"step-{STEPS}" / "optimizer.safetensors") for f in (whole, moved)]
    for name, value in last[0].items():
        if "k_proj.bias" in name:  # its gradient is zero but for rounding
            continue
        scale = float(value.abs().max())
        assert float((last[1][name] - value).abs().max()) <= 1e-2 * scale + 1e-9, name


def test_a_step_under_zero_3_is_the_step_under_zero_0(spine_config, spine_model, spine_ranks):
    """Two ranks with other samples each, one step, every weight, in one start of the processes."""
    rate, whole = 1e-3, spine_model(model__vision__layers=1).state_dict()
    start = {name: value.clone() for name, value in whole.items()}

    def work(rank):
        comm.join("cpu", deepspeed=True)
        found = {}
        for stage in (0, 3):
            config = spine_config(model__vision__layers=1)
            settings = read_deepspeed(factory.deepspeed_file(stage_of(config, stage), launched=True))
            stepper = factory.make_stepper(config, spine_model(model__vision__layers=1), settings)
            assert isinstance(stepper, DeepSpeedStepper)
            assert stepper.engine.zero_optimization_stage() == stage
            sources, tokenizer = factory.make_sources(config), factory.make_tokenizer(config)
            _, share = factory.make_losses(config, stepper)(
                factory.make_batches(config, sources, tokenizer, 0).batch(0), 0
            )
            stepper.backward(share)
            norm = stepper.step(rate)
            found[stage] = (float(share.detach()), norm, stepper.weights())
        comm.leave()
        return found

    def stage_of(config, stage):
        train = config.train.model_copy(update={"deepspeed": f"configs/deepspeed/zero{stage}.json"})
        return config.model_copy(update={"train": train})

    ranks = spine_ranks(2, work)
    assert ranks[0][0][0] != pytest.approx(ranks[1][0][0], rel=1e-3)  # the ranks did have other samples
    for found in ranks:
        assert found[3][0] == pytest.approx(found[0][0], rel=1e-5)
        assert found[3][1] == pytest.approx(found[0][1], rel=1e-5)
    plain, scattered = ranks[0][0][2], ranks[0][3][2]
    assert plain.keys() == scattered.keys() == start.keys()
    moved = 0.0
    for name, value in plain.items():
        moved = max(moved, float((value - start[name]).abs().max()))
        if "k_proj.bias" in name:  # its gradient is zero but for rounding, of which Adam's first step takes the sign
            continue
        torch.testing.assert_close(
            scattered[name], value, rtol=1e-5, atol=1e-2 * rate, msg=lambda m, n=name: f"{n}: {m}"
        )
    assert moved > 0.5 * rate
