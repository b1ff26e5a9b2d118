import pytest
import torch

from cloc.config import checked
from mllm_bridge.tune.settings import TuneConfig, load_settings
from mllm_bridge.tune.steppers import Moving, list_trained, make_stepper
from mllm_bridge.tune.trainee import build

RAW = {"data": [{"path": "none"}], "train": {"steps": 1, "batch_size": 1}, "lora": {"rank": 2, "alpha": 4}}


def _config(**changes):
    return checked(TuneConfig, {**RAW, **changes})


@pytest.fixture
def parts(swapped_once):
    return lambda **changes: build(_config(**changes), swapped_once)


def _inputs(built, seed=0):
    draw = torch.Generator().manual_seed(seed)
    token = built.trainee.host.config.image_token_id
    ids = torch.cat([torch.full((1, 36), token), torch.randint(0, 500, (1, 6), generator=draw)], dim=1)
    pixels = torch.randn(1, 3, 48, 48, generator=draw)
    none = {"region_boxes": torch.zeros(0, 4), "region_image": torch.zeros(0, dtype=torch.long)}
    return {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "pixel_values": pixels,
        "labels": ids.clone(),
        **none,
    }


def test_stage_one_moves_the_projector_alone(parts):
    names = list(list_trained(parts().trainee))
    assert len(names) == 4
    assert all(name.startswith("host.model.multi_modal_projector.") for name in names)


def test_adapters_lie_on_the_language_model_and_never_on_the_tower_unless_asked(parts):
    language = {"language": "lora"}
    names = list(list_trained(parts(parts=language).trainee))
    adapters = [name for name in names if "lora_" in name]
    assert len(adapters) == 2 * 7 * 2  # A and B of the seven linear layers of two blocks
    assert all(".language_model." in name for name in adapters)
    assert not any("vision_tower" in name or "lm_head" in name for name in names)
    assert sum("multi_modal_projector" in name for name in names) == 4
    asked = list(list_trained(parts(parts=language, lora={"rank": 2, "alpha": 4, "tower": True}).trainee))
    assert any("vision_tower" in name and "lora_" in name for name in asked)
    without = list(list_trained(parts(parts={"language": "lora", "projector": False}).trainee))
    assert sorted(without) == sorted(adapters)


def test_gradients_reach_the_tower_when_it_is_trained_and_only_then(parts):
    for tower in (False, True):
        built = parts(parts={"tower": tower})
        built.trainee(**_inputs(built)).nll.backward()
        weight = built.trainee.host.model.vision_tower.get_parameter("encoder.layers.0.mlp.fc1.weight")
        assert (weight.grad is not None and weight.grad.abs().max() > 0) == tower


def test_frozen_weights_are_not_in_the_optimiser_and_parts_have_their_own_rates(parts):
    config = _config(
        parts={"language": "lora", "tower": True}, optim={"lr": 1.0, "projector_lr_scale": 0.5, "tower_lr_scale": 0.1}
    )
    built = parts(parts={"language": "lora", "tower": True})
    stepper = make_stepper(config, built.trainee, built.where, None)
    rates = {id(p): group["lr_scale"] for group in stepper.optimizer.param_groups for p in group["params"]}
    names = list_trained(built.trainee)
    assert set(rates) == {id(parameter) for parameter in names.values()}
    for name, parameter in names.items():
        expected = 0.1 if "vision_tower" in name else 0.5 if "multi_modal" in name else 1.0
        assert rates[id(parameter)] == expected, name


def test_one_step_moves_what_is_trained_and_nothing_else(parts):
    built = parts(parts={"language": "lora"})
    before = {name: value.clone() for name, value in built.trainee.state_dict().items()}
    stepper = make_stepper(_config(parts={"language": "lora"}, optim={"lr": 0.1}), built.trainee, built.where, None)
    stepper.backward(stepper.forward(**_inputs(built)).nll)
    assert stepper.step(0.1) > 0
    moved = {name for name, value in built.trainee.state_dict().items() if not value.equal(before[name])}
    assert moved
    assert all("lora_" in name or "multi_modal_projector" in name for name in moved)


