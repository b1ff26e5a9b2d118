import json
import runpy
import shutil
import sys
from pathlib import Path

import pytest

from benchmarks.cli import main
from benchmarks.provenance import hash_tokenizer
from benchmarks.rows import read_rows
from benchmarks.speed import measurements as speed

REPOSITORY = Path(__file__).parents[2]


def error_of(capsys, *arguments):
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err


def test_two_tasks_from_another_folder(tmp_path, root, exports, monkeypatch, capsys):
    """The script as it is typed, from a folder that is not the repository."""
    monkeypatch.chdir(tmp_path)
    given = [
        "refcoco",
        "lvis",
        "--data",
        root,
        "--model",
        exports["cloc"],
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    monkeypatch.setattr(sys, "argv", ["run.py", *map(str, given)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(REPOSITORY / "benchmarks" / "run.py"), run_name="__main__")
    assert ended.value.code == 0
    out = capsys.readouterr().out
    assert "refcoco on refcoco, real" in out
    assert "lvis on lvis, real" in out
    assert "cloc, prompter: " in out
    assert " images a second" in out
    rows = read_rows(tmp_path / "out" / "results.json")
    assert {row.task for row in rows} == {"refcoco", "lvis"}
    assert {row.predictor for row in rows} == {"prompter"}
    assert {row.model_sha256 for row in rows} == {"cloc0"}
    assert {row.tokenizer_sha256 for row in rows} == {hash_tokenizer(exports["cloc"])}
    texts = {(row.task, row.texts_sha256) for row in rows if row.value is not None}
    assert [len(sha) for _, sha in texts] == [64, 64]  # one for each task
    assert all(row.images_per_second > 0 for row in rows if row.value is not None)


def test_comparison_of_two_exports(tmp_path, root, exports, capsys):
    given = ["region_recognition", "--data", root, "--model", exports["cloc"], "--against", exports["clip"]]
    assert main([*map(str, given), "--out", str(tmp_path), "--device", "cpu"]) == 0
    rows = read_rows(tmp_path / "results.json")
    assert [row.predictor for row in rows if row.metric == "top1"] == [
        "prompter", "clip-roialign", "clip-value", "clip-crop",
    ]  # fmt: skip
    (difference,) = [row for row in rows if row.metric == "top1_difference"]
    best = max(row.value for row in rows if row.metric == "top1" and row.model == "clip")
    assert difference.value == pytest.approx(rows[0].value - best)
    assert "(best of 3)" in capsys.readouterr().out
    assert len(list((tmp_path / "predictions").iterdir())) == 4


def test_bare_run_takes_the_newest_export_and_numbers_its_results(tmp_path, root, exports, monkeypatch, capsys):
    shutil.copytree(exports["cloc"].parents[1], tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOC_DATA", str(root))
    assert main(["region_recognition", "--limit", "2"]) == 0
    assert main(["region_recognition", "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert "model cloc: runs/cloc/export, objective cloc" in out
    assert {path.name for path in Path("runs").glob("bench-*")} == {"bench-1", "bench-2"}


def test_reserved_words_are_looked_at_before_folders(tmp_path, root, exports, monkeypatch):
    shutil.copytree(exports["cloc"].parents[1], tmp_path / "runs")
    (tmp_path / "cloc").mkdir()  # as in the repository
    monkeypatch.chdir(tmp_path)
    given = ["region_recognition", "--data", root, "--model", "cloc", "--against", "clip", "--limit", "1"]
    assert main([*map(str, given), "--out", "out"]) == 0
    assert {row.model for row in read_rows(Path("out/results.json"))} == {"cloc", "clip", "cloc minus clip"}


def test_a_reserved_word_without_such_an_export(tmp_path, root, exports, monkeypatch, capsys):
    shutil.copytree(exports["cloc"].parent, tmp_path / "runs" / "cloc")
    monkeypatch.chdir(tmp_path)
    assert "objective=clip" in error_of(capsys, "--data", root, "--against", "clip")


def test_unknown_task_names_the_nearest(capsys, root):
    assert "task 'refcok' is unknown; did you mean 'refcoco'?" in error_of(capsys, "refcok", "--data", root)


def test_no_data_says_where_it_was_looked_for_and_what_to_type(tmp_path, capsys):
    message = error_of(capsys, "refcoco", "lvis", "--data", tmp_path)
    assert f"no data for refcoco, lvis under {tmp_path}" in message
    assert f"python -m cloc.scenes --out {tmp_path / 'scenes'}" in message


def test_a_data_root_that_is_not_there(tmp_path, capsys, monkeypatch):
    assert f"--data: expected a folder, found none at {tmp_path / 'no'}" in error_of(capsys, "--data", tmp_path / "no")
    monkeypatch.setenv("CLOC_DATA", str(tmp_path / "gone"))
    assert f"$CLOC_DATA: expected a folder, found none at {tmp_path / 'gone'}" in error_of(capsys)


def test_no_export_names_the_command_that_makes_one(tmp_path, root, capsys, monkeypatch):
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    message = error_of(capsys, "--data", root)
    assert "no finished export" in message
    assert "deepspeed cloc/pretrain.py" in message
    assert "expected an export" in error_of(capsys, "--data", root, "--model", tmp_path / "nothing")


def test_a_device_that_is_none(root, exports, capsys):
    message = error_of(capsys, "--data", root, "--model", exports["cloc"], "--device", "gpu0")
    assert "--device: 'gpu0' cannot be used here (Invalid device string" in message


def test_limit_must_be_a_positive_number(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["--limit", "0"])
    assert stopped.value.code == 2
    assert "expected a whole number of at least 1, got '0'" in capsys.readouterr().err


def test_an_existing_folder_is_used_again_and_only_our_files_are_replaced(tmp_path, root, exports):
    given = ["region_recognition", "--data", root, "--model", exports["cloc"], "--out", tmp_path, "--limit", "1"]
    (tmp_path / "notes.txt").write_text("mine")
    for _ in range(2):
        assert main(list(map(str, given))) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert len(read_rows(tmp_path / "results.json")) == 2


def test_results_of_something_else_are_not_overwritten(tmp_path, root, exports, capsys):
    (tmp_path / "results.json").write_text('{"accuracy": 1}')
    message = error_of(capsys, "lvis", "--data", root, "--model", exports["cloc"], "--out", tmp_path)
    assert "results.json of something else; give another folder" in message
    assert json.loads((tmp_path / "results.json").read_text()) == {"accuracy": 1}


def test_list_says_what_was_found_and_where_it_was_looked_for(tmp_path, root, capsys):
    assert main(["--list", "--data", str(root)]) == 0
    out = capsys.readouterr().out
    assert f"found lvis val at {root / 'lvis' / 'lvis_v1_val.json'}" in out
    assert f"not found: {root / 'scenes' / 'refcoco' / 'refcocog'}" in out
    assert "speed  (only when asked for by name)" in out


def test_speed_needs_no_export_for_the_renderer(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    monkeypatch.setattr(speed, "SCENES", 5)
    monkeypatch.setattr(speed, "WARM_UP_SCENES", 1)
    for part in ("regions", "step", "loader", "contrast", "conversion", "memory"):
        monkeypatch.setattr(speed, f"measure_{part}", lambda split: [])
    assert main(["speed", "--out", str(tmp_path / "out")]) == 0
    rows = {row.metric: row for row in read_rows(tmp_path / "out" / "results.json")}
    assert rows["scenes_per_second"].value > 0
    assert rows["scenes_per_second"].machine
    assert "no finished export was found" in capsys.readouterr().out


def test_speed_of_regions_beside_the_image(tmp_path, exports, monkeypatch):
    monkeypatch.setattr(speed, "SCENES", 2)
    monkeypatch.setattr(speed, "REPEATS", 3)
    for part in ("regions", "step", "loader", "contrast", "conversion", "memory"):
        monkeypatch.setattr(speed, f"measure_{part}", lambda split: [])
    assert main(["speed", "--model", str(exports["cloc"]), "--out", str(tmp_path)]) == 0
    rows = {row.metric: row for row in read_rows(tmp_path / "results.json")}
    assert rows["seconds_over_image_alone"].value > 0
    assert rows["seconds_over_image_alone"].predictor == "prompter"
    assert rows["scenes_per_second"].predictor == "none"


def test_a_folder_below_a_file_is_one_line(tmp_path, root, exports, capsys):
    (tmp_path / "file").write_text("x")
    out = tmp_path / "file" / "out"
    told = error_of(capsys, "refcoco", "--data", root, "--model", exports["cloc"], "--device", "cpu", "--out", out)
    assert f"error: --out: {out} cannot be made (" in told
    assert "Traceback" not in told
