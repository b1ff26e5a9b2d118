"""A detection file scored alone: equal to the official evaluators, and clear about what is wrong with a file."""

import json
import logging
import subprocess
import sys

import numpy as np
import pytest

from benchmarks.cli import DETECTION, main
from benchmarks.rows import read_rows
from benchmarks.scoring.command import DETECTION_PROTOCOLS, ScoringRequest, score_files

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "APr", "APc", "APf", "AR", "ARs", "ARm", "ARl")


def set_of(seed=0, images=14):
    """An LVIS file: every third category of an image is annotated, some are absent, some not exhaustive."""
    rng = np.random.default_rng(seed)
    categories = [{"id": 3 * c + 2, "name": f"kind {c}", "frequency": "rcf"[c % 3]} for c in range(7)]
    entries, annotations = [], []
    for image in range(images):
        kinds = rng.permutation([one["id"] for one in categories]).tolist()
        told = {"neg_category_ids": kinds[3:5], "not_exhaustive_category_ids": kinds[:1] if image % 2 else []}
        entries.append({"id": 100 - image, "width": 300, "height": 300, **told})
        for kind in kinds[:3]:
            for _ in range(rng.integers(1, 5)):
                x, y, w, h = (rng.uniform((0, 0, 8, 8), (160, 160, 130, 130)).round(1)).tolist()
                one = {"id": len(annotations) + 1, "image_id": 100 - image, "category_id": kind}
                annotations.append({**one, "bbox": [x, y, w, h], "area": round(w * h * 0.7, 2)})
    return {"images": entries, "categories": categories, "annotations": annotations}


def guesses(truth, seed=1):
    """Boxes near the annotated ones, twice, some of another category; scores of two digits, so that some are equal."""
    rng = np.random.default_rng(seed)
    kinds = [one["id"] for one in truth["categories"]]
    found = []
    for one in truth["annotations"] * 2:
        kind = one["category_id"] if rng.random() < 0.75 else int(rng.choice(kinds))
        box = (np.array(one["bbox"]) + rng.uniform(-6, 6, 4)).clip(1).round(2).tolist()
        found.append({"image_id": one["image_id"], "category_id": kind, "bbox": box, "score": round(rng.random(), 2)})
    return found


def perfect(truth):
    keys = ("image_id", "category_id", "bbox")
    return [{**{key: one[key] for key in keys}, "score": 0.9} for one in truth["annotations"]]


def figures(rows, protocol=None):
    return {row.metric: row.value for row in rows if protocol in (None, row.protocol)}


def agree(found, expected):
    assert set(found) == set(expected)
    told = {name: -1.0 if value is None else value for name, value in found.items()}
    assert told == pytest.approx(expected, abs=1e-9, rel=0)


@pytest.mark.photos
@pytest.mark.parametrize("name", ["lvis_a", "lvis_b_dense"])
def test_lvis_equals_the_official_figures(sample_data, name):
    folder = sample_data / "evaluators" / "lvis_bbox"
    expected = json.loads((folder / f"{name}_expected.json").read_text())
    paths = folder / f"{name}_dets.json", sample_data / "lvis" / "lvis_val_100.json"
    rows = score_files(ScoringRequest(*paths))
    agree(figures(rows, "lvis-ap300"), expected["max_dets_300"])
    agree(figures(rows, "lvis-ap-unlimited"), expected["no_image_limit (max_dets=-1)"])
    for key, values in expected.items():
        if key.startswith("fixed_ap: top 10000 "):
            agree(figures(rows, "lvis-fixed-ap"), values)
        elif key.startswith("fixed_ap: top 20 "):
            agree(figures(score_files(ScoringRequest(*paths, ["lvis-fixed-ap"], 20)), "lvis-fixed-ap-k20"), values)


@pytest.mark.photos
def test_coco_equals_the_official_figures(sample_data):
    folder = sample_data / "evaluators" / "coco_bbox"
    paths = folder / "instances_val2014_fakebbox100_results.json", folder / "instances_val2014_100.json"
    rows = score_files(ScoringRequest(*paths))
    assert {row.protocol for row in rows} == {"coco-ap100"}
    agree(figures(rows), json.loads((folder / "expected.json").read_text())["expected"])


def official_lvis(annotations, entries, limit):
    from lvis import LVIS, LVISEval, LVISResults

    truth = LVIS(str(annotations))
    evaluator = LVISEval(truth, LVISResults(truth, json.loads(json.dumps(entries)), max_dets=limit), "bbox")
    evaluator.params.max_dets = limit
    evaluator.run()
    return {name.split("@")[0]: value for name, value in evaluator.get_results().items()}


