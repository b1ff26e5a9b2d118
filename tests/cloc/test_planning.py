"""The plan of a recipe: its memory against a real step, its work against arithmetic, and what it says."""

import re
from dataclasses import replace

import pytest
import torch
import yaml

from cloc import factory, pretrain
from cloc.config import load_config
from cloc.data.shards import write_shards
from cloc.losses.pairs import Form
from cloc.plan import memory, plan_lines
from cloc.plan.batch_shapes import ConceptShapes, Shapes, kinds_of
from cloc.plan.dry_step import PeakMemory, dry_step
from cloc.plan.known import with_known_shapes
from cloc.plan.memory import BUCKET, memory_of
from cloc.plan.timed_step import Trial
from cloc.structures import Region
from cloc.train import preflight

SIZES = {
    "small": {},
    "larger": {
        "model__embed_dim": 48,
        "model__vision": {"image_size": 64, "patch_size": 8, "width": 96, "layers": 5, "heads": 3},
        "model__text": {"width": 64, "layers": 3, "heads": 2, "context": 24},
    },
}


DETECTORS = {
    "small": {"width": 16, "strides": [8, 16], "num_convs": 1, "anchor_scale": 2, "text_context": 8},
    "larger": {"width": 32, "strides": [8, 16, 32], "num_convs": 2, "anchor_scale": 2, "text_context": 8},
}


@pytest.fixture(autouse=True, scope="module")
def a_real_backward_first():
    """Fake tensors show autograd a GPU; where its first pass sees one, processes forked later cannot use it."""
    torch.zeros(1, requires_grad=True).sum().backward()


def real_peak(config, shapes):
    """The most bytes of tensors alive in the second step of a real run: forward, losses, backward, optimiser."""
    trial = Trial.start(config, shapes)
    trial.step(0)
    stepper = trial.stepper
    moments = [v for state in stepper.optimizer.state.values() for v in state.values()]
    with PeakMemory((*stepper.model.parameters(), *moments)) as seen:
        trial.step(1)
    return seen.peak


def planned(config, shapes, taught=False, count=False):
    model_config = factory.make_model_config(config, factory.make_tokenizer(config))
    recompute = config.train.activation_checkpointing
    return dry_step(model_config, shapes, Form(), False, recompute, "sdpa", taught, 1, count)


