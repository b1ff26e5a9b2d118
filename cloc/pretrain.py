"""The command that trains: parse, check, build, train, export.

    deepspeed cloc/pretrain.py                                  the rendered-scenes quickstart
    deepspeed --num_gpus 2 cloc/pretrain.py --config FILE       several processes
    python cloc/pretrain.py --config FILE loss.regions_per_image=2
    torchrun --nproc_per_node 2 cloc/pretrain.py --config FILE

No class is defined here, since nobody can import `__main__`.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cloc.command import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    import torch
    from transformers import PreTrainedTokenizerBase

    from cloc.config import Config
    from cloc.data.loader import Source
    from cloc.models.modeling import ClocModel
    from cloc.structures import Batch
    from cloc.train.metric_logger import MetricLogger
    from cloc.train.stepper import Stepper

USUAL = "configs/quickstart.yaml"

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line: a config, overrides, and what to resume."""
    parser = argparse.ArgumentParser(
        prog="cloc/pretrain.py",
        description="Pre-train a vision encoder and export it: with region supervision (objective cloc), the CLIP "
        "baseline (clip), an open-vocabulary detector (detclip: DetCLIPv2), or both on one encoder (joint).",
        epilog="Start it with `deepspeed`, `torchrun` or plain `python`. Every field of the config can be overridden: "
        "python cloc/pretrain.py --config configs/quickstart.yaml objective=clip run.name=clip train.samples=8000",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="KEY=VALUE", help="config fields to change, such as optim.lr=1e-3"
    )
    parser.add_argument(
        "--config", metavar="FILE", help=f"YAML file (default: {USUAL}, rendered scenes; with --resume FOLDER its own)"
    )
    parser.add_argument(
        "--resume",
        metavar="auto|FOLDER",
        help="continue a run: auto takes the newest unfinished one of equal config, FOLDER that one with its own "
        "config; a longer train.steps=N may be asked of it, finished or not",
    )
    parser.add_argument(
        "--export",
        type=Path,
        metavar="OUT",
        help="write the newest checkpoint of --resume as an export to OUT, marked unfinished, and end; it is never "
        "taken for the newest export",
    )
    parser.add_argument("--runs", default="runs", type=Path, help="folder of runs (default: %(default)s)")
    plan = parser.add_argument_group("planning", "what a recipe costs, before it is paid for; nothing is trained")
    plan.add_argument("--plan", action="store_true", help="print parameters, work, memory and time, and end")
    plan.add_argument("--devices", type=int, default=1, metavar="N", help="devices to plan for (default: %(default)s)")
    plan.add_argument("--zero", type=int, default=0, choices=range(4), help="ZeRO stage to plan for (default: 0)")
    plan.add_argument(
        "--device-memory",
        type=float,
        metavar="GIB",
        help="of one device (default: this machine's, or its accelerator's)",
    )
    plan.add_argument("--no-measure", action="store_true", help="plan without timing a few steps on this machine")
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)  # the deepspeed launcher adds it
    return parser.parse_intermixed_args(arguments)  # overrides may stand before and after options


def run(options: argparse.Namespace) -> int:
    """Train and export; 0 when finished, 130 or 143 when Ctrl-C or SIGTERM asked to stop before the end."""
    with ExitStack() as held:  # the lock of the run's folder
        return train(options, held)


