"""Continuing from existing weights: layer-wise rates, the Prompter first, and staying near the old tower."""

import json
from dataclasses import replace

import pytest
import timm
import torch
import yaml
from transformers import AutoModel, CLIPTextConfig, CLIPVisionConfig, SiglipVisionConfig, SwinConfig

from cloc import factory, pretrain
from cloc.data.loader import Source, StepBatches
from cloc.data.tables import open_samples
from cloc.factory.teacher import make_teacher
from cloc.losses.objectives import distillation, total
from cloc.train.grad_cache import join
from cloc.train.optim import group_rate, layer_scales, parameter_groups

ALL = ["box", "point", "mask"]
SIZES = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}


def batch_of(config, size=4, step=0):
    sources = [Source(open_samples(config.data[0].path, "regions"), size)]
    return factory.make_batches(config, sources, factory.make_tokenizer(config), step).batch(step)


@pytest.mark.parametrize(
    ("config", "depths"),
    [
        (CLIPVisionConfig(**SIZES, num_hidden_layers=3, image_size=32, patch_size=8), 3),
        (SiglipVisionConfig(**SIZES, num_hidden_layers=2, image_size=32, patch_size=8), 2),
        (CLIPTextConfig(**SIZES, num_hidden_layers=2), 2),
        (SwinConfig(image_size=64, embed_dim=8, depths=(1, 2, 1, 1), num_heads=(1, 2, 4, 8), window_size=4), 5),
    ],
    ids=["clip", "siglip", "text", "swin"],
)
def test_rates_fall_from_the_output_to_the_input(config, depths):
    names = [name for name, _ in AutoModel.from_config(config).named_parameters()]
    scales = layer_scales(names, 0.5)
    assert list(scales) == names
    assert sorted(set(scales.values())) == [0.5**k for k in range(depths + 1, -1, -1)]
    assert scales[next(n for n in names if "embed" in n)] == 0.5 ** (depths + 1)
    assert next(scales[n] for n in names if ".0." in n) == 0.5**depths
    assert scales[names[-1]] == 1.0 if "head" in names[-1] or "norm" in names[-1] else True


def test_a_timm_tower_has_layers_too():
    vit = [n for n, _ in timm.create_model("vit_tiny_patch16_224", depth=2).named_parameters()]
    scales = layer_scales(vit, 0.5)
    found = [scales[name] for name in ("cls_token", "pos_embed", "blocks.0.norm1.weight", "norm.weight")]
    assert found == [0.125, 0.125, 0.25, 1.0]
    swin = [n for n, _ in timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 2, 1, 1)).named_parameters()]
    scales = layer_scales(swin, 0.5)
    assert scales["layers.3.blocks.0.norm1.weight"] == 0.5
    assert scales["layers.1.downsample.norm.weight"] == scales["layers.0.blocks.0.norm1.weight"] == 0.5**5


def test_layer_decay_reaches_the_optimiser(spine_config, spine_model):
    config = spine_config(optim__layer_decay=0.5, optim__text_lr_scale=0.1, optim__prompter_lr_scale=3)
    model = spine_model()
    stepper = factory.make_stepper(config, model, None)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found = {names[id(p)]: group["lr_scale"] for group in stepper.optimizer.param_groups for p in group["params"]}
    assert found["vision.tower.encoder.layers.1.mlp.fc1.weight"] == 0.5
    assert found["vision.tower.encoder.layers.0.mlp.fc1.weight"] == 0.25
    assert found["text.encoder.layers.0.mlp.fc1.weight"] == pytest.approx(0.05)
    assert found["vision.prompter.q_proj.weight"] == 3
    assert found["vision.visual_projection.weight"] == 1
    assert sorted(found) == sorted(names.values())


