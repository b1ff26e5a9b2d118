"""Weights are safetensors: transformers would otherwise unpickle a `pytorch_model.bin` that lies in a user's folder."""

import ast
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = sorted(
    path for package in ("cloc", "mllm_bridge", "benchmarks") for path in (REPOSITORY / package).rglob("*.py")
)
WITHOUT_WEIGHTS = ("Config", "Processor", "Tokenizer")
OURS = "RegionHost"
"""Loads by a call of transformers, which is looked at itself."""


def loads(path):
    """(line, keywords) of every call that reads weights."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "from_pretrained":
            owner = ast.unparse(node.func.value)
            if not owner.endswith(WITHOUT_WEIGHTS) and owner != OURS:
                yield node.lineno, {word.arg: ast.unparse(word.value) for word in node.keywords}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_only_safetensors_are_read(path):
    for line, keywords in loads(path):
        assert keywords.get("use_safetensors") == "True", f"{path}:{line}: from_pretrained without use_safetensors=True"


def test_some_are_looked_at():
    assert sum(len(list(loads(path))) for path in SOURCES) > 10