def train(options: argparse.Namespace, held: ExitStack) -> int:
    """See `run`."""
    import torch

    from cloc import comm, command, factory
    from cloc.data.dataloader import make_loader
    from cloc.train import engine, preflight, runs
    from cloc.train.grad_cache import joined
    from cloc.train.metric_logger import MetricLogger, check_trackers
    from cloc.train.optim import learning_rate
    from cloc.train.stepper import read_deepspeed

    # 1. what to do
    config = config_of(options)
    check_trackers(config.run.trackers)
    deepspeed = factory.deepspeed_file(config, options.local_rank is not None)
    settings = None if deepspeed is None else read_deepspeed(deepspeed)
    device = init_distributed(config, deepspeed is not None)
    resumed = None if options.resume is None else runs.open_run(options.runs, config, options.resume, held=held)

    # 2. build
    sources, tokenizer = factory.make_sources(config), factory.make_tokenizer(config)
    preflight.check_regions(config, sources)
    preflight.check_heads(config)
    preflight.check_weights_fit(config)
    factory.check_concepts(config, sources)
    model, notes = factory.make_model(config, tokenizer)
    preflight.check_disk(config, model, resumed[0] if resumed else options.runs)
    warnings = fits_lines(config, settings) if preflight.wants_plan(config, model) else []
    model.to(device)  # type: ignore[arg-type]  # transformers wraps it without its type
    teacher = factory.teacher.make_teacher(config, model)
    stepper = factory.make_stepper(config, model, settings)
    folder, checkpoint = resumed or runs.open_run(options.runs, config, None, held=held)  # nothing was refused
    first_step = 0 if checkpoint is None else load(stepper, checkpoint)
    loader = make_loader(factory.make_batches(config, sources, tokenizer, first_step), factory.num_workers(config))
    batches = joined(loader, config.train.accumulation) if config.train.cached else loader

    # 3. say what will happen
    if comm.is_main():
        known = (
            config,
            model,
            sources,
            notes,
            folder,
            first_step,
            device,
            deepspeed,
            factory.num_samples(config, sources),
        )
        print(printable("\n".join(preflight.lines(*known) + warnings)), flush=True)

    # 4. train
    optim, train, state = config.optim, config.train, {"world": comm.world_size(), "threads": torch.get_num_threads()}
    rate = partial(learning_rate, steps=config.steps, peak=optim.lr, warmup=optim.warmup_steps)
    plan = engine.Plan(
        folder, config.steps, first_step, 1 if train.cached else train.accumulation, config.run.seed, rate,
        train.checkpoint_every, train.keep_checkpoints, state,
    )  # fmt: skip
    metrics = MetricLogger(folder, config.steps, first_step, train.log_every, not comm.is_main(), config.run.trackers)
    try:
        with closing(metrics):
            stopped = engine.train(
                stepper, cast("Iterable[Batch]", batches), factory.make_losses(config, stepper, teacher), metrics, plan
            )

        # 5. hand over
        weights = stepper.weights()
        if comm.is_main() and not stopped:
            write_final_export(config, model, weights, tokenizer, folder, sources, metrics)
    except OSError as error:
        raise ValueError(
            f"{command.describe_error(error)}; when that is put right, go on with: {again(folder)}"
        ) from error
    if comm.is_main() and stopped:
        print(f"stopped on request; go on with: {again(folder)}")
        print(f"to export it as it stands: {again(folder, '--export', f'{folder}-unfinished')}")
    comm.leave()
    return 128 + stopped if stopped else 0


def config_of(options: argparse.Namespace) -> Config:
    """The config that the command line means."""
    from cloc.config import load_config
    from cloc.train import runs

    return load_config(runs.config_of_call(options.config, options.resume, USUAL), options.overrides)


def again(folder: Path, *more: str) -> str:
    """The command line that goes on with a run, to be pasted."""
    script = sys.argv[0] if Path(sys.argv[0]).name == "pretrain.py" else "cloc/pretrain.py"
    return shlex.join(["python", script, "--resume", str(folder), *more])


def init_distributed(config: Config, deepspeed: bool) -> str:
    """The device of this process, which has joined the other ranks; from here on equal runs give equal bits."""
    from cloc import comm
    from cloc.device import find_device, make_deterministic

    device = find_device(config.run.device, "run.device")
    comm.join(device, deepspeed)
    make_deterministic(device)
    return device


def fits_lines(config: Config, deepspeed: dict[str, Any] | None) -> list[str]:
    """Refuse what cannot fit in memory, before it is taken; lines where it hardly does."""
    from cloc import comm
    from cloc.plan.memory import check_fits

    stage = (deepspeed or {}).get("zero_optimization", {}).get("stage", 0)
    here = os.environ.get("LOCAL_WORLD_SIZE") or os.environ.get("LOCAL_SIZE") or "1"  # torchrun's name, deepspeed's
    return check_fits(config, comm.world_size(), stage, int(here))


