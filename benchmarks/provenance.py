"""Where a figure comes from: commit, versions, machine; nothing here loads torch before a model is measured."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cloc.data_root import REPOSITORY

TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "tokenizer.model")
SCORING_PACKAGES = ("mllm-vision-kit", "numpy", "scipy", "pycocotools")
"""What computes the figures of a scored file."""
MODEL_PACKAGES = ("mllm-vision-kit", "torch", "torchvision", "transformers", "numpy", "pillow")
"""What computes those of a model."""


@dataclass(frozen=True)
class Provenance:
    """The part of a row that is the same for the whole run.

    Attributes:
        commit: of the kit's repository, with `-dirty` where files differ from it; `unknown` outside a repository.
        versions: by package.
        machine: processor, cores and threads in use.
        seed: of the bootstrap.
    """

    commit: str
    versions: dict[str, str]
    machine: str
    seed: int


def find_provenance(device: str, seed: int) -> Provenance:
    """Look around once at the start of a run."""
    from cloc.export import find_commit

    return Provenance(find_commit(), list_versions(MODEL_PACKAGES), _describe_machine(device), seed)


@lru_cache
def hash_tokenizer(folder: Path | None) -> str | None:
    """SHA-256 of a model's tokenizer: of what decides about tokens, by file name; None where the folder has none."""
    files = [folder / name for name in TOKENIZERS if (folder / name).is_file()] if folder is not None else []
    if not files:
        return None
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def hash_file(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_checkout() -> str:
    """The kit's commit, with `-dirty` where files differ from it; `unknown` without git."""
    command = ["git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()


def list_versions(packages: Sequence[str] = SCORING_PACKAGES) -> dict[str, str]:
    """Of Python, the kit, and what computes the figures."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def describe_processor() -> str:
    """The processor; figures do not depend on it."""
    return f"{platform.processor() or platform.machine()}, CPU"


def _describe_machine(device: str) -> str:
    import torch

    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    return f"{cpu}, {torch.get_num_threads()} threads, {where}"