@pytest.mark.parametrize("recompute", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("size", ["small", pytest.param("larger", marks=pytest.mark.slow)])
def test_memory_is_within_15_percent_of_a_real_step(size, recompute, spine_config):
    config = spine_config(**SIZES[size], train__activation_checkpointing=recompute)
    shapes = Shapes(images=24, caption_tokens=16, prompts=3, phrases=40, phrase_tokens=6)
    assert memory_of(planned(config, shapes), 1, 0).total == pytest.approx(real_peak(config, shapes), rel=0.15)


@pytest.mark.parametrize(
    ("size", "kind"), [("small", "pairs"), pytest.param("larger", "detection", marks=pytest.mark.slow)]
)
def test_a_detectors_memory_is_within_15_percent_of_a_real_step(size, kind, spine_config):
    data = [{"path": "nowhere", "kind": kind, "batch_size": 12}]
    config = spine_config(objective="detclip", data=data, model__detector=DETECTORS[size], **SIZES[size])
    boxes = 0 if kind == "pairs" else 36
    shapes = ConceptShapes(kind, images=12, width=64, height=64, concepts=30, concept_tokens=8, boxes=boxes)
    assert memory_of(planned(config, shapes), 1, 0).total == pytest.approx(real_peak(config, shapes), rel=0.15)


def test_points_masks_and_a_teacher_are_planned_for(spine_config):
    kinds = ("box", "point", "mask")
    changes = {"model__prompter": {"prompts": list(kinds)}, "loss__distillation": 1.0, **SIZES["small"]}
    config = spine_config(**changes)
    shapes = Shapes(images=24, caption_tokens=16, prompts=3, phrases=40, phrase_tokens=6, kinds=kinds)
    step = planned(config, shapes, taught=True, count=True)
    measured = real_peak(config, shapes) + step.teacher  # the counter is not told of the teacher's weights
    assert memory_of(step, 1, 0).total == pytest.approx(measured, rel=0.15)
    assert 0 < step.teacher < step.weights
    assert 0 < step.teacher_flops < step.forward_flops


def test_parameters_and_work_are_those_of_the_model(spine_config, spine_model):
    config = spine_config()
    shapes = Shapes(images=8, caption_tokens=16, prompts=3, phrases=24, phrase_tokens=6)
    step = planned(config, shapes, count=True)
    assert sum(step.parameters.values()) == sum(p.numel() for p in spine_model().parameters())
    assert step.weights == 4 * sum(step.parameters.values())
    twice = Shapes(images=16, caption_tokens=16, prompts=3, phrases=48, phrase_tokens=6)
    again = planned(config, twice, count=True)
    assert again.forward_flops == 2 * step.forward_flops
    assert 2.5 < step.flops / step.forward_flops < 3.2
    tokens, width = 17, 32
    layer = 2 * (4 * width * width + 2 * width * 4 * width) * tokens + 4 * tokens * tokens * width
    assert step.forward_flops > 8 * 2 * layer  # two layers of the vision tower alone


def test_recomputing_trades_memory_for_work(spine_config):
    config = spine_config(**SIZES["larger"])
    model_config = factory.make_model_config(config, factory.make_tokenizer(config))
    shapes = Shapes(images=24, caption_tokens=16, prompts=3, phrases=40, phrase_tokens=6)
    kept, again = (dry_step(model_config, shapes, Form(), False, recompute, "sdpa") for recompute in (False, True))
    assert again.working < 0.7 * kept.working
    assert again.flops > 1.15 * kept.flops


def test_zero_shares_states_among_devices(spine_config):
    config = spine_config()
    shapes = Shapes(images=8, caption_tokens=16, prompts=3, phrases=24, phrase_tokens=6)
    step = planned(config, shapes)
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


def test_kinds_that_alternate_are_planned_one_by_one(spine_config):
    """The memory is that of the busiest, work and samples go by their share of the steps."""
    kinds = {"regions": (8, 1), "detection": (4, 1), "pairs": (2, 2)}
    data = [{"path": "nowhere", "kind": k, "batch_size": size, "weight": odds} for k, (size, odds) in kinds.items()]
    config = spine_config(objective="joint", data=data, model__detector=DETECTORS["small"], train__steps=8)
    told = lines_of(config)
    assert "detector 0.0" in told
    assert "regions: captions of 16 tokens, 3 regions an image" in told
    assert "detection: canvas 32 x 32, 365 concepts of 8 tokens" in told
    assert "captions of 16 tokens (assumed" in told
    assert "50% of the steps, 2 samples each" in told
    assert "8 steps, 32 samples" in told  # 2 steps of 8, 2 of 4 and 4 of 2
    assert re.search(r"[0-9.]+ GiB a device, .* images of (regions|detection|pairs) each", told)
    data[-1]["from_step"] = 4
    told = lines_of(spine_config(objective="joint", data=data, model__detector=DETECTORS["small"], train__steps=8))
    assert "25% of the steps, 2 samples each" in told
    assert "8 steps, 40 samples" in told  # 3 of 8, 3 of 4, 2 of 2


def test_what_does_not_fit_is_said_with_what_helps(spine_config, monkeypatch):
    monkeypatch.setattr(memory, "_physical_memory", lambda: 1000)
    told = lines_of(spine_config())
    assert "does not fit" in told
    assert "train.activation_checkpointing=true" in told


def test_a_run_that_cannot_fit_is_refused_with_figures(spine_config, monkeypatch):
    config, plan = spine_config(), {"devices": 2, "zero": 0, "processes": 2}
    need = memory.Memory(4 * 2**30, 2 * 2**30)
    monkeypatch.setattr(memory, "dry_steps", lambda *_, **__: [None])
    monkeypatch.setattr(memory, "memory_of", lambda *_: need)
    monkeypatch.setattr(memory, "_physical_memory", lambda: 8 * 2**30)
    told = (
        r"memory: the run needs 6\.0 GiB for a step \(4\.0 for weights.*has 4\.0 GiB for each of 2 process.*"
        r"what helps: .*train\.activation_checkpointing=true, .*zero2\.json\), more than 2 devices"
    )
    with pytest.raises(ValueError, match=told):
        memory.check_fits(config, **plan)
    monkeypatch.setattr(memory, "_physical_memory", lambda: 2 * need.total)
    (line,) = memory.check_fits(config, **plan)
    assert line.startswith("memory   may not suffice: 6.0 GiB")
    monkeypatch.setattr(memory, "_physical_memory", lambda: 4 * need.total)
    assert memory.check_fits(config, **plan) == []


def test_the_command_refuses_what_cannot_fit(spine_raw, spine_ranks, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preflight, "SMALL_MODEL", 0)
    monkeypatch.setattr(memory, "_physical_memory", lambda: 2**20)
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(spine_raw()))
    assert spine_ranks(1, lambda rank: pretrain.main(["--config", "config.yaml"])) == [2]
    assert "error: memory: the run needs 0.0 GiB for a step" in capfd.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_small_runs_start_unplanned(spine_config, spine_model):
    assert not preflight.wants_plan(spine_config(), spine_model())
    assert preflight.wants_plan(spine_config(data=[{"path": "x", "batch_size": 1000}]), spine_model())


