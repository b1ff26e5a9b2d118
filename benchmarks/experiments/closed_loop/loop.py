"""What a closed loop is: a world, a detector, how it labels, and how CLOC trains on the labels. One strict YAML."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import Field

from benchmarks.experiments.plan import Budget, Plan, Value, World
from cloc.config import Strict, find_config, read_config

FOLDER = "configs/closed_loop"
LOOP = f"{FOLDER}/self_training.yaml"
TRUE, PSEUDO, CLIP = "true_labels", "pseudo_labels", "clip"
SPLITS = ("boxed", "caption-only")
READINGS = ("clip-roialign", "clip-value", "clip-crop")
"""Predictors that read CLIP alone; the best counts."""
_STOPPING = "Each arm trains for its whole budget; none is stopped early, repeated or left out."
_RULE = (
    "The difference is paired by seed; a claim needs its whole 95 % interval, so with one seed there are no verdicts."
)


class Detector(Strict):
    """How the labeller is trained."""

    config: str
    set: dict[str, Value] = Field({}, description="config fields by dotted name")
    steps: int = Field(ge=1)


class Loop(Strict):
    """A whole closed loop. `{world}` in a value stands for the folder of the rendered world."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    world: World
    detector: Detector
    labels: dict[str, int | float | str] = Field({}, description="flags of python -m cloc.label by name")
    config: str = Field(description="of the three arms")
    set: dict[str, Value] = Field({}, description="config fields of all three arms")
    budget: Budget
    seeds: tuple[int, ...] = Field(min_length=1, description="of the arms; the detector has the first one")

    def detector_plan(self) -> Plan:
        """The detector as a plan of one arm, scored on held-out scenes."""
        found = {"task": "coco", "dataset": "scenes-coco", "protocol": "coco-ap100/name", "metric": "AP"}
        return self._plan(
            name=f"{self.name}-detector",
            question="How good is the detector that labels?",
            config=self.detector.config,
            set=self.detector.set,
            budget={"steps": self.detector.steps},
            seeds=self.seeds[:1],
            metrics={split: {**found, "split": f"val/{split}"} for split in SPLITS},
            reference="detector",
            arms={"detector": {"what": "trained on boxes and on pairs"}},
        )

    def cloc_plan(self, labelled: Path) -> Plan:
        """CLOC on the true labels and on the detector's.

        Args:
            labelled: folder of the labelled shards.
        """
        arms = {
            TRUE: {"what": "CLOC on the true boxes and names"},
            PSEUDO: {"what": "CLOC on the detector's labels", "set": {"data.0.path": str(labelled)}},
        }
        return self._arms_plan("cloc", arms, ("prompter",))

    def clip_plan(self) -> Plan:
        """CLIP alone on the same images and captions."""
        return self._arms_plan("clip", {CLIP: {"what": "CLIP alone", "set": {"objective": "clip"}}}, READINGS)

    def _arms_plan(self, name: str, arms: dict[str, Any], predictors: Sequence[str]) -> Plan:
        scored = {
            "task": "region_recognition",
            "dataset": "scenes-coco",
            "metric": "class_mean",
            "protocol": "gt-box/no-template/class-mean",
        }
        return self._plan(
            name=f"{self.name}-{name}",
            question="What are the labels of one's own detector worth?",
            config=self.config,
            set={"data.0.path": "{world}/train", **self.set},
            budget=self.budget.model_dump(),
            seeds=self.seeds,
            metrics={
                f"{split}-{predictor}": {**scored, "split": f"val/{split}", "predictor": predictor}
                for split in SPLITS
                for predictor in predictors
            },
            reference=next(iter(arms)),
            arms=arms,
        )

    def _plan(self, **fields: Any) -> Plan:
        whole = {"world": self.world.model_dump(), "stopping": _STOPPING, "rule": _RULE, **fields}
        return Plan.model_validate(whole)


def read_loop(path: str) -> Loop:
    """Read and check a loop.

    Raises:
        ValueError: no such file (the kit's own is named), no YAML, or a key or value that does not fit.
    """
    return read_config(Loop, find_config(path, FOLDER))
