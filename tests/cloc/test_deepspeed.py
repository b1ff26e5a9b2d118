"""Two ranks under DeepSpeed against one process on plain torch, on the same global batches."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from cloc import pretrain
from cloc.train.stepper import read_deepspeed

REPOSITORY = Path(__file__).resolve().parents[2]
STEPS = 20
FIGURES = ("loss", "image_text", "region_text", "grounding", "gradient_norm")
pytestmark = pytest.mark.multiprocess


@pytest.fixture
def arguments(spine_raw, tmp_path):
    """The command line of a tiny run of 20 steps."""

    def make(name, **changes):
        file = tmp_path / f"{name}.yaml"
        raw = spine_raw(run__name=name, train__steps=STEPS, model__vision__layers=1, **changes)
        file.write_text(yaml.safe_dump(raw))
        return ["--config", str(file), "--runs", str(tmp_path / "runs")]

    return make


@pytest.fixture
def figures(tmp_path):
    """What a finished run has logged, step by step."""

    def read(name):
        assert (tmp_path / "runs" / name / "export" / "export.json").is_file()
        entries = [json.loads(line) for line in (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines()]
        return [[entry[figure] for figure in FIGURES] for entry in entries]

    return read


def launch(arguments, folder, port):
    """As a user does, through the launcher."""
    call = [str(Path(sys.executable).parent / "deepspeed"), "--master_port", str(port), "--num_gpus", "2"]
    command = [*call, str(REPOSITORY / "cloc/pretrain.py"), *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]


def test_zero_0_1_and_2_on_two_ranks_give_the_losses_of_one_process(
    arguments, figures, spine_ranks, spine_port, tmp_path
):
    spine_ranks(1, lambda rank: pretrain.main(arguments("one")))
    one = figures("one")
    assert len(one) == STEPS
    launch(arguments("zero1"), tmp_path, spine_port)  # the launcher's own choice is ZeRO 1
    for stage in (0, 2):
        asked = arguments(f"zero{stage}", train__deepspeed=f"configs/deepspeed/zero{stage}.json")
        assert spine_ranks(2, lambda rank, asked=asked: pretrain.main(asked)) == [0, 0]
    for stage in (0, 1, 2):
        for step, (expected, found) in enumerate(zip(one, figures(f"zero{stage}"), strict=True)):
            assert found == pytest.approx(expected, rel=1e-4), (stage, step, FIGURES)


@pytest.mark.parametrize(("text", "told"), [("{", r"got text that is no JSON"), ("[1]", r"got a JSON list")])
def test_a_malformed_deepspeed_file_is_named(text, told, tmp_path):
    path = tmp_path / "zero.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=rf"zero\.json: expected the settings of DeepSpeed \(train\.deepspeed\), {told}"
    ):
        read_deepspeed(path)
