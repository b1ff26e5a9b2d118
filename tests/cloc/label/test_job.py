"""The job over shards: what comes out, what is counted, and that neither workers nor kills change a byte."""

import hashlib
import io
import json
import os
import random
import re
import signal
import struct
import tarfile
import time
import zlib
from dataclasses import replace
from functools import partial

import pytest

from cloc.data.shards import ShardSet
from cloc.label.job import label
from cloc.label.local import run_processes
from cloc.label.settings import LabelSettings
from cloc.label.shard import DiskFullError, Labeller

SETTINGS = LabelSettings("rules", batch=3)


def digest(folder):
    """Every file of a finished set with its hash."""
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def forked(workers):
    return partial(run_processes, workers=workers, start_method="fork")


@pytest.fixture
def run(rule_labeller, tmp_path):
    """Labels with the detector of rules."""

    def go(source, out="out", settings=SETTINGS, runner=None, **proposer):
        make = rule_labeller(settings, **proposer)
        return label(source, tmp_path / out, settings, progress=False, make=make, runner=runner)

    return go


def test_images_captions_and_extras_stay_and_regions_come(pair_shards, run, tmp_path):
    source = pair_shards(10)
    card = run(source).card
    given, made = ShardSet.open(source), ShardSet.open(tmp_path / "out")
    assert made.counts == (4, 4, 2)
    for shard, count in enumerate(made.counts):
        for i in range(count):
            old, new = given.read_sample(shard, i), made.read_sample(shard, i)
            assert (new.key, new.image, new.caption) == (old.key, old.image, old.caption)
            assert new.extras["source"] == old.extras["source"]
    first, silent = made.read_sample(0, 0), made.read_sample(0, 2)
    assert [region.phrase for region in first.regions] == ["red circle", "blue star", "grass"]
    assert [region.score for region in first.regions] == [0.9, 0.55, 0.2]
    assert silent.regions == ()
    assert card["counts"] == {"samples": 10, "captions": 8, "regions": 3 * 3 + 3 * 1}
    assert card["dropped"] == {}
    assert card["kind"] == "regions"
    assert card["rendered"] is True
    assert card["statistics"] == {
        "images": 10,
        "regions_per_image": 1.2,
        "caption_tokens": round((3 * 9 + 3 * 2 + 2) / 8, 2),
        "region_tokens": round((3 * 5 + 3) / 12, 2),
        "images_without_region": 4,
    }


def test_given_regions_are_replaced_and_counted(spine_sample, tmp_path, run):
    from cloc.data.shards import write_shards

    sample = spine_sample(caption="a dog", regions=[((1, 1, 9, 9), "a true cat")])
    write_shards([sample], tmp_path / "in", {"kind": "regions", "made": {}})
    card = run(tmp_path / "in").card
    assert [r.phrase for r in ShardSet.open(tmp_path / "out").read_sample(0, 0).regions] == ["dog"]
    assert card["dropped"] == {"given_region_replaced": 1}


def test_workers_change_no_byte(pair_shards, run, tmp_path):
    source = pair_shards(14, 3)
    run(source, "one")
    run(source, "three", runner=forked(3))
    assert digest(tmp_path / "one") == digest(tmp_path / "three")


def test_one_bad_image_and_one_failing_image_are_counted(pair_shards, run, tmp_path):
    """Image 0 makes its batch fail, the others of the batch do not pay for it; one image is cut short."""
    source = pair_shards(6, 6)
    tar = source / "000000.tar"
    data, index = bytearray(tar.read_bytes()), ShardSet.open(source).index(0)
    offset, size = index.entries[4][1]["png"]
    data[offset + 40 : offset + size] = bytes(size - 40)
    tar.write_bytes(data)
    card = run(source, bad=lambda images: any(image.width == 40 and image.height == 30 for image in images)).card
    made = ShardSet.open(tmp_path / "out")
    assert [made.read_sample(0, i).key for i in range(made.num_samples)] == ["0001", "0002", "0003", "0005"]
    assert card["read"] == {"samples": 6}
    assert card["dropped"] == {"image_unreadable": 1, "model_failed": 1}
    assert card["labelling"]["batches_repeated_one_by_one"] == 1


