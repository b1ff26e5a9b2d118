"""What can be tested of the neighbours' scripts without the neighbours: layouts, comparison, rules, messages."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import webdataset
import yaml

from benchmarks.external import answers, clip_scores, environment
from benchmarks.external.rendered import SPLIT, TEMPLATES, render_world, write_captions, write_classes
from benchmarks.external.side_by_side import compare_figures, read_versions, run_other, write_comparison
from benchmarks.metrics.answers import is_yes
from benchmarks.tasks.class_images import read_classes
from benchmarks.tasks.pope import FIELDS
from cloc.formats.rows import read_lines

TASK = Path(answers.__file__).with_name("lmms_eval_task")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return render_world(tmp_path_factory.mktemp("neighbours") / "world", 12, conversations=1)


def read_as_clip_benchmark(folder, ending):
    """Its own pipeline, but for the model's transform."""
    count = int((folder / SPLIT / "nshards.txt").read_text())
    shards = webdataset.WebDataset(str(folder / SPLIT / f"{{0..{count - 1}}}.tar"), shardshuffle=False)
    return list(shards.decode("pil").to_tuple("jpg", ending))


def test_class_shards_are_read_by_both(made, tmp_path):
    folder = tmp_path / "zeroshot" / "single"
    assert write_classes(made / "zeroshot" / "single", folder) == 12
    ours, there = read_classes(folder, SPLIT, tmp_path), read_as_clip_benchmark(folder, "cls")
    assert [image.label for image in ours.images] == [label for _, label in there]
    assert ours.templates == TEMPLATES
    assert (folder / "zeroshot_classification_templates.txt").read_text().splitlines() == list(TEMPLATES)
    assert ours.rendered
    plain = read_classes(made / "zeroshot" / "single", SPLIT, tmp_path)
    assert ours.names == plain.names
    assert [image.read() for image in ours.images] == [image.read() for image in plain.images]


def test_captions_that_occur_twice_are_left_out(made, tmp_path):
    coco = tmp_path / "coco"
    (coco / "annotations").mkdir(parents=True)
    (coco / "val2017").symlink_to(made / "coco" / "val2017")
    for name in ("captions_val2017.json", "instances_val2017.json"):
        content = json.loads((made / "coco" / "annotations" / name).read_text())
        for number, one in enumerate(content["annotations"]):
            one["caption"] = "the same" if number < 2 else f"caption {number}"
        (coco / "annotations" / name).write_text(json.dumps(content))
    out = tmp_path / "set"
    assert write_captions(coco, out) == (10, 2)
    told = [text for _, text in read_as_clip_benchmark(out / "captions", "txt")]
    assert told == [f"caption {number}" for number in range(2, 12)]
    assert (out / "captions" / "dataset_type.txt").read_text().strip() == "retrieval"
    left = json.loads((out / "coco" / "annotations" / "instances_val2017.json").read_text())
    assert {one["image_id"] for one in left["annotations"]} <= {image["id"] for image in left["images"]}
    assert len(left["images"]) == 10


def test_figures_are_equal_or_named(tmp_path, capsys):
    mine = {("zeroshot", "top1"): 0.25, ("zeroshot", "top5"): 0.5, ("pope", "f1"): None}
    rows = compare_figures(mine, {("zeroshot", "top1"): 0.2500001, ("zeroshot", "top5"): 0.51})
    assert [row["equal"] for row in rows] == [True, False]
    assert not write_comparison(rows, {"clip-benchmark": "1"}, tmp_path)
    assert capsys.readouterr().out.count("DIFFERENT") == 1
    with pytest.raises(ValueError, match=r"no figure of ours for \[\('pope', 'f1'\)\]"):
        compare_figures(mine, {("pope", "f1"): 0.1})


def test_a_missing_environment_is_said(tmp_path, capsys):
    with pytest.raises(ValueError, match="make one with `python -m benchmarks"):
        read_versions(tmp_path / "python", ("torch",))
    with pytest.raises(ValueError, match=r"lacks one of no-such-package \(.*No package metadata"):
        read_versions(Path(sys.executable), ("no-such-package",))
    with pytest.raises(ValueError, match=r"-c raise SystemExit\('why'\) ended with 1; see .*\n  why"):
        run_other([sys.executable, "-c", "raise SystemExit('why')"], tmp_path / "log")
    for program in (answers, clip_scores):
        assert program.main(["--python", str(tmp_path / "python")]) == 2
        assert "found none at" in capsys.readouterr().err
    assert environment.main(["--out", str(tmp_path)]) == 2
    assert "is already there; give a new folder" in capsys.readouterr().err


def test_the_questions_are_popes_and_the_tasks(made, tmp_path):
    count = answers.write_questions(made, tmp_path)
    lines = read_lines(tmp_path / answers.QUESTIONS, "questions", FIELDS)
    assert len(lines) == count > 12
    assert {line["label"] for line in lines} == {"yes", "no"}
    assert not any("<image>" in line["text"] for line in lines)
    task = yaml.safe_load((TASK / "scenes_yesno.yaml").read_text().replace("!function ", ""))
    spec = importlib.util.spec_from_file_location("yes_no", TASK / "yes_no.py")
    functions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(functions)
    named = [task[key] for key in ("doc_to_visual", "doc_to_text", "process_results")]
    assert all(hasattr(functions, name.removeprefix("yes_no.")) for name in named)
    placed = read_lines(tmp_path / task["dataset_kwargs"]["data_files"]["test"], "questions", {"photo": str})
    assert functions.images_of(placed[0])[0].mode == "RGB"
    for said in ("Yes, it is.", "No.", "There is not, sadly", "I know it is. No doubt.", ""):
        for label in ("yes", "no"):
            right = ("yes" if is_yes(said) else "no") == label
            assert functions.verdict({"label": label}, [said]) == {"accuracy": float(right)}


def test_answers_lie_in_lists_of_lists():
    assert answers.answer_of({"filtered_resps": [["a ring "]]}) == "a ring"
    assert answers.answer_of({"filtered_resps": "a ring"}) == "a ring"