def test_own_cases_equal_the_lvis_package(files, monkeypatch):
    monkeypatch.setattr(np, "float", float, raising=False)  # lvis 0.5.3 asks for it, NumPy no longer has it
    logging.disable(logging.WARNING)
    try:
        for seed in range(3):
            truth = set_of(seed)
            entries = guesses(truth, seed + 10)
            paths = files(truth, entries)
            ours = figures(score_files(ScoringRequest(*paths, ["lvis-ap-unlimited"])))
            agree(ours, official_lvis(paths[1], entries, -1))
            monkeypatch.setattr("benchmarks.metrics.lvis_ap.PER_IMAGE", 6)
            cut = figures(score_files(ScoringRequest(*paths, ["lvis-ap300"])))
            agree(cut, official_lvis(paths[1], entries, 6))
            assert cut["AR"] < ours["AR"]
    finally:
        logging.disable(logging.NOTSET)


@pytest.mark.parametrize("layout", [set_of, lambda: plain(set_of())], ids=["lvis", "coco"])
def test_ap_has_intervals_when_they_are_asked_for(files, layout):
    truth = layout()
    paths = files(truth, guesses(truth))
    rows = score_files(ScoringRequest(*paths, intervals=True))
    for row in rows:
        if row.metric in ("AP", "AP50", "AP75", "APr", "APc", "APf"):
            assert row.ci95[0] < row.value < row.ci95[1]
        else:
            assert row.ci95 is None
    bare = score_files(ScoringRequest(*paths))
    assert [row.value for row in bare] == [row.value for row in rows]
    assert {row.ci95 for row in bare} == {None}


def test_intervals_belong_to_our_ap(files, tmp_path):
    paths = files(set_of(), guesses(set_of()))
    with pytest.raises(ValueError, match=r"--intervals: belongs to AP .*the lvis package gives none"):
        score_files(ScoringRequest(*paths, official=True, intervals=True))
    lines = tmp_path / "grounding.jsonl"
    lines.write_text(json.dumps({"image_id": 1, "sent_id": 2, "bbox": [0, 0, 5, 5]}) + "\n")
    with pytest.raises(ValueError, match="grounding answers have theirs anyway"):
        score_files(ScoringRequest(lines, lines, intervals=True))


def plain(truth):
    """The same as a COCO file."""
    kept = ("id", "width", "height")
    return {
        "images": [{key: one[key] for key in kept} for one in truth["images"]],
        "categories": [{"id": one["id"], "name": one["name"]} for one in truth["categories"]],
        "annotations": truth["annotations"],
    }


@pytest.mark.parametrize("layout", [set_of, lambda: plain(set_of())], ids=["lvis", "coco"])
def test_perfect_empty_and_shuffled(files, layout):
    truth = layout()
    for row in score_files(ScoringRequest(*files(truth, perfect(truth)))):
        # At most 4 boxes of a category in an image: only the limit of one detection costs recall.
        exact = 1.0 if row.task == "lvis" else pytest.approx(1.0)  # pycocotools' precision misses it by 2e-16
        assert row.value is None or row.value == exact or row.metric == "AR@1", row
    for row in score_files(ScoringRequest(*files(truth, []))):
        assert row.value in (0.0, None)
        assert "14 of 14 images without a prediction" in row.reason
    gone = truth["images"][0]["id"]
    rows = score_files(ScoringRequest(*files(truth, [one for one in perfect(truth) if one["image_id"] != gone])))
    assert all("1 of 14 images without a prediction" in row.reason for row in rows)
    assert all(row.num_examples == 14 for row in rows if row.value is not None)  # the denominator stays
    assert 0 < figures(rows[:1])["AP"] < 1
    entries = [{**one, "score": place / 1000} for place, one in enumerate(guesses(truth))]
    before = figures(score_files(ScoringRequest(*files(truth, entries))), None)
    mixed = [entries[place] for place in np.random.default_rng(5).permutation(len(entries))]
    assert figures(score_files(ScoringRequest(*files(truth, mixed))), None) == before
    assert 0.05 < before["AP"] < 0.95


def test_annotation_with_id_zero_can_be_found(files):
    truth = set_of()
    for one in truth["annotations"]:
        one["id"] -= 1
    assert figures(score_files(ScoringRequest(*files(truth, perfect(truth)))), "lvis-ap300")["AR"] == 1.0


