"""The sections of a report, from the results."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ablate.learn.report.answer import answer
from ablate.learn.report.document import (
    Block,
    Code,
    Points,
    Report,
    Section,
    Table,
    Text,
    Value,
    difference,
    interval,
    number,
    plural,
    probability,
    signed,
    value,
)
from ablate.learn.report.gradients import gradients
from ablate.learn.report.methods import design, methods, reproduce
from ablate.learn.report.plots import differences, heat, learning, means
from ablate.learn.report.threats import threats
from ablate.learn.results import CellResult, Results, metric_title, split_key
from ablate.learn.stats import Summary


def build(results: Results) -> Report:
    """The whole report."""
    builders = (
        _design, _runs, _ranking, _differences, _grid, _other_metrics, _tuning, _curves, gradients,
        _confirmation, _vault, _threats, _methods, _reproduce,
    )  # fmt: skip
    sections = (builder(results) for builder in builders)
    return Report(
        title=results.study.name,
        question=results.study.question,
        answer=answer(results),
        facts=_facts(results),
        sections=tuple(section for section in sections if section.blocks),
    )


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
    columns = ("Cell", title, "sd", "95 % interval", "Seeds", "Failed", *gain, "Verdict")
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
        value(cell.failed),
        *(_difference_value(g.mean, g.low, g.high) if g else value(None) for g in gains),
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


def _difference_value(effect: float, low: float, high: float) -> Value:
    return value(difference(effect, low, high), effect)


def _differences(results: Results) -> Section:
    if not results.against:
        return Section("differences", "Which differences are real", ())
    count = len(results.comparisons)
    family = (
        f"All {plural(count, 'pair')} of cells"
        if results.family.complete
        else f"The cell best on dev against the {plural(count, 'other')}"
    )
    words = (
        f"{family} were compared on {metric_title(results.primary)}, query by query; the chance "
        "of even one false difference among them is held at 5 %, unless the seeds of some cell "
        "scatter far more than those of the others. A hollow dot is a difference "
        "that is not shown, which is not the same as no difference."
    )
    floor = (
        ""
        if results.seed_noise is None
        else f" The shaded band is the seed-noise floor: differences of ± "
        f"{number(results.seed_noise)} appear between equal cells by their seeds alone."
    )
    blocks = (Text(words + floor), differences(results), _difference_table(results))
    return Section("differences", "Which differences are real", blocks)


def _difference_table(results: Results) -> Table:
    """Every cell that was compared with the reference."""
    columns = ("Cell", "Difference", "p", "p corrected", "Different")
    rows = tuple(
        (
            value(cell.name),
            _difference_value(-pair.effect, -pair.high_family, -pair.low_family),
            value(probability(pair.p), pair.p),
            value(probability(pair.p_adjusted), pair.p_adjusted),
            value("yes" if pair.different else "not shown"),
        )
        for cell in results.scored
        if (pair := results.against.get(cell.name)) is not None
    )
    caption = (
        f"{metric_title(results.primary)} minus that of {results.family.reference}. Intervals "
        "and corrected p-values hold for all compared pairs together."
    )
    return Table(caption, columns, rows, frozenset(columns[1:4]))


def _grid(results: Results) -> Section:
    figure = heat(results)
    return Section("grid", "Over the grid", (figure,) if figure else ())


def _other_metrics(results: Results) -> Section:
    refs = dict.fromkeys(split_key(key)[0] for key in results.metric_keys)
    tables = [table for ref in refs if (table := _metric_table(results, ref))]
    return Section("metrics", "All metrics", tuple(tables))


def _metric_table(results: Results, ref: str) -> Table | None:
    keys = [key for key in results.metric_keys if split_key(key)[0] == ref]
    if not results.scored:
        return None
    columns = ("Cell", *(metric_title(key) for key in keys))
    rows = [
        (value(cell.name), *(_mean_sd(cell.metrics.get(key)) for key in keys))
        for cell in results.scored
    ]
    rows += [
        (value(f"{name} (baseline)"), *(_mean_sd(summaries.get(key)) for key in keys))
        for name, summaries in results.baselines.items()
        if any(key in summaries for key in keys)
    ]
    return Table(f"{ref}: mean ± sd over seeds", columns, tuple(rows), frozenset(columns[1:]))


def _mean_sd(summary: Summary | None) -> Value:
    if summary is None:
        return value(None)
    spread = "" if summary.sd is None else f" ± {number(summary.sd)}"
    return value(f"{number(summary.mean)}{spread}", summary.mean)


def _tuning(results: Results) -> Section:
    """What was chosen for each cell, and what its dev score became on the test."""
    select = results.study.select
    if not results.study.tune or select is None:
        return Section("tuning", "What tuning chose", ())
    twin = f"{split_key(results.primary)[0]}/{select.metric}"
    keys = tuple(results.study.tune)
    columns = ("Cell", "Draws", *keys, "dev", "test", "dev − test")
    rows = [
        (
            value(cell.name),
            value(len({trial.planned.draw for trial in cell.trials})),
            *(value(cell.tuned.get(key)) for key in keys),
            *_dev_test(cell, select.key, twin),
        )
        for cell in results.cells
    ]
    caption = (
        f"The draw of each cell that was best on {select.key}, under the first seed. The means "
        "are over all seeds."
    )
    table = Table(caption, columns, tuple(rows), frozenset(columns[1:]))
    return Section("tuning", "What tuning chose", (table,))


def _dev_test(cell: CellResult, dev: str, test: str) -> list[Value]:
    found = [cell.metrics.get(key) for key in (dev, test)]
    shown = [value(number(s.mean), s.mean) if s else value(None) for s in found]
    if found[0] is None or found[1] is None:
        return [*shown, value(None)]
    gap = found[0].mean - found[1].mean
    return [*shown, value(signed(gap), gap)]


def _runs(results: Results) -> Section:
    """What was run, and every trial that has no result with its reason."""
    states = Counter(trial.state for trial in results.trials)
    seconds = [
        sum(trial.record.seconds.values()) for trial in results.trials if trial.record is not None
    ]
    count = ", ".join(f"{states[state]} {state}" for state in sorted(states))
    words = f"{plural(len(results.trials), 'trial')}: {count}."
    if any(seconds):
        words += f" Together they worked {_duration(sum(seconds))}."
    blocks: list[Block] = [Text(words)]
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
            value(_moment(opening["time"]), opening["time"]),
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


def _methods(results: Results) -> Section:
    return Section("methods", "Methods", tuple(Text(words) for words in methods(results)))


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
            value(_moment(one["started"]), one["started"]),
            value(_duration(one["finished"] - one["started"]), one["finished"] - one["started"]),
            value(one["trained"]),
            value(one["failed"]),
            value(one["already"]),
        )
        for one in executions
    )
    return Table("Executions of the study", columns, rows, frozenset(columns[1:]))


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
