from cloc.box_text import BoxTextFormat
from mllm_bridge.box_text import main


def test_a_convention_is_declared_in_a_hosts_folder(tmp_path, capsys):
    assert main([str(tmp_path), "--scale", "thousand"]) == 2
    assert "expected a host's folder with a config.json" in capsys.readouterr().err
    (tmp_path / "config.json").write_text("{}")
    assert main([str(tmp_path), "--scale", "thousand", "--padded"]) == 0
    assert BoxTextFormat.load(tmp_path) == BoxTextFormat("thousand", padded=True)
