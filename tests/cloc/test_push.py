"""`push_to_hub` of model and processor, with a stand-in for the hub: what is uploaded is the export again."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModel, AutoProcessor
from transformers.utils import hub

NEEDED = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}


class Hub:
    """Takes what would be uploaded into a folder."""

    def __init__(self, folder):
        self.folder = folder
        folder.mkdir()

    def create_repo(self, repo_id, **_):
        return SimpleNamespace(repo_id=repo_id)

    def create_commit(self, repo_id, operations, **_):
        for operation in operations:
            shutil.copy(operation.path_or_fileobj, self.folder / operation.path_in_repo)
        return SimpleNamespace(repo_id=repo_id)


@pytest.fixture
def uploads(tmp_path, monkeypatch):
    """The folder in place of the hub."""
    stand_in = Hub(tmp_path / "hub")
    monkeypatch.setattr(hub, "hf_api", lambda: stand_in)
    monkeypatch.setattr(hub, "create_and_tag_model_card", lambda *_, **__: ModelCard("---\ntags: []\n---\n"))
    return stand_in.folder


@torch.no_grad()
def test_what_is_pushed_loads_as_the_export_does(spine_export, uploads):
    export = spine_export()
    model, processor = AutoModel.from_pretrained(export).eval(), AutoProcessor.from_pretrained(export)
    model.push_to_hub("someone/tower")
    processor.push_to_hub("someone/tower")
    files = {path.name for path in uploads.iterdir()}
    assert NEEDED <= files
    assert {"preprocessor_config.json", "processor_config.json"} & files  # which of both is the library's choice
    assert not [name for name in files if name.endswith((".bin", ".pt", ".pkl"))]
    again, theirs = AutoModel.from_pretrained(uploads).eval(), AutoProcessor.from_pretrained(uploads)
    pixels, boxes = torch.randn(1, 3, 32, 32), torch.tensor([[[0.1, 0.2, 0.6, 0.7]]])
    assert torch.equal(again.get_region_features(pixels, boxes), model.get_region_features(pixels, boxes))
    asked = theirs(text=["a red ring"])["input_ids"]
    assert torch.equal(asked, processor(text=["a red ring"])["input_ids"])
