"""Cached features: the gradients of one large batch, from micro-batches, ragged and on several ranks."""

import json
from collections import Counter
from dataclasses import replace

import pytest
import torch
import yaml

from cloc import factory, pretrain
from cloc.data.loader import Source, StepBatches
from cloc.data.tables import open_samples
from cloc.train.grad_cache import join, joined
from cloc.train.stepper import TorchStepper

CLOSE = {"rtol": 1e-10, "atol": 1e-12}


@pytest.fixture
def micro_batches(spine_tokenizer):
    """Makes consecutive micro-batches of the given sizes; a size of 0 is a rank that has nothing."""
    return lambda config, sizes, regions=3: _micro_batches(config, spine_tokenizer(config), sizes, regions)


def _micro_batches(config, tokenizer, sizes, regions):
    """In float64."""
    shards = open_samples(config.data[0].path, "regions")
    found, start = [], 0
    for size in sizes:
        one = StepBatches([Source(shards, 1)], tokenizer, 32, regions, 0, 0, 1, 0, 99)
        items = [one.batch(step) for step in range(start, start + size)]
        found.append(_stack(items) if items else _stack([one.batch(0)], keep=0))
        start += size
    return found


def _stack(items, keep=None):
    """Single samples to one batch with ragged tokens padded, by the joining of the plain fields and of pixels."""
    whole = join(items).whole
    texts = {}
    for name in ("caption", "phrase"):
        ids = [getattr(item, f"{name}_ids") for item in items]
        longest = max(i.shape[1] for i in ids)
        pad = [torch.nn.functional.pad(i, (0, longest - i.shape[1])) for i in ids]
        mask = [getattr(item, f"{name}_attention") for item in items]
        mask = [torch.nn.functional.pad(i, (0, longest - i.shape[1])) for i in mask]
        texts |= {f"{name}_ids": torch.cat(pad), f"{name}_attention": torch.cat(mask)}
    pixels = torch.cat([item.pixel_values for item in items]).double()
    batch = replace(whole, pixel_values=pixels, boxes=whole.boxes.double(), **texts)
    return batch if keep is None else _empty(batch)


def _empty(batch):
    names = ("pixel_values", "caption_ids", "caption_attention", "caption_image", "boxes", "boxes_mask")
    names += ("phrase_ids", "phrase_attention", "phrase_of_region", "phrase_text_id", "unique_in_image")
    return replace(batch, keys=(), skipped=Counter(), **{name: getattr(batch, name)[:0] for name in names})


def made(config, model):
    stepper = factory.make_stepper(config, model, None)
    return stepper, factory.make_losses(config, stepper)


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
@pytest.mark.parametrize("sizes", [(4, 4), (5, 1, 3), (4, 0, 2)], ids=str)
def test_gradients_are_those_of_one_large_batch(micro_batches, sizes, form, spine_config, spine_model):
    changes = {"loss__form": form, "loss__filter_threshold": 0.95}
    whole = spine_config(**changes)
    cached = spine_config(train__accumulation=len(sizes), train__accumulation_mode="cached", **changes)
    found = []
    for config, batch in (
        (whole, micro_batches(whole, [sum(sizes)])[0]),
        (cached, join(micro_batches(cached, sizes))),
    ):
        model = spine_model(**changes).double()
        stepper, losses = made(config, model)
        report, share = losses(batch, 0)
        stepper.backward(share)
        found.append((share.detach(), dict(report.counts), gradients(model)))
    assert found[0][1] == found[1][1]
    torch.testing.assert_close(found[0][0], found[1][0], **CLOSE)
    torch.testing.assert_close(found[1][2], found[0][2], **CLOSE)


@pytest.mark.multiprocess
@pytest.mark.parametrize("world", [2, 4])
def test_ranks_give_the_gradients_of_one(micro_batches, world, spine_config, spine_model, spine_group):
    """Eight micro-batches on four ranks: ragged, one of them empty."""
    cached = spine_config(train__accumulation=2, train__accumulation_mode="cached")
    sizes = (4, 1, 3, 2, 0, 2, 1, 3)[: 2 * world]
    parts = micro_batches(cached, sizes)

    def work(rank):
        model = spine_model().double()
        stepper, losses = made(cached, model)
        _, share = losses(join(parts[2 * rank : 2 * rank + 2]), 0)
        stepper.backward(share)
        return gradients(model)

    found = spine_group(world, work)
    model = spine_model().double()
    stepper, losses = made(spine_config(), model)
    _, share = losses(micro_batches(cached, [sum(sizes)])[0], 0)
    stepper.backward(share)
    together = {name: torch.stack([one[name] for one in found]).sum(dim=0) for name in found[0]}
    torch.testing.assert_close(together, gradients(model), **CLOSE)


