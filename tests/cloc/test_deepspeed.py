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


def same_losses(one, found):
    for step, (expected, got) in enumerate(zip(one, found, strict=True)):
        assert got == pytest.approx(expected, rel=1e-4), (step, FIGURES)


@pytest.fixture
def one(arguments, figures, spine_ranks):
    """What one process on plain torch logs."""
    spine_ranks(1, lambda rank: pretrain.main(arguments("one")))
    found = figures("one")
    assert len(found) == STEPS
    return found


def test_the_launchers_own_choice_gives_the_losses_of_one_process(one, arguments, figures, spine_port, tmp_path):
    launch(arguments("zero1"), tmp_path, spine_port)  # ZeRO 1
    same_losses(one, figures("zero1"))


@pytest.mark.slow
@pytest.mark.parametrize("stage", [0, 2])
def test_zero_on_two_ranks_gives_the_losses_of_one_process(stage, one, arguments, figures, spine_ranks):
    asked = arguments(f"zero{stage}", train__deepspeed=f"configs/deepspeed/zero{stage}.json")
    assert spine_ranks(2, lambda rank: pretrain.main(asked)) == [0, 0]
    same_losses(one, figures(f"zero{stage}"))


@pytest.mark.parametrize(("text", "told"), [("{", r"got text that is no JSON"), ("[1]", r"got a JSON list")])
def test_a_malformed_deepspeed_file_is_named(text, told, tmp_path):
    path = tmp_path / "zero.json"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=rf"zero\.json: expected the settings of DeepSpeed \(train\.deepspeed\), {told}"
    ):
        read_deepspeed(path)