def test_codes_of_every_library_are_not_decayed():
    names = ["timm_model.pos_embed", "timm_model.cls_token", "encoder.x.relative_position_bias_table", "a.weight"]
    model = torch.nn.Module()
    model.named_parameters = lambda: [(name, torch.nn.Parameter(torch.zeros(1, 2, 2))) for name in names]
    found = [(group["weight_decay"], len(group["params"])) for group in parameter_groups(model, 0.2, {})]
    assert sorted(found) == [(0.0, 3), (0.2, 1)]
    swin = SwinConfig(image_size=64, embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 2, 4, 8), window_size=4)
    tower = AutoModel.from_config(swin)
    decayed = {id(p) for g in parameter_groups(tower, 0.2, {}) if g["weight_decay"] for p in g["params"]}
    tables = [p for name, p in tower.named_parameters() if "relative_position_bias_table" in name]
    assert tables
    assert not decayed & {id(p) for p in tables}


def test_a_group_rests_then_rises_then_goes_as_the_others():
    late, early = {"lr_scale": 0.5, "start": 10, "ramp": 4}, {"lr_scale": 2.0, "start": 0, "ramp": 4}
    assert [group_rate(late, 1.0, step) for step in (0, 9, 10, 11, 13, 14, 99)] == [0, 0, 0.125, 0.25, 0.5, 0.5, 0.5]
    assert group_rate(early, 1.0, 0) == group_rate(early, 1.0, 50) == 2.0
    assert group_rate({"lr_scale": 3.0}, 0.1, 0) == pytest.approx(0.3)


def test_in_the_warm_up_the_prompter_moves_alone(spine_config, spine_model):
    config = spine_config(train__prompter_warmup_steps=2, optim__warmup_steps=0)
    model = spine_model()
    stepper = factory.make_stepper(config, model, None)
    losses = factory.make_losses(config, stepper)
    for step, some in ((0, False), (1, False), (2, True)):
        before = {name: value.detach().clone() for name, value in model.named_parameters()}
        stepper.backward(losses(batch_of(config, step=step), step)[1])
        stepper.step(1e-3, step)
        moved = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
        own = {n for n in before if n.startswith(("vision.prompter.", "vision.box_head.", "region_logit_scale"))}
        assert own <= moved
        assert (moved == own) != some
        assert ("vision.tower.encoder.layers.0.mlp.fc1.weight" in moved) is some


def test_the_term_is_the_mean_cosine_distance():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.functional.normalize(torch.randn(5, 8), dim=1) for _ in range(2))
    loss, count = distillation(ours, theirs)
    assert count == 5
    assert float(loss) == pytest.approx(1 - float(torch.nn.functional.cosine_similarity(ours, theirs).mean()), abs=1e-6)
    assert float(distillation(ours, ours)[0]) == pytest.approx(0, abs=1e-6)
    assert float(distillation(ours[:0], ours[:0])[0]) == 0


@pytest.fixture
def continued(spine_config, spine_export):
    """Makes a config that continues from an export, with a distillation term."""
    start = spine_export("old")
    return lambda **changes: spine_config(model__source=str(start), loss__distillation=2.0, **changes)


def taught(config, batch):
    model = factory.make_model(config, factory.make_tokenizer(config))[0]
    teacher = make_teacher(config, model)
    stepper = factory.make_stepper(config, model, None)
    report, share = factory.make_losses(config, stepper, teacher)(batch, 0)
    stepper.backward(share)
    return model, teacher, report, share.detach()


def test_the_teacher_stays_and_the_student_is_drawn_back(continued):
    config = continued()
    model, teacher, report, share = taught(config, batch_of(config))
    assert float(report.terms["distillation"].detach()) == pytest.approx(0, abs=1e-6)
    weights = {name: value.clone() for name, value in teacher.tower.state_dict().items()}
    with torch.no_grad():
        model.vision.visual_projection.weight.normal_()
    stepper = factory.make_stepper(config, model, None)
    report, share = factory.make_losses(config, stepper, teacher)(batch_of(config), 0)
    plain = {n: v for n, v in report.terms.items() if n != "distillation"}
    assert float(report.terms["distillation"].detach()) > 0.1
    rest = total(replace(report, terms=plain), dict.fromkeys(plain, 1.0))
    assert float(share) == pytest.approx(float((rest + 2 * report.terms["distillation"]).detach()), rel=1e-5)
    model.zero_grad()
    report.terms["distillation"].backward()
    assert model.vision.visual_projection.weight.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in teacher.tower.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in teacher.tower.state_dict().items())