def test_dropout_falls_on_the_same_places_twice(micro_batches, spine_config, spine_model):
    """The second pass must see what the first one saw, or the gradients belong to other features."""
    config = spine_config(train__accumulation=2, train__accumulation_mode="cached")
    model = spine_model().double()
    model.vision.box_head = torch.nn.Sequential(model.vision.box_head, torch.nn.Dropout(0.5))
    stepper, losses = made(config, model)
    seen = []
    model.vision.box_head.register_forward_hook(lambda module, given, out: seen.append(out.detach().clone()))
    _, share = losses(join(micro_batches(config, (3, 3))), 0)
    stepper.backward(share)
    torch.testing.assert_close(seen[:2], seen[2:], rtol=0, atol=0)
    assert float((seen[0] == 0).double().mean()) > 0.2


def test_a_step_without_regions_still_gives_every_weight_a_gradient(micro_batches, spine_config, spine_model):
    config = spine_config(train__accumulation=2, train__accumulation_mode="cached")
    model = spine_model().double()
    stepper, losses = made(config, model)
    _, share = losses(join(micro_batches(config, (3, 2), regions=0)), 0)
    stepper.backward(share)
    assert all(p.grad is not None for p in model.parameters())


def test_joined_batches_are_whole_steps(micro_batches, spine_config):
    config = spine_config()
    parts = micro_batches(config, (2, 3, 1, 2, 2))
    found = list(joined(parts, 2))
    assert [len(one.parts) for one in found] == [2, 2]
    assert found[0].keys == parts[0].keys + parts[1].keys
    assert len(found[0].whole.pixel_values) == 5
    assert found[0].whole.images_with_regions == sum(part.images_with_regions for part in parts[:2])


def figures(runs, name):
    wanted = ("loss", "image_text", "region_text", "grounding", "image_text_accuracy", "num_regions", "samples")
    lines = (runs / name / "metrics.jsonl").read_text().splitlines()
    return [[json.loads(line)[key] for key in wanted] for line in lines]


@pytest.mark.multiprocess
def test_a_cached_run_is_a_run_of_the_large_batch(spine_raw, spine_shards, spine_ranks, tmp_path):
    runs = tmp_path / "runs"

    def start(world, name, batch_size, **changes):
        data = [{"path": str(spine_shards), "batch_size": batch_size}]
        raw = spine_raw(run__name=name, data=data, train__steps=3, **changes)
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(raw))
        call = ["--config", str(tmp_path / f"{name}.yaml"), "--runs", str(runs)]
        assert spine_ranks(world, lambda rank: pretrain.main(call)) == [0] * world
        return figures(runs, name)

    cached = {"train__accumulation": 2, "train__accumulation_mode": "cached"}
    large = start(1, "large", 16)
    for found in (start(1, "cached", 8, **cached), start(2, "ranks", 8, **cached)):
        for ours, theirs in zip(found, large, strict=True):
            assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-6)
    zero = start(2, "zero2", 8, train__deepspeed="configs/deepspeed/zero2.json", **cached)
    for ours, theirs in zip(zero, large, strict=True):
        assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-6)


def test_cached_wants_an_objective_with_one_batch_a_step(spine_raw):
    from cloc.config import parse_config

    raw = spine_raw(objective="joint", train__accumulation=2, train__accumulation_mode="cached")
    with pytest.raises(ValueError, match=r"train\.accumulation_mode cached: objective joint takes one kind of data"):
        parse_config(raw)


def test_zero_3_is_refused(spine_config, spine_model):
    config = spine_config(train__accumulation=2, train__accumulation_mode="cached")
    with pytest.raises(ValueError, match=r"train\.accumulation_mode cached: not under ZeRO 3; use ZeRO 0 to 2"):
        factory.make_stepper(config, spine_model(), {"zero_optimization": {"stage": 3}})


def test_the_wrapped_stepper_is_told_the_number_of_passes(spine_config, spine_model):
    config = spine_config(train__accumulation=3, train__accumulation_mode="cached")
    stepper = factory.make_stepper(config, spine_model(), None)
    assert isinstance(stepper.inner, TorchStepper)
    assert stepper.inner.accumulation == stepper.accumulation == 3
