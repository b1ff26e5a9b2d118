"""Hosts that take nothing as they are: refused in one line that names the way on, before anything is written."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from mllm_bridge.swap import command as swap
from mllm_bridge.weights.packed import refuse_quantised

QUANTISED = {
    "bitsandbytes": {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}},
    "awq": {"quantization_config": {"quant_method": "awq", "bits": 4}},
    "gptq": {"quantization_config": {"quant_method": "gptq", "bits": 4}},
    "fp8": {"quantization_config": {"quant_method": "fp8"}},
    "compressed-tensors": {"compression_config": {"quant_method": "compressed-tensors"}},
    "hqq": {"text_config": {"quantization_config": {"quant_method": "hqq"}}},
    "torchao": {"text_config": {"inner": {"quantization_config": {"quant_type": "int4"}}}},
    "mlx": {"quantization": {"group_size": 64, "bits": 4}},
    "list": {"quantization_config": [1]},
}
LAYOUTS = {
    "llava_llama": "llava-hf/llava-1.5-7b-hf",
    "llava_qwen": "llava-hf/llava-onevision",
    "internvl_chat": "InternVL3-8B-hf",
    "llavaonevision1_5": "no converted form",
    "qwen3_vl": "takes no other tower",
    "mllama": "needs a description",
    "unheard_of": "often end in -hf",
    None: "often end in -hf",
    3: "often end in -hf",
}


@pytest.fixture
def refused(host_folder, clip_folder, tmp_path, capsys, edit_json):
    """Swaps into a copy of a tiny host with other fields in its config; gives the one line that comes."""

    def ask(said, change=None, **fields):
        host = shutil.copytree(host_folder, tmp_path / "host")
        edit_json(host / "config.json", **fields)
        if change is not None:
            change(host)
        capsys.readouterr()
        code = swap.main(["--mllm", str(host), "--encoder", str(clip_folder), "--out", str(tmp_path / "out")])
        (line,) = capsys.readouterr().err.splitlines()
        assert code == 2
        assert line.startswith("error: ")
        assert said in line
        assert [path.name for path in tmp_path.iterdir()] == ["host"]

    return ask


@pytest.mark.parametrize("name", QUANTISED)
def test_quantised(name, refused):
    refused("pass the unquantised folder", **QUANTISED[name])


@pytest.mark.parametrize(
    "config",
    [
        {"parts": [{"quantization_config": {"bits": 4}}]},
        {"load_in_8bit": True},
        {"text_config": {"_load_in_4bit": True}},
        {"quant_config": {"w_bit": 4}},
        {"quantize_config": {"bits": 4}},
        {"torch_dtype": "float8_e4m3fn"},
        {"text_config": {"dtype": "torch.int8"}},
    ],
    ids=str,
)
def test_other_spellings_of_quantised(config):
    with pytest.raises(ValueError, match="pass the unquantised folder"):
        refuse_quantised(config, "host")


def test_what_only_looks_quantised_passes():
    refuse_quantised({"quantization_config": {}, "load_in_8bit": False, "dtype": "bfloat16", "parts": [1, "x"]}, "host")


def test_adapters_without_their_config(refused):
    refused("adapter_model.safetensors", lambda host: (host / "adapter_model.safetensors").write_text("x"))


def test_quantised_by_a_file_beside(refused):
    refused("quantize_config.json", lambda host: (host / "quantize_config.json").write_text("{}"))


def test_quantised_by_its_keys(refused):
    def pack(host):
        tensors = load_file(host / "model.safetensors")
        tensors["language_model.model.layers.0.self_attn.q_proj.qweight"] = torch.zeros(2, dtype=torch.int32)
        save_file(tensors, host / "model.safetensors", metadata={"format": "pt"})

    refused("q_proj.qweight", pack)


def test_not_quantised(host_folder, clip_folder, tmp_path, edit_json):
    host = shutil.copytree(host_folder, tmp_path / "host")
    edit_json(host / "config.json", quantization_config=None)
    assert swap.main(["--mllm", str(host), "--encoder", str(clip_folder), "--out", str(tmp_path / "out")]) == 0


def test_adapters(refused):
    refused("merge_and_unload", lambda host: (host / "adapter_config.json").write_text("{}"))


def test_adapters_alone(refused):
    refused("merge_and_unload", lambda host: (host / "config.json").rename(host / "adapter_config.json"))


@pytest.mark.parametrize("model_type", LAYOUTS)
def test_another_layout(model_type, refused):
    refused(LAYOUTS[model_type], model_type=model_type)


def test_an_encoder_that_is_quantised(host_folder, clip_folder, tmp_path, capsys, edit_json):
    tower = shutil.copytree(clip_folder, tmp_path / "tower")
    edit_json(tower / "config.json", quantization_config={"quant_method": "awq"})
    capsys.readouterr()
    assert swap.main(["--mllm", str(host_folder), "--encoder", str(tower), "--out", str(tmp_path / "out")]) == 2
    assert "pass the unquantised folder" in capsys.readouterr().err
    assert json.loads((tower / "config.json").read_text())["quantization_config"]
