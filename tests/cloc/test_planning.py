"""The plan of a recipe: its memory against a real step, its work against arithmetic, and what it says."""

import pytest
import torch
import yaml

from cloc import build, pretrain
from cloc.losses.pairs import Form
from cloc.planning import BUCKET, memory_of, plan_lines
from cloc.planning.dry_step import Shapes, dry_step
from cloc.planning.peak import PeakMemory
from cloc.planning.trial import made_up_batch

SIZES = {
    "small": {},
    "larger": {
        "model__embed_dim": 48,
        "model__vision": {"image_size": 64, "patch_size": 8, "width": 96, "layers": 5, "heads": 3},
        "model__text": {"width": 64, "layers": 3, "heads": 2, "context": 24},
    },
}


def real_peak(config, shapes, seed=0):
    """The most bytes of tensors alive in the second step of a real run: forward, losses, backward, optimiser."""
    tokenizer = build.make_tokenizer(config)
    model = build.make_model(config, tokenizer)[0]
    stepper = build.make_stepper(config, model, None)
    losses = build.make_losses(config, stepper)
    batch = made_up_batch(shapes, config.model.vision.image_size, tokenizer.eos_token_id)

    def step(number):
        _, share = losses(batch, number)
        stepper.backward(share)
        stepper.step(1e-3)

    step(0)
    moments = [v for state in stepper.optimizer.state.values() for v in state.values()]
    with PeakMemory((*model.parameters(), *moments)) as memory:
        step(1)
    return memory.peak


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("size", SIZES)
def test_memory_is_within_15_percent_of_a_real_step(size, recompute, spine_config):
    config = spine_config(**SIZES[size], train__activation_checkpointing=recompute)
    shapes = Shapes(images=24, caption_tokens=16, prompts=3, phrases=40, phrase_tokens=6)
    model_config = build.make_model_config(config, build.make_tokenizer(config))
    step = dry_step(model_config, shapes, Form(), False, recompute, "sdpa")
    assert memory_of(step, 1, 0).total == pytest.approx(real_peak(config, shapes), rel=0.15)


def test_parameters_and_work_are_those_of_the_model(spine_config, spine_model):
    config = spine_config()
    shapes = Shapes(images=8, caption_tokens=16, prompts=3, phrases=24, phrase_tokens=6)
    step = dry_step(build.make_model_config(config, build.make_tokenizer(config)), shapes, Form(), False, False, "sdpa")
    assert sum(step.parameters.values()) == sum(p.numel() for p in spine_model().parameters())
    assert step.weights == 4 * sum(step.parameters.values())
    twice = Shapes(images=16, caption_tokens=16, prompts=3, phrases=48, phrase_tokens=6)
    again = dry_step(build.make_model_config(config, build.make_tokenizer(config)), twice, Form(), False, False, "sdpa")
    assert again.forward_flops == 2 * step.forward_flops
    assert 2.5 < step.flops / step.forward_flops < 3.2
    tokens, width = 17, 32
    layer = 2 * (4 * width * width + 2 * width * 4 * width) * tokens + 4 * tokens * tokens * width
    assert step.forward_flops > 8 * 2 * layer  # two layers of the vision tower alone


def test_recomputing_trades_memory_for_work(spine_config):
    config = spine_config(**SIZES["larger"])
    model_config = build.make_model_config(config, build.make_tokenizer(config))
    shapes = Shapes(images=24, caption_tokens=16, prompts=3, phrases=40, phrase_tokens=6)
    kept, again = (dry_step(model_config, shapes, Form(), False, recompute, "sdpa") for recompute in (False, True))
    assert again.working < 0.7 * kept.working
    assert again.flops > 1.15 * kept.flops


def test_zero_shares_states_among_devices(spine_config):
    config = spine_config()
    shapes = Shapes(images=8, caption_tokens=16, prompts=3, phrases=24, phrase_tokens=6)
    step = dry_step(build.make_model_config(config, build.make_tokenizer(config)), shapes, Form(), False, False, "sdpa")
    whole, share = step.weights, -(-step.weights // 4)
    assert memory_of(step, 4, 0).states == memory_of(step, 1, 0).states == 3 * whole
    assert memory_of(step, 4, 1).states == whole + 3 * share + BUCKET
    assert memory_of(step, 4, 3).states == 4 * share
    assert memory_of(step, 4, 1).working - memory_of(step, 4, 2).working == whole - share


def lines_of(config, **more):
    asked = {"devices": 1, "zero": 0, "measure": False, **more}
    return "\n".join(plan_lines(config, *asked.values()))


def test_the_plan_says_what_it_knows_and_from_where(spine_config):
    told = lines_of(spine_config())
    assert "vision tower" in told
    assert "(from 8 samples of the data)" in told
    assert "6 steps, 48 samples" in told
    assert "not measured (--no-measure)" in told
    absent = [{"path": "nowhere", "batch_size": 8}]
    assert "assumed, since there is no data yet" in lines_of(spine_config(data=absent))
    assert "regions an image" not in lines_of(spine_config(objective="clip"))


def test_what_does_not_fit_is_said_with_what_helps(spine_config, monkeypatch):
    monkeypatch.setattr("cloc.planning._physical_memory", lambda: 1000)
    told = lines_of(spine_config())
    assert "does not fit" in told
    assert "train.activation_checkpointing=true" in told


@pytest.mark.parametrize(
    ("changes", "more", "told"),
    [
        ({}, {"devices": 3}, r"--devices 3: expected a divisor of the batch of 8 samples"),
        ({"objective": "joint"}, {}, r"--plan: objective joint is not planned for; expected clip or cloc"),
    ],
)
def test_what_cannot_be_planned_is_refused(changes, more, told, spine_config):
    with pytest.raises(ValueError, match=told):
        lines_of(spine_config(**changes), **more)


def test_the_command_measures_and_writes_nothing(spine_raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(spine_raw()))
    assert pretrain.main(["--config", "config.yaml", "--plan", "--devices", "2", "--zero", "2"]) == 0
    told = capsys.readouterr().out
    assert "samples a second on one CPU with" in told
    assert "device-days at that rate" in told
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_the_counter_sees_what_lives_and_what_is_gone():
    known = torch.zeros(1000)
    with PeakMemory((known,)) as memory:
        first = known + 1
        second = first.view(10, 100)[2:]  # no storage of its own
        assert memory.current == 8000
        del first, second
        assert memory.current == 4000
        again = known * 2
    assert memory.peak == 8000
    assert len(again) == 1000
