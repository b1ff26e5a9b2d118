import json

import pytest

from benchmarks.rows import FIELDS, Row, read_rows, write_rows

ROW = {
    "task": "t", "dataset": "d", "data": "real", "split": "val", "protocol": "p", "metric": "top1", "value": 0.5,
    "num_examples": 4, "num_skipped": 1, "ci95": (0.1, 0.9), "chance": 0.25, "constant": 0.5, "model": "m",
    "predictor": "prompter", "model_sha256": "ab", "commit": "c", "versions": {"torch": "2"}, "machine": "x", "seed": 0,
    "seconds": 1.5, "reason": "skipped: 1 crowd",
}  # fmt: skip


def test_rows_carry_the_fields_of_the_contract_in_order():
    contract = (
        "task dataset data split protocol metric value num_examples num_skipped ci95 chance constant model predictor "
        "model_sha256 commit versions machine seed seconds reason images_per_second texts_sha256 tokenizer_sha256 "
        "no_constant"
    )
    assert list(FIELDS) == contract.split()


def test_written_rows_come_back_equal(tmp_path):
    path = write_rows([Row(**ROW)], tmp_path)
    assert read_rows(path) == [Row(**ROW)]
    assert json.loads(path.read_text())["schema"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"]


def test_fields_of_later_versions_are_left_alone(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"schema": 1, "rows": [{**ROW, "later": 1}]}))
    assert read_rows(tmp_path / "results.json") == [Row(**ROW)]


def test_a_row_without_value_needs_a_reason():
    with pytest.raises(ValueError, match="t/top1: a row without a value needs a reason"):
        Row(**{**ROW, "value": None, "reason": None})
    with pytest.raises(ValueError, match="expected a finite value, got nan"):
        Row(**{**ROW, "value": float("nan")})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no JSON"),
        ('{"top1": 0.3}', "expected a results file of benchmarks/run.py"),
        ('{"schema": 1, "rows": [{"task": "t"}]}', r"a row lacks \['chance', 'ci95'"),
    ],
)
def test_foreign_files_are_refused(tmp_path, content, message):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_rows(path)
