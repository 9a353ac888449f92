"""The sections of a report, from the results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from functools import partial
from typing import Any

from ablate.learn.agreement import agreements
from ablate.learn.claims import Claim
from ablate.learn.report.answer import answer
from ablate.learn.report.choice import choice
from ablate.learn.report.citations import citations
from ablate.learn.report.claims import claims_section
from ablate.learn.report.cluster import nodes
from ablate.learn.report.comparisons import comparisons, difference_value
from ablate.learn.report.document import (
    LOST,
    Block,
    Code,
    Points,
    Report,
    Section,
    Table,
    Text,
    Value,
    duration,
    interval,
    listing,
    moment,
    number,
    plural,
    value,
)
from ablate.learn.report.equality import equality
from ablate.learn.report.factors import factors, interactions
from ablate.learn.report.gradients import gradients
from ablate.learn.report.labels import label_cost
from ablate.learn.report.methods import design, methods, reproduce
from ablate.learn.report.plots import heat, learning, means
from ablate.learn.report.sets import other_metrics, per_set
from ablate.learn.report.slices import query_groups
from ablate.learn.report.threats import threats
from ablate.learn.report.trade import two_metrics
from ablate.learn.results import CellResult, Results, metric_title, split_key
from ablate.learn.stats import Summary


def build(results: Results, claims: Sequence[Claim] = ()) -> Report:
    """The whole report; `claims` are judged in it."""
    builders = (
        _design, _runs, _ranking, comparisons, equality, partial(claims_section, claims=claims),
        _grid, interactions, factors, query_groups, label_cost, two_metrics,
        other_metrics, per_set, choice, _curves,
        gradients, _confirmation, nodes, _vault, _threats,
    )  # fmt: skip
    sections = [builder(results) for builder in builders]
    shown = {section.anchor for section in sections if section.blocks}
    sections += [_methods(results, shown), citations(results), _reproduce(results)]
    sections.append(_left_out(sections))
    return Report(
        title=results.study.name,
        question=results.study.question,
        answer=answer(results),
        facts=_facts(results),
        sections=tuple(section for section in sections if section.blocks),
    )


def _left_out(sections: Sequence[Section]) -> Section:
    """What the design or the data do not support, and why."""
    lines = tuple(f"**{one.title}**: {one.left_out}." for one in sections if one.left_out)
    return Section("left-out", "Not in this report", (Points(lines),) if lines else ())


def _facts(results: Results) -> tuple[tuple[str, str], ...]:
    finished = sum(trial.state == "finished" for trial in results.trials)
    facts = [
        ("Cells", str(len(results.cells))),
        ("Seeds per cell", str(len(results.study.seeds))),
        ("Trials finished", f"{finished} of {len(results.trials)}"),
    ]
    if results.scored:
        queries = results.primary_of(results.scored[0]).queries
        facts.append((f"Queries in {split_key(results.primary)[0]}", f"{queries:,}"))
    if results.seed_noise is not None:
        facts.append(("Seed-noise floor", f"± {number(results.seed_noise)}"))
    return tuple(facts)


def _design(results: Results) -> Section:
    blocks: list[Block] = [design(results)]
    if results.data:
        blocks += [Text("**Data.** What the run counted when it prepared them:")]
        lines = dict.fromkeys(line for summary in results.data for line in summary["lines"])
        blocks += [Points(tuple(lines))]
    watched = agreements(results)
    if watched:
        blocks.append(Text("**Watched in training.** What a part of the passages is worth:"))
        blocks.append(Points(tuple(f"{one}." for one in watched)))
    excluded = results.study.excluded()
    if excluded:
        blocks.append(Text("**Left out by design:**"))
        blocks.append(Points(tuple(f"`{cell.name}`: {reason}" for cell, reason in excluded)))
    return Section("design", "Design", tuple(blocks))


def _ranking(results: Results) -> Section:
    if not results.scored:
        return Section("ranking", "Ranking", ())
    ref, _ = split_key(results.primary)
    title = metric_title(results.primary)
    gain = () if results.untrained is None else (f"Gain over {results.untrained}",)
    columns = ("Cell", title, "sd", "95 % interval", "Seeds", LOST, *gain, "Verdict")
    rows = [_rank_row(results, cell) for cell in results.cells]
    rows += [
        _baseline_row(name, summaries[results.primary], len(gain))
        for name, summaries in results.baselines.items()
        if results.primary in summaries
    ]
    caption = (
        f"{title} on {ref}, best first; sd is over seeds, and the 95 % intervals hold the noise of "
        f"seeds and queries. The verdict is of the comparison with {results.family.reference}."
    )
    numeric = frozenset(columns) - {"Cell", "Verdict"}
    table = Table(caption, columns, tuple(rows), numeric)
    return Section("ranking", "Ranking", (table, means(results)))


def _rank_row(results: Results, cell: CellResult) -> tuple[Value, ...]:
    summary = cell.metrics.get(results.primary)
    gains = [] if results.untrained is None else [cell.gains.get(results.untrained)]
    return (
        value(cell.name),
        *_summary_values(summary),
        value(summary.seeds if summary else 0),
        value(cell.lost),
        *(difference_value(g.mean, g.low, g.high) if g else value(None) for g in gains),
        value("no score" if cell.verdict == "unfinished" else cell.verdict),
    )


def _baseline_row(name: str, summary: Summary, gains: int) -> tuple[Value, ...]:
    empty = [value(None)] * (2 + gains)
    return (value(name), *_summary_values(summary), *empty, value("baseline"))


def _summary_values(summary: Summary | None) -> list[Value]:
    """Mean, spread over seeds, interval."""
    if summary is None:
        return [value(None)] * 3
    return [
        value(number(summary.mean), summary.mean),
        value(number(summary.sd), summary.sd),
        value(interval(summary.low, summary.high), summary.low),
    ]


def _grid(results: Results) -> Section:
    figure = heat(results)
    return Section("grid", "Over the grid", (figure,) if figure else ())


def _runs(results: Results) -> Section:
    """What was run, and every trial that has no result with its reason."""
    states = Counter(trial.state for trial in results.trials)
    seconds = [
        sum(trial.record.seconds.values()) for trial in results.trials if trial.record is not None
    ]
    count = ", ".join(f"{states[state]} {state}" for state in sorted(states))
    words = f"{plural(len(results.trials), 'trial')}: {count}."
    if any(seconds):
        words += f" Together they worked {duration(sum(seconds))}."
    blocks: list[Block] = [Text(words)]
    if results.on_other_data:
        blocks.append(Text(f"**Left out.** {_other_data(results)}"))
    bad = [trial for trial in results.trials if trial.state in {"failed", "stopped"}]
    if bad:
        columns = ("Cell", "Seed", "State", "Reason", "Trial")
        rows = tuple(
            (
                value(trial.cell),
                value(trial.seed),
                value(trial.state),
                value(trial.reason),
                value(trial.trial_id),
            )
            for trial in bad
        )
        blocks.append(Table("Trials without a result", columns, rows, frozenset({"Seed"})))
    return Section("runs", "What was run", tuple(blocks))


def _other_data(results: Results) -> str:
    """How many trials were scored on other data under the name of a reference."""
    counts = [f"{plural(n, 'trial')} on {ref}" for ref, n in results.on_other_data.items()]
    return (
        f"The data behind a name changed, and scores on what it was before count nowhere: "
        f"{listing(counts)}. The same command scores these trials again."
    )


def _curves(results: Results) -> Section:
    figure = learning(results)
    return Section("curves", "Learning curves", (figure,) if figure else ())


def _confirmation(results: Results) -> Section:
    found = results.confirmed
    if found is None:
        return Section("confirmation", "One worker against several", ())
    ref = split_key(results.primary)[0]
    keys = [key for key in results.metric_keys if split_key(key)[0] == ref]
    keys = [key for key in keys if found["one"].get(key) is not None and key in found["group"]]
    columns = ("Metric", "One worker", plural(found["workers"], "worker"), "Difference")
    rows = tuple(_confirmed_row(found, key) for key in keys)
    verdict = "agree" if found["agree"] else "**disagree**"
    words = (
        f"`{found['cell']}` (seed {found['seed']}) was trained once more by "
        f"{plural(found['workers'], 'worker')} on the same batches. The two {verdict}: their "
        f"weights differ by {found['weights']:.1e} of their size, and no metric by more than "
        f"{found['largest']:.1g}."
    )
    table = Table(
        f"The same trial on {ref}, trained both ways", columns, rows, frozenset(columns[1:])
    )
    return Section("confirmation", "One worker against several", (Text(words), table))


def _confirmed_row(found: Mapping[str, Any], key: str) -> tuple[Value, ...]:
    one, group = found["one"][key], found["group"][key]
    return (
        value(metric_title(key)),
        value(number(one, 6), one),
        value(number(group, 6), group),
        value(f"{group - one:+.1e}".replace("-", "−") if group != one else "0", group - one),
    )


def _vault(results: Results) -> Section:
    """Every opening of the test splits."""
    if not results.openings:
        return Section("vault", "Openings of the test", ())
    columns = ("Opened", "References", "Trials")
    rows = tuple(
        (
            value(moment(opening["time"]), opening["time"]),
            value(", ".join(opening["references"])),
            value(len(opening["trials"])),
        )
        for opening in results.openings
    )
    caption = "Test splits stay unscored until every choice is frozen; each opening is recorded."
    return Section(
        "vault",
        "Openings of the test",
        (Table(caption, columns, rows, frozenset({"Trials"})),),
    )


def _threats(results: Results) -> Section:
    found = threats(results)
    return Section("threats", "Threats to validity", (Points(found),) if found else ())


def _methods(results: Results, shown: Container[str]) -> Section:
    return Section("methods", "Methods", tuple(map(Text, methods(results, shown))))


def _reproduce(results: Results) -> Section:
    blocks: list[Block] = [
        Text("The same command, with the same `--set` options, resumes and trains nothing twice:")
    ]
    blocks.append(Code(reproduce(results)))
    if results.executions:
        last = results.executions[-1]
        versions = [f"{name} {version}" for name, version in last["versions"].items() if version]
        machine = f"{plural(last['cpus'], 'CPU core')}, host {last['host']}"
        blocks.append(Points((f"Python {last['python']}; {', '.join(versions)}", machine)))
        blocks.append(_executions(results.executions))
    return Section("reproduce", "Reproduce", tuple(blocks))


def _executions(executions: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("Started", "Took", "Trained", "Failed", "Already there")
    rows = tuple(
        (
            value(moment(one["started"]), one["started"]),
            value(duration(one["finished"] - one["started"]), one["finished"] - one["started"]),
            value(one["trained"]),
            value(one["failed"]),
            value(one["already"]),
        )
        for one in executions
    )
    return Table("Executions of the study", columns, rows, frozenset(columns[1:]))
