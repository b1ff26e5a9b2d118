from dataclasses import fields
from itertools import islice

import pytest
import torch

from cloc.data.dataloader import make_loader
from cloc.data.loader import Source, StepBatches, check_bytes, check_readable, check_sources
from cloc.data.shards import ShardSet, write_shards
from cloc.tokenizer import clip_tokenizer

CARD = {"name": "made", "kind": "regions", "licence": "none", "made": {}}


@pytest.fixture
def sources(spine_shards):
    return [Source(ShardSet.open(spine_shards), 6)]


def batches(sources, rank=0, world=1, first=0, last=12, seed=0, regions=3):
    return StepBatches(sources, clip_tokenizer(), 32, regions, seed, rank, world, first, last)


def same(a, b):
    return all(
        torch.equal(getattr(a, f.name), getattr(b, f.name))
        if isinstance(getattr(a, f.name), torch.Tensor)
        else getattr(a, f.name) == getattr(b, f.name)
        for f in fields(a)
    )


def test_ranks_share_each_step_without_overlap(sources):
    whole = [batch.keys for batch in batches(sources)]
    for world in (2, 3):
        ranks = [[batch.keys for batch in batches(sources, rank, world)] for rank in range(world)]
        for step, keys in enumerate(whole):
            parts = [rank[step] for rank in ranks]
            assert sorted(key for part in parts for key in part) == sorted(keys)
            assert {len(part) for part in parts} == {6 // world}
            assert parts[0] == keys[::world]


def test_an_epoch_sees_every_sample_once(spine_shards):
    found = batches([Source(ShardSet.open(spine_shards), 8)], last=8)  # 64 samples
    keys = [key for batch in found for key in batch.keys]
    assert len(keys) == len(set(keys)) == 64


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_give_the_same_batches(workers, sources):
    expected = list(batches(sources, last=5))
    found = list(make_loader(batches(sources, last=5), workers))
    assert len(found) == 5
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert [batch.keys for batch in make_loader(batches(sources, last=5), 0)] == [batch.keys for batch in expected]


@pytest.mark.parametrize("first", [1, 4, 11])
def test_a_resumed_loader_goes_on_where_it_stopped(first, sources):
    straight = list(batches(sources, last=13))[first:]
    resumed = list(make_loader(batches(sources, first=first, last=13), 2))
    assert all(same(a, b) for a, b in zip(resumed, straight, strict=True))


def test_epochs_draw_other_regions_in_another_order(spine_shards):
    found = list(batches([Source(ShardSet.open(spine_shards), 8)], last=16, regions=1))
    first, second = found[:8], found[8:]
    assert [b.keys for b in first] != [b.keys for b in second]

    def drawn(some):
        return {k: b.boxes[i].tolist() for b in some for i, k in enumerate(b.keys)}

    one, two = drawn(first), drawn(second)
    assert sum(one[key] != two[key] for key in one) > 10


def test_several_sources_keep_their_shares(spine_shards, spine_sample, tmp_path):
    write_shards((spine_sample(f"own{i}") for i in range(5)), tmp_path / "own", CARD)
    both = [Source(ShardSet.open(spine_shards), 4), Source(ShardSet.open(tmp_path / "own"), 2)]
    for batch in islice(batches(both), 6):
        assert sum(key.startswith("own") for key in batch.keys) == 2
        assert len(batch.keys) == 6


def test_unusable_samples_are_left_out_and_counted(spine_sample, tmp_path):
    samples = [spine_sample(f"s{i}", kind="JPEG") for i in range(4)]
    cut = samples[1]
    samples[1] = type(cut)(cut.key, cut.image[:300], "jpg", 40, 30, "c", ())
    write_shards(samples, tmp_path / "own", CARD)
    (batch,) = batches([Source(ShardSet.open(tmp_path / "own"), 4)], last=1)
    assert sorted(batch.keys) == ["s0", "s2", "s3"]
    assert batch.skipped == {"broken_image": 1}


def test_the_rest_of_a_shard_cut_in_half_is_counted(spine_sample, tmp_path):
    write_shards((spine_sample(f"s{i}") for i in range(8)), tmp_path / "own", CARD)
    shard = tmp_path / "own" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    (batch,) = batches([Source(ShardSet.open(tmp_path / "own"), 8)], last=1)
    assert 1 <= len(batch.keys) <= 4
    assert batch.skipped == {"truncated_shard": 8 - len(batch.keys)}


def test_a_missing_json_is_counted(spine_sample, tmp_path):
    import tarfile

    write_shards((spine_sample(f"s{i}") for i in range(3)), tmp_path / "own", CARD)
    shard = tmp_path / "own" / "000000.tar"
    with tarfile.open(shard) as old, tarfile.open(tmp_path / "new.tar", "w") as new:
        for member in old:
            if member.name != "s1.json":
                new.addfile(member, old.extractfile(member))
    (tmp_path / "new.tar").replace(shard)
    (batch,) = batches([Source(ShardSet.open(tmp_path / "own"), 3)], last=1)
    assert batch.skipped == {"missing_json": 1}
    assert sorted(batch.keys) == ["s0", "s2"]


def test_more_ranks_than_the_batch_can_serve_is_refused(sources):
    with pytest.raises(ValueError, match="batch_size 6 does not divide among 4 ranks; use a multiple of 4, such as 8"):
        check_sources(sources, 4)


def test_more_samples_a_step_than_the_shards_hold_is_refused(spine_shards):
    wanted = [Source(ShardSet.open(spine_shards), 66)]
    with pytest.raises(
        ValueError, match=r"takes 66 samples a step, the shards hold 64; lower data\.N\.batch_size or add"
    ):
        check_sources(wanted, 3)


def test_a_source_without_one_usable_sample_is_refused_and_one_damaged_shard_is_not(tmp_path, spine_sample):
    samples = [spine_sample(f"k{i}") for i in range(4)]
    card = {"name": "n", "kind": "regions", "licence": "none", "made": {}}
    write_shards(samples, tmp_path / "set", card, shard_size=2)
    source = Source(ShardSet.open(tmp_path / "set"), 2)
    check_bytes([source])
    first, second = sorted((tmp_path / "set").glob("*.tar"))
    first.write_bytes(b"no tar" * 200)
    source = Source(ShardSet.open(tmp_path / "set"), 2)
    check_readable([source])
    with pytest.raises(ValueError, match=r"000000\.tar: its SHA-256 is not the one on its card \(1 such"):
        check_bytes([source])
    second.write_bytes(second.read_bytes()[:700])
    told = r"set: none of the 4 samples looked at, of 4, can be used \(bad_shard 2, .*cloc\.check"
    with pytest.raises(ValueError, match=told):
        check_readable([Source(ShardSet.open(tmp_path / "set"), 2)])
