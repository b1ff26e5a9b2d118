"""Every command line of the README is one that its program takes; the cheap ones are run as they stand."""

import json
import re
import shlex
from pathlib import Path

import pytest

from benchmarks import cli
from benchmarks.experiments import command as ablations
from benchmarks.experiments.closed_loop import command as closed_loop
from cloc import pretrain
from cloc.check import __main__ as check
from cloc.config import load_config
from cloc.convert import __main__ as convert
from cloc.convert import dictionary
from cloc.detect import __main__ as detect
from cloc.embed import __main__ as embed
from cloc.export import __main__ as export
from cloc.label import __main__ as label
from cloc.scenes import __main__ as scenes
from mllm_bridge.assess import command as assess
from mllm_bridge.swap import command as swap
from mllm_bridge.trial import __main__ as trial
from mllm_bridge.tune import command as tune

REPOSITORY = Path(__file__).resolve().parents[2]
TEXT = (REPOSITORY / "README.md").read_text(encoding="utf-8")
PROGRAMS = {
    "cloc/pretrain.py": pretrain.main,
    "benchmarks/run.py": cli.main,
    "cloc.detect": detect.main,
    "cloc.embed": embed.main,
    "cloc.export": export.main,
    "cloc.label": label.main,
    "cloc.check": check.main,
    "cloc.convert.dictionary": dictionary.main,
    "cloc.convert": convert.main,
    "cloc.scenes": scenes.main,
    "mllm_bridge.swap": swap.main,
    "mllm_bridge.tune": tune.main,
    "mllm_bridge.assess": assess.main,
    "mllm_bridge.trial": trial.main,
    "benchmarks.experiments.closed_loop": closed_loop.main,
    "benchmarks.experiments": ablations.main,
}
PROGRAM = r"(cloc/pretrain\.py|benchmarks/run\.py|(?:cloc|mllm_bridge|benchmarks)\.[\w.]+)"
LAUNCHED = re.compile(rf"(?:python|deepspeed|torchrun)\b.*?(?:-m )?{PROGRAM}(.*)")


def commands():
    """(program, its arguments) of every line in a block and of every command in the text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    lines = [line.split("  #")[0] for block in blocks for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.DOTALL | re.MULTILINE)
    lines += [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]
    for line in lines:
        found = LAUNCHED.match(line.strip())
        if found and found[1] in PROGRAMS:
            yield found[1], shlex.split(found[2])


COMMANDS = list(dict.fromkeys((program, tuple(arguments)) for program, arguments in commands()))


def test_the_readme_names_the_programs():
    assert {program for program, _ in COMMANDS} == set(PROGRAMS)
    assert len(COMMANDS) >= 30


class ParsedError(Exception):
    """The arguments were understood."""


@pytest.mark.parametrize(
    ("program", "arguments"), COMMANDS, ids=lambda part: part if isinstance(part, str) else " ".join(part)
)
def test_every_command_line_is_understood(program, arguments, monkeypatch):
    """Up to where its work would begin; a line with an unknown option or a missing one ends with 2 before that."""
    import argparse

    for name in ("parse_args", "parse_intermixed_args"):
        parse = getattr(argparse.ArgumentParser, name)

        def parsed(self, *given, parse=parse):
            parse(self, *given)
            raise ParsedError

        monkeypatch.setattr(argparse.ArgumentParser, name, parsed)
    arguments = [{"N": "2"}.get(part, part) for part in arguments if part != "..."]
    if "--help" in arguments:
        with pytest.raises(SystemExit) as ended:
            PROGRAMS[program](arguments)
        assert ended.value.code == 0
        return
    with pytest.raises(ParsedError):
        PROGRAMS[program](arguments)


def test_configs_and_fields_that_the_readme_names_are_there():
    for program, arguments in COMMANDS:
        if program != "cloc/pretrain.py" or "--resume" in arguments or "FILE" in arguments:
            continue
        options = pretrain.parse_arguments([part for part in arguments if part != "..."])
        load_config(options.config or pretrain.USUAL, options.overrides)
    for path in re.findall(r"configs/[\w/]+\.(?:yaml|json)", TEXT):
        assert (REPOSITORY / path).is_file(), path


@pytest.mark.photos
def test_the_lines_for_your_own_data_run_on_the_sample_photos(sample_data, tmp_path, monkeypatch, capsys):
    """Convert, check against RefCOCO, make a dictionary: as the README has them, with the sample's places."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "refcoco").symlink_to(sample_data / "refcoco")
    monkeypatch.chdir(tmp_path)
    coco = sample_data / "coco"
    places = {
        "train2017": str(next(coco.glob("val2017"))),
        "instances_train2017.json": str(next(coco.rglob("instances_val2017*.json"))),
        "captions_train2017.json": str(next(coco.rglob("captions_val2017*.json"))),
        "data/pairs": "data/coco",
        "FILE": str(next(coco.rglob("instances_val2017*.json"))),
    }
    ran = []
    for wanted in ("cloc.convert", "cloc.check", "cloc.convert.dictionary"):
        for program, arguments in COMMANDS:
            if program == wanted and "--help" not in arguments:
                status = PROGRAMS[program]([places.get(part, part) for part in arguments])
                told = capsys.readouterr()
                assert status in ((0, 1) if wanted.endswith("check") else (0,)), told.err
                ran.append(wanted)
    assert len(ran) == 3
    assert (tmp_path / "look" / "sheet.html").is_file()


def lines_of(program):
    """The arguments of a program's commands that do more than explain themselves."""
    return [list(arguments) for name, arguments in COMMANDS if name == program and "--help" not in arguments]


def test_the_lines_for_an_export_run_on_a_tiny_one(spine_export, spine_picture, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    places = {"runs/mine/export": str(spine_export())}
    (tmp_path / "photos").mkdir()
    spine_picture(40, 30).save("photos/a.jpg")
    boxes = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 40, "height": 30}],
        "annotations": [{"id": 5, "image_id": 1, "category_id": 1, "bbox": [2, 2, 20, 20], "area": 400, "iscrowd": 0}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    for program in ("cloc.export", "cloc.embed"):
        (arguments,) = lines_of(program)
        more = ["--model", places["runs/mine/export"]] if program == "cloc.embed" else []
        status = PROGRAMS[program]([places.get(part, part) for part in arguments] + more)
        assert status == 0, capsys.readouterr().err
    assert (tmp_path / "vectors.csv").read_text().count("\n") == 3
    assert (tmp_path / "out" / "open_clip_model.safetensors").is_file()


@pytest.mark.slow
def test_the_lines_that_plan_list_and_draw_run(spine_raw, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FILE").write_text(json.dumps(spine_raw()))  # JSON is YAML
    places = {"N": "2", "DIR": str(tmp_path)}
    plans = [line for line in lines_of("cloc/pretrain.py") if "--plan" in line]
    lists = [line for line in lines_of("benchmarks/run.py") if "--list" in line]
    for program, lines in (
        ("cloc/pretrain.py", plans),
        ("benchmarks/run.py", lists),
        ("cloc.scenes", lines_of("cloc.scenes")),
    ):
        for line in lines:
            if program == "cloc.scenes" and "--look" not in line:
                continue  # the world of the quickstart
            assert PROGRAMS[program]([places.get(part, part) for part in line]) == 0, capsys.readouterr().err
    assert plans
    assert (tmp_path / "world.png").is_file()
