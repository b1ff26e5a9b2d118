"""Attention, recomputation and compile change no figure."""

import pytest
import torch

from cloc import factory
from cloc.data.loader import Source, StepBatches
from cloc.data.tables import open_samples
from cloc.train import memory_options

CLOSE = {"rtol": 1e-9, "atol": 1e-11}


@pytest.fixture
def answer(spine_config, spine_model, spine_shards):
    """Loss and gradients of one step in float64, and how often the first vision layer ran."""

    def run(**changes):
        config = spine_config(**changes)
        model = spine_model(**changes).double()
        stepper = factory.make_stepper(config, model, None)
        batches = StepBatches(
            [Source(open_samples(spine_shards, "regions"), 8)], factory.make_tokenizer(config), 32, 3, 0, 0, 1, 0, 9
        )
        batch = batches.batch(0)
        batch.pixel_values, batch.boxes = batch.pixel_values.double(), batch.boxes.double()
        calls = []
        model.vision.tower.encoder.layers[0].mlp.register_forward_pre_hook(lambda *_: calls.append(1))
        _, share = factory.make_losses(config, stepper)(batch, 0)
        stepper.backward(share)
        return share.detach(), {name: p.grad for name, p in model.named_parameters()}, len(calls)

    return run


@pytest.mark.parametrize("style", ["clip", "siglip"])
def test_recomputed_activations_give_the_same_gradients(style, answer):
    kept = answer(model__vision__style=style)
    again = answer(model__vision__style=style, train__activation_checkpointing=True)
    assert (kept[2], again[2]) == (1, 2)
    torch.testing.assert_close(again[:2], kept[:2], **CLOSE)


@pytest.mark.parametrize("style", ["clip", "siglip"])
def test_eager_attention_gives_the_gradients_of_sdpa(style, answer):
    sdpa = answer(model__vision__style=style, model__attention="sdpa")
    eager = answer(model__vision__style=style, model__attention="eager")
    torch.testing.assert_close(eager[:2], sdpa[:2], rtol=1e-4, atol=1e-5)  # eager takes its softmax in fp32


def test_attention_reaches_both_towers(spine_model):
    model = spine_model()
    memory_options.set_attention(model, "eager", bf16=False)
    assert model.vision.tower.config._attn_implementation == model.text.config._attn_implementation == "eager"


def test_compiled_towers_keep_the_names_of_their_weights(spine_model):
    model = spine_model()
    before = list(model.state_dict())
    memory_options.compile_towers(model)
    assert list(model.state_dict()) == before
    assert model.vision.tower._compiled_call_impl is not None
    assert model.text._compiled_call_impl is not None
    assert model.vision.prompter._compiled_call_impl is None  # its compiled gradients were wrong


def test_flash_attention_names_what_it_needs(spine_model, monkeypatch):
    model = spine_model()
    monkeypatch.setattr(memory_options, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the package flash-attn \(pip install flash-attn\)"):
        memory_options.set_attention(model, "flash_attention_2", bf16=True)
    monkeypatch.setattr(memory_options, "find_spec", lambda name: object())
    with pytest.raises(ValueError, match=r"runs on an accelerator in bf16 only; add run\.precision=bf16"):
        memory_options.set_attention(model, "flash_attention_2", bf16=True)


def test_a_tower_that_cannot_recompute_is_named(spine_model):
    model = spine_model()
    model.vision.tower.supports_gradient_checkpointing = False
    with pytest.raises(ValueError, match=r"the vision tower \(CLIPVision\w+\) cannot recompute; switch it off"):
        memory_options.checkpoint_activations(model)