@pytest.mark.parametrize(
    ("changes", "more", "told"),
    [
        ({}, {"devices": 3}, r"--devices 3: expected a divisor of the batch of 8 samples"),
        ({"objective": "joint"}, {"zero": 1}, r"--zero 1: objective joint runs in plain torch only; leave --zero out"),
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
    assert "from 1 device(s) on" in told
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


def test_the_smallest_number_of_devices_that_fits_is_told(spine_config):
    config = spine_config()  # of 8 samples a batch
    needs = {1: 100, 2: 120, 4: 60, 8: 30}
    for there, fewest in ((100, 1), (99, 4), (59, 8), (29, None)):
        assert memory.fewest_devices(config, (), 0, there, dict(needs)) == fewest
    said = []
    told = "\n".join(plan_lines(config, 1, 0, False, 1e-6, said.append))
    assert "does not fit the 0.0 GiB of the device; what helps:" in told
    assert "no number of devices that divides the batch fits 0.0 GiB each (the device); ZeRO shares" in told
    assert "one step with 8 images a device, on fake tensors" in said
    with pytest.raises(ValueError, match="--device-memory nan: expected GiB"):
        list(plan_lines(config, 1, 0, False, float("nan")))


@pytest.mark.parametrize(("recipe", "width", "depths"), [("t", 96, [2, 2, 6, 2]), ("l", 192, [2, 2, 18, 2])])
def test_a_plan_knows_the_swins_of_the_recipes_without_a_network(recipe, width, depths):
    config, (note,) = with_known_shapes(load_config(f"configs/detclipv2_swin_{recipe}.yaml"))
    assert "microsoft/swin-" in note
    tower = factory.make_model_config(config, factory.make_tokenizer(config)).vision_config.tower
    assert (tower.model_type, tower.embed_dim, list(tower.depths), tower.window_size) == ("swin", width, depths, 7)


def test_a_plan_knows_the_shapes_of_the_recipes_weights_without_a_network():
    config, notes = with_known_shapes(load_config("configs/cloc_continue.yaml"))
    assert config.model.vision.source == "open_clip:ViT-B-16-quickgelu:openai"
    assert notes == [
        "weights     openai/clip-vit-base-patch16: not reached; the plan takes the shape of the same architecture"
    ]
    made = factory.make_model_config(config, factory.make_tokenizer(config))
    assert made.vision_config.tower.hidden_size == 768
    assert made.text_config.hidden_act == "quick_gelu"
    with pytest.raises(ValueError, match="nobody/nothing"):
        with_known_shapes(load_config("configs/cloc_continue.yaml", ["model.vision.source=nobody/nothing"]))


def test_a_detectors_own_data_is_read_for_its_categories(spine_config, spine_sample, tmp_path):
    """Only what is there tells how many categories there are: the plan once ended in a traceback over it."""
    regions = [Region((2.0, 2.0, 20.0, 20.0), "cat", extras={"category_id": 1})]
    samples = [replace(spine_sample(f"{i}"), regions=regions) for i in range(4)]
    categories = [{"id": number, "name": name} for number, name in enumerate(("cat", "dog", "cow"), 1)]
    card = {"name": "made", "kind": "detection", "licence": "none", "made": {}, "categories": categories}
    write_shards(samples, tmp_path / "set", card)
    data = [{"path": str(tmp_path / "set"), "kind": "detection", "batch_size": 2}]
    (kind,) = kinds_of(spine_config(objective="detclip", data=data, model__detector=DETECTORS["small"]))
    assert kind.shapes.categories == 3