def png_claiming(side):
    """A PNG whose header claims a size, with next to nothing behind it."""

    def chunk(kind, data=b""):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10))) + chunk(b"IEND")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_hostile_pairs_are_counted_and_the_others_labelled(pair_shards, run, tmp_path):
    """As img2dataset writes them: no JSON beside the photo, so that even its size comes out of the file."""
    with tarfile.open(pair_shards(1) / "000000.tar") as tar:
        photo = tar.extractfile("0000.png").read()
    files = {"bomb.png": png_claiming(100_000), "bomb.txt": b"a dog", "large.png": png_claiming(11_000)}
    files |= {"large.txt": b"a dog", "latin.png": photo, "latin.txt": "ein Hündchen".encode("latin-1")}
    files |= {"long.png": photo, "long.txt": b"a dog and " * 3334, "none.png": photo, "none.txt": b"running quickly"}
    files |= {"../../climb.png": photo}
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/000000.tar", "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    card = run(tmp_path / "in").card
    made = ShardSet.open(tmp_path / "out")
    assert [made.read_sample(0, i).key for i in range(made.num_samples)] == ["long", "none"]
    assert card["dropped"] == {"bad_name": 1, "bad_text": 1, "image_too_large": 2}
    assert [region.phrase for region in made.read_sample(0, 0).regions] == ["dog"]
    assert made.read_sample(0, 1).regions == ()


def test_models_that_always_fail_stop_the_job(pair_shards, run):
    with pytest.raises(
        ValueError, match=r"the models failed on all of the first .* \(RuntimeError: out of memory, say\)"
    ):
        run(pair_shards(40, 40), bad=lambda images: True)


def test_nothing_left_is_an_error(pair_shards, run, tmp_path):
    with pytest.raises(ValueError, match=r"at least one image that can be labelled, got none \(1 model_failed\)"):
        run(pair_shards(1), bad=lambda images: True)
    assert not (tmp_path / "out").exists()


def test_the_same_again_is_left_alone_and_another_is_refused(pair_shards, run, tmp_path):
    source = pair_shards(5)
    first = run(source).card
    before = digest(tmp_path / "out")
    assert run(source).card == first
    assert digest(tmp_path / "out") == before
    with pytest.raises(ValueError, match=r"made with other parameters \(different: settings\)"):
        run(source, settings=replace(SETTINGS, score=0.5))


def test_an_unfinished_job_with_other_parameters_is_refused(pair_shards, run, tmp_path):
    source = pair_shards(5)
    with pytest.raises(RuntimeError, match="stop here"):
        run(source, runner=_stop)
    with pytest.raises(ValueError, match=r"unfinished job with other parameters \(different: settings\)"):
        run(source, settings=replace(SETTINGS, score=0.5))


def _stop(work, numbers, advance):
    raise RuntimeError("stop here")


def test_two_jobs_do_not_write_one_folder(pair_shards, run, tmp_path, monkeypatch):
    monkeypatch.setattr("cloc.disk.ORPHANS_LAST", 0.2)
    source = pair_shards(5)
    with pytest.raises(ValueError, match="another labelling job is writing it"):
        run(source, runner=lambda *given: run(source))


def test_a_full_disk_is_said_before_anything_is_written(pair_shards, run, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: os.statvfs_result and type("", (), {"free": 1000})())
    with pytest.raises(ValueError, match=r"expected 0.00 GB of free space for the shards to come, found 0.00 GB"):
        run(pair_shards(5))


def test_a_disk_that_fills_up_leaves_no_half_shard(pair_shards, run, tmp_path, monkeypatch):
    source = pair_shards(8, 4)
    run(source, "whole")
    images = []

    def fills_up(seen):
        images.extend(seen)
        if len(images) > 3:
            raise OSError(28, "No space left on device")

    wanted = r"the disk is full; the 1 shards to come take about .* GB, .* GB are free\. Make room and give the same"
    with pytest.raises(DiskFullError, match=wanted):
        run(source, bad=fills_up)
    assert sorted(path.name for path in (tmp_path / ".out.labelling").iterdir()) == [
        "000000.json",
        "000000.tar",
        "job.json",
        "lock",
    ]
    run(source)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def test_a_worker_whose_disk_is_full_says_the_same(pair_shards, run):
    with pytest.raises(ValueError, match="the disk is full; the 2 shards to come take about"):
        run(pair_shards(8, 4), runner=forked(1), bad=_no_room)


def _no_room(images):
    raise OSError(28, "No space left on device")


def test_the_bar_shows_images_a_second_and_the_time_left(pair_shards, rule_labeller, tmp_path, capsys):
    label(pair_shards(8, 4), tmp_path / "out", SETTINGS, make=rule_labeller(SETTINGS, seconds=0.1))
    assert re.search(
        r"labelling: +38%.* 3/8 \[\d\d:\d\d<\d\d:\d\d, +[\d.]+(image/s|s/image)\]", capsys.readouterr().err
    )


