"""The table of an ablation, in Markdown: spread over seeds, paired difference to the reference, and the claims."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.experiments.claims import Claim, Spread, judge_claim, measure_spread
from benchmarks.experiments.plan import Plan
from benchmarks.experiments.record import FAILED, Record
from benchmarks.experiments.units import Unit

RENDERED = "Rendered scenes: they show whether a method works as the paper says, and nothing about real photographs."
NO_RUN = "-"


def compare_arms(record: Record, claim: Claim) -> Spread:
    """Left minus FACTOR times right, over the seeds that both have."""
    left, right = record.values(claim.left, claim.metric), record.values(claim.right, claim.other)
    return measure_spread([left[seed] - claim.factor * right[seed] for seed in sorted(left.keys() & right.keys())])


def write_markdown(record: Record, units: Sequence[Unit]) -> str:
    """The whole page."""
    plan = record.plan
    smaller = "" if record.scale == 1 else f" **Scale {record.scale:g}: a trial run, its figures mean nothing.**"
    head = [
        f"# Ablation `{plan.name}`",
        f"{plan.question}{smaller} {RENDERED}",
        f"Base `{plan.config}`; budget {_budget(plan)}; seeds {', '.join(map(str, plan.seeds))}. "
        f"Stopping rule: {plan.stopping} Verdicts: {plan.rule}",
        f"Commit {_commits(record)}; plan {plan.sha256[:12]}; every run is in `ablation.json`.",
    ]
    head += [f"Run again to see that the taken ones stand: {'; '.join(record.compared)}."] if record.compared else []
    parts = ["\n\n".join(head), *(_metric(record, name) for name in plan.metrics)]
    if plan.claims:
        parts.append(_claims(record))
    parts.append(_runs(record, units))
    return "\n\n".join(parts) + "\n"


def _commits(record: Record) -> str:
    """The commits that runs were trained on; where there are several, with their arms."""
    seeds: dict[str, dict[str, set[int]]] = {}
    for done in record.done.values():
        seeds.setdefault(done.commit, {}).setdefault(done.arm, set()).add(done.seed)
    if len(seeds) < 2:
        return next(iter(seeds), NO_RUN)

    def listed(arms: dict[str, set[int]]) -> str:
        whole = set(record.plan.seeds)
        return ", ".join(arm if own == whole else f"{arm} seed {_listed(own)}" for arm, own in arms.items())

    renamed = sorted(
        {
            f"{done.arm} is {done.taken_from}"
            for done in record.done.values()
            if done.taken_from is not None and not done.taken_from.startswith(f"arm {done.arm} of ")
        }
    )
    return "; ".join([*(f"{commit} ({listed(arms)})" for commit, arms in seeds.items()), *renamed])


def _listed(seeds: set[int]) -> str:
    return " and ".join(map(str, sorted(seeds)))


def _budget(plan: Plan) -> str:
    budget = plan.budget
    if budget.samples is not None:
        return f"{budget.samples:,} samples an arm"
    kind = "" if budget.of_kind is None else f" of kind {budget.of_kind}"
    return f"{budget.steps:,} steps{kind} an arm"


def _metric(record: Record, name: str) -> str:
    plan, metric = record.plan, record.plan.metrics[name]
    rows = [
        f"## {name}",
        f"`{metric.task}`, {metric.split}, {metric.protocol}, {metric.metric}",
        "",
        f"| arm | what | mean | sd | n | minus {plan.reference} | 95 % |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in plan.scored:
        whole = measure_spread(list(record.values(arm, name).values()))
        same = Claim(arm, ">", 1.0, plan.reference, name, name, 0.0, "")
        apart = compare_arms(record, same) if arm != plan.reference else measure_spread([])
        cells = [_figure(whole.mean), _figure(whole.deviation), str(len(whole.values))]
        rows.append(f"| {' | '.join([arm, plan.arms[arm].what, *cells, _signed(apart.mean), _interval(apart)])} |")
    return "\n".join(rows)


def _claims(record: Record) -> str:
    rows = ["## Claims", "", "| claim | difference | 95 % | verdict | the paper |", "|---|---|---|---|---|"]
    for claim, given in zip(record.plan.parsed_claims, record.plan.claims, strict=True):
        apart = compare_arms(record, claim)
        cells = [f"`{claim.text}`", _signed(apart.mean), _interval(apart), judge_claim(claim, apart), given.paper]
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows)


def _runs(record: Record, units: Sequence[Unit]) -> str:
    states = [record.done.get((unit.arm, unit.seed)) for unit in units]
    seconds = sum(done.train_seconds + done.score_seconds for done in record.done.values())
    open_ones = [unit.name for unit, done in zip(units, states, strict=True) if done is None]
    failed = [
        f"{done.arm}-s{done.seed} ({done.reason})" for done in states if done is not None and done.state == FAILED
    ]
    sentences = [f"{len(units) - len(open_ones) - len(failed)} of {len(units)} runs finished, {seconds:,.0f} s in all."]
    sentences += [f"Not yet run: {', '.join(open_ones)}."] if open_ones else []
    sentences += [f"Failed: {'; '.join(failed)}."] if failed else []
    return "## Runs\n\n" + " ".join(sentences)


def _figure(value: float | None) -> str:
    return NO_RUN if value is None else f"{value:.3f}"


def _signed(value: float | None) -> str:
    return NO_RUN if value is None else f"{value:+.3f}"


def _interval(apart: Spread) -> str:
    return NO_RUN if apart.ci95 is None else f"{apart.ci95[0]:+.3f} to {apart.ci95[1]:+.3f}"
