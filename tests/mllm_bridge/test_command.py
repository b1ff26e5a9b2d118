import json

import pytest

from mllm_bridge.swap.command import main


def test_help_names_the_reserved_word_and_the_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert ended.value.code == 0
    for words in ("`cloc` for the newest export", "the next free runs/swap-N", "--keep-projector", "needs training"):
        assert words in told


def test_command_prints_its_choice_and_what_changed(capsys, tmp_path, host_folder, clip_folder):
    out = tmp_path / "out"
    assert main(["--mllm", str(host_folder), "--encoder", str(clip_folder), "--out", str(out), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert f"encoder: {clip_folder}" in told
    assert "config image_seq_length" in told
    assert "checks, all passed" in told
    assert f"written: {out}" in told
    assert json.loads((out / "swap_report.json").read_text())["schema"] == 1


def test_mistake_is_one_message_and_code_2(capsys, tmp_path, host_folder):
    assert main(["--mllm", str(host_folder), "--encoder", str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: encoder:")
    assert "Traceback" not in told


def test_bare_command_without_an_export_names_the_command_that_makes_one(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 2
    assert "deepspeed cloc/pretrain.py" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_folder_below_a_file_is_one_message_and_code_2(capsys, tmp_path):
    (tmp_path / "file").write_text("x")
    assert main(["--mllm", "no/host", "--out", str(tmp_path / "file" / "deep" / "out")]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ")
    assert f"deep/out cannot be made: {tmp_path / 'file'} is a file; pass another --out" in told


def test_a_host_that_does_not_fit_is_said_before_the_encoder_is_loaded(capsys, tmp_path):
    (tmp_path / "host").mkdir()
    assert main(["--mllm", str(tmp_path / "host"), "--encoder", "no/encoder", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("error: host: ")