def test_the_loss_equals_the_hosts_own(parts):
    """The plain twin: the library's loss is the mean over the same tokens."""
    built = parts()
    inputs = _inputs(built)
    inputs["labels"][:, :38] = -100
    built.trainee.eval()
    told = built.trainee(**inputs)
    own = built.trainee.host(**{k: v for k, v in inputs.items() if not k.startswith("region")})
    torch.testing.assert_close(told.nll / 4, own.loss)
    assert told.correct == (own.logits[0, 37:-1].argmax(dim=-1) == inputs["labels"][0, 38:]).sum()


def test_logits_of_the_answers_alone_give_the_loss_and_gradients_of_all(parts):
    built, grads = parts(), []
    inputs = _inputs(built)
    inputs["labels"][:, :39] = -100
    for picks in (True, False):
        built.trainee._picks = picks
        built.trainee.zero_grad()
        told = built.trainee(**inputs)
        told.nll.backward()
        grads.append((told.nll.detach(), built.trainee.host.model.multi_modal_projector.linear_1.weight.grad))
    for fast, plain in zip(*grads, strict=True):
        torch.testing.assert_close(fast, plain)


def test_fresh_adapters_change_nothing_and_start_alike(parts):
    plain, one, two = parts(), parts(parts={"language": "lora"}), parts(parts={"language": "lora"})
    inputs = _inputs(plain)
    inputs.pop("labels")
    with torch.no_grad():
        logits = [built.trainee.eval().logits(**inputs) for built in (plain, one)]
    assert logits[0].equal(logits[1])
    for name, value in Moving(one.trainee).state_dict().items():
        assert value.equal(Moving(two.trainee).state_dict()[name])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": {"projector": False}}, "nothing is trained"),
        ({"result": {"form": "adapters"}}, "needs parts.language=lora"),
        ({"lora": {"tower": True}}, "lora.tower needs parts.language=lora"),
        ({"train": {"steps": 1, "epochs": 1}}, "exactly one of train.steps and train.epochs"),
        ({"optim": {"learning_rate": 1}}, r"optim\.learning_rate: unknown key; the nearest known one is"),
        ({"data": [{"path": "x", "image": "y"}]}, r"the nearest known one is 'data\.0\.images'"),
    ],
)
def test_configs_that_make_no_sense_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _config(**changes)


def test_the_shipped_configs_are_read_and_overridden():
    projector = load_settings("configs/bridge/llava15_projector.yaml")
    assert (projector.parts.language, projector.optim.lr, projector.train.batch_size) == ("frozen", 1e-3, 256)
    lora = load_settings("configs/bridge/llava15.yaml", ["data.0.images=x", "run.seed=3"])
    assert (lora.lora.rank, lora.optim.lr * lora.optim.projector_lr_scale) == (128, pytest.approx(2e-5))
    assert (lora.data[0].images, lora.run.seed) == ("x", 3)
    assert lora.steps(665_298) == 5198
    with pytest.raises(ValueError, match=r"known: configs/bridge/llava15\.yaml"):
        load_settings("configs/bridge/none.yaml")
    with pytest.raises(ValueError, match="expected KEY=VALUE"):
        load_settings("configs/bridge/tiny.yaml", ["x"])


def test_a_cached_tower_gives_the_same_and_sees_each_image_once(parts, swapped_once):
    plain, cached = parts(), build(_config(), swapped_once, cached=True)
    first, second = _inputs(plain), _inputs(plain, seed=1)
    for inputs in (first, second, first, second):
        with torch.no_grad():
            assert cached.trainee(**inputs).nll.equal(plain.trainee(**inputs).nll)
    assert cached.trainee.host.model.vision_tower.forwards == 2
    assert list(list_trained(cached.trainee)) == list(list_trained(plain.trainee))
    with pytest.raises(ValueError, match="the tower moves, so its features cannot be kept"):
        _config(parts={"tower": True}, train={"steps": 1, "cache_tower": True})