def test_federated_rules_by_hand(files):
    """One right box, and before it a wrong one that counts only where its category was checked and is exhaustive."""
    image = {"id": 1, "width": 100, "height": 100, "neg_category_ids": [], "not_exhaustive_category_ids": []}
    other = {**image, "id": 2}
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 40, 40], "area": 1600}
    right = {**box, "score": 0.5}
    wrong = {**right, "image_id": 2, "score": 0.9}
    del right["id"], wrong["id"]
    kinds = [{"id": 1, "name": "cup", "frequency": "r"}]

    def ap(**changes):
        truth = {"images": [image, {**other, **changes}], "categories": kinds, "annotations": [box]}
        return figures(score_files(ScoringRequest(*files(truth, [wrong, right]), ["lvis-ap300"])))

    assert ap()["AP"] == 1.0
    assert ap(neg_category_ids=[1])["AP"] == pytest.approx(0.5)
    assert ap(neg_category_ids=[1], not_exhaustive_category_ids=[1])["AP"] == 1.0
    assert (ap()["APr"], ap()["APc"], ap()["APs"]) == (1.0, None, None)


def test_fixed_ap_cuts_by_category_over_the_set(files):
    truth = set_of()
    paths = files(truth, perfect(truth))
    rows = score_files(ScoringRequest(*paths, ["lvis-fixed-ap"], 1))
    counts = np.unique([one["category_id"] for one in truth["annotations"]], return_counts=True)[1]
    assert figures(rows, "lvis-fixed-ap-k1")["AR"] == pytest.approx((1 / counts).mean())


def corners(one):
    x, y, w, h = one["bbox"]
    return {**one, "bbox": [x, y, x + w, y + h]}


