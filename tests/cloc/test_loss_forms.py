"""Whole tiny runs with the contrast in tiles and in its sigmoid form, through `pretrain.main`."""

import json

import pytest
import yaml
from transformers import AutoModel

from cloc import pretrain

FIGURES = ("loss", "image_text", "region_text", "region_text_accuracy", "filtered_negatives", "gradient_norm")


@pytest.fixture
def start(spine_raw, spine_ranks, tmp_path):
    """Trains in `world` processes; returns the figures of every step."""

    def run(name, world=1, **changes):
        (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(spine_raw(run__name=name, train__steps=4, **changes)))
        call = ["--config", str(tmp_path / f"{name}.yaml"), "--runs", str(tmp_path / "runs")]
        assert spine_ranks(world, lambda rank: pretrain.main(call)) == [0] * world
        lines = (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()
        return [[json.loads(line)[figure] for figure in FIGURES] for line in lines]

    return run


@pytest.mark.multiprocess
@pytest.mark.parametrize("form", ["softmax", "sigmoid"])
def test_tiles_train_like_the_whole_matrix(form, start):
    whole = start("whole", loss__form=form, loss__chunk="none")
    for tiled in (start("tiles", loss__form=form, loss__chunk=5), start("ranks", 2, loss__form=form, loss__chunk=3)):
        for ours, theirs in zip(tiled, whole, strict=True):
            assert ours == pytest.approx(theirs, rel=2e-4, abs=1e-6)


def test_an_export_of_the_sigmoid_form_keeps_its_biases(start, tmp_path):
    start("sigmoid", loss__form="sigmoid", model__logit_bias_init=-7.0)
    model = AutoModel.from_pretrained(tmp_path / "runs" / "sigmoid" / "export")
    for bias in model.biases():
        assert float(bias.detach()) == pytest.approx(-7.0, abs=0.1)
        assert float(bias.detach()) != -7.0  # it has learned


def test_the_softmax_form_makes_no_bias(spine_model):
    assert [name for name, _ in spine_model().named_parameters() if "bias" in name.split(".")[0]] == []
    shared = spine_model(loss__form="sigmoid", model__share_temperature=True)
    assert [float(bias.detach()) for bias in shared.biases()] == [-10.0, -10.0]
    assert shared.region_logit_bias is None
