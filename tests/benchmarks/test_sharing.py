"""A killed run goes on, several processes give the rows of one, and the tape holds what was answered."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from benchmarks.cli import main
from benchmarks.data_roots import list_roots
from benchmarks.evaluate import init_distributed
from benchmarks.predictors.cached_predictor import CachedPredictor, read_record, write_record
from benchmarks.predictors.contract import LoadedModel
from benchmarks.predictors.detector import Found
from benchmarks.provenance import Provenance
from benchmarks.runner import PROGRESS, TaskRunner
from benchmarks.tasks.contract import Options
from benchmarks.tasks.photos import open_together
from benchmarks.tasks.region_recognition import RegionRecognition
from cloc import comm

PLACE = Provenance("abc", {}, "machine", 0)


def rows_of(folder):
    """The rows without what a clock says."""
    rows = json.loads((folder / "results.json").read_text())["rows"]
    clock = ("seconds", "images_per_second")
    return [{key: value for key, value in row.items() if key not in clock} for row in rows]


class Mortal:
    """Counts what it is asked, and dies after so many questions about regions."""

    def __init__(self, reader, lives=99):
        self.reader, self.lives, self.asked, self.name, self.cannot_ground = reader, lives, 0, "reader", None

    def encode_texts(self, texts):
        return self.reader.encode_texts(texts)

    def encode_regions(self, images, boxes_xyxy):
        if self.asked == self.lives:
            raise KeyboardInterrupt
        self.asked += 1
        return self.reader.encode_regions(images, boxes_xyxy)


def test_a_killed_session_asks_only_what_is_left(root, colours, tmp_path):
    options = Options(photos_at_once=3, progress=False)

    def session(predictor, folder):
        side = LoadedModel("m", None, [predictor])
        return TaskRunner(list_roots(root), [side], PLACE, options, folder).run([RegionRecognition()])

    whole = Mortal(colours.Reader(first=2))
    straight = session(whole, tmp_path / "straight")
    assert whole.asked == 4
    with pytest.raises(KeyboardInterrupt):
        session(Mortal(colours.Reader(first=2), lives=3), tmp_path / "killed")
    rest = Mortal(colours.Reader(first=2))
    resumed = session(rest, tmp_path / "killed")
    assert rest.asked == 1
    assert [r.row.value for r in resumed] == [r.row.value for r in straight]
    assert [r.row.ci95 for r in resumed] == [r.row.ci95 for r in straight]


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("encode_images", np.eye(3, dtype=np.float32)),
        ("encode_regions", [np.zeros((0, 4), dtype=np.float32), np.ones((2, 4), dtype=np.float32)]),
        ("ground", []),
        ("answer", ["a red ring, at [1, 2]", "", "ü"]),
    ],
)
def test_the_tape_gives_back_what_it_was_given(tmp_path, method, answer):
    file = tmp_path / "0.npz"
    assert read_record(file, method) is None
    write_record(file, answer)
    again = read_record(file, method)
    assert type(again) is type(answer)
    assert len(again) == len(answer)
    for one, other in zip(again, answer, strict=True):
        assert np.array_equal(one, other)
        assert np.asarray(one).dtype == np.asarray(other).dtype


def test_the_tape_keeps_detections_and_no_half_written_file(tmp_path):
    found = [Found(np.ones((2, 4)), np.ones(2), np.zeros(2, dtype=np.int64)), Found(np.ones((0, 4)), *[np.ones(0)] * 2)]
    write_record(tmp_path / "0.npz", found)
    again = read_record(tmp_path / "0.npz", "detect")
    assert [one.boxes_xyxy.shape for one in again] == [(2, 4), (0, 4)]
    assert again[0].labels.dtype == np.int64
    assert [path.name for path in tmp_path.iterdir()] == ["0.npz"]


def test_calls_are_cut_at_the_batch_size_and_names_are_not(tmp_path):
    sizes = []

    class Detector:
        name, kind = "d", "detector"

        def detect(self, images, names, limit=300):
            sizes.append((len(images), len(names)))
            return [Found(np.full((1, 4), image.width), np.ones(1), np.zeros(1, dtype=np.int64)) for image in images]

    taped = CachedPredictor(Detector(), tmp_path / "tape", 2)
    images = [Image.new("RGB", (width, 4)) for width in range(1, 6)]
    found = taped.detect(images, ["a", "b", "c"])
    assert sizes == [(2, 3), (2, 3), (1, 3)]
    assert [one.boxes_xyxy[0, 0] for one in found] == [1, 2, 3, 4, 5]
    assert taped.kind == "detector"
    assert CachedPredictor(Detector(), tmp_path / "tape", 2).detect(images, ["a", "b", "c"])[4].boxes_xyxy[0, 0] == 5
    assert len(sizes) == 3


class Asked:
    """Takes any question."""

    name = "asked"

    def encode_texts(self, texts):
        return np.zeros((len(texts), 2), dtype=np.float32)

    def ground(self, images, phrases):
        return [np.zeros((len(own), 4)) for own in phrases]


def test_the_texts_of_a_figure_are_known_by_their_hash(tmp_path):
    """Not by their order, number or batches, nor by who answered; a template or a joined text is another."""

    def sha(*asked, folder=None, batch_size=2):
        taped = CachedPredictor(Asked(), folder, batch_size)
        for one in asked:
            if isinstance(one[0], str):
                taped.encode_texts(one)
            else:
                taped.ground([None] * len(one), one)
        return taped.texts_sha256

    cats = sha(["cat", "dog", "cat"])
    assert len(cats) == 64
    assert cats == sha(["dog"], ["cat"], batch_size=1) == sha([["cat", "dog"], []])
    assert cats == sha(["dog", "cat"], folder=tmp_path) == sha(["dog", "cat"], folder=tmp_path)
    assert len({cats, sha(["cat"]), sha(["a cat", "a dog"]), sha(["catdog"]), sha(["Cat", "dog"])}) == 5
    assert sha([[]]) is None


def test_a_run_goes_on_only_with_the_same_request(root, exports, tmp_path, capsys, monkeypatch):
    asked = ["region_recognition", "--data", str(root), "--model", str(exports["cloc"]), "--batch-size", "5"]
    assert main([*asked, "--out", str(tmp_path / "whole")]) == 0
    assert not (tmp_path / "whole" / PROGRESS).exists()

    def die(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.evaluate.write_results", die)
        assert main([*asked, "--out", str(tmp_path / "killed")]) == 130
    killed = str(tmp_path / "killed")
    assert list((tmp_path / "killed" / PROGRESS).glob("*/*.npz"))
    assert main([*asked, "--limit", "3", "--resume", killed]) == 2
    assert "asked for something else: limit was None, is 3" in capsys.readouterr().err
    with monkeypatch.context() as patched:
        patched.setattr("benchmarks.predictors.cached_predictor.CachedPredictor._answer", die)
        assert main([*asked, "--resume", killed]) == 0  # everything was answered already
    assert rows_of(tmp_path / "killed") == rows_of(tmp_path / "whole")
    assert main([*asked, "--resume", killed]) == 2
    assert "is no unfinished run" in capsys.readouterr().err


def test_each_process_opens_the_photos_of_its_own_chunks(spine_ranks):
    """Of ten photos in chunks of two the fourth is broken, so that later ones move to another chunk."""

    def work(rank):
        seen = []

        def open_one(item):
            seen.append(item)
            return "broken" if item == 3 else Image.new("RGB", (item + 1, 1))

        init_distributed()
        rows, photos, reasons = open_together(range(10), range(10), open_one, 2)
        comm.leave()
        opened = list(seen)
        whole = [photo.width for photo in photos]
        return rows, reasons, opened, whole, [photo.width for photo in photos[2:4]], photos[0].width, len(seen)

    kept = [0, 1, 2, 4, 5, 6, 7, 8, 9]
    first, second = spine_ranks(2, work)
    for found in (first, second):
        assert found[:2] == (kept, {3: "broken"})
        assert found[3:6] == ([row + 1 for row in kept], [3, 5], 1)
    assert (first[2], second[2]) == ([0, 1, 4, 5, 8, 9], [2, 3, 6, 7])
    assert (first[6], second[6]) == (9, 10)  # each photo once, the broken one by its owner alone
    alone = open_together(range(4), range(1, 4), lambda item: Image.new("RGB", (item + 1, 1)), 2)
    assert [photo.width for photo in alone[1]] == [2, 3, 4]


def test_two_processes_give_the_rows_and_predictions_of_one(root, exports, tmp_path, spine_ranks):
    """As torchrun starts them, but for the launcher: two forks that find each other by the environment."""
    asked = ["region_recognition", "refcoco", "--data", str(root), "--model", str(exports["cloc"])]
    asked += ["--against", str(exports["clip"]), "--batch-size", "5", "--limit", "7"]

    def work(rank):
        with contextlib.redirect_stdout(io.StringIO()) as told:
            return main([*asked, "--out", str(tmp_path / "two")]), told.getvalue().count("results: ")

    assert spine_ranks(2, work) == [(0, 1), (0, 0)]
    assert main([*asked, "--out", str(tmp_path / "one")]) == 0
    assert rows_of(tmp_path / "two") == rows_of(tmp_path / "one")
    names = sorted(path.name for path in (tmp_path / "one" / "predictions").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "two" / "predictions").iterdir())
    for name in names:
        one, two = ((tmp_path / side / "predictions" / name).read_text() for side in ("one", "two"))
        assert one == two, name
