"""An export has no head that nothing trained; and which regions the box head learns from."""

import json

import pytest
import torch
from transformers import AutoModel

from cloc import factory, pretrain
from cloc.config import dump_config, parse_config
from cloc.factory.steps import ground_all
from cloc.losses.objectives import RegionTerms, make_objective
from cloc.train import preflight


def test_without_the_grounding_loss_there_is_no_box_head(spine_raw, tmp_path):
    (tmp_path / "run.yaml").write_text(dump_config(parse_config(spine_raw(loss__grounding=0, train__steps=2))))
    assert pretrain.main(["--config", str(tmp_path / "run.yaml"), "--runs", str(tmp_path / "runs")]) == 0
    folder = tmp_path / "runs/tiny"
    assert all("grounding" not in json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    model = AutoModel.from_pretrained(folder / "export")
    assert model.has_prompter
    assert model.vision.box_head is None
    assert not [name for name in model.state_dict() if "box_head" in name]
    with pytest.raises(ValueError, match=r"has no box head \(trained with loss.grounding 0\)"):
        model.ground(torch.zeros(1, 3, 32, 32), torch.rand(1, 2, 16))
    regions = model.get_region_features(torch.zeros(1, 3, 32, 32), torch.tensor([[[0.0, 0, 1, 1]]]))
    assert regions.shape == (1, 1, 16)


def test_the_other_weights_start_as_with_a_box_head(spine_model):
    plain, whole = spine_model(loss__grounding=0).state_dict(), spine_model().state_dict()
    assert {name for name in whole if name not in plain} == {n for n in whole if n.startswith("vision.box_head.")}
    assert all(torch.equal(plain[name], whole[name]) for name in plain)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"objective": "clip", "loss__image_text": 0}, "image embeddings need loss.image_text above 0"),
        ({"loss__image_text": 0}, "image embeddings need loss.image_text above 0"),
        ({"loss__region_text": 0}, "the Prompter's embeddings need loss.region_text above 0"),
        ({"kinds": ["pairs"]}, "the Prompter needs a source of kind regions; objective=clip has no Prompter"),
        ({"objective": "detclip", "kinds": ["pairs"]}, "boxes need a source of kind detection"),
        ({"objective": "detclip", "kinds": ["grounding", "pairs"]}, "boxes need a source of kind detection"),
        ({"objective": "detclip", "kinds": ["detection"], "weight": 0, "more": "pairs"}, "boxes need a source of kind"),
        (
            {"objective": "detclip", "kinds": ["detection"], "loss__detection": {"centerness": 0}},
            "detection.centerness",
        ),
        ({"objective": "detclip", "kinds": ["detection"], "loss__detection": {"giou": 0}}, "detection.giou"),
        ({"objective": "joint", "kinds": ["detection", "pairs"]}, "objective=detclip has no Prompter"),
    ],
)
def test_what_nothing_would_train_is_refused(changes, told, spine_raw):
    kinds, weight, more = (changes.pop(name, None) for name in ("kinds", "weight", "more"))
    raw = spine_raw(model__text__context=16, **changes)
    if kinds:
        path = raw["data"][0]["path"]
        raw["data"] = [{"path": path, "batch_size": 8, "kind": kind, "weight": weight} for kind in kinds]
        raw["data"] += [{"path": path, "batch_size": 8, "kind": more, "weight": 1}] if more else []
    with pytest.raises(ValueError, match=rf"would leave untrained what it makes: .*{told}"):
        preflight.check_heads(parse_config(raw))
    raw["model"]["source"] = "an/export"
    preflight.check_heads(parse_config(raw))  # it brings what is needed, trained


def test_all_regions_feed_the_grounding_loss_where_the_config_says_so(spine_config, spine_tokenizer):
    found = {}
    for which in ("unique", "all"):
        config = spine_config(loss__grounding_regions=which)
        tokenizer = spine_tokenizer(config)
        model, _ = factory.make_model(config, tokenizer)
        batch = next(iter(factory.make_batches(config, factory.make_sources(config), tokenizer, 0)))
        batch.unique_in_image[::2] = False
        outputs = model(**factory.model_inputs(batch, ground_all(config)))
        report = make_objective("cloc", RegionTerms(ground_all=ground_all(config)))(outputs, batch, 0)
        regions, boxes = int(batch.boxes_mask.sum()), batch.boxes[batch.boxes_mask]
        kept = torch.ones(regions, dtype=torch.bool) if which == "all" else batch.unique_in_image
        assert report.counts["grounded"] == len(outputs.grounded_boxes) == int(kept.sum())
        found[which] = report.terms["grounding"]
        torch.testing.assert_close(found[which], (outputs.grounded_boxes - boxes[kept]).square().mean())
    assert not torch.equal(found["unique"], found["all"])