def write_final_export(
    config: Config,
    model: ClocModel,
    weights: dict[str, torch.Tensor],
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    sources: list[Source],
    metrics: MetricLogger,
) -> None:
    """Write the export, and say where it is and what was left out on the way."""
    from cloc import factory
    from cloc.export import write_export
    from cloc.train import preflight

    facts = preflight.facts(config, factory.num_samples(config, sources))
    data = preflight.data_facts(config, sources)
    size, known = factory.export_detection_size(config), factory.export_dictionary(config, sources)
    print(f"export: {write_export(model, weights, tokenizer, folder, facts, data, size, dictionary=known)}")
    for line in preflight.skip_lines(metrics.skipped, facts["samples"], sources):
        print(line)


def export_unfinished(options: argparse.Namespace) -> None:
    """Write the newest whole checkpoint of a run as an export that says that it is unfinished; nothing is trained."""
    from cloc import factory
    from cloc.export import write_export
    from cloc.train import preflight, runs
    from cloc.train.checkpoint import read_state, read_weights

    out, config = options.export, config_of(options)
    if options.resume is None:
        raise ValueError("--export: name the run whose newest checkpoint is to be exported, as --resume runs/NAME")
    if out.exists():
        raise ValueError(f"--export {out}: is there already; name a new folder")
    folder, checkpoint = runs.find_run(options.runs, config, options.resume)
    if checkpoint is None:
        raise ValueError(
            f"--resume {folder}: has no checkpoint yet; the first one comes after "
            f"{config.train.checkpoint_every:,} steps"
        )
    sources, tokenizer = factory.make_sources(config), factory.make_tokenizer(config)
    model = factory.make_empty_model(config, tokenizer)
    weights, step = read_weights(checkpoint, model), read_state(checkpoint)["step"]
    model.load_state_dict(weights)
    samples = factory.num_samples(config, sources) * step // config.steps
    facts = preflight.facts(config, samples) | {"steps": step, "unfinished": {"steps": config.steps}}
    data, size = preflight.data_facts(config, sources), factory.export_detection_size(config)
    out.parent.mkdir(parents=True, exist_ok=True)
    known = factory.export_dictionary(config, sources)
    write_export(model, weights, tokenizer, out.parent, facts, data, size, out.name, known)
    unfinished = f"(unfinished: step {step:,} of {config.steps:,}; give its path, it is never the newest one)"
    print(printable(f"export: {out} {unfinished}"))


def print_plan(options: argparse.Namespace) -> int:
    """Say what the recipe costs; 0."""
    from tqdm import tqdm

    from cloc.plan import plan_lines

    config = config_of(options)
    bar = tqdm(bar_format="planning: {desc} [{elapsed}]", leave=False, disable=None)
    with bar:
        lines = plan_lines(
            config,
            options.devices,
            options.zero,
            not options.no_measure,
            options.device_memory,
            bar.set_description_str,
        )
        for line in lines:
            bar.clear()
            print(printable(line), flush=True)
    return 0


def load(stepper: Stepper, checkpoint: Path) -> int:
    """Go on from a checkpoint, of any number of ranks, with DeepSpeed or without; returns its step."""
    import torch

    from cloc.train.checkpoint import read_state

    state = read_state(checkpoint)
    torch.set_num_threads(
        state.get("threads", torch.get_num_threads())
    )  # sums in another order would not be bit for bit the same
    stepper.load(checkpoint)
    return state["step"]


def main(arguments: list[str]) -> int:
    """Run the command; returns the exit status, see `cloc.command`."""
    from cloc import command

    options = parse_arguments(arguments)
    work = print_plan if options.plan else export_unfinished if options.export is not None else run
    return command.run(
        lambda: work(options), "a run that has a checkpoint goes on with the same command and --resume auto"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
