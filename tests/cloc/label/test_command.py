"""`python -m cloc.label`, with a tiny random OWLv2 from end to end."""

import pytest

from cloc.data.shards import ShardSet
from cloc.label.__main__ import main


def test_from_pairs_to_regions(pair_shards, tiny_owl, tmp_path, capsys):
    source, out = pair_shards(5), tmp_path / "out"
    command = ["--shards", str(source), "--out", str(out), "--detector", str(tiny_owl), "--device", "cpu"]
    command += ["--size", "48", "--score", "0.0", "--nms", "0.5", "--max-boxes", "3", "--batch", "2"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "read:    5 samples" in told
    assert "position grid 4 x 4 interpolated (bicubic) to 6 x 6" in told
    assert "VESL WiT 300M" in told
    made = ShardSet.open(out)
    assert made.kind == "regions"
    card = made.card
    assert card["licence"] == f"images: CC0; labels (detector {tiny_owl.name}): apache-2.0"
    assert card["labelling"]["detector"]["weights_sha256"]
    assert card["labelling"]["settings"]["detector"] == tiny_owl.name
    assert set(card["labelling"]["versions"]) == {"torch", "torchvision", "transformers"}
    first = made.read_sample(0, 0)
    assert 1 <= len(first.regions) <= 3
    assert {region.phrase for region in first.regions} <= {"red circle", "blue star", "grass"}
    assert main(command) == 0  # the same again


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--shards", "nowhere"], "nowhere: expected a folder with NNNNNN.tar shards"),
        (["--detector", "no/such/model"], "--detector no/such/model: expected a transformers folder or a hub name"),
        (["--captioner", "no/such/model"], "--captioner no/such/model: expected a transformers folder or a hub name"),
        (["--size", "49"], "--size 49: expected a multiple of the detector's patch of 8 pixels; take 48"),
        (["--workers", "0"], "--workers: expected at least 1, got 0"),
        (["--score", "-1"], "--score: expected 0 or more and below 1, got -1.0"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(change, message, pair_shards, tiny_owl, tmp_path, capsys):
    given = ["--shards", str(pair_shards(2)), "--out", str(tmp_path / "out"), "--detector", str(tiny_owl)]
    assert main([*given, "--size", "48", *change]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert "Traceback" not in told
    assert not (tmp_path / "out").exists()
