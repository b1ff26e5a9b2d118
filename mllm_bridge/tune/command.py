"""Train a host after a swap: `python -m mllm_bridge.tune --config FILE [KEY=VALUE ...]`.

    python -m mllm_bridge.tune                                        the newest swap on rendered conversations
    python -m mllm_bridge.tune --config configs/bridge/llava15.yaml host=my-llava data.0.path=FILE data.0.images=DIR
    torchrun --nproc_per_node 8 -m mllm_bridge.tune --config FILE train.deepspeed=configs/deepspeed/zero2.json

In: a host's folder and conversations in LLaVA's JSON. Out: `runs/NAME/host`, a folder that loads by itself.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloc.train.stepper import Stepper
    from mllm_bridge.tune.settings import TuneConfig

USUAL = "configs/bridge/tiny.yaml"

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line: a config, overrides, and what to resume."""
    parser = argparse.ArgumentParser(
        prog="python -m mllm_bridge.tune",
        description="Train an MLLM after its tower was swapped: first the projector on captions, then projector and "
        "adapters (LoRA) on conversations. The result is one folder that stock transformers loads.",
        epilog="Every field of the config can be overridden, as in: python -m mllm_bridge.tune --config "
        "configs/bridge/tiny.yaml host=runs/swap-1 parts.language=lora optim.lr=2e-4 result.form=adapters",
    )
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="config fields to change")
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file (default: {USUAL}; with --resume FOLDER that run's own)"
    )
    parser.add_argument(
        "--resume",
        metavar="auto|FOLDER",
        help="continue a run: auto takes the newest unfinished one of equal config, FOLDER that one with its own "
        "config; a longer train.steps=N may be asked of it",
    )
    parser.add_argument("--runs", default="runs", type=Path, help="folder of runs (default: %(default)s)")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    return parser.parse_intermixed_args(arguments)


def run(options: argparse.Namespace) -> int:
    """Train and hand over; 0 when finished, 130 or 143 when Ctrl-C or SIGTERM asked to stop before the end."""
    with ExitStack() as held:  # the lock of the run's folder
        return train(options, held)


def train(options: argparse.Namespace, held: ExitStack) -> int:
    """See `run`."""
    import torch

    from cloc import comm
    from cloc.box_text import FILE, BoxTextFormat
    from cloc.command import printable
    from cloc.device import find_device, make_deterministic
    from cloc.train import runs
    from cloc.train.metric_logger import check_trackers
    from mllm_bridge.hosts import find_family
    from mllm_bridge.tune.session import Session
    from mllm_bridge.tune.settings import load_settings
    from mllm_bridge.tune.sources import find_host, open_conversations, open_run
    from mllm_bridge.tune.steppers import make_stepper, read_deepspeed_settings
    from mllm_bridge.tune.trainee import build
    from mllm_bridge.weights.folders import read_json

    # 1. what to do
    config = load_settings(runs.config_of_call(options.config, options.resume, USUAL), options.overrides)
    check_trackers(config.run.trackers)
    settings = read_deepspeed_settings(config)
    device = find_device(config.run.device, "run.device")
    comm.join(device, settings is not None)
    make_deterministic(device)

    # 2. build
    host = find_host(config.host, options.runs)
    if Path(options.runs).resolve().is_relative_to(host.resolve()):
        raise ValueError(f"--runs {options.runs} lies in the host {host}, which is read; pass another --runs")
    box_format = BoxTextFormat.load(host) if (host / FILE).is_file() else BoxTextFormat(**config.places.model_dump())
    family = find_family(read_json(host / "config.json"), str(host))
    conversations, skipped = open_conversations(config.data, box_format, family.needs_image)
    check_batch(config, len(conversations), comm.world_size())
    frozen = torch.bfloat16 if config.run.precision == "bf16" else torch.float32
    built = build(config, host, frozen, config.train.cache_tower)
    if config.train.gradient_checkpointing:
        built.trainee.host.gradient_checkpointing_enable({"use_reentrant": False})
    stepper = make_stepper(config, built.trainee.to(device).train(), built.where, settings)
    folder, checkpoint = open_run(options.runs, config, options.resume, held)
    first = 0 if checkpoint is None else load(stepper, checkpoint)

    # 3. train and hand over
    session = Session(config, host, box_format, tuple(conversations), skipped, built, folder, first)
    if comm.is_main():
        print(printable("\n".join(session.lines(device))), flush=True)
    stopped, left_out = session.train(stepper)
    weights = stepper.weights()
    if comm.is_main() and not stopped:
        print(printable("\n".join(session.write_result(weights, left_out))))
    elif comm.is_main():
        again = shlex.join(["python", "-m", "mllm_bridge.tune", "--resume", str(folder), "--runs", str(options.runs)])
        print(printable(f"stopped on request; go on with: {again}"))
    comm.leave()
    return 128 + stopped if stopped else 0


def check_batch(config: TuneConfig, conversations: int, world: int) -> None:
    """Refuse a batch that the ranks cannot share.

    Raises:
        ValueError: it does not divide among the ranks.
    """
    size = config.train.batch_size
    if size % world:
        raise ValueError(f"train.batch_size={size} does not divide among {world} ranks; use a multiple of {world}")
    if size > conversations:
        raise ValueError(f"train.batch_size={size}, the files hold {conversations} conversations; lower it or add data")


def load(stepper: Stepper, checkpoint: Path) -> int:
    """Go on from a checkpoint; returns its step."""
    import torch

    from cloc.train.checkpoint import read_state

    state: dict[str, Any] = read_state(checkpoint)
    torch.set_num_threads(
        state.get("threads", torch.get_num_threads())
    )  # sums in another order would not be bit for bit the same
    stepper.load(checkpoint)
    return state["step"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    from transformers.utils.logging import disable_progress_bar

    from cloc import command

    options = parse_arguments(arguments)
    disable_progress_bar()
    return command.run(
        lambda: run(options), "a run that has a checkpoint goes on with the same command and --resume auto"
    )


if __name__ == "__main__":
    sys.exit(main())
