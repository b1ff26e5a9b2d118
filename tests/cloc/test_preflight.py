from collections import namedtuple
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from cloc import build, preflight


@pytest.fixture
def parts(spine_config):
    """(config, model, sources) of a tiny run."""

    def make(**changes):
        config = spine_config(**changes)
        model = build.make_model(config, build.make_tokenizer(config))[0]
        return config, model, build.make_sources(config)

    return make


@dataclass
class Shards:
    """As much of a shard set as the check reads."""

    card: dict = field(default_factory=lambda: {"counts": {"regions": 0}})


Source = namedtuple("Source", "shards")


def test_a_cloc_run_without_one_region_is_refused(parts):
    config, model, _ = parts()
    none = [Source(Shards()), Source(Shards())]
    with pytest.raises(ValueError, match=r"all cards say 0 regions; use objective=clip or add regions"):
        preflight.check(config, model, none)
    preflight.check(config, model, [*none, Source(Shards(card={"counts": {"regions": 3}}))])
    preflight.check(config, model, [*none, Source(Shards(card=None))])  # no card says nothing
    clip, clip_model, _ = parts(objective="clip")
    preflight.check(clip, clip_model, none)


def test_a_disk_without_room_is_refused(parts, monkeypatch):
    config, model, sources = parts()
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(preflight.disk_bytes(config, model) - 1))
    with pytest.raises(ValueError, match=r"disk: checkpoints and export need .* GiB are free; make room or lower"):
        preflight.check(config, model, sources)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: usage(preflight.disk_bytes(config, model)))
    preflight.check(config, model, sources)


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


def test_other_conditions_than_the_checkpoints_are_refused():
    preflight.check_resume({"deepspeed": False, "world": 2}, 1, deepspeed=False)  # plain torch: any number of ranks
    preflight.check_resume({"deepspeed": True, "world": 2}, 2, deepspeed=True)
    with pytest.raises(ValueError, match="is from DeepSpeed, this run is plain torch; start it as before"):
        preflight.check_resume({"deepspeed": True, "world": 1}, 1, deepspeed=False)
    with pytest.raises(ValueError, match="from plain torch, this run is DeepSpeed"):
        preflight.check_resume({"deepspeed": False, "world": 1}, 1, deepspeed=True)
    with pytest.raises(ValueError, match="DeepSpeed's checkpoint is from 2 ranks, this run has 4"):
        preflight.check_resume({"deepspeed": True, "world": 2}, 4, deepspeed=True)


def test_the_card_names_rendered_data_as_rendered(parts):
    config, _, sources = parts(train__steps=3, train__accumulation=2, export__licence="mine")
    assert preflight.facts(config, build.num_samples(config, sources)) == {
        "objective": "cloc", "steps": 3, "samples": 48, "seed": 0, "licence": "mine",
    }  # fmt: skip
    (told,) = preflight.data_facts(config, sources)
    assert (told["samples"], told["kind"], told["rendered"]) == (64, "regions", True)
    assert "rendered scenes" in told["note"]
