"""What the measures after stage 1 say: is the projector trained, and is stage 2 needed? The rule is fixed here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from mllm_bridge.assess.measures import Captions, Grounding
from mllm_bridge.conversations.reading import describe_skips

LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class Assessment:
    """The three measures as figures, and what follows.

    Attributes:
        figures: by name, plain values.
        lines: for the screen.
        verdict: `train_stage_1_longer`, `stage_2_needed`, `stage_2_not_needed`, or `undecided` (no grounding set).
    """

    figures: dict[str, Any]
    lines: tuple[str, ...]
    verdict: str


SAID = {
    "train_stage_1_longer": "stage 1 is not finished: captions are not likelier with their own image than with another",
    "stage_2_needed": "stage 2 is needed: the image is read, and questions for a place are not answered",
    "stage_2_not_needed": "stage 2 is not needed for places: they are answered better than by the mean box",
    "undecided": "the image is read; whether places are answered was not asked (--grounding FILE)",
}


def assess(found: Captions, answered: Grounding | None) -> Assessment:
    """Apply the rule.

    Stage 1 has worked if the gain (loss with another image minus loss with the own one) has a 95 % interval (Student's
    t) above 0. Stage 2 is not needed if the lower end of the accuracy's 95 % interval (Wilson) is above the mean box.
    """
    gain = found.other - found.own
    half = float(stats.t.ppf((1 + LEVEL) / 2, len(gain) - 1)) * float(gain.std(ddof=1)) / len(gain) ** 0.5
    low, high = float(gain.mean()) - half, float(gain.mean()) + half
    near = _share(found.found)
    figures: dict[str, Any] = {
        "captions": len(gain),
        "captions_skipped": dict(found.skipped),
        "caption_loss": float(found.own.mean()),
        "caption_loss_other_image": float(found.other.mean()),
        "gain": float(gain.mean()),
        "gain_ci95": [low, high],
        "retrieval_recall_at_1": near[0],
        "retrieval_ci95": list(near[1:]),
        "retrieval_chance": found.chance,
    }
    lines = [
        f"caption loss      {found.own.mean():.3f} nats a token with its image, {found.other.mean():.3f} with another: "
        f"gain {gain.mean():+.3f} (95 % {low:+.3f} to {high:+.3f}), {len(gain)} captions; "
        f"left out: {describe_skips(found.skipped)}",
        f"projected tokens  nearest caption is its own: {near[0]:.3f} (95 % {near[1]:.3f} to {near[2]:.3f}), chance "
        f"{found.chance:.3f}",
    ]
    verdict = "undecided" if low > 0 else "train_stage_1_longer"
    if answered is not None:
        score = _share(answered.right)
        figures |= {
            "grounding": len(answered.right),
            "grounding_skipped": dict(answered.skipped),
            "grounding_acc_at_50": score[0],
            "grounding_ci95": list(score[1:]),
            "grounding_mean_box": answered.constant,
            "grounding_unread": dict(answered.unread),
        }
        lines.append(
            f"grounding         acc@0.5 {score[0]:.3f} (95 % {score[1]:.3f} to {score[2]:.3f}), mean box "
            f"{answered.constant:.3f}, {len(answered.right)} questions; without a box: "
            f"{describe_skips(answered.unread)}; left out: {describe_skips(answered.skipped)}"
        )
        if low > 0:
            verdict = "stage_2_not_needed" if score[1] > answered.constant else "stage_2_needed"
    return Assessment(figures | {"verdict": verdict}, (*lines, f"verdict           {SAID[verdict]}"), verdict)


def _share(right: np.ndarray) -> tuple[float, float, float]:
    """Share and its interval (Wilson)."""
    ends = stats.binomtest(int(right.sum()), len(right)).proportion_ci(LEVEL, method="wilson")
    return float(right.mean()), float(ends.low), float(ends.high)
