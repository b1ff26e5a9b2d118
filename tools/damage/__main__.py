"""`python -m tools.damage --count 10000`: damaged inputs for every reader; exit code 1 where one was fatal."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.update(
    OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error"
)

from tools.damage.readers import READERS, plan
from tools.damage.running import FATAL, Verdict, feed_all


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m tools.damage", description=__doc__)
    parser.add_argument("--count", type=int, default=1000, help="inputs in all (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other inputs (default: %(default)s)")
    parser.add_argument("--only", nargs="+", metavar="KIND", help=f"of {', '.join(reader.name for reader in READERS)}")
    parser.add_argument("--number", type=int, help="this one input of --only again")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave inputs and worlds there")
    options = parser.parse_args(arguments)
    known = {reader.name: reader for reader in READERS}
    wanted = options.only or list(known)
    if set(wanted) - set(known):
        parser.error(f"--only: expected some of {', '.join(known)}, got {' '.join(wanted)}")
    jobs = plan(options.count, [known[name] for name in wanted])
    if options.number is not None:
        jobs = [(known[name], options.number) for name in wanted]
    seen, start = list[Verdict](), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="damage-") as scratch:
        for verdict in feed_all(jobs, options.seed, options.keep or Path(scratch), options.keep is not None):
            seen.append(verdict)
            if verdict.kind == FATAL or options.number is not None:
                print(
                    f"{verdict.kind} {verdict.reader} {verdict.number}: {' '.join(verdict.told.split())[:300]}",
                    flush=True,
                )
    print(report(seen, time.monotonic() - start))
    return 1 if any(verdict.kind == FATAL for verdict in seen) else 0


def report(seen: list[Verdict], seconds: float) -> str:
    """A line a kind: verdicts, the slowest and the largest."""
    lines = []
    for name in dict.fromkeys(verdict.reader for verdict in seen):
        own = [verdict for verdict in seen if verdict.reader == name]
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(Counter(v.kind for v in own).items()))
        slow, large = max(v.seconds for v in own), max(v.bytes for v in own)
        total = sum(v.seconds for v in own)
        lines.append(
            f"{name:26} {len(own):6,}  {kinds:48} {total:7.1f} s, at most {slow:5.2f} s, {large / 1e6:6.0f} MB"
        )
    return "\n".join([*lines, f"{len(seen):,} inputs in {seconds:.0f} s"])


if __name__ == "__main__":
    sys.exit(main())