def test_a_job_killed_after_its_card_only_tidies_up(pair_shards, run, tmp_path, monkeypatch):
    source = pair_shards(5)
    run(source, "whole")
    monkeypatch.setattr("cloc.jobs.ShardJob._tidy_up", _die)
    with pytest.raises(KeyboardInterrupt):
        run(source)
    monkeypatch.undo()
    (tmp_path / ".out.labelling" / "job.json").unlink()  # the clearing had begun
    run(source, bad=lambda images: True)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def _die(self, card):
    raise KeyboardInterrupt


def _in_a_child(work):
    """Start `work` in a forked process that never comes back here."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


@pytest.mark.multiprocess
@pytest.mark.parametrize("workers", [1, 2])
def test_killed_at_any_moment_nothing_is_lost_or_doubled(pair_shards, run, tmp_path, workers):
    source = pair_shards(24, 4)
    run(source, "whole")
    runner = None if workers == 1 else forked(workers)
    moments, kills = random.Random(workers), 0
    for _ in range(4):
        child = _in_a_child(lambda: run(source, seconds=0.1, runner=runner))
        time.sleep(moments.uniform(0.02, 0.25))
        os.kill(child, signal.SIGKILL)  # not waited for yet, so it is there, if only as a zombie
        kills += os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert kills > 0
    run(source)
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")
    assert not (tmp_path / ".out.labelling").exists()


def _dies_once(flag, settings, proposer, device):
    """A labeller whose process is killed in its second batch, the first time."""
    labeller = proposer(device)
    plain, calls = labeller.proposer.propose, []

    def propose(images, phrases):
        calls.append(1)
        if len(calls) == 2 and not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(images, phrases)

    labeller.proposer.propose = propose
    return labeller


@pytest.mark.multiprocess
def test_a_killed_worker_is_replaced(pair_shards, run, rule_labeller, tmp_path):
    source = pair_shards(16, 4)
    run(source, "whole")
    make = partial(_dies_once, tmp_path / "died", SETTINGS, rule_labeller(SETTINGS))
    label(source, tmp_path / "out", SETTINGS, progress=False, make=make, runner=forked(2))
    assert (tmp_path / "died").exists()
    assert digest(tmp_path / "out") == digest(tmp_path / "whole")


def _dies_always(device):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.multiprocess
def test_workers_that_always_die_end_the_job(pair_shards, tmp_path):
    with pytest.raises(ValueError, match=r"its worker died 3 times \(exit code -9; .* take fewer --workers"):
        label(pair_shards(4), tmp_path / "out", SETTINGS, progress=False, make=_dies_always, runner=forked(1))


def _refuses(device):
    raise ValueError("no such model")


@pytest.mark.multiprocess
def test_a_mistake_that_a_worker_finds_is_told(pair_shards, tmp_path):
    with pytest.raises(ValueError, match="no such model"):
        label(pair_shards(4), tmp_path / "out", SETTINGS, progress=False, make=_refuses, runner=forked(2))


def test_a_captioner_writes_and_the_given_caption_is_kept_aside(pair_shards, rule_labeller, tmp_path):
    class Parrot:
        def caption(self, images):
            return ["" if image.width == 41 else f"a cat of {image.width} pixels" for image in images]

    def make(device):
        plain = rule_labeller(SETTINGS)(device)
        return Labeller(SETTINGS, plain.proposer, Parrot(), plain.chunker)

    label(pair_shards(3), tmp_path / "out", SETTINGS, progress=False, make=make)
    new, kept = (ShardSet.open(tmp_path / "out").read_sample(0, i) for i in (0, 1))
    assert new.caption == "a cat of 40 pixels"
    assert new.extras["given_caption"] == "a red circle and a blue star on grass"
    assert [region.phrase for region in new.regions] == ["cat", "pixels"]
    assert kept.caption == "a dog"  # nothing was written
    assert "given_caption" not in kept.extras


def test_settings_are_checked_at_once():
    for field, value, message in [
        ("score", 1.0, "--score: expected 0 or more and below 1, got 1.0"),
        ("nms", 2, r"--nms: expected an IoU in \[0, 1\]"),
        ("max_boxes", -1, r"--max-boxes: expected 0 \(no limit\) or more, got -1"),
        ("batch", 0, "--batch: expected at least 1 image, got 0"),
        ("chunker", "x", "--chunker: expected one of rules, spacy, nltk, got 'x'"),
    ]:
        with pytest.raises(ValueError, match=message):
            replace(SETTINGS, **{field: value})


def test_the_card_is_plain_json(pair_shards, run, tmp_path):
    card = run(pair_shards(4)).card
    assert json.loads((tmp_path / "out" / "dataset.json").read_text()) == card