def test_cached_micro_batches_have_the_same_term(continued):
    whole = batch_of(continued(), 6)
    cached = continued(train__accumulation=2, train__accumulation_mode="cached")
    sources = [Source(open_samples(cached.data[0].path, "regions"), 3)]
    parts = [StepBatches(sources, factory.make_tokenizer(cached), 32, 3, 0, 0, 1, 0, 9).batch(step) for step in (0, 1)]
    assert sorted(parts[0].keys + parts[1].keys) == sorted(whole.keys)
    one, _, report, share = taught(continued(), whole)
    two, _, again, other = taught(cached, join(parts))
    assert set(report.terms) == set(again.terms)
    torch.testing.assert_close(other, share, rtol=1e-5, atol=1e-6)
    for (name, p), (_, q) in zip(one.named_parameters(), two.named_parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_a_run_with_all_three_exports_no_teacher(continued, spine_ranks, tmp_path):
    config = continued(train__prompter_warmup_steps=2, optim__layer_decay=0.7, train__steps=4)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = ["--config", str(tmp_path / "c.yaml"), "--runs", str(tmp_path / "new")]
    assert spine_ranks(1, lambda rank: pretrain.main(command)) == [0]
    entries = [json.loads(line) for line in (tmp_path / "new/tiny/metrics.jsonl").read_text().splitlines()]
    kept = [entry["distillation"] for entry in entries]
    assert kept[:3] == pytest.approx([0, 0, 0], abs=1e-6)  # the towers first move in step 2, and are read in step 3
    assert kept[3] > 1e-6
    names = set(AutoModel.from_pretrained(tmp_path / "new/tiny/export").state_dict())
    assert names == set(factory.make_model(config, factory.make_tokenizer(config))[0].state_dict())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"train__prompter_warmup_steps": 6}, "the run has 6 steps, so the towers would never move"),
        ({"train__prompter_warmup_steps": 1, "objective": "clip"}, "use objective=cloc or 0 steps"),
        ({"optim__layer_decay": 1.5}, "less than or equal to 1"),
    ],
)
def test_configs_that_cannot_be_meant(changes, told, spine_config):
    with pytest.raises(ValueError, match=told):
        spine_config(**changes)


def test_no_teacher_from_scratch(spine_config, spine_model):
    with pytest.raises(ValueError, match=r"starts from scratch, there is no teacher; set model.vision.source"):
        make_teacher(spine_config(loss__distillation=1.0), spine_model())


@pytest.mark.parametrize("cached", [False, True])
def test_a_step_with_every_kind_of_prompt_reaches_every_parameter(cached, spine_config, spine_model):
    more = {"train__accumulation": 2, "train__accumulation_mode": "cached"} if cached else {}
    config = spine_config(model__prompter__prompts=ALL, **more)
    model = spine_model(model__prompter__prompts=ALL)
    stepper = factory.make_stepper(config, model, None)
    batch = batch_of(config, 8)
    kinds = batch.prompt_kinds[batch.boxes_mask]
    assert set(kinds.tolist()) == {0, 1}  # the rendered world has no masks, which are counted
    assert batch.skipped["no_mask"] == len(kinds)
    batch.prompt_kinds[0, 0] = 2
    batch.prompt_patch_coverage[0, 0, 1:3, 1:3] = 1.0
    _, share = factory.make_losses(config, stepper)(join([batch, batch]) if cached else batch, 0)
    stepper.backward(share)
    assert all(p.grad is not None for p in model.parameters())
    assert all(model.get_parameter(f"vision.prompter.{n}").grad.any() for n in ("point_type", "mask_type"))
