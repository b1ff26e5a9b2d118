"""What a swap says about itself: on the screen, as `swap_report.json`, and as the model card of the new host."""

from __future__ import annotations

import platform
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers

from cloc.files import write_json
from cloc.version import __version__
from mllm_bridge.swap.checks import Check

TRAINING = (
    "The projector is new and random: until it is trained, the host's answers about images mean nothing. "
    "Train the projector on image-caption pairs first, then projector and language model on conversations."
)
KEPT = (
    "The projector was kept. It was trained for the features of the former tower: unless the new tower is a copy of "
    "that one, train the projector again before the host's answers about images mean anything."
)
FORMS = {
    "stock": "as it is",
    "wrapper": "in the kit's wrapper class: `import mllm_bridge` before the result is loaded",
    "converted": "under the host's own tower class, tensor by tensor by name",
}
"""How a tower lies in its host."""


@dataclass(frozen=True, slots=True)
class Change:
    """One field of the config or the processor.

    Attributes:
        where: `config` or `processor` or `image processor`.
        name: the field.
        before, after: its values.
    """

    where: str
    name: str
    before: Any
    after: Any


@dataclass(frozen=True)
class SwapReport:
    """What was swapped, what changed, and what proves it.

    Attributes:
        out: the new host.
        mllm, family: the host that it was made from, and its family.
        encoder: what was asked for, and `encoder_folder` where it lay.
        export: the card of the export (objective, commit, hash of the model), None for an encoder from elsewhere.
        tower_before, tower_after: type, size and combined sha256 of the weights.
        projector: whether it was kept, and its input width before and after.
        changes: fields of config and processor that differ.
        checks: everything that was verified.
        left_behind: keys of the encoder's file that are no part of a tower.
        files: what became of each of the host's files of weights: linked, copied, rewritten or dropped.
    """

    out: Path
    mllm: str
    family: str
    encoder: str
    encoder_folder: str
    export: dict[str, Any] | None
    tower_before: dict[str, Any]
    tower_after: dict[str, Any]
    projector: dict[str, Any]
    changes: tuple[Change, ...]
    checks: tuple[Check, ...] = ()
    left_behind: tuple[str, ...] = ()
    files: dict[str, str] = field(default_factory=dict)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def training(self) -> str:
        """What still has to be trained."""
        return KEPT if self.projector["kept"] else TRAINING

    @property
    def wrapped(self) -> bool:
        """Whether the result needs a class of this kit to be loaded."""
        return self.tower_after["form"] == "wrapper"

    def to_json(self) -> dict[str, Any]:
        """The report as plain values, schema 1."""
        return {
            "schema": 1,
            "time": self.time,
            "version": __version__,
            "mllm": self.mllm,
            "family": self.family,
            "encoder": self.encoder,
            "encoder_folder": self.encoder_folder,
            "export": self.export,
            "tower_before": self.tower_before,
            "tower_after": self.tower_after,
            "projector": self.projector,
            "changes": [asdict(change) for change in self.changes],
            "left_behind": list(self.left_behind),
            "files": self.files,
            "checks": [check.to_json() for check in self.checks],
            "needs_training": self.training,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "transformers": transformers.__version__,
            },
        }

    def lines(self) -> list[str]:
        """The report for the screen."""
        width = max((len(f"{change.where} {change.name}") for change in self.changes), default=0)
        changed = [
            f"  {f'{change.where} {change.name}':<{width}}  {_shown(change.before)} -> {_shown(change.after)}"
            for change in self.changes
        ]
        before, after = self.tower_before, self.tower_after
        return [
            "what changed:",
            *(changed or ["  no field of config or processor"]),
            f"  tower      {before['tensors']} tensors, sha256 {before['sha256'][:12]} -> "
            f"{after['tensors']} tensors, sha256 {after['sha256'][:12]}",
            f"             it lies in the host {FORMS[after['form']]}",
            f"  projector  {'kept' if self.projector['kept'] else 'made anew'}, input width "
            f"{self.projector['width_before']} -> {self.projector['width_after']}",
            f"verified: {len(self.checks)} checks, all passed",
            self.training,
        ]

    def save(self, folder: Path) -> None:
        """Write `swap_report.json` and the model card into the folder of the new host."""
        write_json(folder / "swap_report.json", self.to_json())
        (folder / "README.md").write_text(self.card(), encoding="utf-8")

    def card(self) -> str:
        """The model card."""
        export = self.export or {}
        source = f"export with objective `{export['objective']}`" if export.get("objective") else "encoder"
        rows = [
            f"| {change.where} | `{change.name}` | {_cell(change.before)} | {_cell(change.after)} |"
            for change in self.changes
        ]
        proofs = [f"| {check.name} | {_cell(check.detail)} |" for check in self.checks]
        return "\n".join(
            [
                "---",
                "library_name: transformers",
                "pipeline_tag: image-text-to-text",
                "---",
                f"# {Path(self.mllm).name} with another vision tower",
                "",
                f"A host of the family `{self.family}`, made from `{Path(self.mllm).name}` by exchanging its vision "
                f"tower for the {source} `{self.encoder}` (mllm-vision-kit {__version__}).",
                "",
                f"**{self.training}**",
                "",
                "```python",
                *(["import mllm_bridge  # the tower's class is of this kit"] if self.wrapped else []),
                "from transformers import AutoModelForImageTextToText, AutoProcessor",
                "",
                'model = AutoModelForImageTextToText.from_pretrained("PATH_OF_THIS_FOLDER")',
                'processor = AutoProcessor.from_pretrained("PATH_OF_THIS_FOLDER")',
                "```",
                "",
                "## What changed",
                "",
                "| where | field | before | after |",
                "|---|---|---|---|",
                *rows,
                "",
                f"Tower: {self.tower_after['tensors']} tensors, sha256 `{self.tower_after['sha256']}`, "
                f"before `{self.tower_before['sha256']}`. "
                f"Projector: {'kept' if self.projector['kept'] else 'made anew'}, input width "
                f"{self.projector['width_before']} before, {self.projector['width_after']} now. "
                "All other weights are those of the host, bit for bit. "
                f"The tower lies in the host {FORMS[self.tower_after['form']]}.",
                "",
                "## What was verified",
                "",
                "| check | found |",
                "|---|---|",
                *proofs,
                "",
            ]
        )


def _shown(value: Any) -> str:
    return "(not there)" if value is None else f"{value}"


def _cell(value: Any) -> str:
    return _shown(value).replace("|", "\\|").replace("\n", " ")