WRONG = {
    "nan": (lambda p: [{**p[0], "score": float("nan")}, *p], r"predictions\[0\]: expected a finite score, got nan"),
    "no score": (lambda p: [{**p[0], "score": None}], r"predictions\[0\]: expected a number score, got None"),
    "nan box": (lambda p: [*p, {**p[0], "bbox": [1, 2, 3, float("nan")]}], "expected a finite bbox"),
    "three numbers": (lambda p: [{**p[0], "bbox": [1, 2, 3]}], r"expected four numbers bbox, got \[1, 2, 3\]"),
    "twice": (lambda p: [{**one, "id": 7} for one in p[:2]], "expected each id once, got 7 2 times"),
    "xyxy": (lambda p: [corners(one) for one in p], r"fit as corners \(xyxy"),
    "negative": (lambda p: [{**p[0], "bbox": [50, 50, -20, 10]}], "with a negative side"),
    "other set": (lambda p: [{**one, "image_id": 5000} for one in p], "another split or version"),
    "other layout": (lambda p: {"annotations": p}, "expected a whole number image_id, got None"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_predictions_are_refused(files, name):
    change, message = WRONG[name]
    truth = set_of()
    with pytest.raises(ValueError, match=message):
        score_files(ScoringRequest(*files(truth, change(perfect(truth)))))


def test_strangers_are_counted(files):
    truth = set_of()
    entries = perfect(truth)
    entries += [{**entries[0], "image_id": 5000}, {**entries[0], "category_id": 1}, {**entries[0], "category_id": 4}]
    row = score_files(ScoringRequest(*files(truth, entries)))[0]
    assert (row.value, row.num_skipped) == (pytest.approx(1.0), 3)
    assert "1 unknown_image" in row.reason
    assert "2 unknown_category" in row.reason


def test_wrong_annotations_are_refused(files):
    truth = set_of()
    del truth["images"][3]["neg_category_ids"]
    with pytest.raises(ValueError, match=r"images\[3\]: expected the list neg_category_ids"):
        score_files(ScoringRequest(*files(truth, [])))
    truth = set_of()
    truth["annotations"][2]["image_id"] = 1
    with pytest.raises(ValueError, match=r"annotations\[2\]: expected image_id of this file, got 1"):
        score_files(ScoringRequest(*files(truth, [])))
    with pytest.raises(ValueError, match="no known layout"):
        score_files(ScoringRequest(*files([{"caption": "a cup"}], [])))


def test_command_writes_rows_and_loads_no_torch(files, tmp_path):
    predictions, annotations = files(set_of(), guesses(set_of()))
    out = tmp_path / "out"
    given = ["--predictions", predictions, "--annotations", annotations, "--out", out]
    code = "import sys; from benchmarks.cli import main; code = main(sys.argv[1:]); print('torch' in sys.modules, code)"
    done = subprocess.run([sys.executable, "-c", code, *map(str, given)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
    assert "lvis-fixed-ap" in done.stdout
    rows = read_rows(out / "results.json")
    assert {row.protocol for row in rows} == {"lvis-ap300", "lvis-ap-unlimited", "lvis-fixed-ap"}
    assert tuple(row.metric for row in rows[:13]) == NAMES
    assert rows[0].num_examples == 14
    page = (out / "report.html").read_text()
    assert "lvis-ap300: precision over recall, IoU 0.5" in page
    assert f"{rows[0].value:.3f}" in page
    assert "<h1>Scored predictions</h1>" in page


def test_command_refuses_what_does_not_fit(files, tmp_path, capsys):
    predictions, annotations = map(str, files(set_of(), []))
    both = ["--predictions", predictions, "--annotations", annotations]

    def error(*arguments):
        assert main([*arguments]) == 2
        return capsys.readouterr().err

    assert "expected both --predictions FILE and --annotations FILE" in error("--predictions", predictions)
    assert "expected both" in error("--plus-one")
    assert "leave out TASK" in error("lvis", *both)
    assert "leave out --model" in error(*both, "--model", "x")
    assert "--protocol coco-ap100: does not fit" in error(*both, "--protocol", "coco-ap100")
    assert "--plus-one: belongs to grounding" in error(*both, "--plus-one")
    assert "--fixed-ap-k: belongs to" in error(*both, "--protocol", "lvis-ap300", "--fixed-ap-k", "5")
    assert "holds" in error(*both, "--out", str(tmp_path))
    assert "found none at" in error("--predictions", "nowhere.json", "--annotations", annotations)
    assert DETECTION == DETECTION_PROTOCOLS


def test_the_official_package_can_be_chosen_and_agrees(files, capsys, tmp_path):
    truth = set_of(4)
    paths = files(truth, guesses(truth, 11))
    for protocols, k in ((["lvis-ap300"], None), (["lvis-ap-unlimited"], None), (["lvis-fixed-ap"], 9)):
        ours = score_files(ScoringRequest(*paths, protocols, k))
        theirs = score_files(ScoringRequest(*paths, protocols, k, official=True))
        assert theirs[0].predictor == "predictions, lvis package"
        agree(figures(ours), {name: -1.0 if v is None else v for name, v in figures(theirs).items()})
    assert not hasattr(np, "float")
    given = ["--predictions", str(paths[0]), "--annotations", str(paths[1]), "--evaluator", "official"]
    assert main([*given, "--protocol", "lvis-ap300", "--out", str(tmp_path / "out")]) == 0
    with pytest.raises(ValueError, match="cannot score an empty file"):
        score_files(ScoringRequest(*files(truth, []), official=True))
    with pytest.raises(ValueError, match="--evaluator official: belongs to LVIS"):
        score_files(ScoringRequest(*files(plain(truth), []), official=True))


def test_a_limit_does_not_change_what_was_matched(files):
    """One matching for all protocols, against a matching of what the limit leaves."""
    from benchmarks.metrics import lvis_ap
    from benchmarks.scoring.detections import read_detections, read_truth

    for seed in range(3):
        content = set_of(seed, images=9)
        truth = read_truth(content)
        found = read_detections(guesses(content, seed) * 3, truth)[0]
        for groups, k in ((found.categories, 5), (found.categories, 40)):
            order = np.lexsort((np.arange(len(found)), -found.scores, groups))
            place = np.zeros(len(found), dtype=int)
            for group in np.unique(groups):
                own = order[groups[order] == group]
                place[own] = np.arange(len(own))
            cut = found.take(np.flatnonzero(place < k))
            whole = lvis_ap.LvisJudge(truth, found).curves("lvis-fixed-ap", k)
            assert np.array_equal(whole.precision, lvis_ap.LvisJudge(truth, cut).curves("lvis-ap-unlimited").precision)
            assert np.array_equal(whole.recall, lvis_ap.LvisJudge(truth, cut).curves("lvis-ap-unlimited").recall)


def test_a_large_file_is_read_in_parts_with_the_same_figures(files, monkeypatch):
    from benchmarks.scoring import reading

    truth = set_of()
    entries = [{**one, "note": {"a": [{"b": "}, {"}, 1]}} for one in guesses(truth)]
    plainly = [{key: one[key] for key in one if key != "note"} for one in entries]
    whole = figures(score_files(ScoringRequest(*files(truth, plainly))), "lvis-ap300")
    bad = [*plainly[:-1], {**plainly[-1], "score": "high"}]
    monkeypatch.setattr(reading, "LARGE", 10)
    monkeypatch.setattr(reading, "PART", 300)
    paths = files(truth, plainly)
    assert len(list(reading.read_parts(paths[0], "predictions"))) > 5
    assert figures(score_files(ScoringRequest(*paths)), "lvis-ap300") == whole
    with pytest.raises(ValueError, match=rf"predictions\[{len(bad) - 1}\]: expected a number score, got 'high'"):
        score_files(ScoringRequest(*files(truth, bad)))
    assert set(figures(score_files(ScoringRequest(*files(truth, []))), None).values()) == {0.0}
    monkeypatch.setattr(reading, "PART", 1)  # the first cut falls into a string: read whole instead
    assert figures(score_files(ScoringRequest(*files(truth, entries))), "lvis-ap300") == whole
