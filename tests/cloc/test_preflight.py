from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloc import factory
from cloc.data.tables import open_samples
from cloc.train import preflight


@pytest.fixture
def parts(spine_config):
    """(config, model, sources) of a tiny run."""

    def make(**changes):
        config = spine_config(**changes)
        model = factory.make_model(config, factory.make_tokenizer(config))[0]
        return config, model, factory.make_sources(config)

    return make


@dataclass
class Shards:
    """As much of a shard set as the check reads."""

    card: dict = field(default_factory=lambda: {"counts": {"regions": 0}})


Source = namedtuple("Source", "shards")


def test_a_cloc_run_without_one_region_is_refused(spine_config):
    config = spine_config()
    none = [Source(Shards()), Source(Shards())]
    with pytest.raises(ValueError, match=r"all cards say 0 regions; use objective=clip or add regions"):
        preflight.check_regions(config, none)
    preflight.check_regions(config, [*none, Source(Shards(card={"counts": {"regions": 3}}))])
    preflight.check_regions(config, [*none, Source(Shards(card=None))])  # no card says nothing
    preflight.check_regions(spine_config(objective="clip"), none)


def test_a_disk_without_room_is_refused(parts, monkeypatch, tmp_path):
    """The disk that counts is the one of `--runs`, which need not be there yet, not the one of the current folder."""
    config, model, _ = parts()
    usage, free, looked = namedtuple("usage", "free"), [preflight.disk_bytes(config, model) - 1], []
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda place: looked.append(place) or usage(free[0]))
    with pytest.raises(ValueError, match=r"disk of .*runs: checkpoints and export need .* GiB are free; make room"):
        preflight.check_disk(config, model, tmp_path / "later" / "runs")
    free[0] += 1
    (tmp_path / "runs").mkdir()
    preflight.check_disk(config, model, tmp_path / "runs")
    assert looked == [tmp_path, tmp_path / "runs"]


def test_the_disk_a_run_takes_is_not_underestimated(parts, spine_ranks, spine_raw, tmp_path):
    import yaml

    from cloc import pretrain

    config, model, _ = parts()
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(spine_raw(train__checkpoint_every=2)))
    call = ["--config", str(tmp_path / "c.yaml"), "--runs", str(tmp_path / "runs")]
    assert spine_ranks(1, lambda rank: pretrain.main(call)) == [0]
    weights = sum(p.stat().st_size for p in (tmp_path / "runs").rglob("*.safetensors"))
    assert weights <= preflight.disk_bytes(config, model)


def test_the_lines_say_what_how_long_and_at_what_cost(parts):
    config, model, sources = parts(train__steps=16)
    made = (config, model, sources, ["all weights from scratch"], Path("runs/tiny"))
    text = "\n".join(preflight.lines(*made, 0, "cpu", None, 128))
    count = sum(p.numel() for p in model.parameters())
    assert f"objective cloc, {count / 1e6:.1f} M parameters (all weights from scratch)" in text
    assert "64 samples in" in text
    assert "16 steps of 8 = 128 samples, 2.00 passes" in text
    assert "1 process(es) on cpu, fp32, plain torch" in text
    assert f"{count * 16 / 2**20:,.0f} MiB a process" in text
    later = "\n".join(preflight.lines(*made, 1200, "cpu", Path("zero2.json"), 128))
    assert "continued at step 1,200" in later
    assert "DeepSpeed (zero2.json)" in later


def test_a_run_that_cannot_be_ends_before_a_model_is_built(spine_raw, spine_ranks, tmp_path, monkeypatch, capfd):
    """Nothing to resume, or no region: neither waits for model, teacher and optimiser."""
    import yaml

    from cloc import pretrain

    def refused(config, sources):
        raise ValueError("no regions")

    monkeypatch.chdir(tmp_path)
    monkeypatch.delattr(factory, "make_model")
    monkeypatch.setattr(preflight, "check_regions", refused)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(spine_raw()))
    calls = ["--config", "c.yaml", "--resume", "gone"], ["--config", "c.yaml"]
    assert spine_ranks(1, lambda rank: [pretrain.main(call) for call in calls]) == [[2, 2]]
    told = capfd.readouterr().err
    assert "error: --resume gone: no run" in told
    assert "error: no regions" in told
    assert not (tmp_path / "runs").exists()


def test_the_card_names_rendered_data_as_rendered(parts):
    config, _, sources = parts(train__steps=3, train__accumulation=2, export__licence="mine")
    assert preflight.facts(config, factory.num_samples(config, sources)) == {
        "objective": "cloc", "steps": 3, "samples": 48, "seed": 0, "licence": "mine",
    }  # fmt: skip
    (told,) = preflight.data_facts(config, sources)
    assert (told["samples"], told["kind"], told["rendered"]) == (64, "regions", True)
    assert "rendered scenes" in told["note"]


def test_weights_larger_than_the_machine_are_refused_before_they_are_made(spine_config):
    preflight.check_weights_fit(spine_config())
    for changes in ({"model__vision__width": 65_536, "model__vision__layers": 1000}, {"model__text__width": 65_536}):
        with pytest.raises(ValueError, match=r"model: about .* billion parameters take .* GiB, this machine has"):
            preflight.check_weights_fit(spine_config(**changes, model__text__layers=100))


def test_what_was_left_out_is_told_per_sample_taken(spine_config, spine_shards):
    source = Source(open_samples(str(spine_shards), "regions"))
    assert preflight.skip_lines({}, 48, [source]) == []
    (line,) = preflight.skip_lines({"no_caption": 9, "broken_image": 1}, 48, [source])
    assert line == "left out, in 48 samples taken from 64 (0.75 passes): broken_image 1, no_caption 9"
